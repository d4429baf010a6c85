"""Estimation by the gradient of the likelihood through the filter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ..driver import assimilate, begin, for_reverse_mode
from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE
from ..filters.base import Filter
from ..filters.likelihood import Likelihood
from ..measurements.measurement import Measurement, Observations
from ..numbers import within
from ..run_state import RunState
from .estimate import Engine, Estimate
from .unknown import Problem, Unknowns

if TYPE_CHECKING:
    import optax

__all__ = ["Gradient", "log_likelihood"]


def log_likelihood(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    ensemble: Shaped[Array, "N *state"],
    likelihood: Likelihood | None = None,
    **options: Any,
) -> Float[Array, ""]:
    """Σ_k log p(z_k | z_1, …, z_{k-1}) by a filter's forecasts; differentiable where the filter is.

    Args:
        likelihood: see `Likelihood`.
        options: of `assimilate`, such as `checkpoint` and `truncate` for long runs (docs/gradients.md).
        Others: see `assimilate`.
    """
    return _run(
        Problem(dynamics, measurement, filter),
        observations,
        begin(key, filter, dynamics, measurement, ensemble),
        likelihood or Likelihood(),
        options,
    )[0]


def _run(
    problem: Problem,
    observations: Observations,
    start: RunState,
    likelihood: Likelihood,
    options: dict[str, Any],
) -> tuple[Float[Array, ""], RunState]:
    run = assimilate(
        None,
        problem.filter,
        problem.dynamics,
        problem.measurement,
        observations,
        start=start,
        scores=(),
        save=(),
        likelihood=likelihood,
        **options,
    )
    return jnp.asarray(run.log_likelihood).sum(), run.end


class Gradient(Engine):
    """Maximises log p(z_1, …, z_K | θ) + log p(θ) by steps along its gradient, with the filter's key fixed.

    Coordinates are those whose prior is N(0, I), so one step size suits all. The estimate's covariance is the
    inverse of the negative Hessian (Laplace), from differences of gradients.

    With `window` each step uses so many cycles, one window after the other, the filter's state going on from
    one to the next: the estimate improves while the filter runs, and gradients of chaotic models stay
    bounded. Then the whole is gone through as often as the steps need.

    Source: Chen, Sanz-Alonso & Willett (2022), arXiv 2107.07687 (the auto-differentiable EnKF).

    Args:
        steps: of the optimiser.
        optimizer: of Optax; None: Adam, its rate falling from `rate` to 0 by a cosine.
        rate: of that, in prior standard deviations.
        window: cycles a step; None: all.
        likelihood: see `Likelihood`.
        laplace: whether to find the covariance (4 p gradients); else it is NaN.
    """

    steps: int = eqx.field(static=True, default=100)
    rate: Float[Array, ""] = eqx.field(converter=within("rate", "(0, inf)"), default=0.1)
    window: int | None = eqx.field(static=True, default=None)
    optimizer: optax.GradientTransformation | None = eqx.field(static=True, default=None)
    likelihood: Likelihood = eqx.field(default_factory=Likelihood)
    laplace: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        for name, given in (("steps", self.steps), ("window", self.window)):
            if given is not None and given < 1:
                raise ValueError(f"{name} must be at least 1; got {given}.")

    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        unknowns: Unknowns,
        observations: Observations,
        ensemble: Float[Array, "N *state"],
        **options: Any,
    ) -> Estimate:
        import optax

        n_cycles = observations.n_cycles
        window = n_cycles if self.window is None else min(self.window, n_cycles)
        n_windows = n_cycles // window
        start = begin(key, problem.filter, problem.dynamics, problem.measurement, ensemble)
        layout = for_reverse_mode(options.get("layout", ALL_AT_ONCE), observations, 0)
        options = options | {"layout": layout}
        rate = optax.cosine_decay_schedule(float(self.rate), self.steps)
        optimizer = optax.adam(rate) if self.optimizer is None else self.optimizer

        def loss(
            u: Array, state: RunState, part: Observations, share: Array
        ) -> tuple[Array, tuple[Array, RunState]]:
            """-(log p(part | θ) + share · log p(θ)) a cycle."""
            found, end = _run(unknowns.put(problem, u), part, state, self.likelihood, options)
            return -(found + share * unknowns.log_prior(u)) / part.n_cycles, (found, end)

        whole = jax.value_and_grad(loss, has_aux=True)

        @eqx.filter_jit
        def step(u: Array, memory: Any, state: RunState, part: Observations, share: Array) -> Any:
            (_, (found, end)), slope = whole(u, state, part, share)
            change, memory = optimizer.update(slope, memory, u)
            return optax.apply_updates(u, change), memory, found, jax.lax.stop_gradient(end)

        u, state = jnp.zeros(unknowns.size), start
        memory, likelihoods, course = optimizer.init(u), [], []
        share = jnp.asarray(1.0 / n_windows)
        for i in range(self.steps):
            at = i % n_windows
            state = start if at == 0 else state
            part = observations if n_windows == 1 else _part(observations, at * window, window)
            u, memory, found, state = step(u, memory, state, part, share)
            likelihoods.append(found), course.append(u)
        covariance = jnp.full((u.size, u.size), jnp.nan)
        if self.laplace:
            slope = eqx.filter_jit(
                lambda u: jax.grad(loss, has_aux=True)(u, start, observations, jnp.ones(()))[0]
            )
            covariance = _inverse_hessian(slope, u, n_cycles)
        std = jnp.sqrt(jnp.diagonal(covariance))
        return Estimate(
            mean=unknowns.values(u),
            std=unknowns.spread(u, std),
            course_mean=jax.vmap(unknowns.values)(jnp.stack(course)),
            course_std=None,
            log_likelihood=jnp.stack(likelihoods),
            problem=unknowns.put(problem, u),
            u=u,
            covariance=covariance,
        )


def _part(observations: Observations, first: int, n: int) -> Observations:
    """n cycles from number `first` on, for a run that goes on."""
    cut = slice(first, first + n)
    steps = observations.steps[cut] if observations.interval is None else observations.interval
    return Observations(observations.values[cut], steps, observations.mask[cut])


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
    if not np.isfinite(found).all() or np.linalg.eigvalsh(found)[0] <= 0:
        warnings.warn(
            "the posterior is not concave at the estimate, so its covariance is not known (NaN): take more "
            "steps, or a smaller rate.",
            stacklevel=2,
        )
        return jnp.full_like(jnp.asarray(found, u.dtype), jnp.nan)
    return jnp.asarray(np.linalg.inv(found), u.dtype)
