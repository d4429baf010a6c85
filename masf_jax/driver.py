"""The driver: forecast/analysis cycles as one `lax.scan`."""

from __future__ import annotations

import time
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree, Shaped

from .arrays import real_array
from .dynamics.base import Dynamics
from .dynamics.layout import ALL_AT_ONCE, MemberLayout
from .filters.base import EnsembleState, Filter, State
from .filters.repair import repair
from .measurements.measurement import Measurement, Observations
from .metrics.cycle import DEFAULT_SCORES, SCORES, Score, cycle_scores
from .progress import cycle_bar
from .quality_control import GrossErrorCheck

__all__ = ["Assimilation", "FilterDivergedWarning", "assimilate"]

_SAVEABLE = ("mean", "spread", "ensemble")


class FilterDivergedWarning(RuntimeWarning):
    """The filter lost all but one finite member; results from that cycle on are NaN."""


class Assimilation(eqx.Module):
    """What a run leaves: one entry per cycle along axis 0, forecast and analysis apart.

    forecast, analysis: saved arrays by name (mean, spread, ensemble).
    forecast_scores, analysis_scores: scores by name; empty without truth.
    info: what the filter reported; repaired: members replaced after the forecast.
    final: the filter's state after the last cycle; steps: model step number of each cycle.
    rejected: values that were there and did not pass quality control; None where there was none.
    seconds_compile, seconds_assimilate: wall clock, where measured (`timed=True`).
    """

    forecast: dict[str, Array | np.ndarray]
    analysis: dict[str, Array | np.ndarray]
    forecast_scores: dict[str, Array | np.ndarray]
    analysis_scores: dict[str, Array | np.ndarray]
    info: dict[str, Array | np.ndarray]
    repaired: Int[Array | np.ndarray, " K"]
    diverged: Bool[Array | np.ndarray, " K"]
    steps: Int[Array | np.ndarray, " K"]
    final: State
    rejected: Bool[Array | np.ndarray, "K *z"] | None = None
    seconds_compile: float | None = None
    seconds_assimilate: float | None = None


class _Problem(eqx.Module):
    """Everything constant over the scan."""

    key: PRNGKeyArray
    filter: Filter
    dynamics: Dynamics
    measurement: Measurement
    observed: Bool[Array, "*state"] | None
    quality_control: GrossErrorCheck | None
    interval: int | None = eqx.field(static=True)
    save: tuple[str, ...] = eqx.field(static=True)
    scores: tuple[str, ...] = eqx.field(static=True)
    extra_scores: tuple[tuple[str, Score], ...] = eqx.field(static=True)
    layout: MemberLayout = eqx.field(static=True)


def _cycle(problem: _Problem, carry: tuple[State, Array], xs: dict[str, Array]) -> tuple[Any, dict]:
    state, step = carry
    key_forecast, key_repair, key_analysis = jax.random.split(jax.random.fold_in(problem.key, xs["cycle"]), 3)
    n_steps = xs["step"] - step if problem.interval is None else problem.interval
    layout = problem.layout
    forecast = problem.filter.forecast(key_forecast, state, problem.dynamics, step, n_steps, layout)
    forecast = jax.tree.map(layout.replicate, forecast)  # the members meet here, once a cycle
    forecast, repaired, diverged = repair(key_repair, forecast)
    out: dict[str, Any] = {"repaired": repaired, "diverged": diverged}
    mask = xs["mask"]
    if problem.quality_control is not None:
        accepted = problem.quality_control(forecast, xs["z"], problem.measurement)
        out["rejected"], mask = mask & ~accepted, mask & accepted
    analysis, out["info"] = problem.filter.analysis(
        key_analysis, forecast, xs["z"], problem.measurement, mask
    )
    for stage, now in (("forecast", forecast), ("analysis", analysis)):
        out[stage] = saved(problem.save, now)
        out[f"{stage}_scores"] = (
            cycle_scores(problem.scores, now, xs["truth"], problem.observed, dict(problem.extra_scores))
            if "truth" in xs
            else {}
        )
    return (jax.tree.map(layout.replicate, analysis), xs["step"]), out


def saved(save: tuple[str, ...], state: State) -> dict[str, Array]:
    mean, variance = state.moments()
    out = {}
    if "mean" in save:
        out["mean"] = mean
    if "spread" in save:
        out["spread"] = jnp.sqrt(variance)
    if "ensemble" in save and isinstance(state, EnsembleState):
        out["ensemble"] = state.ensemble
    return out


@eqx.filter_jit
def _scan(problem: _Problem, carry: tuple[State, Array], xs: dict[str, Array]) -> tuple[Any, dict]:
    """All cycles in `xs`; cycles whose `valid` is False (padding of the last chunk) change nothing."""

    def body(carry: tuple[State, Array], x: dict[str, Array]) -> tuple[Any, dict]:
        if "valid" not in x:
            return _cycle(problem, carry, x)
        shapes = eqx.filter_eval_shape(_cycle, problem, carry, x)[1]
        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.cond(x["valid"], lambda c: _cycle(problem, c, x), lambda c: (c, empty), carry)

    final, out = jax.lax.scan(body, carry, xs)
    return jax.tree.map(problem.layout.replicate, final), out


def assimilate(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    ensemble: Shaped[Array | np.ndarray, "N *state"],
    *,
    truth: Shaped[Array | np.ndarray, "K *state"] | None = None,
    save: tuple[str, ...] = ("mean", "spread"),
    scores: tuple[str, ...] = DEFAULT_SCORES,
    extra_scores: dict[str, Score] | None = None,
    chunk: int | None = None,
    progress: bool = False,
    timed: bool = False,
    layout: MemberLayout = ALL_AT_ONCE,
    quality_control: GrossErrorCheck | None = None,
) -> Assimilation:
    """Runs a filter over all observations: forecast to each observation's step, then analysis.

    The whole run is one XLA program; it may itself be jitted or vmapped (over keys, truths,
    observations, ensembles). Cycle k uses `fold_in(key, k)` only, so results do not depend on `chunk`.
    Members that are not finite after a forecast are replaced by finite ones (counted in `repaired`);
    with fewer than two left the filter has diverged, which raises a `FilterDivergedWarning`.

    Args:
        key: random key of the filter; never the one that made the truth.
        filter: prepared or not (`filter.prepare` is called here, outside the compiled program).
        observations: K cycles; see `Observations` for gaps and irregular times.
        ensemble: (N, *state_shape) members at step 0.
        truth: (K, *state_shape) true states at the observation steps, for scores.
        save: what each cycle keeps of forecast and analysis: any of "mean", "spread", "ensemble".
        scores: names from `masf_jax.metrics.SCORES`, computed inside the scan where truth is given.
        extra_scores: further scores, name -> function(state, truth, where).
        chunk: cycles per call of the compiled program; None: all. Each chunk's results go to host
            memory, so that device memory does not grow with K.
        progress: show a progress bar with the time left (implies chunks).
        timed: measure compile and run time separately.
        layout: how many members are forecast at once (bounds memory), and over which devices forecasts are
            spread; each device then has all members, and makes the whole analysis.
        quality_control: which values each analysis may use, given the forecast; None: all that are there.

    Raises:
        ValueError: shapes that do not fit, fewer than two members, a non-finite first ensemble, an
            unknown name in `save` or `scores`, members that the devices do not divide, or what
            `filter.prepare` refuses.
    """
    ensemble = real_array("ensemble", ensemble)
    truth = None if truth is None else real_array("truth", truth, cycles_first=True).astype(ensemble.dtype)
    layout.check(ensemble.shape[0])
    check_problem(filter, dynamics, measurement, observations, ensemble, truth, save, scores)
    if quality_control is not None:
        quality_control.check(observations.values.shape[1:])
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}.")
    filter = filter.prepare(dynamics, measurement)
    problem = _Problem(
        key,
        filter,
        dynamics,
        measurement,
        observed_components(dynamics, measurement),
        quality_control,
        observations.interval,
        tuple(save),
        tuple(scores),
        tuple((extra_scores or {}).items()),
        layout,
    )
    n_cycles, xs = observations.n_cycles, cycle_arrays(observations, truth, ensemble.dtype)
    carry = (filter.init(jax.random.fold_in(key, n_cycles), ensemble), jax.device_put(np.zeros((), np.int32)))
    carry = jax.tree.map(layout.replicate, carry)
    if progress and chunk is None:
        chunk = max(1, n_cycles // 50)
    (final, _), out, seconds = _execute(problem, carry, xs, n_cycles, chunk, progress, timed)
    result = Assimilation(**out, steps=observations.steps, final=final, **seconds)
    warn_if_diverged(result.diverged)
    return result


def observed_components(dynamics: Dynamics, measurement: Measurement) -> Bool[Array, "*state"] | None:
    """Which components scores tell apart; None where all are observed, or none, or it cannot be said."""
    observed = measurement.operator.observed(dynamics.state_shape)
    if observed is None or observed.all() or not observed.any():
        return None
    return jnp.asarray(observed)


def cycle_arrays(observations: Observations, truth: Array | None, dtype: Any) -> dict[str, Array]:
    """By name, what each cycle of a run is given: arrays with K entries along axis 0."""
    xs = {
        "cycle": jax.device_put(np.arange(observations.n_cycles, dtype=np.uint32)),  # compiles nothing
        "step": observations.steps,
        "z": observations.values.astype(dtype),
        "mask": observations.mask,
    }
    return xs if truth is None else xs | {"truth": truth}


def _execute(
    problem: _Problem,
    carry: tuple[State, Array],
    xs: dict[str, Array],
    n_cycles: int,
    chunk: int | None,
    progress: bool,
    timed: bool,
) -> tuple[Any, dict, dict[str, Any]]:
    """Runs the scan whole or in chunks of equal size (one compilation either way)."""
    run, seconds = _scan, {}
    size = n_cycles if chunk is None else max(1, min(chunk, n_cycles))
    n_chunks = -(-n_cycles // size)
    if n_chunks * size != n_cycles:
        xs["valid"] = jnp.ones(n_cycles, bool)
        pad = n_chunks * size - n_cycles
        xs = {name: jnp.concatenate([x, jnp.zeros((pad, *x.shape[1:]), x.dtype)]) for name, x in xs.items()}

    def part(i: int) -> PyTree:
        return xs if n_chunks == 1 else {name: x[i * size : (i + 1) * size] for name, x in xs.items()}

    if timed:
        start = time.perf_counter()
        run = _scan.lower(problem, carry, part(0)).compile()
        seconds["seconds_compile"] = time.perf_counter() - start
    start = time.perf_counter()
    if n_chunks == 1 and not progress:
        carry, out = run(problem, carry, xs)
    else:
        pieces = []
        with cycle_bar(progress, n_cycles) as advance:
            for i in range(n_chunks):
                carry, piece = run(problem, carry, part(i))
                pieces.append(jax.device_get(piece))
                advance(min(size, n_cycles - i * size))
        out = jax.tree.map(lambda *p: np.concatenate(p)[:n_cycles], *pieces)
    if timed:
        carry, out = jax.block_until_ready((carry, out))
        seconds["seconds_assimilate"] = time.perf_counter() - start
    return carry, out, seconds


def warn_if_diverged(diverged: Array | np.ndarray) -> None:
    if isinstance(diverged, Tracer) or not np.asarray(diverged).any():
        return
    cycle = int(np.argmax(np.asarray(diverged)))
    warnings.warn(
        f"the filter diverged: fewer than two finite members after the forecast of cycle {cycle}; results "
        "from there on are NaN. More inflation or members, a smaller localisation radius or model step may "
        "help.",
        FilterDivergedWarning,
        stacklevel=3,
    )


def check_problem(
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    ensemble: Array,
    truth: Array | None,
    save: tuple[str, ...],
    scores: tuple[str, ...],
) -> None:
    shape = dynamics.state_shape
    if ensemble.ndim != len(shape) + 1 or ensemble.shape[1:] != shape:
        raise ValueError(
            f"ensemble must have shape (N, *state_shape) = (N, {', '.join(map(str, shape))}) for "
            f"{type(dynamics).__name__}; got {ensemble.shape}."
        )
    if ensemble.shape[0] < 2:
        raise ValueError(f"an ensemble needs at least 2 members to have a spread; got {ensemble.shape[0]}.")
    expected = measurement.output_shape(shape)
    if observations.values.shape[1:] != expected:
        raise ValueError(
            f"observations have shape {observations.values.shape[1:]} per cycle, but the measurement of a "
            f"state of shape {shape} has shape {expected}."
        )
    measurement.check_noise(shape)
    if truth is not None and truth.shape != (observations.n_cycles, *shape):
        raise ValueError(
            f"truth must hold one state per cycle, shape {(observations.n_cycles, *shape)}; "
            f"got {truth.shape}."
        )
    for argument, given, known in (("save", save, _SAVEABLE), ("scores", scores, tuple(SCORES))):
        unknown = [name for name in given if name not in known]
        if isinstance(given, str) or unknown:
            raise ValueError(f"{argument} must be a tuple of names from {known}; got {given!r}.")
    if not isinstance(ensemble, Tracer):
        bad = np.flatnonzero(~np.isfinite(np.asarray(ensemble)).reshape(ensemble.shape[0], -1).all(1))
        if bad.size:
            raise ValueError(
                f"the first ensemble is not finite: member(s) {bad[:10].tolist()} hold NaN or Inf values. "
                "Check the initial states."
            )
