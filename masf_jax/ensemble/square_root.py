"""The analysis of the symmetric ensemble square root, by one Gram matrix and one eigendecomposition."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..derivatives import differentiated_as, square_root_analysis

__all__ = ["symmetric_square_root"]


@differentiated_as(square_root_analysis)
def symmetric_square_root(
    s: Float[Array, "N m"], d: Float[Array, " m"], x: Float[Array, "N n"]
) -> tuple[Float[Array, " N"], Float[Array, "N n"]]:
    """A^{-1} S d and A^{-1/2} x, A = I + S Sᵀ, in the smaller of measurement and ensemble space.

    Both with the round-off of |S|² (`transforms.by_singular_values`: of |S|).
    Of fewer measured values than members with SᵀS = V Λ Vᵀ: A^{-1/2} = I - S V diag(1/(r(1 + r))) Vᵀ Sᵀ,
    r = √(1 + Λ): no N × N array.

    Source: Bishop, Etherton & Majumdar (2001); Hunt, Kostelich & Szunyogh (2007).
    """
    n_members, m = s.shape
    if m < n_members:
        values, vectors = jnp.linalg.eigh(s.T @ s)
        values = 1.0 + jnp.maximum(values, 0.0)
        root = jnp.sqrt(values)
        turned = s @ vectors
        shrunk = x - (turned / (root * (1.0 + root))[None]) @ (turned.T @ x)
        return s @ (vectors @ ((vectors.T @ d) / values)), shrunk
    values, vectors = jnp.linalg.eigh(jnp.eye(n_members, dtype=s.dtype) + s @ s.T)
    transform = (vectors / jnp.sqrt(values)[None]) @ vectors.T
    return vectors @ ((vectors.T @ (s @ d)) / values), transform @ x
