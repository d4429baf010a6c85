"""Resampling of weighted members."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

__all__ = ["systematic"]


def systematic(key: PRNGKeyArray, weights: Float[Array, " N"], count: int | None = None) -> Int[Array, " M"]:
    """Indices of M = `count` members from one uniform: u_i = (i + u)/M through the weights' inverse CDF.

    Member j appears ⌊M w_j⌋ or ⌈M w_j⌉ times; M is N if not given. Source: Kitagawa (1996).
    """
    n = weights.shape[0] if count is None else count
    cumulative = jnp.cumsum(weights)
    cumulative = cumulative / cumulative[-1]
    u = jax.random.uniform(key, (), weights.dtype)
    points = (jnp.arange(n, dtype=weights.dtype) + u) / n
    return jnp.clip(jnp.searchsorted(cumulative, points), 0, weights.shape[0] - 1)
