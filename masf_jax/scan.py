"""All cycles of a run as one `lax.scan`, whole or in parts."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, PRNGKeyArray

from .callables import unwrapped
from .cycles import Cycles, numbers_given
from .dynamics.base import Dynamics
from .dynamics.layout import MemberLayout
from .filters.base import EnsembleState, Filter, State
from .filters.faults import FaultPolicy
from .filters.likelihood import Likelihood
from .loops import ReverseMode
from .measurements.measurement import Measurement, Observations
from .metrics.cycle import cycle_scores
from .processes import on_host
from .progress import cycle_bar
from .quality_control import GrossErrorCheck
from .record import Record
from .run_state import RunState
from .twin import Simulation

__all__ = ["Problem", "Run", "automatic_chunk", "execute", "for_reverse_mode", "n_members_of", "saved"]

_BY_NAME = ("forecast", "analysis", "forecast_scores", "analysis_scores", "info")
_CHUNKS, _CHUNK_BYTES, _CHUNK_WORK = 50, 2**26, 5 * 10**9
"""Of a run in chunks: how many, but for at most so many bytes of results and values × model steps a chunk."""


class Problem(eqx.Module):
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


def _cycle(problem: Problem, carry: tuple[State, Array], xs: dict[str, Array]) -> tuple[Any, dict]:
    state, step = carry
    key_forecast, key_repair, key_analysis = jax.random.split(jax.random.fold_in(problem.key, xs["cycle"]), 3)
    n_steps = xs["step"] - step if problem.interval is None else problem.interval
    layout, policy, filter = problem.layout, problem.policy, problem.filter
    forecast = filter.forecast(key_forecast, state, problem.dynamics, step, n_steps, layout)
    n_members = n_members_of(forecast)
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


def n_members_of(state: State) -> int | None:
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
        if state.log_weights is not None:
            out["weights"] = jnp.exp(state.log_weights)
    return out


@eqx.filter_jit
def _scan(problem: Problem, carry: tuple[State, Array], xs: dict[str, Array]) -> tuple[Any, dict]:
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
    return (problem.layout.settle(state, n_members_of(state), "rest"), step), out


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


class Run(NamedTuple):
    """What `execute` goes through."""

    problem: Problem
    n_cycles: int
    chunk: int | None
    start: RunState
    cycles: Cycles
    record: Record | None
    progress: bool
    timed: bool
    simulated: bool


def execute(run: Run, now: RunState) -> tuple[RunState, dict, dict[str, Any]]:
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

    carry = run.problem.layout.settle((now.state, now.step), n_members_of(now.state), "rest")
    out: dict[str, Any]
    chunks = range(done, n_cycles, size)
    pieces: list[dict[str, Any]] = []
    with cycle_bar(run.progress, n_cycles) as advance:
        advance(done)
        for i in chunks:
            j, xs = part(i)
            if run.timed and not seconds:
                lowered = time.perf_counter()
                scan = _scan.lower(run.problem, carry, xs).compile()
                seconds = {"seconds_compile": time.perf_counter() - lowered, "seconds_assimilate": 0.0}
            begun = time.perf_counter()
            carry, piece = scan(run.problem, carry, xs)
            if run.timed:
                carry, piece = jax.block_until_ready((carry, piece))
                seconds["seconds_assimilate"] += time.perf_counter() - begun
            piece["steps"] = xs["step"]
            if len(chunks) > 1 or record is not None or run.progress:
                piece = jax.tree.map(lambda leaf, n=j - i: leaf[:n], on_host(piece))
            if record is None:
                made = {"cycles": numbers_given(xs, j - i)} if run.simulated else {}
                pieces.append(piece | made)
            else:
                record.append(piece | {"cycles": numbers_given(xs, j - i)}, after(carry, j))
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
    return after(carry, j), out, seconds


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
