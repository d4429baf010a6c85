"""The forward process of ensemble score filters, and its reverse by Euler-Maruyama."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..denoisers.base import Denoiser
from ..loops import counted
from ..numbers import within

__all__ = ["LinearSchedule", "reverse_euler"]


class LinearSchedule(eqx.Module):
    """x_t = α_t x0 + β_t η with α_t = 1 - (1 - ε_α) t, β_t² = ε_β + (1 - ε_β) t and η ~ N(0, I), t ∈ [0, 1].

    It is the process dx = f x dt + g dw with f = α̇/α and g² = dβ²/dt - 2 f β².
    With ε_β > 0 even x_0 is noised; with ε_α > 0 something of x0 is left in x_1.

    Source: Bao, Zhang & Zhang (2024), doi 10.1016/j.cma.2024.117447, eq. 14 (ε = 0).

    Args:
        eps_alpha: ε_α in (0, 1]; eps_beta: ε_β in [0, 1).
    """

    eps_alpha: Float[Array, ""] = eqx.field(converter=within("eps_alpha", "(0, 1]"), default=0.5)
    eps_beta: Float[Array, ""] = eqx.field(converter=within("eps_beta", "[0, 1)"), default=0.025)

    def alpha(self, t: Scalar) -> Scalar:
        """α_t."""
        return 1 - (1 - self.eps_alpha.astype(t.dtype)) * t

    def variance(self, t: Scalar) -> Scalar:
        """β_t²."""
        eps = self.eps_beta.astype(t.dtype)
        return eps + (1 - eps) * t

    def rates(self, t: Scalar) -> tuple[Scalar, Scalar]:
        """f and g²."""
        f = -(1 - self.eps_alpha.astype(t.dtype)) / self.alpha(t)
        return f, 1 - self.eps_beta.astype(t.dtype) - 2 * f * self.variance(t)

    def noised(self, key: PRNGKeyArray, x0: Float[Array, "*x"], t: Scalar) -> Float[Array, "*x"]:
        """A draw of x_t given x0."""
        return self.alpha(t) * x0 + jnp.sqrt(self.variance(t)) * jax.random.normal(key, x0.shape, x0.dtype)

    def denoised(self, denoiser: Denoiser, x: Float[Array, "*x"], t: Scalar) -> Float[Array, "*x"]:
        """E[x0 | x_t = x], by the denoiser of x0's law."""
        alpha, beta = self.alpha(t), jnp.sqrt(self.variance(t))
        return denoiser(x / jnp.hypot(alpha, beta), jnp.full(x.shape, jnp.arctan2(beta, alpha)))

    def score(self, x: Float[Array, "*x"], mean: Float[Array, "*x"], t: Scalar) -> Float[Array, "*x"]:
        """∇log p_t(x) = -(x - α_t E[x0 | x])/β_t²; t > 0 where ε_β = 0."""
        return -(x - self.alpha(t) * mean) / self.variance(t)


def reverse_euler(
    key: PRNGKeyArray,
    schedule: LinearSchedule,
    start: Float[Array, "*x"],
    score: Callable[[Array, Scalar], Array],
    n_steps: int,
) -> Float[Array, "*x"]:
    """x_0 from x_1 = `start`: x ← x - (f x - g² score(x, t)) Δt + g √Δt ξ from t = 1 down in equal steps."""
    dt = jnp.asarray(1.0 / n_steps, start.dtype)

    def step(k: Array, x: Array) -> Array:
        t = 1 - k.astype(x.dtype) * dt
        f, g2 = schedule.rates(t)
        noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
        return x - dt * (f * x - g2 * score(x, t)) + jnp.sqrt(dt * g2) * noise

    return counted(n_steps, step, start)
