"""Training of an amortised filter on simulated cycles: those of its base filter first, then its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..dynamics.base import Dynamics
from ..dynamics.rollout import advance, spun_up_ensemble
from ..ensemble.statistics import member_mean, member_variance
from ..filters.amortised import AmortisedMASF
from ..filters.base import EnsembleState
from ..filters.repair import repair
from ..measurements.measurement import Measurement
from ..measurements.noise import Gaussian
from ..training.config import FitConfig
from ..training.history import History
from ..training.loop import pretrain
from ..training.objectives import denoising_loss

__all__ = ["Practice", "Round", "Simulated", "practise", "train_on_policy"]

_FURTHEST = 4.0  # analysis spreads: truths further away (a filter that lost track) count as this far


@dataclasses.dataclass(frozen=True)
class Practice:
    """Twin experiments to learn from.

    Args:
        runs, cycles, burn_in: independent runs, cycles of each, and how many at their beginning are left out.
        intervals: model steps between measurements; runs are made for each.
        ensemble_sizes: likewise.
        spread: first members and truth differ by noise of this standard deviation; None: independent draws of
            the climatology.
        noise: each run's noise standard deviation is the measurement's times a factor, log-uniform in this.
        density: each run's share of measured values that are there, uniform in this; which, changes from run
            to run.
    """

    runs: int = 32
    cycles: int = 200
    burn_in: int = 20
    intervals: tuple[int, ...] = (1,)
    ensemble_sizes: tuple[int, ...] = (20,)
    spread: float | None = 1.0
    noise: tuple[float, float] = (1.0, 1.0)
    density: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.runs < 2 or not 0 <= self.burn_in < self.cycles:
            raise ValueError(
                "practice needs at least 2 runs (one validates) and 0 <= burn_in < cycles; got "
                f"runs={self.runs}, burn_in={self.burn_in}, cycles={self.cycles}."
            )
        if not 0 < self.noise[0] <= self.noise[1] or not 0 < self.density[0] <= self.density[1] <= 1:
            raise ValueError(
                "noise must be 0 < lowest <= highest and density 0 < lowest <= highest <= 1; got "
                f"noise={self.noise}, density={self.density}."
            )


class Simulated(NamedTuple):
    """What simulated cycles leave, (runs, cycles, …)."""

    truth: Float[Array, "runs K *x"]
    """In the units of the base filter's analysis."""
    features: Float[Array, "runs K ..."]
    rmse: Float[Array, "runs K"]
    spread: Float[Array, "runs K"]


class Round(NamedTuple):
    """How well a filter did in its own cycles, and the training on them."""

    rmse: float
    spread: float
    samples: int
    history: History | None


def practise(
    key: PRNGKeyArray,
    filter: AmortisedMASF,
    dynamics: Dynamics,
    measurement: Measurement,
    practice: Practice,
    interval: int,
    n_members: int,
) -> Simulated:
    """Simulated cycles of a prepared filter, all runs at once; jittable.

    Raises:
        ValueError: `practice.noise` varies but the measurement's noise is not `Gaussian`.
    """

    def run(key: PRNGKeyArray) -> Simulated:
        key_start, key_network, key_cycles = jax.random.split(key, 3)
        own, mask = _network(key_network, measurement, practice, dynamics.state_shape)
        truth, ensemble = _start(key_start, dynamics, n_members, practice.spread)

        def cycle(
            carry: tuple[Array, EnsembleState, Int[Array, ""]], key: PRNGKeyArray
        ) -> tuple[tuple[Array, EnsembleState, Int[Array, ""]], Simulated]:
            truth, state, step = carry
            keys = jax.random.split(key, 6)
            truth = advance(dynamics, truth[None], step, keys[0], interval)[0]
            state, _, _ = repair(keys[2], filter.forecast(keys[1], state, dynamics, step, interval))
            assert isinstance(state, EnsembleState)
            z = own.sample(keys[3], truth)
            context, _ = filter.context(keys[4], state, jnp.where(mask, z, 0.0), mask, own)
            ensemble, _ = filter.sample(keys[5], context)
            out = Simulated(
                (truth - context.analysis.mean) / context.analysis.spread,
                context.features,
                jnp.sqrt(jnp.mean((member_mean(ensemble) - truth) ** 2)),
                jnp.sqrt(jnp.mean(member_variance(ensemble))),
            )
            state = EnsembleState(ensemble, None, context.base.memory)
            return (truth, state, step + interval), out

        carry = (truth, filter.init(key_start, ensemble), jnp.zeros((), jnp.int32))
        return jax.lax.scan(cycle, carry, jax.random.split(key_cycles, practice.cycles))[1]

    return jax.vmap(run)(jax.random.split(key, practice.runs))


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
    factors: tuple[float, ...] = (0.9, 1.0, 1.1),
    progress: bool = False,
    report: Callable[[int, Round], None] = lambda number, result: None,
) -> tuple[AmortisedMASF, list[Round]]:
    """Trains a filter's network on pairs of truth and forecast from the cycles it will meet.

    Round 0 learns from the cycles of the base filter (which a fresh network leaves as they are). Every later
    one takes a share `replay` of its pairs from those of the round before, so that these fade, and the rest
    from the filter's own cycles; it starts from the last one's parameters, at half the learning rate. Some
    runs are held back for validation. At the end `calibration` becomes the factor among `factors` with the
    smallest error in cycles of its own. Rounds may do harm: what is returned is the filter with the smallest
    error in cycles of its own, be it the last, that of an earlier round, or (a network of zeros) the base.

    Runs from the host, outside jit. Returns the filter and what each round found (the last: the result).

    Raises:
        ValueError: no rounds or factors, or no finite pair in a round: the filter diverged everywhere.
    """
    if rounds < 1 or not 0 <= replay < 1 or not factors:
        raise ValueError(
            "training needs rounds of at least 1, a share replay in [0, 1) and a factor to calibrate with; "
            f"got rounds={rounds}, replay={replay}, factors={factors}."
        )
    filter = filter.prepare(dynamics, measurement)
    assert filter.denoiser is not None
    loss = _loss(filter, filter.n_steps == 1)
    results: list[Round] = []
    pairs, best, smallest = None, filter, np.inf
    simulate = eqx.filter_jit(practise)
    for number in range(rounds):
        key, key_cycles, key_pairs, key_fit = jax.random.split(key, 4)
        policy = _alone(filter) if number == 0 else filter
        new, validation, rmse, spread = _collect(
            simulate, key_cycles, policy, dynamics, measurement, practice
        )
        if rmse < smallest:
            best, smallest = _untrained(filter) if number == 0 else filter, rmse
        chosen = np.random.default_rng(np.asarray(jax.random.key_data(key_pairs)))
        pairs = _mixed(chosen, pairs, new, replay, _nominal(practice))
        rate = jnp.asarray(config.learning_rate) * (1.0 if number == 0 else 0.5)
        assert filter.denoiser is not None
        params, history = pretrain(
            key_fit,
            loss,
            filter.denoiser.params,
            jax.tree.map(jnp.asarray, pairs),
            dataclasses.replace(config, learning_rate=rate),
            validation=jax.tree.map(jnp.asarray, validation),
            progress=progress,
        )
        filter = eqx.tree_at(lambda f: f.denoiser.params, filter, params)
        results.append(Round(rmse, spread, len(new[0]), history))
        report(number, results[-1])
    key, key_factors = jax.random.split(key)
    tried = [
        _collect(
            simulate,
            key_factors,
            eqx.tree_at(lambda f: f.calibration, filter, jnp.asarray(factor, filter.calibration.dtype)),
            dynamics,
            measurement,
            practice,
        )[2:]
        for factor in factors
    ]
    errors = np.nan_to_num([rmse for rmse, _ in tried], nan=np.inf)
    chosen = int(np.argmin(errors))
    results.append(Round(*tried[chosen], 0, None))
    report(rounds, results[-1])
    if errors[chosen] < smallest:
        factor = jnp.asarray(factors[chosen], filter.calibration.dtype)
        best = eqx.tree_at(lambda f: f.calibration, filter, factor)
    return best, results


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


def _collect(
    simulate: Callable,
    key: PRNGKeyArray,
    filter: AmortisedMASF,
    dynamics: Dynamics,
    measurement: Measurement,
    practice: Practice,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], float, float]:
    """Pairs to train on, pairs of other runs, and time-mean error and spread."""
    held = _held_back(practice)
    training, validation, scores = [], [], []
    for interval in practice.intervals:
        for n_members in practice.ensemble_sizes:
            key, own = jax.random.split(key)
            made = simulate(own, filter, dynamics, measurement, practice, interval, n_members)
            truth, features, rmse, spread = (np.asarray(part)[:, practice.burn_in :] for part in made)
            training.append(_finite(truth[held:], features[held:]))
            validation.append(_finite(truth[:held], features[:held]))
            scores.append((np.nanmean(rmse), np.nanmean(spread)))
    pairs, held_back = _joined(training), _joined(validation)
    if min(len(pairs[0]), len(held_back[0])) == 0:
        raise ValueError(
            "no finite pair of truth and forecast: the filter diverged in every run. More inflation, a "
            "smaller localisation radius or a smaller learning rate may help."
        )
    rmse, spread = np.mean(scores, axis=0)
    return pairs, held_back, float(rmse), float(spread)


def _nominal(practice: Practice) -> int:
    """Pairs of a round without any that are not finite."""
    runs = practice.runs - _held_back(practice)
    kinds = len(practice.intervals) * len(practice.ensemble_sizes)
    return kinds * runs * (practice.cycles - practice.burn_in)


def _held_back(practice: Practice) -> int:
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


def _finite(truth: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(runs, K, …) to (pairs, …), without those that are not finite."""
    truth, features = (array.reshape(-1, *array.shape[2:]) for array in (truth, features))
    good = np.isfinite(truth).reshape(len(truth), -1).all(1)
    good &= np.isfinite(features).reshape(len(truth), -1).all(1)
    return np.clip(truth[good], -_FURTHEST, _FURTHEST), features[good]


def _network(
    key: PRNGKeyArray, measurement: Measurement, practice: Practice, state_shape: tuple[int, ...]
) -> tuple[Measurement, Array]:
    """The measurement with a run's own noise, and which of its values are there."""
    key_noise, key_density, key_mask = jax.random.split(key, 3)
    shape = measurement.output_shape(state_shape)
    lowest, highest = practice.noise
    if lowest != highest or lowest != 1:
        if not isinstance(measurement.noise, Gaussian):
            raise ValueError(
                f"practice.noise = {practice.noise} scales Gaussian noise only; the measurement's is "
                f"{type(measurement.noise).__name__}."
            )
        log = jax.random.uniform(key_noise, minval=np.log(lowest), maxval=np.log(highest))
        factor = jnp.exp(log).astype(measurement.noise.std.dtype)
        measurement = eqx.tree_at(lambda m: m.noise.std, measurement, measurement.noise.std * factor)
    share = jax.random.uniform(key_density, minval=practice.density[0], maxval=practice.density[1])
    mask = jax.random.uniform(key_mask, shape) < share
    return measurement, mask | (share >= 1.0)


def _start(
    key: PRNGKeyArray, dynamics: Dynamics, n_members: int, spread: float | None
) -> tuple[Array, Array]:
    """A truth, and members that do not know it exactly."""
    key_truth, key_centre, key_members = jax.random.split(key, 3)
    truth = dynamics.sample_climatology(key_truth)
    if spread is None:
        return truth, spun_up_ensemble(dynamics, key_members, n_members)
    centre = truth + spread * jax.random.normal(key_centre, truth.shape, truth.dtype)
    noise = jax.random.normal(key_members, (n_members, *truth.shape), truth.dtype)
    return truth, centre[None] + spread * noise
