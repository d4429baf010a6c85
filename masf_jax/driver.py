"""`assimilate`: a filter on a model and its observations, and what a run leaves."""

from __future__ import annotations

import math
import os
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from .arrays import check_key, model_step, real_array
from .callables import kept as kept_function
from .checks import check_members, check_problem, fitting, refuse_on_host, traced
from .cycles import given_arrays, given_cycles, observed_components, simulated_cycles
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
from .metrics.cycle import DEFAULT_SCORES, Score
from .plots.shown import Shown
from .printed import assimilation_text
from .processes import others_may_end
from .quality_control import GrossErrorCheck
from .record import Record, Stored
from .results.given import Given
from .run_state import RunState, equal_members
from .scan import Problem, Run, automatic_chunk, execute, for_reverse_mode, n_members_of
from .training.trees import identity
from .twin import Simulation

__all__ = ["Assimilation", "FaultError", "FilterDivergedWarning", "assimilate", "begin"]

_FIRST = 0xFFFFFFFF
"""Folded into the key of a run for what a filter draws before the first cycle; cycles have 0, 1, …"""


class FaultError(RuntimeError):
    """A cycle could not be used, and the policy is "error"; `result` holds the cycles up to it."""

    def __init__(self, message: str, result: Assimilation):
        super().__init__(message)
        self.result = result


class Assimilation(eqx.Module, Shown):
    """What a run leaves: one entry per cycle along axis 0, forecast and analysis apart.

    Of a run with `save_to`, what has more than a number a cycle stays on disk: slices and `np.asarray`
    read it.

    forecast, analysis: saved arrays by name: mean, spread, ensemble, and of weighted members weights, (K, N).
    forecast_scores, analysis_scores: scores by name; empty without truth.
    info: what the filter reported; NaN in cycles without a measured value.
    repaired: members replaced because they were not finite, after forecast and analysis.
    diverged: fewer than two members could go on; so it stays.
    skipped: the analysis could not be used: the forecast stands in its place, and in all scores.
    faults: what was found, flags of `filters.faults.Fault` (see `FaultPolicy`); 0: nothing.
    steps: model step number of each cycle; end: what another call goes on from (`start=`).
    rejected: values that were there and did not pass quality control; None where there was none.
    log_likelihood: log p(z_k | z_1, …, z_{k-1}) of each cycle, where asked for (`likelihood=`).
    seconds_compile, seconds_assimilate: wall clock, where measured (`timed=True`); without what is written.
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


def begin(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    ensemble: Shaped[Array | np.ndarray, "N *state"] | None = None,
    *,
    step: int | Int[Array, ""] = 0,
) -> RunState:
    """A run before its first cycle: members, and what the filter remembers before it has seen any.

    Args:
        step: the members' model step: that of another filter's run, say, from whose members this one begins.

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
    return RunState(key, state, model_step(step), jax.device_put(np.zeros((), np.uint32)))


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
        save: what each cycle keeps of forecast and analysis: any of "mean", "spread", "ensemble" (with
            the members' weights, where they have some).
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
            unknown name in `save` or `scores`, members that the devices do not divide, a `start` of another
            filter, or what `filter.prepare` refuses.
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
    start = RunState(key, fitting(unspread, start.state), start.step, start.cycle)
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
    problem = Problem(
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
        cycles = simulated_cycles(observations, start, record)
    else:
        cycles = given_cycles(observations, truth, start)
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
            n_members_of(start.state) or math.prod(start.shape),
            save,
        )
    run = Run(problem, observations.n_cycles, chunk, start, cycles, record, progress, timed, simulated)
    with others_may_end(), host_errors():
        end, out, seconds = execute(run, now)
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


def _state_shape(ensemble: Any, start: RunState | None) -> tuple[int, ...] | None:
    if start is not None:
        return start.shape
    return None if ensemble is None else np.shape(ensemble)[1:]


def _first_fault(result: Assimilation) -> str:
    faults, diverged, skipped = (np.asarray(a) for a in (result.faults, result.diverged, result.skipped))
    cycle = int((faults != 0).argmax())
    found = " and ".join(described(faults, diverged, skipped)) or "forecast members were not finite."
    return f'cycle {cycle} could not be used, and policy is FaultPolicy("error"): {found}'
