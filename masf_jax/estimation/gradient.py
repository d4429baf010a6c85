"""Estimation by the gradient of the likelihood through the filter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ..driver import assimilate
from ..dynamics.base import Dynamics
from ..filters.base import Filter
from ..filters.likelihood import Likelihood
from ..measurements.measurement import Measurement, Observations
from ..measurements.rows import ObservationsLike
from ..numbers import whole, within
from .engine import Engine, Estimate
from .fixed import Fixed, Given, parted
from .unknown import Problem, Unknowns

__all__ = ["Gradient", "log_likelihood"]

_SETTLED = 0.5
"""Posterior standard deviations to the maximum, by Newton's step, up to which it counts as found."""


def log_likelihood(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike,
    ensemble: Shaped[Array, "N *state"] | None,
    likelihood: Likelihood | None = None,
    **options: Any,
) -> Float[Array, ""]:
    """Σ_k log p(z_k | z_1, …, z_{k-1}) by a filter's forecasts; differentiable where the filter is.

    Args:
        likelihood: see `Likelihood`.
        options: of `assimilate`, such as `checkpoint` and `truncate` for long runs (docs/gradients.md).
        Others: see `assimilate`.
    """
    run = assimilate(
        key,
        filter,
        dynamics,
        measurement,
        observations,
        ensemble,
        scores=(),
        save=(),
        likelihood=likelihood or Likelihood(),
        **options,
    )
    return jnp.asarray(run.log_likelihood).sum()


class Gradient(Engine):
    """Maximises log p(z_1, …, z_K | θ) + log p(θ) by steps along its gradient, with the filter's key fixed.

    Coordinates are those whose prior is N(0, I), so one step size suits all. The estimate's covariance is the
    inverse of the negative Hessian (Laplace), from differences of gradients.

    The gradient goes back through all cycles: `checkpoint=True` bounds its memory (docs/gradients.md). A
    filter that follows the truth forgets its past, so that gradients of long runs of chaotic models stay
    bounded; one that has lost it does not, and `truncate=k` helps, whose gradient is not quite that of the
    likelihood.

    Source: Chen, Sanz-Alonso & Willett (2022), arXiv 2107.07687 (the auto-differentiable EnKF).

    Args:
        steps: of the optimiser.
        rate: of Adam, in prior standard deviations; it falls to 0 by a cosine.
        optimizer: of Optax (a GradientTransformation), instead of that.
        likelihood: see `Likelihood`.
        laplace: whether to find the covariance (4 p gradients); else it is NaN.

    Raises:
        ValueError: a likelihood or gradient that is not finite, which no later step would mend.
    """

    steps: int = eqx.field(static=True, default=100)
    rate: Float[Array, ""] = eqx.field(converter=within("rate", "(0, inf)"), default=0.3)
    optimizer: Any = eqx.field(static=True, default=None)
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
        given, steps = parted(key, problem, observations, ensemble)
        fixed = Fixed((problem, unknowns, steps, self.likelihood, options))
        u = jnp.zeros(unknowns.size)
        memory, likelihoods, course = _optimizer(self).init(u), [], []
        for step in range(self.steps):
            found, slope = _slope(fixed, given, u)
            if not np.isfinite(slope).all():
                raise ValueError(not_finite(step, found, unknowns.values(u)))
            u, memory = _changed(self, slope, memory, u)
            likelihoods.append(found)
            course.append(u)
        covariance = jnp.full((u.size, u.size), jnp.nan)
        if self.laplace:
            covariance = _inverse_hessian(lambda u: _slope(fixed, given, u)[1], u, observations.n_cycles)
            newton = np.abs(covariance @ _slope(fixed, given, u)[1]) * observations.n_cycles
            left = newton / np.sqrt(np.diagonal(covariance))
            if np.any(left > _SETTLED):
                warnings.warn(
                    f"the optimiser has not settled: after {self.steps} steps the maximum is about "
                    f"{left.max():.2g} standard deviations away. Take more steps, or another rate.",
                    stacklevel=3,
                )
        return Estimate(
            mean=unknowns.values(u),
            std=unknowns.spread(u, jnp.sqrt(jnp.diagonal(covariance))),
            course_mean=jax.vmap(unknowns.values)(jnp.stack(course)),
            course_std=None,
            log_likelihood=jnp.stack(likelihoods),
            problem=unknowns.put(problem, u),
            u=u,
            covariance=covariance,
        )


@eqx.filter_jit
def _slope(fixed: Fixed[Any], given: Given, u: Float[Array, " p"]) -> tuple[Array, Array]:
    """log p(z | θ), and the gradient of -(log p(z | θ) + log p(θ)) a cycle."""
    problem, unknowns, steps, likelihood, options = fixed.tree
    observations = given.observations(steps)

    def loss(u: Array) -> tuple[Array, Array]:
        now = unknowns.put(problem, u)
        parts = now.filter, now.dynamics, now.measurement
        found = log_likelihood(given.key, *parts, observations, given.ensemble, likelihood, **options)
        return -(found + unknowns.log_prior(u)) / observations.n_cycles, found

    (_, found), slope = jax.value_and_grad(loss, has_aux=True)(u)
    return found, slope


def _optimizer(engine: Gradient) -> Any:
    import optax

    def rate(step: Any) -> Any:
        return engine.rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.asarray(step, float) / engine.steps))

    # a short memory: gradients far from the maximum are thousands of times those near it
    return optax.adam(rate, 0.8, 0.9) if engine.optimizer is None else engine.optimizer


@eqx.filter_jit
def _changed(engine: Gradient, slope: Array, memory: Any, u: Array) -> tuple[Array, Any]:
    with jax.numpy_dtype_promotion("standard"):  # Optax needs it, should the user be strict
        step, memory = _optimizer(engine).update(slope, memory, u)
        return u + step, memory


def not_finite(step: int, found: Array, values: dict[str, Array]) -> str:
    """What is said of a gradient that is NaN or infinite at some values of the unknowns."""
    at = ", ".join(f"{name} = {np.array2string(np.asarray(x), precision=4)}" for name, x in values.items())
    if not np.isfinite(found):
        return (
            f"the log-likelihood is {float(found):g} at step {step}, {at}: the filter has broken down there. "
            "Take a narrower prior, a smaller rate, or a filter that runs at the prior's median."
        )
    return (
        f"the gradient of the log-likelihood is not finite from step {step} on ({at}), though the "
        f"log-likelihood is ({float(found):.6g}). A function in the model or the sensor has no derivative at "
        "some state: √x, log(x), x**p or a norm at 0, or jnp.where(x > 0, jnp.sqrt(x), 0), whose unused "
        "branch counts too. Keep the argument away from 0: jnp.sqrt(jnp.maximum(x, 1e-6)), not "
        "jnp.sqrt(jnp.maximum(x, 0)) (docs/gradients.md)."
    )


def _inverse_hessian(
    slope: Callable[[Array], Array], u: Float[Array, " p"], n_cycles: int
) -> Float[Array, "p p"]:
    """Of a loss a cycle, whose gradient this is: by central differences, as wide as what they find."""

    def hessian(widths: np.ndarray) -> np.ndarray:
        rows = []
        for i, width in enumerate(widths):
            there, back = (np.asarray(slope(u.at[i].add(sign * width)), np.float64) for sign in (1, -1))
            rows.append((there - back) / (2 * width))
        found = n_cycles * np.stack(rows)
        return (found + found.T) / 2

    near = hessian(np.full(u.size, 0.1))
    found = hessian(np.clip(0.5 / np.sqrt(np.maximum(np.diagonal(near), 1.0)), 1e-3, 0.5))
    if not np.isfinite(found).all():
        warnings.warn(
            "the gradient is not finite near the estimate, so its covariance is not known (NaN): a function "
            "in the model or the sensor, or the filter, has no derivative there.",
            stacklevel=2,
        )
        return jnp.full_like(jnp.asarray(found, u.dtype), jnp.nan)
    if np.linalg.eigvalsh(found)[0] <= 0:
        warnings.warn(
            "the posterior is not concave at the estimate, so its covariance is not known (NaN): take more "
            "steps, or a smaller rate.",
            stacklevel=2,
        )
        return jnp.full_like(jnp.asarray(found, u.dtype), jnp.nan)
    return jnp.asarray(np.linalg.inv(found), u.dtype)
