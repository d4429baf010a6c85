"""A filter over several seeds in one compiled program; what the seeds decide is shared by all filters."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...driver import assimilate
from ...dynamics import Dynamics
from ...dynamics.rollout import climatological_states
from ...filters import EnsembleState, Filter
from ...filters.base import Info, State
from ...filters.faults import FaultPolicy
from ...filters.likelihood import Likelihood
from ...measurements import Measurement, Observations
from ...quality_control import GrossErrorCheck
from ..config.settings import Settings
from ..config.values import naming
from ..errors import InputError
from ..run.cost import Work
from ..run.metrics import averages
from ..run.problem import Case, build_case, build_models, member_layout
from .by_variable import averages_by_variable, scores_by_variable
from .entries import Entry

__all__ = ["SeedRuns", "SharedProblem", "prepared", "share", "work"]

_SCORES = ("rmse", "spread", "crps")
_FEWEST, _MOST, _VALUES = 8, 64, 2000
"""Climatological states drawn: as many as have about so many values together, within the bounds."""


@dataclasses.dataclass(frozen=True)
class SharedProblem:
    """What all filters meet alike: model, measurement, and for each seed the truth with all that hangs on it.

    cases: in host memory; a filter with fewer members gets the first ones.
    climatology: RMSE of the model's climatological mean, from a few independent draws; of a model that none
        can be drawn from, of the truths about their own mean; of a problem by likelihood, the log-score of a
        law that has each value's own mean and variance.
    options: what else `assimilate` takes: scores, layout, quality_control, policy, likelihood.
    """

    dynamics: Dynamics
    measurement: Measurement
    seeds: tuple[int, ...]
    cases: list[Case]
    burn_in: int
    climatology: float
    options: dict[str, Any]


def share(settings: Settings, seeds: tuple[int, ...], by_likelihood: bool = False) -> SharedProblem:
    """The problem at each seed; `settings.ensemble_size` members are drawn, `settings.filter` is not used.

    Args:
        by_likelihood: runs have a log-score, too, and need no truth.

    Raises:
        InputError: settings the library refuses, a truth that blows up, or settings without a truth.
    """
    if settings.observations.path is not None and not by_likelihood:
        raise InputError(
            "observations.path: real observations have no truth to compare filters by; compare them with "
            "masf-jax run -m, whose table has the innovations, and tune by objective=likelihood."
        )
    if settings.estimate:
        raise InputError(
            "estimate: filters are compared and tuned with known numbers; sweep masf-jax run -m."
        )
    if settings.smoother["name"] != "none":
        raise InputError(
            f"smoother={settings.smoother['name']}: filters are compared and tuned without smoothers; those "
            "are of masf-jax run (-m for several)."
        )
    if "rmse" not in settings.scores and not by_likelihood:
        raise InputError(f"scores must have rmse here; got {list(settings.scores)}.")
    dynamics, network = build_models(settings)
    each = (dataclasses.replace(settings, seed=seed) for seed in seeds)
    cases = [jax.tree.map(_to_host, build_case(one, dynamics, network)) for one in each]
    threshold = settings.quality_control.threshold
    if by_likelihood and threshold is not None:
        raise InputError(
            "quality_control.threshold: values that a filter leaves out would not count in its likelihood; "
            "tune by it without quality control."
        )
    scores = () if cases[0].truth is None else _SCORES
    options = {
        "scores": tuple(name for name in scores if name in settings.scores),
        "layout": member_layout(settings),
        "quality_control": None if threshold is None else GrossErrorCheck(threshold),
        "policy": FaultPolicy(settings.faults.action, settings.faults.innovation),
    }
    if by_likelihood:
        options["likelihood"] = Likelihood(radius=0.0)
    climatology = _log_score(cases, settings.burn_in) if by_likelihood else _climatology(dynamics, cases)
    return SharedProblem(dynamics, network.measurement, seeds, cases, settings.burn_in, climatology, options)


def _to_host(leaf: Any) -> Any:
    """Random keys stay where they are: NumPy has no such type."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key or not isinstance(leaf, jax.Array) else np.asarray(leaf)


def _climatology(dynamics: Dynamics, cases: list[Case]) -> float:
    """Of a model without a climatology to draw from: of the truths of all seeds about their mean."""
    size = math.prod(dynamics.state_shape)
    n = min(max(_VALUES // size, _FEWEST), _MOST)
    try:
        states, _ = eqx.filter_jit(climatological_states)(dynamics, jax.random.key(0), n)
    except NotImplementedError:
        states = jnp.concatenate([jnp.asarray(case.truth) for case in cases if case.truth is not None])
    rmse = float(jnp.sqrt(states.var(0, ddof=1).mean()))
    if not math.isfinite(rmse):
        raise InputError("the model's climatology is not finite: dynamics.dt may be too large for it.")
    return rmse


def _log_score(cases: list[Case], burn_in: int) -> float:
    """log N(z; mean, variance) of each value's own, per value; gaps and values that never change left out."""
    scores = []
    for observations in (case.observations for case in cases):
        assert isinstance(observations, Observations)
        z = np.asarray(observations.values, np.float64)[burn_in:]
        z = np.where(np.asarray(observations.mask)[burn_in:], z, math.nan).reshape(len(z), -1)
        z = z[:, np.isfinite(z).sum(0) > 1]
        variance, weight = np.nanvar(z, axis=0), np.isfinite(z).sum(0)
        weight = np.where(variance > 0, weight, 0)
        logs = -0.5 * np.log(2 * np.pi * np.e * np.where(variance > 0, variance, 1.0))
        scores.append((weight * logs).sum() / max(weight.sum(), 1))
    return float(np.mean(scores))


def prepared(entry: Entry, filter: Filter, problem: SharedProblem, at_once: int) -> SeedRuns:
    """The entry's runs: its filter prepared, and all its steps gone through without computing.

    Raises:
        InputError: a filter that does not suit the model or the measurement.
    """
    start = time.perf_counter()
    with naming(entry.label, (ValueError, NotImplementedError)):
        filter = filter.prepare(problem.dynamics, problem.measurement)
        runs = SeedRuns(problem, filter, entry.settings.ensemble_size, at_once)
        runs.trace()
    runs.seconds_prepare = time.perf_counter() - start
    return runs


def work(problem: SharedProblem, entry: Entry, filter: Filter, times: int = 1) -> Work:
    """What the entry's runs take, so many times, for `tell`."""
    observations, members = problem.cases[0].observations, entry.settings.ensemble_size
    cycles = observations.n_cycles * len(problem.seeds) * times
    steps = observations.interval or 1
    return Work(entry.label, filter, problem.dynamics, problem.measurement, members, steps, cycles)


class SeedRuns:
    """The runs of one filter, over all seeds of the problem.

    Filters that differ in numbers only share one compiled program (JAX keeps it by structure).

    Args:
        filter: prepared for the problem's model and measurement.
        n_members: of the shared first members, the first so many.
        at_once: seeds computed together (`vmap`): quicker for small problems, at so many times the memory.
    """

    def __init__(self, problem: SharedProblem, filter: Filter, n_members: int, at_once: int = 1):
        self.problem, self.filter, self.n_members = problem, _Prepared(filter), n_members
        self.at_once = min(at_once, len(problem.seeds))
        self.seconds_prepare = self.seconds_compile = math.nan
        self._lowered: Any = None
        members = problem.cases[0].ensemble[:n_members]
        members = jax.ShapeDtypeStruct(members.shape, members.dtype)
        state = eqx.filter_eval_shape(filter.init, problem.cases[0].key, members)
        self.has_members = isinstance(state, EnsembleState)

    def trace(self) -> None:
        """Goes through the filter's steps without computing: whatever it refuses is found here.

        Raises:
            ValueError: a filter that does not suit the model or the measurement.
        """
        self._lowered = _runs.lower(*self._arguments(0))

    def __call__(self, done: Callable[[int], None] = lambda n: None) -> list[dict[str, Any]]:
        """Averages of each seed's run, by name, after `trace`; `seconds_per_cycle` has no compilation.

        Args:
            done: called with the number of seeds done since the last call.
        """
        start = time.perf_counter()
        program = self._lowered.compile()
        self.seconds_compile = time.perf_counter() - start
        rows = []
        for first in range(0, len(self.problem.seeds), self.at_once):
            arguments, seeds = self._arguments(first), self.problem.seeds[first : first + self.at_once]
            start = time.perf_counter()
            out = jax.block_until_ready(program(*arguments))
            seconds = (time.perf_counter() - start) / self.at_once
            for i, seed in enumerate(seeds):
                each = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), out)
                case = self.problem.cases[first + i]
                rows.append({"seed": seed} | self._row(case, each, seconds))
            done(len(seeds))
        return rows

    def _arguments(self, first: int) -> tuple[Any, ...]:
        """Of `_runs`: `at_once` cases from this one on; beyond the last, that again."""
        problem, last = self.problem, len(self.problem.seeds) - 1
        cases = [problem.cases[min(first + i, last)] for i in range(self.at_once)]
        cases = [Case(c.key, c.observations, c.ensemble[: self.n_members], c.truth) for c in cases]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
        return self.filter, problem.dynamics, problem.measurement, stacked, problem.options

    def _row(self, case: Case, out: dict[str, Any], seconds: float) -> dict[str, Any]:
        members = self.n_members if self.has_members else None
        row: dict[str, Any] = dict(averages(out["scores"], self.problem.burn_in, members))
        if out["log_likelihood"].size:
            count = np.asarray(case.observations.mask)[self.problem.burn_in :].sum()
            terms = out["log_likelihood"][self.problem.burn_in :].astype(np.float64)
            row["log_score"] = float(terms.sum() / count) if count else math.nan
        row |= averages_by_variable(out["scores"]["analysis"], self.problem.dynamics, self.problem.burn_in)
        row["repaired_members"] = int(out["repaired"].sum())
        row["skipped_cycles"] = int(out["skipped"].sum())
        return row | {"seconds_per_cycle": seconds / out["repaired"].size}


class _Prepared(Filter):
    """A prepared filter, which `assimilate` inside a compiled program leaves as it is."""

    filter: Filter

    def init(self, key: Any, ensemble: Any) -> State:
        return self.filter.init(key, ensemble)

    def forecast(self, *arguments: Any, **named: Any) -> State:
        return self.filter.forecast(*arguments, **named)

    def take_memory(self, memory: Any, index: Any) -> Any:
        return self.filter.take_memory(memory, index)

    def update(self, *arguments: Any, **named: Any) -> tuple[State, Info]:
        return self.filter.update(*arguments, **named)

    def analysis(self, *arguments: Any, **named: Any) -> tuple[State, Info]:
        return self.filter.analysis(*arguments, **named)


@eqx.filter_jit
def _runs(
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    cases: Case,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Scores of each case, by stage and name, (cases, cycles); and of each cycle what could not be used."""

    def one(case: Case) -> dict[str, Any]:
        given = (dynamics, measurement, case.observations, case.ensemble)
        own = {} if case.truth is None else scores_by_variable(dynamics)
        result = assimilate(case.key, filter, *given, truth=case.truth, save=(), extra_scores=own, **options)
        stages = {"analysis": result.analysis_scores, "forecast": result.forecast_scores}
        log = result.log_likelihood
        likelihood = jnp.zeros(0) if log is None else jnp.asarray(log)
        found = {"scores": stages, "repaired": result.repaired, "skipped": result.skipped}
        return found | {"log_likelihood": likelihood}

    if cases.key.shape[0] > 1:
        return eqx.filter_vmap(one)(cases)
    first = one(jax.tree.map(lambda leaf: leaf[0], cases))
    return jax.tree.map(lambda leaf: leaf[None], first)
