"""Resampling of weighted members."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

__all__ = ["systematic"]


def systematic(key: PRNGKeyArray, weights: Float[Array, " N"]) -> Int[Array, " N"]:
    """Indices of N members drawn with one uniform: u_i = (i + u)/N through the weights' inverse CDF.

    Member j appears ⌊N w_j⌋ or ⌈N w_j⌉ times. Source: Kitagawa (1996).
    """
    n = weights.shape[0]
    cumulative = jnp.cumsum(weights)
    cumulative = cumulative / cumulative[-1]
    u = jax.random.uniform(key, (), weights.dtype)
    points = (jnp.arange(n, dtype=weights.dtype) + u) / n
    return jnp.clip(jnp.searchsorted(cumulative, points), 0, n - 1)
