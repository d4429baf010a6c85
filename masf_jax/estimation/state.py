"""Estimation with the state: parameters are components that nothing measures and the model keeps."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..arrays import real_array
from ..driver import Assimilation, assimilate
from ..filters.base import EnsembleState, GaussianState, State
from ..filters.kalman.exact import KalmanFilter
from ..measurements.measurement import Observations
from ..metrics.cycle import DEFAULT_SCORES, SCORES, Score
from ..numbers import within
from .augmented import Layout, augmented
from .engine import Engine, Estimate
from .unknown import Problem, Unknowns

__all__ = ["AugmentedState"]


class AugmentedState(Engine):
    """Runs the filter on state and parameters together: one run, and the parameters' course with its spread.

    Parameters are in coordinates u whose prior is N(0, I), so constraints hold (`Prior`). Where the filter is
    localised they are analysed at each grid point and averaged. The filter's inflation acts on the state
    alone. A model that is right and keeps its parameters makes them ever surer; members whose parameters
    agree learn no more: hence `floor`, and for parameters that change `walk`.

    Sources: Anderson (2001), doi 10.1175/1520-0493(2001)129<2884:AEAKFF>2.0.CO;2; averaging: Bellsky et al.
    (2014), arXiv 1310.0749; floor: Aksoy et al. (2006), doi 10.1175/MWR3224.1.

    Args:
        walk: u moves by a random walk of this standard deviation per √(model time).
        relaxation: of the spread of u to that before the analysis, in [0, 1] (RTPS): few members find too
            much in chance correlations, and would soon be sure of what is wrong.
        floor: the members' standard deviation of u is kept at this share of the prior's, at least.
    """

    walk: Float[Array, ""] = eqx.field(converter=within("walk", "[0, inf)"), default=0.0)
    floor: Float[Array, ""] = eqx.field(converter=within("floor", "[0, 1]"), default=0.02)
    relaxation: Float[Array, ""] = eqx.field(converter=within("relaxation", "[0, 1]"), default=0.5)

    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        unknowns: Unknowns,
        observations: Observations,
        ensemble: Float[Array, "N *state"] | None,
        **options: Any,
    ) -> Estimate:
        both, layout = augmented(problem, unknowns, self.walk, self.floor, self.relaxation)
        key_first, key_run = jax.random.split(key)
        first = None
        if ensemble is None and not isinstance(problem.filter, KalmanFilter):
            raise ValueError(f"{type(problem.filter).__name__} needs members: give the first ensemble.")
        if ensemble is not None:
            members = real_array("ensemble", ensemble)
            first = jax.vmap(layout.joined)(
                members, _standard(key_first, len(members), unknowns.size, members.dtype)
            )
        scores, extra = options.pop("scores", DEFAULT_SCORES), options.pop("extra_scores", None) or {}
        chosen = {name: SCORES[name] for name in scores} | dict(extra)
        if (truth := options.pop("truth", None)) is not None:
            nothing = jnp.zeros(unknowns.size)
            truth = jax.vmap(lambda x: layout.joined(x, nothing))(
                real_array("truth", truth, cycles_first=True)
            )
        run = assimilate(
            key_run,
            both.filter,
            both.dynamics,
            both.measurement,
            observations,
            first,
            truth=truth,
            save=tuple(sorted({"mean", "spread", *options.pop("save", ())})),
            scores=(),
            extra_scores={name: _OfState(score, layout) for name, score in chosen.items()},
            **options,
        )
        mean, std = (run.analysis[name][:, layout.n :: layout.copies] for name in ("mean", "spread"))
        state = run.end.state
        if isinstance(state, EnsembleState):
            u = jax.vmap(layout.parameters)(state.ensemble)
            covariance = jnp.atleast_2d(jnp.cov(u.T, aweights=_weights(state)))
        else:
            covariance = state.covariance[layout.n :, layout.n :]
        last = jnp.asarray(mean[-1])
        course = jax.vmap(unknowns.values)(jnp.asarray(mean))
        spread = jax.vmap(unknowns.spread)(jnp.asarray(mean), jnp.asarray(std))
        return Estimate(
            mean=jax.tree.map(lambda x: x[-1], course),
            std=jax.tree.map(lambda x: x[-1], spread),
            course_mean=course,
            course_std=spread,
            log_likelihood=None if run.log_likelihood is None else jnp.asarray(run.log_likelihood),
            problem=unknowns.put(problem, last),
            u=last,
            covariance=covariance,
            run=_states_alone(run, layout, problem),
        )


def _weights(state: EnsembleState) -> Array | None:
    return None if state.log_weights is None else jnp.exp(state.log_weights)


def _states_alone(run: Assimilation, layout: Layout, problem: Problem) -> Assimilation:
    """The run of x: what was saved of it, in its shape, its last state, and what it was given."""

    def cut(x: Array) -> Array:
        return x[..., : layout.n].reshape(*x.shape[:-1], *layout.state_shape)

    def of_saved(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: x if name == "weights" else cut(x) for name, x in arrays.items()}

    def of_x(state: State) -> State:
        if isinstance(state, EnsembleState):
            return EnsembleState(cut(state.ensemble), state.log_weights, state.memory)
        own = slice(None, layout.n)
        return GaussianState(cut(state.mean), state.covariance[own, own])

    given = run.given
    if given is not None:
        truth = None if given.truth is None else cut(given.truth)
        given = dataclasses.replace(
            given, dynamics=problem.dynamics, measurement=problem.measurement, truth=truth
        )
    return dataclasses.replace(
        run,
        forecast=of_saved(run.forecast),
        analysis=of_saved(run.analysis),
        end=dataclasses.replace(run.end, state=of_x(run.end.state)),
        given=given,
    )


class _OfState(NamedTuple):
    """A score of x alone; two of one score are equal, so that programs are found again."""

    score: Score
    layout: Layout

    def __call__(self, state: State, truth: Array, where: Array | None) -> Array:
        layout, truth = self.layout, self.layout.state(truth)
        if isinstance(state, EnsembleState):
            members = jax.vmap(layout.state)(state.ensemble)
            return self.score(EnsembleState(members, state.log_weights), truth, where)
        own = state.covariance[: layout.n, : layout.n]
        return self.score(GaussianState(layout.state(state.mean), own), truth, where)


def _standard(key: PRNGKeyArray, n: int, p: int, dtype: jnp.dtype) -> Float[Array, "N p"]:
    """Draws of N(0, I), their mean 0 and their variances 1; uncorrelated where n > p."""
    u = jax.random.normal(key, (n, p), dtype)
    u = u - u.mean(0)[None]
    if n > p:
        u = jnp.linalg.qr(u)[0] * jnp.sqrt(jnp.asarray(n - 1, dtype))
    return u / jnp.sqrt((u**2).sum(0) / (n - 1))[None]
