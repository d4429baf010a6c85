"""Training of an amortised filter by derivatives through its own cycles."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE
from ...dynamics.rollout import advance
from ...filters.base import EnsembleState, State
from ...measurements.measurement import Measurement
from ...metrics.scores import crps_ensemble, crps_gaussian, energy_score
from ...training.config import FitConfig
from ...training.history import History
from ...training.progress import progress_bar
from ...training.trees import Kept, identity
from .filter import AmortisedMASF
from .practice import Practice, own_network, started
from .training import LOST, Course, Round, held_back, prepared, with_network_of

__all__ = ["SCORES", "TrainingScore", "train_through_cycles"]

TrainingScore: TypeAlias = Literal["gaussian", "crps", "energy"]
SCORES: tuple[TrainingScore, ...] = get_args(TrainingScore)

_TINY = 1e-6  # of the climatological deviation: no spread and no deviation is smaller


class _System(eqx.Module):
    """A course at one interval and one number of members."""

    course: Course
    interval: int = eqx.field(static=True)
    n_members: int = eqx.field(static=True)
    deviation: Float[Array, "*x"]
    score: TrainingScore = eqx.field(static=True)

    def loss(self, state: State, truth: Float[Array, "*x"]) -> Float[Array, ""]:
        """The score of an analysis, in deviations of the climate."""
        if self.score == "gaussian":
            mean, variance = state.moments()
            variance = variance + (_TINY * self.deviation) ** 2
            return jnp.mean(crps_gaussian(mean, variance, truth) / self.deviation)
        assert isinstance(state, EnsembleState)
        members, truth = state.ensemble / self.deviation[None], truth / self.deviation
        if self.score == "crps":
            return jnp.mean(crps_ensemble(members, truth, fair=False))
        return energy_score(members, truth, fair=False) / truth.size**0.5


class _Run(NamedTuple):
    """A run between two cycles; `key` makes its measurements' noise law and which values there are."""

    truth: Array
    state: State
    step: Int[Array, "..."]
    key: Key[Array, "..."]


class _Cycle(NamedTuple):
    """Of analyses: the loss in deviations of the climate, error and spread in the model's units."""

    loss: Float[Array, "..."]
    rmse: Float[Array, "..."]
    spread: Float[Array, "..."]


class _Training(NamedTuple):
    """All that changes from step to step."""

    params: Any
    optimiser: Any
    averaged: Any
    best: Any
    best_loss: Array
    best_round: Int[Array, ""]
    skipped: Int[Array, ""]
    runs: list[_Run]
    losses: Float[Array, " steps"]
    validations: Float[Array, " rounds_and_1"]


def train_through_cycles(
    key: PRNGKeyArray,
    filter: AmortisedMASF,
    dynamics: Dynamics,
    measurement: Measurement,
    practice: Practice,
    config: FitConfig,
    *,
    window: int = 8,
    score: TrainingScore = "gaussian",
    others: Sequence[Course] = (),
    progress: bool = False,
    kept: Path | None = None,
) -> tuple[AmortisedMASF, list[Round]]:
    """Trains a filter's network, fresh or trained, for what its analyses are worth in the cycles to come.

    `train_on_policy` fits each analysis by itself. Here the loss is a score of the analyses, the mean over
    `window` cycles in deviations of the climate, and its derivative goes back through the analyses, the model
    and the base filter between them: an analysis answers for the forecasts that are made of it. So the
    network also learns what spread its base needs.

    `score`: "gaussian", the continuous ranked probability score of N(mean, spread²) of each component
    (`metrics.crps_gaussian`), which sees mean and spread alone. Of the members as they are: "crps", that of
    their empirical distribution in each component, or "energy", the energy score of whole states
    (`metrics.crps_ensemble`, `metrics.energy_score`, not the fair ones, which members that know of each other
    could please by standing far apart); for networks that see members, whose moves can give any shape.

    `config.batch_size` runs go on side by side, from window to window, each window one optimiser step; what
    came before a window counts as constant. Runs begin as those of `practice`, with their own noise and
    missing values (`widths` are not used); one beyond two climatological deviations begins anew, and of a
    network with a memory each after `practice.cycles` cycles on average, that it learns to begin. Where there
    are several intervals, numbers of members or `others`, the steps take them in turn, each loss relative to
    what it was at the start. Rings and fields of the `others` may have any size, and any number of channels
    where their filter gives the network each by itself (`each_channel`). Each system is a program of its own:
    beyond a dozen a Linux process may end for want of memory mappings ("LLVM ERROR: Unable to allocate
    section memory"), which `sysctl -w vm.max_map_count=1000000` mends.

    Parameters are averaged and validated as by `fit`; validation is on a sixteenth of `practice.runs` runs,
    four at least, of `practice.cycles` cycles each, `burn_in` left out, and the best are returned where they
    are better than the start on runs that neither saw.

    `kept`: a file in which the training is kept while it lasts: one that was ended goes on from there.

    Runs from the host, outside jit. Returns the filter and two entries, of the start and of what training
    found, with RMSE and spread in those new runs (of several systems in deviations of their climates): the
    `chosen` one is returned; a warning says if that is the start (zeros for a fresh network: its base). The
    first one's `history` has the losses, 1 at the start, and its `samples` the cycles learnt from.

    Sources: Gneiting & Raftery (2007), doi 10.1198/016214506000001437, for the scores; truncated
    back-propagation in time, Werbos (1990), doi 10.1109/5.58337; for filters Bocquet et al. (2024), doi
    10.1063/5.0230837.

    Raises:
        ValueError: a window below 1; states of different shapes; a score of that name there is none of, or
            one of members where the base filter has none.
    """
    if window < 1:
        raise ValueError(f"a window needs at least one cycle; got {window}.")
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}; got {score!r}.")
    for one in (filter, *(other.filter for other in others)):
        if score != "gaussian" and not one.has_members:
            raise ValueError(
                f"score={score!r} is one of members, and {type(one.base).__name__} has none: give 'gaussian'."
            )
    fresh = filter.denoiser is None
    filter = filter.prepare(dynamics, measurement)
    assert filter.denoiser is not None
    courses = prepared(Course(filter, dynamics, measurement, practice), others, any_size=True)
    systems = [
        _System(
            course._replace(filter=with_network_of(filter, course.filter)),
            interval,
            n,
            _deviation(course.filter),
            score,
        )
        for course in courses
        for interval in course.practice.intervals
        for n in course.practice.ensemble_sizes
    ]
    key_runs, key_steps, key_validation, key_end = jax.random.split(key, 4)
    validate = functools.partial(_validated, systems=systems)
    at_start = validate(filter.denoiser.params, key_validation)
    units = [scores.loss for scores in at_start]
    state = _begin(key_runs, filter.denoiser.params, config, systems)
    about, file, first = "", None, 0
    if kept is not None:
        file = Kept(kept)
        about = identity(
            (key, filter, config, systems), str(window), score, *(str(each.practice) for each in courses)
        )
        if (found := file.read((jnp.zeros((), jnp.int32), state), about)) is not None:
            first, state = int(found[0]), found[1]
    with progress_bar(config.steps, progress) as show:
        for number in range(first, config.steps):
            turn = number % len(systems)
            key_step = jax.random.fold_in(key_steps, number)
            state = _step(
                config, window, systems[turn], turn, state, key_step, jnp.asarray(number), units[turn]
            )
            rounds, left = divmod(number + 1, config.round_length)
            if left and number + 1 < config.steps:
                continue
            rounds += left > 0
            loss = _relative(validate(state.averaged, key_validation), units)
            state = _judged(state, jnp.asarray(rounds, jnp.int32), jnp.asarray(loss))
            show(_history(state, config, number + 1))
            if file is not None:
                file.write((jnp.asarray(number + 1, jnp.int32), state), about, number + 1 == config.steps)
            if config.patience is not None and rounds - int(state.best_round) > config.patience:
                break
    ends = [validate(params, key_end) for params in (filter.denoiser.params, state.best)]
    chosen = int(state.best_round > 0 and _relative(ends[1], units) < _relative(ends[0], units))
    if not chosen:
        warnings.warn(
            "training through cycles found nothing better than the start, which is returned as it was. More "
            "steps, a smaller learning rate or a longer window may help.",
            stacklevel=2,
        )
    history = _history(state, config, number + 1)
    learnt = (int(history.steps) - int(history.skipped)) * window * config.batch_size
    results = [_round(systems, end) for end in ends]
    results[0] = results[0]._replace(samples=learnt, history=history)
    results[chosen] = results[chosen]._replace(chosen=True)
    start = filter.denoiser.params
    if fresh:  # which is the base filter: zeros say so
        start = jax.tree.map(jnp.zeros_like, start)
    best = state.best if chosen else start
    return eqx.tree_at(lambda f: f.denoiser.params, filter, best), results


def _deviation(filter: AmortisedMASF) -> Float[Array, "*x"]:
    """Of the climate, of each component; nowhere next to nothing."""
    assert filter.climate is not None
    variance = filter.climate.variance
    return jnp.sqrt(jnp.maximum(variance, _TINY**2 * jnp.mean(variance)))


def _begin(key: PRNGKeyArray, params: Any, config: FitConfig, systems: list[_System]) -> _Training:
    keys = jax.random.split(key, len(systems))
    runs = [
        _started(system, jax.random.split(one, config.batch_size))
        for system, one in zip(systems, keys, strict=True)
    ]
    validations = jnp.full((config.rounds + 1,), jnp.nan).at[0].set(1.0)
    zero, one = jnp.zeros((), jnp.int32), jnp.ones(())
    losses = jnp.full((config.steps,), jnp.nan)
    optimiser = config.transformation().init(params)
    return _Training(params, optimiser, params, params, one, zero, zero, runs, losses, validations)


@eqx.filter_jit
def _started(system: _System, keys: Key[Array, " R"]) -> _Run:
    def one(key: PRNGKeyArray) -> _Run:
        key_start, key_network = jax.random.split(key)
        course = system.course
        truth, members = started(key_start, course.dynamics, system.n_members, course.practice.spread)
        state = course.filter.completed(course.filter.init(key_start, members))
        return _Run(truth, state, jnp.zeros((), jnp.int32), key_network)

    return jax.vmap(one)(keys)


def _cycles(system: _System, filter: AmortisedMASF, run: _Run, keys: Key[Array, " K"]) -> tuple[_Run, _Cycle]:
    """So many cycles as keys of one run, each made again for its derivatives."""
    _, dynamics, measurement, practice = system.course
    network, mask = own_network(run.key, measurement, practice, dynamics.state_shape)
    layout = dataclasses.replace(ALL_AT_ONCE, most_steps=system.interval)  # an iterative base's own forecasts

    @jax.checkpoint
    def cycle(run: _Run, key: PRNGKeyArray) -> tuple[_Run, _Cycle]:
        keys = jax.random.split(key, 4)
        truth = advance(dynamics, run.truth[None], run.step, keys[0], system.interval)[0]
        state = filter.forecast(keys[1], run.state, dynamics, run.step, system.interval, layout)
        z = network.sample(keys[2], truth)
        state, _ = filter.analysis(keys[3], state, jnp.where(mask, z, 0.0), network, mask)
        mean, variance = state.moments()
        spread = jnp.sqrt(variance + (_TINY * system.deviation) ** 2)
        scores = _Cycle(
            system.loss(state, truth), *(jnp.sqrt(jnp.mean(x**2)) for x in (mean - truth, spread))
        )
        return _Run(truth, state, run.step + system.interval, run.key), scores

    with layout.active():
        return jax.lax.scan(cycle, run, keys)


def _with(params: Any, system: _System) -> AmortisedMASF:
    return eqx.tree_at(lambda f: f.denoiser.params, system.course.filter, params)


@eqx.filter_jit
def _step(
    config: FitConfig,
    window: int,
    system: _System,
    turn: int,
    state: _Training,
    key: PRNGKeyArray,
    number: Int[Array, ""],
    unit: Float[Array, ""],
) -> _Training:
    """One optimiser step on one system, or none if the loss or its derivative is not finite."""
    key_cycles, key_fresh = jax.random.split(key)
    runs = state.runs[turn]
    count = config.batch_size
    lost = LOST * jnp.sqrt(jnp.mean(system.deviation**2))

    def loss(params: Any) -> tuple[Array, tuple[_Run, Bool[Array, " R"]]]:
        filter = _with(params, system)
        keys = jax.random.split(key_cycles, (count, window))
        after, scores = jax.vmap(lambda run, keys: _cycles(system, filter, run, keys))(runs, keys)
        near = jnp.all((scores.rmse < lost) & jnp.isfinite(scores.loss), 1)
        total = jnp.sum(jnp.where(near, jnp.mean(scores.loss, 1), 0.0))
        return total / jnp.maximum(jnp.sum(near, dtype=total.dtype), 1) / unit, (after, near)

    (value, (after, near)), slope = jax.value_and_grad(loss, has_aux=True)(state.params)
    good = jnp.isfinite(value) & jnp.isfinite(jnp.linalg.norm(ravel_pytree(slope)[0]))
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes integers and floats
        updates, optimiser = config.transformation().update(slope, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
    params, optimiser = _choose(good, (params, optimiser), (state.params, state.optimiser))
    averaged = params
    if config.ema_decay is not None:
        weight = 1 - jnp.minimum(config.ema_decay, (number + 1) / (number + 10)).astype(value.dtype)
        averaged = optax.incremental_update(params, state.averaged, weight)
    if system.course.filter.remembers:  # what it gives itself after a start, it learns at starts alone
        share = window / system.course.practice.cycles
        near &= ~jax.random.bernoulli(jax.random.fold_in(key_fresh, count), share, (count,))

    def with_fresh(after: _Run) -> _Run:
        fresh = _started(system, jax.random.split(key_fresh, count))
        return jax.tree.map(functools.partial(_of_each, near), after, fresh)

    after = jax.lax.cond(jnp.all(near), lambda after: after, with_fresh, after)  # a spin-up is long
    return state._replace(
        params=params,
        optimiser=optimiser,
        averaged=averaged,
        skipped=state.skipped + (~good).astype(jnp.int32),
        runs=[after if i == turn else each for i, each in enumerate(state.runs)],
        losses=state.losses.at[number].set(jnp.where(good, value, jnp.nan)),
    )


def _choose(good: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def _of_each(near: Bool[Array, " R"], a: Array, b: Array) -> Array:
    """a of the runs that are near, b of the others; a or b may be keys."""
    return jnp.where(near.reshape(-1, *(1,) * (a.ndim - 1)), a, b)


def _validated(params: Any, key: PRNGKeyArray, *, systems: list[_System]) -> list[_Cycle]:
    """Mean scores of each system in runs of its own, always the same ones for one key."""
    keys = jax.random.split(key, len(systems))
    return [_scored(system, params, one) for system, one in zip(systems, keys, strict=True)]


@eqx.filter_jit
def _scored(system: _System, params: Any, key: PRNGKeyArray) -> _Cycle:
    practice = system.course.practice
    count = max(4, held_back(practice))
    key_start, key_cycles = jax.random.split(key)
    runs = _started(system, jax.random.split(key_start, count))
    filter, keys = _with(params, system), jax.random.split(key_cycles, (count, practice.cycles))
    scores = jax.vmap(lambda run, keys: _cycles(system, filter, run, keys)[1])(runs, keys)
    lost = LOST * jnp.sqrt(jnp.mean(system.deviation**2))
    most = _Cycle(jnp.asarray(LOST, lost.dtype), lost, lost)

    def mean(x: Array, most: Array) -> Array:
        x = jnp.where(jnp.isfinite(x), jnp.minimum(x, most), most)
        return jnp.mean(x[:, practice.burn_in :])

    return jax.tree.map(mean, scores, most)


def _relative(scores: list[_Cycle], units: list[Array]) -> float:
    return float(np.mean([float(each.loss) / float(unit) for each, unit in zip(scores, units, strict=True)]))


@jax.jit
def _judged(state: _Training, number: Int[Array, ""], loss: Array) -> _Training:
    """With the averaged parameters kept where they are the best so far."""
    better = loss < state.best_loss
    return state._replace(
        best=_choose(better, state.averaged, state.best),
        best_loss=jnp.where(better, loss, state.best_loss).astype(state.best_loss.dtype),
        best_round=jnp.where(better, number, state.best_round),
        validations=state.validations.at[number].set(loss),
    )


def _history(state: _Training, config: FitConfig, steps: int) -> History:
    losses, length = np.asarray(state.losses), config.round_length
    means = [_finite_mean(losses[i * length : (i + 1) * length]) for i in range(config.rounds)]
    return History(
        jnp.asarray(means),
        state.validations,
        state.best_round,
        jnp.asarray(steps, jnp.int32),
        state.skipped,
    )


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _round(systems: list[_System], scores: list[_Cycle]) -> Round:
    units = [
        1.0 if len(systems) == 1 else float(jnp.sqrt(jnp.mean(system.deviation**2))) for system in systems
    ]
    found = [
        np.mean([float(getattr(each, name)) / unit for each, unit in zip(scores, units, strict=True)])
        for name in ("rmse", "spread")
    ]
    return Round(float(found[0]), float(found[1]), 0, None)
