"""The driver: forecast/analysis cycles as one `lax.scan`."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from .arrays import check_key, real_array
from .callables import kept as kept_function, unwrapped
from .checks import check_members, check_problem, refuse_on_host, traced
from .dynamics.base import Dynamics
from .dynamics.function import as_dynamics
from .dynamics.host import host_errors
from .dynamics.layout import ALL_AT_ONCE, MemberLayout
from .filters.base import EnsembleState, Filter, State
from .filters.faults import FaultPolicy, FilterDivergedWarning, described, warn_of_faults
from .filters.function import as_filter
from .filters.likelihood import Likelihood
from .loops import ReverseMode
from .measurements.measurement import Measurement, Observations
from .measurements.rows import ObservationsLike, as_observations
from .metrics.cycle import DEFAULT_SCORES, Score, cycle_scores
from .plots.shown import Shown
from .printed import assimilation_text
from .processes import on_host, others_may_end
from .progress import cycle_bar
from .quality_control import GrossErrorCheck
from .record import Record, Stored
from .results.given import Given
from .run_state import RunState, equal_members
from .training.trees import identity
from .twin import Simulation

__all__ = ["Assimilation", "FaultError", "FilterDivergedWarning", "assimilate", "begin"]

_FIRST = 0xFFFFFFFF
"""Folded into the key of a run for what a filter draws before the first cycle; cycles have 0, 1, …"""
_BY_NAME = ("forecast", "analysis", "forecast_scores", "analysis_scores", "info")
_CHUNKS, _CHUNK_BYTES, _CHUNK_WORK = 50, 2**26, 5 * 10**9
"""Of a run in chunks: how many, but for at most so many bytes of results and values × model steps a chunk."""


class FaultError(RuntimeError):
    """A cycle could not be used, and the policy is "error"; `result` holds the cycles up to it."""

    def __init__(self, message: str, result: Assimilation):
        super().__init__(message)
        self.result = result


class Assimilation(eqx.Module, Shown):
    """What a run leaves: one entry per cycle along axis 0, forecast and analysis apart.

    Of a run with `save_to`, what has more than a number a cycle stays on disk: slices and `np.asarray`
    read it.

    forecast, analysis: saved arrays by name (mean, spread, ensemble).
    forecast_scores, analysis_scores: scores by name; empty without truth.
    info: what the filter reported; NaN in cycles without a measured value.
    repaired: members replaced because they were not finite, after forecast and analysis.
    diverged: fewer than two members could go on; so it stays.
    skipped: the analysis could not be used: the forecast stands in its place, and in all scores.
    faults: what was found, flags of `filters.faults.Fault` (see `FaultPolicy`); 0: nothing.
    steps: model step number of each cycle; end: what another call goes on from (`start=`).
    rejected: values that were there and did not pass quality control; None where there was none.
    log_likelihood: log p(z_k | z_1, …, z_{k-1}) of each cycle, where asked for (`likelihood=`).
    seconds_compile, seconds_assimilate: wall clock, where measured (`timed=True`).
    given: model, sensor, observations and truth; None of a run inside jax.jit, vmap or grad.
    """

    forecast: dict[str, Stored]
    analysis: dict[str, Stored]
    forecast_scores: dict[str, Stored]
    analysis_scores: dict[str, Stored]
    info: dict[str, Stored]
    repaired: Int[Array | np.ndarray, " K"]
    diverged: Bool[Array | np.ndarray, " K"]
    skipped: Bool[Array | np.ndarray, " K"]
    faults: Int[Array | np.ndarray, " K"]
    steps: Int[Array | np.ndarray, " K"]
    end: RunState
    rejected: Stored | None = None
    log_likelihood: Stored | None = None
    seconds_compile: float | None = None
    seconds_assimilate: float | None = None
    given: Given | None = None

    def __repr__(self) -> str:
        return assimilation_text(self)

    @property
    def final(self) -> State:
        """The filter's state after the last cycle."""
        return self.end.state

    @property
    def members(self) -> Float[Array, "N *state"]:
        """The ensemble after the last cycle, whatever `save` keeps; `dynamics.advance` forecasts it on.

        Raises:
            ValueError: a filter that has a mean and a covariance instead, or members of unequal weights.
        """
        return equal_members(self.final)


class _Problem(eqx.Module):
    """Everything constant over the scan."""

    key: PRNGKeyArray
    filter: Filter
    dynamics: Dynamics
    measurement: Measurement
    observed: Bool[Array, "*state"] | None
    quality_control: GrossErrorCheck | None
    policy: FaultPolicy
    likelihood: Likelihood | None
    interval: int | None = eqx.field(static=True)
    save: tuple[str, ...] = eqx.field(static=True)
    scores: tuple[str, ...] = eqx.field(static=True)
    extra_scores: dict[str, Any]  # `kept` functions
    layout: MemberLayout = eqx.field(static=True)
    reverse_mode: ReverseMode = eqx.field(static=True)


def _cycle(problem: _Problem, carry: tuple[State, Array], xs: dict[str, Array]) -> tuple[Any, dict]:
    state, step = carry
    key_forecast, key_repair, key_analysis = jax.random.split(jax.random.fold_in(problem.key, xs["cycle"]), 3)
    n_steps = xs["step"] - step if problem.interval is None else problem.interval
    layout, policy, filter = problem.layout, problem.policy, problem.filter
    forecast = filter.forecast(key_forecast, state, problem.dynamics, step, n_steps, layout)
    n_members = _n_members(forecast)
    forecast = layout.settle(forecast, n_members)  # the members meet here, once a cycle
    before, diverged = policy.after_forecast(key_repair, filter, forecast)
    forecast = before.state
    out: dict[str, Any] = {"diverged": diverged}
    mask, believed = xs["mask"], filter.believed(forecast, problem.measurement)
    if problem.quality_control is not None:
        accepted = problem.quality_control(forecast, xs["z"], believed)
        out["rejected"], mask = mask & ~accepted, mask & accepted
    given = layout.settle(forecast, n_members, filter.placement)
    if problem.likelihood is not None:
        out["log_likelihood"] = problem.likelihood(filter, given, xs["z"], mask, believed)
    analysis, out["info"] = filter.analysis(key_analysis, given, xs["z"], problem.measurement, mask)
    analysis = layout.settle(analysis, n_members)
    after = policy.after_analysis(jax.random.fold_in(key_repair, 1), filter, forecast, analysis, out["info"])
    analysis, out["skipped"] = after.state, after.skipped & ~diverged
    out["repaired"], out["faults"] = before.repaired + after.repaired, before.faults | after.faults
    extra = {name: unwrapped(score) for name, score in problem.extra_scores.items()}
    for stage, now in (("forecast", forecast), ("analysis", analysis)):
        out[stage] = layout.settle(saved(problem.save, now), n_members, "rest")
        out[f"{stage}_scores"] = (
            cycle_scores(problem.scores, now, xs["truth"], problem.observed, extra) if "truth" in xs else {}
        )
    return (analysis, xs["step"]), out


def _n_members(state: State) -> int | None:
    return len(state.ensemble) if isinstance(state, EnsembleState) else None


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
        with problem.layout.active():
            return cycle(carry, x)

    def cycle(carry: tuple[State, Array], x: dict[str, Array]) -> tuple[Any, dict]:
        if "valid" not in x:
            return _cycle(problem, carry, x)
        shapes = eqx.filter_eval_shape(_cycle, problem, carry, x)[1]
        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.cond(x["valid"], lambda c: _cycle(problem, c, x), lambda c: (c, empty), carry)

    (state, step), out = problem.reverse_mode.scan(body, carry, xs)
    return (problem.layout.settle(state, _n_members(state), "rest"), step), out


def begin(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    ensemble: Shaped[Array | np.ndarray, "N *state"] | None = None,
) -> RunState:
    """A run before its first cycle: members at step 0, and what the filter remembers before it has seen any.

    Raises:
        ValueError: see `assimilate`.
    """
    check_key(key)
    if ensemble is None:
        dynamics = as_dynamics(dynamics, None)
        state = as_filter(filter).prepare(dynamics, measurement).init_alone(dynamics)
    else:
        members = real_array("ensemble", ensemble)
        dynamics = as_dynamics(dynamics, members.shape[1:])
        check_members(members, dynamics)
        prepared = as_filter(filter).prepare(dynamics, measurement)
        state = prepared.init(jax.random.fold_in(key, _FIRST), members)
    step, cycle = (jax.device_put(np.zeros((), kind)) for kind in (np.int32, np.uint32))
    return RunState(key, state, step, cycle)


def assimilate(
    key: PRNGKeyArray | None,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike | Simulation,
    ensemble: Shaped[Array | np.ndarray, "N *state"] | None = None,
    *,
    start: RunState | None = None,
    truth: Shaped[Array | np.ndarray, "K *state"] | None = None,
    save: tuple[str, ...] = ("mean", "spread"),
    scores: tuple[str, ...] = DEFAULT_SCORES,
    extra_scores: dict[str, Score] | None = None,
    chunk: int | None = None,
    progress: bool = False,
    timed: bool = False,
    layout: MemberLayout = ALL_AT_ONCE,
    quality_control: GrossErrorCheck | None = None,
    policy: FaultPolicy | None = None,
    likelihood: Likelihood | None = None,
    save_to: str | os.PathLike[str] | Record | None = None,
    resume: bool = False,
    checkpoint: bool = False,
    truncate: int | None = None,
) -> Assimilation:
    """Runs a filter over all observations: forecast to each observation's step, then analysis.

    The whole run is one XLA program; it may itself be jitted or vmapped (over keys, truths,
    observations, ensembles). Cycle k uses `fold_in(key, k)` only, so results do not depend on `chunk`, nor
    on the calls that the cycles are spread over: `start=run.end` goes on where a call ended (docs/online.md).
    Every forecast and analysis is looked at: members that are not finite are replaced, an analysis that
    cannot be used leaves the forecast in its place, and all is counted (see `Assimilation`) and warned of;
    `policy` says otherwise. With fewer than two sound members the filter has diverged, which raises a
    `FilterDivergedWarning`. (Of a run that is being traced, warnings and errors are the caller's.)

    Args:
        key: random key of the filter; never the one that made the truth. None with `start`: that run's.
        filter: prepared or not (`filter.prepare` is called here, outside the compiled program); or a function
            f(key, members, innovations) (see `filters.Function`).
        dynamics: a model, or a function f(x), f(x, time) or f(x, time, key) of one member and one step of
            dt = 1 (see `dynamics.Function`).
        observations: K cycles; see `Observations` for gaps and irregular times. An array (K, *z) has a row
            for each of the model steps 1, 2, …, K (those after `start`'s); NaN is missing. Or a twin
            experiment that is made along the way, truth and all (`Simulation`): with `save_to`, memory does
            not grow with K.
        ensemble: (N, *state_shape) members at step 0; not with `start`. A `KalmanFilter` that has a mean and
            a covariance needs none.
        start: where another call ended (`Assimilation.end`), or what `begin` made. Observations that are n
            steps apart go on from there; step numbers given one by one are those of the whole run.
        truth: (K, *state_shape) true states at the observation steps, for scores.
        save: what each cycle keeps of forecast and analysis: any of "mean", "spread", "ensemble".
        scores: names from `masf_jax.metrics.SCORES`, computed inside the scan where truth is given.
        extra_scores: further scores, name -> function(state, truth, where).
        chunk: cycles per call of the compiled program; None: all. Each chunk's results go to host
            memory, so that device memory does not grow with K.
        progress: show a progress bar with the time left (implies chunks).
        timed: measure compile and run time separately.
        layout: how many members are forecast at once (bounds memory), and over which devices forecasts,
            analyses and scores are spread (docs/devices.md).
        quality_control: which values each analysis may use, given the forecast; None: all that are there.
        policy: what is done with a cycle that cannot be used; None: `FaultPolicy()`.
        likelihood: finds the log-likelihood of each cycle's values, too (see `Likelihood`); None: it is not.
        save_to: a folder that results are written to, chunk after chunk, with the state to go on from (see
            `Record`, docs/runs.md). `chunk` None: a fiftieth of the cycles, at most 64 MB of results.
        resume: go on where the run in `save_to` was ended, by whatever; the results are those of a run that
            was not.
        checkpoint: for reverse mode in memory that grows as √K: it makes every cycle three times
            (docs/gradients.md). Results are the same.
        truncate: derivatives go through this many cycles at most: none through the states before cycles
            truncate, 2·truncate, …; for chaotic models, whose derivatives grow without bound. None: all.

    Raises:
        FileExistsError: `save_to` has something, and `resume` is not set.
        CheckpointError: what is in `save_to` is another run's.
        FaultError: a cycle that cannot be used, where the policy is "error".
        ProcessLostError: another process of the run has ended.
        TypeError: observations that are neither, such as a table with times of its own.
        ValueError: shapes that do not fit, fewer than two members, a non-finite first ensemble, an
            unknown name in `save` or `scores`, members that the devices do not divide, or what
            `filter.prepare` refuses.
    """
    if ensemble is not None and start is not None:
        raise ValueError("give either the first ensemble, or start: where another run ended.")
    if not isinstance(observations, Simulation):
        observations = as_observations(observations)
    dynamics = as_dynamics(dynamics, _state_shape(ensemble, start))
    unspread = as_filter(filter).prepare(dynamics, measurement)  # a run that goes on may have other devices
    filter = unspread.spread(layout)
    if start is None:
        if key is None:
            raise ValueError("a run needs a random key: jax.random.key(SEED); only `start` brings one along.")
        start = begin(key, filter, dynamics, measurement, ensemble)
    elif key is not None:
        check_key(key)
    key, dtype = start.key if key is None else key, start.dtype
    start = RunState(key, start.state, start.step, start.cycle)
    simulated = isinstance(observations, Simulation)
    if simulated and truth is not None:
        raise ValueError("a Simulation has its own truth.")
    truth = None if truth is None else real_array("truth", truth, cycles_first=True).astype(dtype)
    if isinstance(start.state, EnsembleState):
        layout.check(len(start.state.ensemble))
    check_problem(dynamics, measurement, observations, start.shape, truth, save, scores)
    if quality_control is not None:
        quality_control.check(measurement.output_shape(dynamics.state_shape))
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}.")
    policy = FaultPolicy() if policy is None else policy
    if traced(key, filter, dynamics, measurement, quality_control, policy, start, observations, truth):
        refuse_on_host(chunk=chunk, progress=progress, timed=timed, save_to=save_to)
        layout = for_reverse_mode(layout, observations, start.step)
    problem = _Problem(
        key,
        filter,
        dynamics,
        measurement,
        observed_components(dynamics, measurement),
        quality_control,
        policy,
        None if likelihood is None else likelihood.prepare(filter, dynamics, measurement),
        observations.interval,
        tuple(save),
        tuple(scores),
        {name: kept_function(score) for name, score in (extra_scores or {}).items()},
        layout,
        ReverseMode(checkpoint, truncate),
    )
    record = save_to if isinstance(save_to, Record) or save_to is None else Record(save_to, resume)
    if isinstance(observations, Simulation):
        cycles = _simulated(observations, start, record)
    else:
        cycles = _given(observations, truth, start)
    now = start
    if record is not None:
        of = (unspread, dynamics, measurement, quality_control, policy, start, observations, truth)
        of = of if likelihood is None else (*of, likelihood)
        now = record.begin(start, identity(of, *save, *scores, *(extra_scores or {})))
    if chunk is None and (progress or record is not None or simulated):
        chunk = automatic_chunk(
            observations.n_cycles,
            observations.interval or 1,
            start.shape,
            measurement.output_shape(start.shape),
            start.dtype.itemsize,
            _n_members(start.state) or math.prod(start.shape),
            save,
        )
    run = _Run(problem, observations.n_cycles, chunk, start, cycles, record, progress, timed, simulated)
    with others_may_end(), host_errors():
        end, out, seconds = _execute(run, now)
        jax.block_until_ready(out["faults"])  # of programs that run on when they were called
    kept = out.pop("cycles", None)
    if isinstance(observations, Observations) and kept is None and not isinstance(out["faults"], Tracer):
        kept = given_arrays(observations, truth, len(out["faults"]))
    given = None if kept is None else Given(dynamics, measurement, **kept)
    result = Assimilation(**out, end=end, **seconds, given=given)
    if policy.action == "error" and not isinstance(result.faults, Tracer) and np.any(result.faults):
        raise FaultError(_first_fault(result), result)
    warn_of_faults(result.faults, result.diverged, result.skipped)
    return result


def for_reverse_mode(
    layout: MemberLayout, observations: Observations | Simulation, first: Array | int, cycles: int = 1
) -> MemberLayout:
    """The layout with the most steps of a forecast over so many cycles, where these are known.

    For runs that are being traced: another number is another program.
    """
    most = None if observations.interval is None else cycles * observations.interval
    steps = None if isinstance(observations, Simulation) else observations.steps
    if most is None and steps is not None and not isinstance(steps, Tracer):
        all_steps = np.append(0 if isinstance(first, Tracer) else int(first), np.asarray(steps))
        most = int((all_steps[cycles:] - all_steps[:-cycles]).max())
    return layout if most is None else dataclasses.replace(layout, most_steps=most)


def _state_shape(ensemble: Any, start: RunState | None) -> tuple[int, ...] | None:
    if start is not None:
        return start.shape
    return None if ensemble is None else np.shape(ensemble)[1:]


def _first_fault(result: Assimilation) -> str:
    faults, diverged, skipped = (np.asarray(a) for a in (result.faults, result.diverged, result.skipped))
    cycle = int((faults != 0).argmax())
    found = " and ".join(described(faults, diverged, skipped)) or "forecast members were not finite."
    return f'cycle {cycle} could not be used, and policy is FaultPolicy("error"): {found}'


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


Cycles = Callable[[int, int], dict[str, Any]]
"""By name, what the cycles of a call from one number to another are given: entries along axis 0."""


def _given(observations: Observations, truth: Array | None, start: RunState) -> Cycles:
    """Slices of arrays."""
    xs = cycle_arrays(observations, truth, start.dtype)
    xs["step"] = steps_from(start.step, observations)
    if not _is_zero(start.cycle):
        xs["cycle"] = xs["cycle"] + start.cycle
    n_cycles = observations.n_cycles
    # slices on the host: on a device each would be a program of its own
    return lambda i, j: xs if j - i == n_cycles else {name: np.asarray(x)[i:j] for name, x in xs.items()}


def _simulated(twin: Simulation, start: RunState, record: Record | None) -> Cycles:
    """Truth and observations made when they are asked for, one chunk after the other."""
    if not _is_zero(start.step):
        raise ValueError("a Simulation starts at step 0: it does not go on from a run (give observations).")
    last: tuple[int, Array] | None = None

    def cycles(i: int, j: int) -> dict[str, Array]:
        nonlocal last
        if last is None or last[0] != i:
            before = None if record is None or i == 0 else record.last("cycles/truth", "truth")
            last = (i, twin.start if before is None else jnp.asarray(before))
        made = twin.read(last[1], i, j - i)
        last = (j, made.truth[-1])
        xs = cycle_arrays(made.observations, made.truth.astype(start.dtype), start.dtype)
        return xs | {"cycle": xs["cycle"] + np.uint32(i), "step": xs["step"] + np.int32(i * twin.interval)}

    return cycles


def automatic_chunk(
    n_cycles: int,
    steps_per_cycle: int,
    state_shape: tuple[int, ...],
    measured_shape: tuple[int, ...],
    bytes_per_number: int,
    n_members: int,
    save: tuple[str, ...],
) -> int:
    """Cycles a chunk; a divisor of all where one is near, so that no chunk is padded."""
    values, measured = math.prod(state_shape), math.prod(measured_shape)
    kept = 2 * sum(n_members if name == "ensemble" else 1 for name in save) + 1
    size = (kept * values + measured) * bytes_per_number + measured
    work = values * n_members * steps_per_cycle
    most = max(1, min(-(-n_cycles // _CHUNKS), _CHUNK_BYTES // size, _CHUNK_WORK // work))
    return next((n for n in range(most, most // 2, -1) if n_cycles % n == 0), most)


class _Run(NamedTuple):
    """What `_execute` goes through."""

    problem: _Problem
    n_cycles: int
    chunk: int | None
    start: RunState
    cycles: Cycles
    record: Record | None
    progress: bool
    timed: bool
    simulated: bool


def _execute(run: _Run, now: RunState) -> tuple[RunState, dict, dict[str, Any]]:
    """Runs the scan whole or in chunks of equal size (one compilation either way), from `now` on."""
    scan, seconds, record, n_cycles = _scan, {}, run.record, run.n_cycles
    done = 0 if record is None else record.cycles
    left = n_cycles - done
    size = max(1, left if run.chunk is None else min(run.chunk, left))
    padded = left % size > 0

    def part(i: int) -> tuple[int, dict[str, Any]]:
        j = min(i + size, n_cycles)
        xs = run.cycles(i, j)
        if padded:
            pad = size - (j - i)
            xs = {name: np.asarray(x) for name, x in xs.items()} | {"valid": np.ones(j - i, bool)}
            xs = {name: np.concatenate([x, np.zeros((pad, *x.shape[1:]), x.dtype)]) for name, x in xs.items()}
        return j, xs if size == n_cycles else jax.device_put(xs)

    def after(carry: tuple[State, Array], j: int) -> RunState:
        return RunState(run.start.key, *carry, run.start.cycle + np.uint32(j))

    carry = run.problem.layout.settle((now.state, now.step), _n_members(now.state), "rest")
    out: dict[str, Any]
    chunks = range(done, n_cycles, size)
    begun = time.perf_counter()
    pieces: list[dict[str, Any]] = []
    with cycle_bar(run.progress, n_cycles) as advance:
        advance(done)
        for i in chunks:
            j, xs = part(i)
            if run.timed and not seconds:
                lowered = time.perf_counter()
                scan = _scan.lower(run.problem, carry, xs).compile()
                seconds["seconds_compile"] = time.perf_counter() - lowered
                begun += seconds["seconds_compile"]
            carry, piece = scan(run.problem, carry, xs)
            piece["steps"] = xs["step"]
            if len(chunks) > 1 or record is not None or run.progress:
                piece = jax.tree.map(lambda leaf, n=j - i: leaf[:n], on_host(piece))
            if record is None:
                made = {"cycles": _numbers_given(xs, j - i)} if run.simulated else {}
                pieces.append(piece | made)
            else:
                record.append(piece | {"cycles": _numbers_given(xs, j - i)}, after(carry, j))
            advance(j - i)
            if run.problem.policy.action == "error" and len(chunks) > 1 and np.any(piece["faults"]):
                break
        else:
            j = n_cycles
    if record is not None:
        empty: dict[str, Any] = {name: {} for name in _BY_NAME}  # a record has no place for these
        out = empty | record.results()
    else:
        out = pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *p: np.concatenate(p), *pieces)
    if run.timed:
        carry, out = jax.block_until_ready((carry, out))
        seconds["seconds_assimilate"] = time.perf_counter() - begun
    return after(carry, j), out, seconds


def _numbers_given(xs: dict[str, Array], n: int) -> dict[str, np.ndarray]:
    """What a record has of the input: observations (NaN where there is none) and the truth."""
    values, mask = (np.asarray(xs[name][:n]) for name in ("z", "mask"))
    found = {"observation": np.where(mask, values, np.nan).astype(values.dtype), "observation_mask": mask}
    return found | ({"truth": np.asarray(xs["truth"][:n])} if "truth" in xs else {})


def given_arrays(observations: Observations, truth: Array | None, n_cycles: int) -> dict[str, Any]:
    """The same of the first cycles of arrays, which are not copied."""
    found = {"observation": observations.values, "observation_mask": observations.mask, "truth": truth}
    if n_cycles < observations.n_cycles:
        found = {name: None if x is None else x[:n_cycles] for name, x in found.items()}
    return found


def steps_from(start: Int[Array, ""], observations: Observations) -> Int[Array, " K"]:
    """The step numbers of the cycles of a run that has done `start` steps.

    Raises:
        ValueError: one that is over.
    """
    if observations.interval is not None:
        return observations.steps if _is_zero(start) else observations.steps + start
    steps = observations.steps
    if not isinstance(steps, Tracer) and not isinstance(start, Tracer) and np.asarray(steps)[0] < int(start):
        raise ValueError(
            f"the run has done {int(start)} steps, and the first observation is of step {int(steps[0])}: "
            "step numbers are those of the whole run (or give the steps between observations as one number)."
        )
    return steps


def _is_zero(number: Array) -> bool:
    return not isinstance(number, Tracer) and int(number) == 0
