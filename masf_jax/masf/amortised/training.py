"""Training of an amortised filter on simulated cycles: those of its base filter first, then its own."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ...arrays import check_key
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ...training.config import FitConfig
from ...training.files import CheckpointError, read, write
from ...training.history import History
from ...training.loop import pretrain
from ...training.objectives import denoising_loss
from ...training.trees import Kept, identity
from .filter import AmortisedMASF
from .practice import Practice, practise

__all__ = ["LOST", "Course", "Round", "held_back", "prepared", "train_on_policy", "with_network_of"]

_WIDTHS = (0.6, 1.7)
LOST = 2.0
"""Climatological deviations: an error beyond is that of a run that blew up; it counts as this large, and
teaches nothing."""
_FURTHEST = 4.0  # analysis spreads: truths further away (a filter that lost track) count as this far


class Course(NamedTuple):
    """A system to practise on: a filter's base and climate (not its network), model, measurement, cycles."""

    filter: AmortisedMASF
    dynamics: Dynamics
    measurement: Measurement
    practice: Practice


class Round(NamedTuple):
    """How well a filter did in its own cycles, and the training on them; `chosen`: it is the one returned.

    rmse and spread are those from before this entry's training: `chosen` is the filter that was trained in
    the entry before it, in entry 0 the one that the training began with.
    """

    rmse: float
    spread: float
    samples: int
    history: History | None
    chosen: bool = False

    def __repr__(self) -> str:
        learnt = f", {self.samples} pairs learnt from" if self.history is not None else ""
        scores = f"rmse={self.rmse:.4g}, spread={self.spread:.4g}"
        return f"Round({scores}{learnt}{', chosen' if self.chosen else ''})"


def train_on_policy(
    key: PRNGKeyArray,
    filter: AmortisedMASF,
    dynamics: Dynamics,
    measurement: Measurement,
    practice: Practice,
    config: FitConfig,
    *,
    rounds: int = 3,
    replay: float = 0.6,
    cooling: float = 1.0,
    factors: tuple[float, ...] = (0.9, 1.0, 1.1),
    progress: bool = False,
    report: Callable[[int, Round], None] = lambda number, result: None,
    kept: Path | None = None,
    fine_tune: bool = False,
    others: Sequence[Course] = (),
) -> tuple[AmortisedMASF, list[Round]]:
    """Trains a filter's network on pairs of truth and forecast from the cycles it will meet.

    Round 0 learns from the cycles of the base filter (which a fresh network leaves as they are). Every later
    one takes a share `replay` of its pairs from those of the round before, so that these fade, and the rest
    from the filter's own cycles; it starts from the last one's parameters, at half the learning rate times
    cooling^(k - 1) in round k. Some runs are held back for validation. At the end `calibration` becomes the
    factor among `factors` with the smallest error in cycles of its own. Rounds may do harm: the last filter
    and the one that had the smallest error in cycles of its own, that of an earlier round or (a network of
    zeros) the base, are run on the same cycles, and the better is returned.

    `fine_tune`: the filter's network is a trained one. Round 0 learns from the filter's own cycles, at the
    rate of later rounds, and what is returned may be the filter as it was.

    `others`: further systems that the network practises on, in every round as many cycles as their practice
    says: one network for a family of models, measurements and bases. Their states, or the blocks of them
    that the network sees (`coarsening`), must have one shape. Errors and
    spreads of a round are then in units of each climate's standard deviation, and their mean.

    `kept`: a folder in which the training is kept while it lasts: one that was ended goes on from there.

    `progress` says what is simulated, and shows a bar of each round's training.

    Runs from the host, outside jit. Returns the filter and what each round found in its cycles: entry 0 those
    of the start, entry k those of the filter trained k times. The one that is `chosen` has the numbers of
    what is returned; a warning says if that is the start.

    Raises:
        ValueError: no rounds or factors, replay or cooling out of range, states of different shapes, a
            network that sees members or has a memory, or no finite pair in a round: the filter diverged
            everywhere.
    """
    check_key(key)
    if rounds < 1 or not 0 <= replay < 1 or not 0 < cooling <= 1 or not factors:
        raise ValueError(
            "training needs rounds of at least 1, a share replay in [0, 1), cooling in (0, 1] and a factor "
            f"to calibrate with; got rounds={rounds}, replay={replay}, cooling={cooling}, factors={factors}."
        )
    if fine_tune and filter.denoiser is None:
        raise ValueError("fine_tune needs a filter with a trained network (load_amortised).")
    filter = filter.prepare(dynamics, measurement)
    assert filter.denoiser is not None
    if filter.denoiser.has_members or filter.remembers:
        kind = "sees members (network.member_width)" if filter.denoiser.has_members else "has a memory"
        raise ValueError(
            f"rounds fit mean and spread of each analysis; a network that {kind} is trained through cycles: "
            "train_through_cycles, or filter.training.window=8."
        )
    courses = prepared(Course(filter, dynamics, measurement, practice), others)
    if fine_tune:
        courses = [each._replace(practice=_widened(each.practice)) for each in courses]
    loss = _loss(filter, filter.n_steps == 1)
    results: list[Round] = []
    best, smallest, number = filter, np.inf, 0
    now: _Lesson | None = None
    simulate = eqx.filter_jit(practise)
    about = ""
    if kept is not None:
        options = (practice, rounds, replay, cooling, config.steps, config.batch_size)
        options += ("fine_tune",) * fine_tune
        options += tuple(each.practice for each in others)
        systems = [(each.filter.base, *each[1:3]) for each in courses[1:]]
        about = identity((key, filter, dynamics, measurement, config, *systems), *map(str, options))
        if (found := _go_on(kept / "rounds", about, filter)) is not None:
            number, filter, best, smallest, results, now = found
    while number < rounds:
        if now is None:
            before = None if number == 0 else pairs
            key, key_cycles, key_pairs, key_fit = jax.random.split(key, 4)
            first = number == 0 and not fine_tune
            policy = _alone(filter) if first else filter
            if progress:
                _say_what_is_simulated(number, courses)
            new, validation, rmse, spread = _collect(simulate, key_cycles, policy, courses)
            if rmse < smallest:
                best, smallest = _untrained(filter) if first else filter, rmse
            chosen = np.random.default_rng(np.asarray(jax.random.key_data(key_pairs)))
            mixed = _mixed(chosen, before, new, replay, sum(_nominal(each.practice) for each in courses))
            now = _Lesson(key, key_fit, mixed, validation, rmse, spread, len(new[0]))
            if kept is not None:
                _keep(kept / "rounds", about, number, filter, best, smallest, results, now)
        key, pairs = now.key, now.pairs
        slower = 1.0 if number == 0 and not fine_tune else 0.5 * cooling ** max(number - 1, 0)
        rate = jnp.asarray(config.learning_rate) * slower
        assert filter.denoiser is not None
        params, history = pretrain(
            now.key_fit,
            loss,
            filter.denoiser.params,
            jax.tree.map(jnp.asarray, pairs),
            dataclasses.replace(config, learning_rate=rate),
            validation=jax.tree.map(jnp.asarray, now.validation),
            progress=progress,
            kept=None if kept is None else Kept(kept / "training"),
        )
        filter = eqx.tree_at(lambda f: f.denoiser.params, filter, params)
        results.append(Round(now.rmse, now.spread, now.samples, history))
        report(number, results[-1])
        number, now = number + 1, None
    key, key_factors = jax.random.split(key)
    tried = [
        _collect(
            simulate,
            key_factors,
            eqx.tree_at(lambda f: f.calibration, filter, jnp.asarray(factor, filter.calibration.dtype)),
            courses,
        )[2:]
        for factor in factors
    ]
    errors = np.nan_to_num([rmse for rmse, _ in tried], nan=np.inf)
    chosen = int(np.argmin(errors))
    results.append(Round(*tried[chosen], 0, None))
    report(rounds, results[-1])
    again = float(np.nan_to_num(_collect(simulate, key_factors, best, courses)[2], nan=np.inf))
    number = next((i for i, each in enumerate(results[:-1]) if each.rmse == smallest), 0)
    if errors[chosen] < again:
        factor = jnp.asarray(factors[chosen], filter.calibration.dtype)
        best, number = eqx.tree_at(lambda f: f.calibration, filter, factor), rounds
    results[number] = results[number]._replace(chosen=True)
    if number == 0:
        start = "the network as it was" if fine_tune else "the base filter"
        left = "is returned as it was" if fine_tune else "is returned with a network of zeros: it is its base"
        warnings.warn(
            f"no round was better than {start} (RMSE {again:.4g}; after the last round {errors[chosen]:.4g}, "
            f"on the same problems): the filter {left}. Fewer steps, a smaller learning rate, or practice on "
            "more runs may help.",
            stacklevel=2,
        )
    return best, results


class _Lesson(NamedTuple):
    """What a round trains on, the keys of its training and of what follows, and what its cycles showed."""

    key: PRNGKeyArray
    key_fit: PRNGKeyArray
    pairs: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    rmse: float
    spread: float
    samples: int


def _learnt(filter: AmortisedMASF) -> Any:
    return filter.denoiser, filter.calibration


def _keep(
    where: Path,
    about: str,
    number: int,
    filter: AmortisedMASF,
    best: AmortisedMASF,
    smallest: float,
    results: list[Round],
    now: _Lesson,
) -> None:
    """All that a training needs to go on with round `number`, from before its optimiser's first step."""
    numbers = {"kind": "rounds", "about": about, "number": number, "smallest": smallest}
    numbers["now"] = (now.rmse, now.spread, now.samples)
    numbers["rounds"] = [(result.rmse, result.spread, result.samples) for result in results]
    arrays: dict[str, Any] = {
        "keys": {f"{i}": np.asarray(jax.random.key_data(key)) for i, key in enumerate(now[:2])},
        "pairs": {f"{i}": array for i, array in enumerate((*now.pairs, *now.validation))},
    }
    trees = {"filter": _learnt(filter), "best": _learnt(best)}
    for name, tree in {**trees, "histories": [result.history for result in results]}.items():
        arrays[name] = {f"{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    write(where, numbers, arrays)


def _go_on(where: Path, about: str, filter: AmortisedMASF) -> tuple[Any, ...] | None:
    """What `_keep` kept; None where there is nothing, or of another training."""
    if not where.exists():
        return None
    try:
        numbers, arrays = read(where)
    except CheckpointError:
        return None
    if numbers.get("about") != about:
        return None

    def leaves(name: str) -> list[Array]:
        found = arrays.get(name, {})
        return [jnp.asarray(found[f"{i}"]) for i in range(len(found))]

    def with_learnt(name: str) -> AmortisedMASF:
        learnt = jax.tree.unflatten(jax.tree.structure(_learnt(filter)), leaves(name))
        return eqx.tree_at(_learnt, filter, learnt)

    size, flat = len(dataclasses.fields(History)), leaves("histories")
    histories = [History(*flat[i : i + size]) for i in range(0, len(flat), size)]
    results = [
        Round(rmse, spread, samples, history)
        for (rmse, spread, samples), history in zip(numbers["rounds"], histories, strict=True)
    ]
    data = [arrays["pairs"][f"{i}"] for i in range(4)]
    keys = [jax.random.wrap_key_data(jnp.asarray(arrays["keys"][f"{i}"])) for i in range(2)]
    now = _Lesson(keys[0], keys[1], (data[0], data[1]), (data[2], data[3]), *numbers["now"])
    return numbers["number"], with_learnt("filter"), with_learnt("best"), numbers["smallest"], results, now


def _untrained(filter: AmortisedMASF) -> AmortisedMASF:
    """The filter with a network of zeros: its base, for one step and transported members."""
    zeros = jax.tree.map(jnp.zeros_like, filter.denoiser)
    return eqx.tree_at(
        lambda f: (f.denoiser, f.calibration), filter, (zeros, jnp.ones_like(filter.calibration))
    )


def _alone(filter: AmortisedMASF) -> AmortisedMASF:
    """The base filter as an amortised one."""
    zeros = _untrained(filter).denoiser
    return AmortisedMASF(
        filter.base, zeros, filter.climate, architecture=filter.architecture, members="transported"
    )


def _loss(filter: AmortisedMASF, one_step: bool) -> Callable:
    """Of the denoiser at φ = π/2, where the reverse process starts, and (several steps) below it."""
    assert filter.denoiser is not None

    def angles(key: PRNGKeyArray) -> Array:
        if one_step:
            return jnp.asarray(0.5 * np.pi)
        key_start, key_angle = jax.random.split(key)
        start = jax.random.bernoulli(key_start)
        return 0.5 * np.pi * jnp.where(start, 1.0, jax.random.uniform(key_angle))

    return denoising_loss(filter.denoiser, angles, robust=True)


def prepared(first: Course, others: Sequence[Course], *, any_size: bool = False) -> list[Course]:
    """All systems, their filters ready to be given the network; `any_size`: of rings and fields any."""
    shape, *shapes = (_seen(each, any_size) for each in (first, *others))
    for other in shapes:
        if other != shape:
            raise ValueError(
                f"systems practised on together must be of one shape for the network: {shape} and {other} "
                "(of states, or of their blocks where a filter has a coarsening"
                + ("; 0: any size, the channels before it)." if any_size else ").")
            )
    for course in (first, *others):
        few = min(course.practice.ensemble_sizes)
        if course.filter.has_members and few < 2:
            raise ValueError(
                f"practice.ensemble_sizes must be at least 2: {type(course.filter.base).__name__} has no "
                f"spread with {few}."
            )
    return [
        first,
        *(each._replace(filter=each.filter.prepare(each.dynamics, each.measurement)) for each in others),
    ]


def _seen(course: Course, any_size: bool) -> tuple[int, ...]:
    """What the network is given of a state; `any_size`: with 0 for the sizes of a ring or a field."""
    filter, state_shape = course.filter, course.dynamics.state_shape
    architecture = filter.architecture.at(course.dynamics.coordinates, state_shape)
    shape, space = filter.seen_shape(state_shape), architecture.form(state_shape)[1]
    if not any_size or space == 0:
        return shape
    channels = () if filter.each_channel or len(shape) == space else shape[:-space]
    return (*channels, *(0,) * space)


def _collect(
    simulate: Callable, key: PRNGKeyArray, filter: AmortisedMASF, courses: Sequence[Course]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], float, float]:
    """Pairs to train on, pairs of other runs, and mean error and spread, of the network of `filter`."""
    training, validation, scores = [], [], []
    for own, dynamics, measurement, practice in courses:
        held, policy = held_back(practice), with_network_of(filter, own)
        assert own.climate is not None
        climate = float(jnp.sqrt(own.climate.variance.mean()))
        unit, lost = 1.0 if len(courses) == 1 else climate, LOST * climate
        every = 1 if practice.widths in (None, (1.0, 1.0)) else 2  # run of the spread that the filter has
        for interval in practice.intervals:
            for n_members in practice.ensemble_sizes:
                key, drawn = jax.random.split(key)
                made = simulate(drawn, policy, dynamics, measurement, practice, interval, n_members)
                truth, features, rmse, spread = (np.asarray(part)[:, practice.burn_in :] for part in made)
                near = rmse < lost
                training.append(_sound(truth[held:], features[held:], near[held:]))
                validation.append(_sound(truth[:held], features[:held], near[:held]))
                own = (np.minimum(each[::every], lost) / unit for each in (rmse, spread))
                scores.append(tuple(map(_finite_mean, own)))
    pairs, aside = _joined(training), _joined(validation)
    if min(len(pairs[0]), len(aside[0])) == 0:
        raise ValueError(
            "no finite pair of truth and forecast: the filter diverged in every run. More inflation, a "
            "smaller localisation radius or a smaller learning rate may help."
        )
    rmse, spread = np.mean(scores, axis=0)
    return pairs, aside, float(rmse), float(spread)


def _widened(practice: Practice) -> Practice:
    """With ensembles of other widths, where it does not say which.

    What a network learns of the spread of its cycles changes those cycles: having met no others, it runs
    away from what it was trained on.
    """
    return practice if practice.widths is not None else dataclasses.replace(practice, widths=_WIDTHS)


def with_network_of(filter: AmortisedMASF, own: AmortisedMASF) -> AmortisedMASF:
    """The filter on a system's base, climate and blocks, with features of that size."""
    system = {name: getattr(own, name) for name in ("base", "climate", "coarsening", "each_channel")}
    if own.denoiser is not None and own.denoiser.features is not None:
        assert filter.denoiser is not None
        system["denoiser"] = eqx.tree_at(lambda d: d.features, filter.denoiser, own.denoiser.features)
    return dataclasses.replace(filter, **system)


def _say_what_is_simulated(number: int, courses: Sequence[Course]) -> None:
    kinds = [len(each.practice.intervals) * len(each.practice.ensemble_sizes) for each in courses]
    runs = sum(n * each.practice.runs for n, each in zip(kinds, courses, strict=True))
    compiled = f", after {sum(kinds)} compilation{'s' * (sum(kinds) > 1)}" if number == 0 else ""
    print(f"Round {number}: {runs} runs are simulated{compiled}.", flush=True)


def _nominal(practice: Practice) -> int:
    """Pairs of a round without any that are not finite."""
    runs = practice.runs - held_back(practice)
    kinds = len(practice.intervals) * len(practice.ensemble_sizes)
    return kinds * runs * (practice.cycles - practice.burn_in)


def held_back(practice: Practice) -> int:
    return max(1, practice.runs // 16)


def _mixed(
    generator: np.random.Generator,
    old: tuple[np.ndarray, np.ndarray] | None,
    new: tuple[np.ndarray, np.ndarray],
    replay: float,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """`size` pairs, a share `replay` of them old: always as many, so that training is compiled once."""

    def some(pairs: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
        n = len(pairs[0])
        rows = generator.choice(n, count, replace=count > n)
        return pairs[0][rows], pairs[1][rows]

    if old is None:
        return some(new, size)
    kept = round(replay * size)
    return _joined([some(old, kept), some(new, size - kept)])


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([truth for truth, _ in parts]), np.concatenate([seen for _, seen in parts])


def _finite_mean(values: np.ndarray) -> float:
    """Mean of the finite values; NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _sound(truth: np.ndarray, features: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(runs, K, …) to (pairs, …), without those that are not finite or far off (`near`: (runs, K))."""
    truth, features = (array.reshape(-1, *array.shape[2:]) for array in (truth, features))
    good = near.ravel() & np.isfinite(truth).reshape(len(truth), -1).all(1)
    good &= np.isfinite(features).reshape(len(truth), -1).all(1)
    return np.clip(truth[good], -_FURTHEST, _FURTHEST), features[good]
