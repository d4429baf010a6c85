"""The paper's sampler for nonlinear measurements: two heads, and a Gaussian guess at the endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from .conditional import LiftedProcess
from .samplers import paper_guidance_scale

__all__ = ["Heads", "guided_dual_head", "paper_nonlinear_score_scale"]

Heads: TypeAlias = Callable[[Array, Scalar], tuple[Array, Array]]
"""From X_t and t to m1 = E[v_0 | X_t] and m2 = E[w | X_t]."""


def paper_nonlinear_score_scale(t: Scalar) -> Scalar:
    """c_s = .95 + .55 t, the paper's factor on the prior score (nonlinear measurements)."""
    return 0.95 + 0.55 * t


def guided_dual_head(
    key: PRNGKeyArray,
    process: LiftedProcess,
    heads: Heads,
    times: Float[Array, " n_times"],
    v0: Float[Array, "*v"],
    score_scale: Callable[[Scalar], Scalar] = paper_nonlinear_score_scale,
    guidance_scale: Callable[[Scalar], Scalar] = paper_guidance_scale,
) -> Float[Array, "*v"]:
    """`guided` for a nonlinear H. With a = a_s, Σ_s = (1 - a_s²) r² and the heads at X_s = x:

        ∇log p_s(x) = -(x - a m1 - (1 - a) m2)/Σ_s,   p(z | x) ≈ N(z; x - a (m1 - m2), Σ_1 - Σ_s),

    the latter differentiated through the heads. A step from s to t < s moves x by the mean path,
    (a_t - a_s)(m1 - m2), where something is measured; elsewhere, where the process is linear, it is that of
    `guided`. For an identity or a mask, m1 = m2 where measured, and exact heads give `guided` itself; for
    other linear H the endpoint's law loses Cov[v_0 | x], and they do not.

    Like `guided` it counts the measurement twice, and needs many steps (the paper: 200). Source: arXiv
    2604.02889.

    Args:
        times: from below 1 (the paper: .992) down to about 0.
        v0: a forecast member, in the process's coordinates.
    """
    key_start, key_steps = jax.random.split(key)
    times = times.astype(v0.dtype)
    observed, r = process.observed, process.noise_std

    def log_likelihood(x: Array, s: Array) -> tuple[Array, tuple[Array, Array]]:
        m1, m2 = heads(x, s)
        a = process.signal(s)
        away = jnp.where(observed, process.measured - x + a * (m1 - m2), 0.0)
        return -0.5 * jnp.sum((away / (a * r)) ** 2), (m1, m2)

    def step(carry: tuple[Array, PRNGKeyArray], ends: Array) -> tuple[tuple[Array, PRNGKeyArray], None]:
        x, key = carry
        key, key_noise = jax.random.split(key)
        s, t = ends
        a, b = process.signal(s), process.signal(t)
        guidance, (m1, m2) = jax.grad(log_likelihood, has_aux=True)(x, s)
        prior = -(x - process.mean(m1, m2, s)) / process.std(s) ** 2
        score = score_scale(s) * prior + guidance_scale(s) * guidance
        factor = jnp.where(observed, 1.0, b / a)
        moved = factor * x + jnp.where(observed, (b - a) * (m1 - m2), 0.0)
        variance = process.std(t) ** 2 - factor**2 * process.std(s) ** 2
        noise = jax.random.normal(key_noise, x.shape, x.dtype)
        return (moved - variance * score + jnp.sqrt(jnp.abs(variance)) * noise, key), None

    start = process.noised(key_start, v0, process.lifted(v0), times[0])
    (x, _), _ = jax.lax.scan(step, (start, key_steps), jnp.stack([times[:-1], times[1:]], 1))
    return x
