"""Estimation of noise levels and of what is linear in a model by expectation-maximisation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..dynamics.model_error import ModelError
from ..filters.kalman.exact import KalmanFilter
from ..filters.likelihood import Likelihood
from ..measurements.measurement import Observations
from ..measurements.noise import Gaussian
from ..numbers import whole
from ..smoothers.rts import rts
from .engine import Engine, Estimate
from .fixed import Fixed, Given, parted
from .gradient import _SETTLED, _inverse_hessian, log_likelihood, not_finite
from .unknown import Normal, Prior, Problem, Unknowns

__all__ = ["EM"]

_BENT = 0.01
"""The share of its change in a step up to which a model counts as linear (what Runge-Kutta adds)."""
_LEAST = 1e-3
"""The least factor on a variance in a step: the exact one is positive, round-off need not be."""


class EM(Engine):
    """Expectation-maximisation for noise levels, and for coefficients that a model is linear in.

    Maximum likelihood: of the prior, the median is what it starts from, and nothing else counts. With the
    Kalman filter of a linear-Gaussian problem this is exact EM (Shumway & Stoffer): no step lowers the
    likelihood, and what a step cannot change is a stationary point of it. By Fisher's identity the way back
    of the smoother, lag-one covariances and all, is the derivative of the filter's log-likelihood; hence any
    gaps and steps between measurements. Missing values are no draws.

    * Standard deviations of Gaussian measurement noise, and of model error. The M-step of a variance q of c
      draws is q ← E[Σ ε² | z_1 … z_K] / c, with

        E[Σ ε² | z_1 … z_K] = c q + 2 q² ∂ log p(z_1 … z_K) / ∂q.

    * With a `KalmanFilter`, coefficients a of a model M(x; a) + ε, ε ~ N(0, Q), linear in a: entries of a
      matrix, a drift, factors of given terms. The M-step is weighted least squares, solved at once:

        a ← a + (Σ_j E[Φ_jᵀ Q^{-1} Φ_j | z_1 … z_K])^{-1} ∂ log p(z_1 … z_K) / ∂a,   Φ_j = ∂M(x_j; a)/∂a,

      over all steps j of the model, from means and covariances of `rts`. Exact where M is linear in x too.
      Components without model error may not hang on a. Of both kinds, coefficients go first, and the
      variances' expectations are found again with the new ones (Meng & Rubin's ECM).

    Where a model is nonlinear, and with other filters, the same formulas with that filter's likelihood: still
    to its stationary points, but a step may lower it.

    The more of what is measured is noise, the slower: steps cost as much as those of `Gradient` (with
    coefficients, two or three times as much), which needs fewer of them and takes any number, and MAP.

    Source: Shumway & Stoffer (1982), doi 10.1111/j.1467-9892.1982.tb00349.x; identity: Segal & Weinstein
    (1989), doi 10.1109/18.32149; Meng & Rubin (1993), doi 10.1093/biomet/80.2.267.

    Args:
        steps: all of one compiled program.
        likelihood: see `Likelihood`.
        laplace: whether to find the covariance, from the observed information (4 p gradients); else NaN.
    """

    steps: int = eqx.field(static=True, default=100)
    likelihood: Likelihood = eqx.field(default_factory=Likelihood)
    laplace: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        whole("steps", self.steps, 1)

    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        unknowns: Unknowns,
        observations: Observations,
        ensemble: Float[Array, "N *state"] | None,
        **options: Any,
    ) -> Estimate:
        if options.get("quality_control") is not None:
            raise ValueError("EM counts the values that are used: give it no quality_control, or Gradient().")
        given, times = parted(key, problem, observations, ensemble)
        of = zip(unknowns.names, unknowns.puts, unknowns.priors, unknowns.shapes, strict=True)
        parts = [_part(*each, problem, observations) for each in of]
        linear = tuple(part.draws is None for part in parts)
        maximum = _Maximum(problem, unknowns, times, self.likelihood, options, linear)
        fixed = Fixed(maximum)
        draws = [jnp.zeros_like(part.start) if part.draws is None else part.draws for part in parts]
        first = _raveled([part.start for part in parts])
        w, course, found = _steps(fixed, given, first, _raveled(draws), self.steps)
        if not np.isfinite(w).all():
            raise ValueError(_not_finite(maximum, course, found, first))
        covariance = jnp.full((w.size, w.size), jnp.nan)
        if self.laplace:
            covariance = _laplace(lambda w: _slope(fixed, given, w), w, observations.n_cycles, self.steps)
        values, of_w = jax.jvp(maximum.values, (w,), (jnp.ones_like(w),))
        std = maximum.unravel(_raveled(of_w) * jnp.sqrt(jnp.diagonal(covariance)))
        u, of_u = _standard(unknowns, values)
        scale = _raveled(of_w) / of_u
        named = unknowns.names
        return Estimate(
            mean=dict(zip(named, values, strict=True)),
            std=dict(zip(named, std, strict=True)),
            course_mean=dict(zip(named, jax.vmap(maximum.values)(course), strict=True)),
            course_std=None,
            log_likelihood=found,
            problem=maximum.put(w),
            u=u,
            covariance=covariance * jnp.outer(scale, scale),
        )


class _Maximum(eqx.Module):
    """Problem and unknowns by one vector w: logarithms of standard deviations, u of coefficients."""

    problem: Problem
    unknowns: Unknowns
    times: Observations
    likelihood: Likelihood
    options: dict[str, Any]
    linear: tuple[bool, ...] = eqx.field(static=True)

    @property
    def coefficients(self) -> np.ndarray:
        """Which of w are."""
        sizes = [math.prod(shape) for shape in self.unknowns.shapes]
        return np.repeat(np.asarray(self.linear), sizes)

    def unravel(self, flat: Array) -> list[Array]:
        sizes = [math.prod(shape) for shape in self.unknowns.shapes]
        pieces = jnp.split(flat, np.cumsum(sizes)[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.unknowns.shapes, strict=True)]

    def values(self, w: Float[Array, " p"]) -> list[Array]:
        of = zip(self.unknowns.priors, self.unravel(w), self.linear, strict=True)
        return [prior.value(x) if linear else jnp.exp(x) for prior, x, linear in of]

    def put(self, w: Float[Array, " p"]) -> Problem:
        now = self.problem
        for put, value in zip(self.unknowns.puts, self.values(w), strict=True):
            now = put(now, value)
        return now

    def log_likelihood(self, w: Float[Array, " p"], given: Given) -> Float[Array, ""]:
        now, observations = self.put(w), given.observations(self.times)
        parts = now.filter, now.dynamics, now.measurement
        return log_likelihood(
            given.key, *parts, observations, given.ensemble, self.likelihood, **self.options
        )

    def information(self, w: Float[Array, " p"], given: Given) -> Float[Array, "c c"]:
        """Σ_j E[Φ_jᵀ Q^{-1} Φ_j | z_1 … z_K] of the coefficients, of all steps j of the model."""
        now, seen, steps = self.put(w), given.observations(self.times), np.asarray(self.times.steps)
        last = int(steps[-1])
        values = jnp.zeros((last + 1, *seen.values.shape[1:]), seen.values.dtype).at[steps].set(seen.values)
        mask = jnp.zeros(values.shape, bool).at[steps].set(seen.mask)
        every = Observations(values, np.arange(last + 1), mask)
        assert isinstance(now.filter, KalmanFilter)
        saved = rts(
            now.filter,
            now.dynamics,
            now.measurement,
            every,
            given.ensemble,
            save=("mean", "covariance"),
            scores=(),
        ).smoothed
        variance = now.dynamics.step_noise_variance
        assert variance is not None
        precision = jnp.broadcast_to(variance, now.dynamics.state_shape).reshape(-1)
        precision = jnp.where(precision > 0, 1 / jnp.where(precision > 0, precision, 1.0), 0.0)

        def one(total: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
            j, mean, covariance = now
            phi, slope = _terms(lambda a, x: self._step(w, a, x, j), w[self.coefficients], mean.reshape(-1))
            return (
                total
                + jnp.einsum("i,ik,il->kl", precision, phi, phi)
                + jnp.einsum("i,ika,ab,ilb->kl", precision, slope, covariance, slope)
            ), None

        size = int(self.coefficients.sum())
        given_steps = jnp.arange(last), saved["mean"][:-1], saved["covariance"][:-1]
        return jax.lax.scan(one, jnp.zeros((size, size), values.dtype), given_steps)[0]

    def _step(self, w: Array, a: Array, x: Array, j: Array) -> Array:
        """The raveled model's mean step from x at step j, with coefficients a."""
        model = self.put(w.at[np.flatnonzero(self.coefficients)].set(a)).dynamics
        now = model.time_of(j).astype(x.dtype)
        return model.mean_step(x.reshape(model.state_shape), now).reshape(-1)


def _not_finite(maximum: _Maximum, course: Array, found: Array, first: Array) -> str:
    """Of steps that became NaN: which one, and at which values."""
    step = int(np.argmin(np.isfinite(course).all(1)))
    w = first if step == 0 else course[step - 1]
    values = dict(zip(maximum.unknowns.names, maximum.values(w), strict=True))
    return not_finite(step, found[step], values)


def _terms(step: Callable[[Array, Array], Array], a: Array, x: Array) -> tuple[Array, Array]:
    """Φ = ∂M/∂a (n, c) at x, and its derivative by x, (n, c, n)."""
    phi = jax.jacfwd(step)
    return phi(a, x), jax.jacfwd(phi, 1)(a, x)


@eqx.filter_jit
def _slope(fixed: Fixed[_Maximum], given: Given, w: Float[Array, " p"]) -> Float[Array, " p"]:
    """Of -log p(z | w) a cycle."""
    maximum = fixed.tree
    return -jax.grad(maximum.log_likelihood)(w, given) / maximum.times.steps.size


@eqx.filter_jit
def _steps(
    fixed: Fixed[_Maximum], given: Given, w: Float[Array, " p"], draws: Float[Array, " p"], n: int
) -> tuple[Array, Array, Array]:
    """w after n steps, after each one, and log p(z | w) before each one."""
    maximum = fixed.tree
    linear = np.flatnonzero(maximum.coefficients)

    def step(w: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        found, slope = jax.value_and_grad(maximum.log_likelihood)(w, given)
        if len(linear):
            inverse = jnp.linalg.pinv(maximum.information(w, given), hermitian=True)
            w = w.at[linear].add(inverse @ slope[linear])
            if len(linear) < w.size:
                slope = jax.grad(maximum.log_likelihood)(w, given)
        # ∂/∂w = 2 q ∂/∂q
        factor = 1 + slope / jnp.where(draws > 0, draws, jnp.inf)
        following = w + 0.5 * jnp.log(jnp.maximum(factor, _LEAST))
        return following, (following, found)

    w, (course, found) = jax.lax.scan(step, w, None, length=n)
    return w, course, found


class _Part(eqx.Module):
    """Where w of an unknown starts, and of how many draws it is the standard deviation; None: of none."""

    start: Array
    draws: Array | None


def _part(
    name: str,
    put: Callable[[Problem, Array], Problem],
    prior: Prior,
    shape: tuple[int, ...],
    problem: Problem,
    observations: Observations,
) -> _Part:
    """
    Raises:
        ValueError: an unknown whose M-step has no closed form, or a standard deviation that starts below 0.
    """
    probe = prior.value(jnp.full(shape, 0.5))
    changed = put(problem, probe)
    start = prior.value(jnp.zeros(shape))

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
    elif why := _not_linear(put, prior, shape, problem):
        raise ValueError(
            "EM finds noise levels (measurement.noise.std of Gaussian noise, dynamics.std of a ModelError "
            f"around a model without noise), and coefficients that a model is linear in. {name} is neither: "
            f"{why}. Estimate it by Gradient()."
        )
    else:
        return _Part(jnp.zeros(shape), None)
    if not np.all(np.asarray(start) > 0):
        raise ValueError(f"EM starts from the prior's median, and that of {name} is not positive.")
    return _Part(jnp.log(start), draws)


def _not_linear(
    put: Callable[[Problem, Array], Problem], prior: Prior, shape: tuple[int, ...], problem: Problem
) -> str:
    """Why an unknown is no coefficient with a closed M-step; "": it is one. Seen at random states."""
    model = problem.dynamics
    changed = put(problem, prior.value(jnp.full(shape, 0.5)))
    if not eqx.tree_equal(eqx.tree_at(lambda p: p.dynamics, changed, model), problem):
        return "it is not of the model alone"
    if not isinstance(prior, Normal):
        return "coefficients want a Normal prior, of which the mean is the start"
    if not isinstance(problem.filter, KalmanFilter):
        return "coefficients want a KalmanFilter, whose smoother knows their terms"
    if model.step_noise_variance is None:
        return "the model has no error (ModelError) that a wrong coefficient could be told from"
    draw, u = np.random.default_rng(0), np.random.default_rng(1).normal(size=(2, *shape))
    x = jnp.asarray(draw.normal(size=model.state_shape), float)
    at, along = prior.value(jnp.asarray(u[0], float)), jnp.asarray(u[1], float)

    def moved(t: float) -> np.ndarray:
        return np.asarray(put(problem, at + t * along).dynamics.mean_step(x, model.dt))

    first, second, third = moved(0.0), moved(1.0), moved(2.0)
    change = np.abs(second - first)
    if not np.abs(third - 2 * second + first).max() <= _BENT * change.max():
        return "the model is not linear in it"
    noisy = np.broadcast_to(np.asarray(model.step_noise_variance) > 0, model.state_shape)
    if change[~noisy].any():
        return "components without model error hang on it"
    return ""


def _raveled(values: list[Array]) -> Float[Array, " p"]:
    return jnp.concatenate([x.reshape(-1) for x in values])


def _per_number(count: Array, shape: tuple[int, ...]) -> Float[Array, "*std"]:
    """Of counts of all components, those that each number of this shape stands for."""
    back = jax.vjp(lambda x: jnp.broadcast_to(x, count.shape), jnp.ones(shape))[1]
    return back(count.astype(float))[0]


def _laplace(
    slope: Callable[[Array], Array], w: Float[Array, " p"], n_cycles: int, steps: int
) -> Float[Array, "p p"]:
    """The inverse of the observed information on w; warns where w is no maximum yet."""
    covariance = _inverse_hessian(slope, w, n_cycles)
    left = np.abs(covariance @ slope(w)) * n_cycles / np.sqrt(np.diagonal(covariance))
    if np.any(left > _SETTLED):
        warnings.warn(
            f"EM has not settled: after {steps} steps the maximum is about {left.max():.2g} standard "
            "deviations away. Take more steps, or Gradient().",
            stacklevel=4,
        )
    return covariance


def _standard(unknowns: Unknowns, values: list[Array]) -> tuple[Array, Array]:
    """u of values (NaN: none that the prior has), and the derivatives of the values by u."""
    of = [prior.standard(value) for prior, value in zip(unknowns.priors, values, strict=True)]
    slopes = [
        jax.jvp(prior.value, (u,), (jnp.ones_like(u),))[1]
        for prior, u in zip(unknowns.priors, of, strict=True)
    ]
    return _raveled(of), _raveled(slopes)
