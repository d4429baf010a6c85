"""Resampling of weighted members."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..derivatives import without_derivative

__all__ = ["PICKED", "systematic"]

PICKED = (
    "members that are picked at random have no derivative by what they are picked by: the result jumps where "
    "another one is picked. Take a filter that moves members (EnKF, ETKF, LETKF, MASF with its Gaussian "
    "prior), MASF(KernelPrior(), sampler=Bridge(n_steps=10, corrected=False)), or ParticleFilter, whose "
    "derivatives are those of expectations."
)


def systematic(key: PRNGKeyArray, weights: Float[Array, " N"], count: int | None = None) -> Int[Array, " M"]:
    """Indices of M = `count` members from one uniform: u_i = (i + u)/M through the weights' inverse CDF.

    Member j appears ⌊M w_j⌋ or ⌈M w_j⌉ times; M is N if not given. Source: Kitagawa (1996).

    Raises:
        NoDerivativeError: to differentiate by the weights.
    """
    weights = without_derivative(PICKED, weights)
    n = weights.shape[0] if count is None else count
    cumulative = jnp.cumsum(weights)
    cumulative = cumulative / cumulative[-1]
    u = jax.random.uniform(key, (), weights.dtype)
    points = (jnp.arange(n, dtype=weights.dtype) + u) / n
    return jnp.clip(jnp.searchsorted(cumulative, points), 0, weights.shape[0] - 1)
