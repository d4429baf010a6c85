"""Estimation of noise levels by expectation-maximisation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..dynamics.model_error import ModelError
from ..filters.likelihood import Likelihood
from ..measurements.measurement import Observations
from ..measurements.noise import Gaussian
from .engine import Engine, Estimate
from .gradient import _SETTLED, _inverse_hessian, log_likelihood
from .unknown import Prior, Problem, Unknowns

__all__ = ["EM"]

_LEAST = 1e-3
"""The least factor on a variance in a step: the exact one is positive, round-off need not be."""


class EM(Engine):
    """Expectation-maximisation for standard deviations of Gaussian measurement noise and of model error.

    Maximum likelihood: of the prior, the median is what it starts from, and nothing else counts. With the
    Kalman filter of a linear-Gaussian problem this is exact EM (Shumway & Stoffer): no step lowers the
    likelihood, and what a step cannot change is a stationary point of it. The M-step of a variance q of c
    draws is q ← E[Σ ε² | z_1 … z_K] / c, where by Fisher's identity

        E[Σ ε² | z_1 … z_K] = c q + 2 q² ∂ log p(z_1 … z_K) / ∂q,

    so that the way back of the smoother, lag-one covariances and all, is the derivative of the filter's
    log-likelihood. Hence any gaps and steps between measurements; missing values are no draws. With another
    filter (extended Kalman, ensembles) q moves by the same formula with that filter's likelihood: still to
    its stationary points, but a step may lower it.

    The more of what is measured is noise, the slower: steps cost as much as those of `Gradient`, which needs
    fewer of them and takes any number, and MAP.

    Source: Shumway & Stoffer (1982), doi 10.1111/j.1467-9892.1982.tb00349.x; identity: Segal & Weinstein
    (1989), doi 10.1109/18.32149.

    Args:
        steps: all of one compiled program.
        likelihood: see `Likelihood`.
        laplace: whether to find the covariance, from the observed information (4 p gradients); else NaN.
    """

    steps: int = eqx.field(static=True, default=100)
    likelihood: Likelihood = eqx.field(default_factory=Likelihood)
    laplace: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}.")

    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        unknowns: Unknowns,
        observations: Observations,
        ensemble: Float[Array, "N *state"],
        **options: Any,
    ) -> Estimate:
        if options.get("quality_control") is not None:
            raise ValueError("EM counts the values that are used: give it no quality_control, or Gradient().")
        levels = [
            _level(name, put, prior, shape, problem, observations)
            for name, put, prior, shape in zip(
                unknowns.names, unknowns.puts, unknowns.priors, unknowns.shapes, strict=True
            )
        ]
        sizes = [math.prod(shape) for shape in unknowns.shapes]
        draws = jnp.concatenate([level.draws.reshape(-1) for level in levels])

        def values(w: Array) -> list[Array]:
            pieces = jnp.split(jnp.exp(w), np.cumsum(sizes)[:-1])
            return [piece.reshape(shape) for piece, shape in zip(pieces, unknowns.shapes, strict=True)]

        def put(w: Array) -> Problem:
            now = problem
            for level, value in zip(levels, values(w), strict=True):
                now = level.put(now, value)
            return now

        def likelihood(w: Array) -> Array:
            """log p(z | exp(w)), w the logarithms of the standard deviations."""
            now = put(w)
            parts = now.filter, now.dynamics, now.measurement
            return log_likelihood(key, *parts, observations, ensemble, self.likelihood, **options)

        def step(w: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            # ∂/∂w = 2 q ∂/∂q
            found, slope = jax.value_and_grad(likelihood)(w)
            factor = 1 + slope / jnp.where(draws > 0, draws, jnp.inf)
            following = w + 0.5 * jnp.log(jnp.maximum(factor, _LEAST))
            return following, (following, found)

        first = jnp.concatenate([jnp.log(level.start).reshape(-1) for level in levels])
        w, (course, found) = jax.jit(lambda w: jax.lax.scan(step, w, None, length=self.steps))(first)
        covariance = jnp.full((w.size, w.size), jnp.nan)
        if self.laplace:
            covariance = _laplace(likelihood, w, observations.n_cycles, self.steps)
        u, scale = _standard(unknowns, jnp.exp(w))
        return Estimate(
            mean=dict(zip(unknowns.names, values(w), strict=True)),
            std=dict(zip(unknowns.names, values(w + 0.5 * jnp.log(jnp.diagonal(covariance))), strict=True)),
            course_mean=dict(zip(unknowns.names, jax.vmap(values)(course), strict=True)),
            course_std=None,
            log_likelihood=found,
            problem=put(w),
            u=u,
            covariance=covariance * jnp.outer(scale, scale),
        )


class _Level(NamedTuple):
    """A standard deviation: what it starts from, how it gets into a problem, and of how many draws it is."""

    start: Array
    put: Callable[[Problem, Array], Problem]
    draws: Array


def _level(
    name: str,
    put: Callable[[Problem, Array], Problem],
    prior: Prior,
    shape: tuple[int, ...],
    problem: Problem,
    observations: Observations,
) -> _Level:
    """
    Raises:
        ValueError: an unknown that is no noise level with a closed M-step, or a prior that starts below 0.
    """
    probe = prior.value(jnp.full(shape, 0.5))
    changed = put(problem, probe)

    def is_leaf(where: Callable[[Any], Any]) -> bool:
        leaf = where(problem)
        same = leaf.shape == shape and eqx.tree_equal(
            changed, eqx.tree_at(where, problem, probe.astype(leaf.dtype))
        )
        return bool(same)

    model = problem.dynamics
    if isinstance(problem.measurement.noise, Gaussian) and is_leaf(lambda p: p.measurement.noise.std):
        draws = _per_number(observations.mask.sum(0), shape)
    elif (
        isinstance(model, ModelError)
        and model.dynamics.step_noise_variance is None
        and is_leaf(lambda p: p.dynamics.std)
    ):
        n_steps = jnp.full(model.state_shape, observations.steps[-1])
        draws = _per_number(n_steps, shape)
    else:
        raise ValueError(
            f"EM finds noise levels alone: measurement.noise.std of Gaussian noise, and dynamics.std of a "
            f"ModelError around a model without noise. Estimate {name} by Gradient()."
        )
    start = prior.value(jnp.zeros(shape))
    if not np.all(np.asarray(start) > 0):
        raise ValueError(f"EM starts from the prior's median, and that of {name} is not positive.")
    return _Level(start, put, draws)


def _per_number(count: Array, shape: tuple[int, ...]) -> Float[Array, "*std"]:
    """Of counts of all components, those that each number of this shape stands for."""
    back = jax.vjp(lambda x: jnp.broadcast_to(x, count.shape), jnp.ones(shape))[1]
    return back(count.astype(float))[0]


def _laplace(
    likelihood: Callable[[Array], Array], w: Float[Array, " p"], n_cycles: int, steps: int
) -> Float[Array, "p p"]:
    """The inverse of the observed information on w; warns where w is no maximum yet."""
    slope = jax.jit(lambda w: -jax.grad(likelihood)(w) / n_cycles)
    covariance = _inverse_hessian(slope, w, n_cycles)
    left = np.abs(covariance @ slope(w)) * n_cycles / np.sqrt(np.diagonal(covariance))
    if np.any(left > _SETTLED):
        warnings.warn(
            f"EM has not settled: after {steps} steps the maximum is about {left.max():.2g} standard "
            "deviations away. Take more steps, or Gradient().",
            stacklevel=4,
        )
    return covariance


def _standard(unknowns: Unknowns, flat: Float[Array, " p"]) -> tuple[Array, Array]:
    """u of values (NaN: none that the prior has), and the derivative of u by the logarithms of the values."""

    def halve(_: int | Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        below = unknowns._flat(middle) < flat
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    widest = jnp.full(flat.shape, 40.0)
    low, high = jax.lax.fori_loop(0, 60, halve, (-widest, widest))
    u = (low + high) / 2
    value, slope = jax.jvp(unknowns._flat, (u,), (jnp.ones_like(u),))
    has = jnp.abs(value - flat) < 1e-3 * flat
    return jnp.where(has, u, jnp.nan), flat / slope
