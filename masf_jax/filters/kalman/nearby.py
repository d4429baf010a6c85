"""What grid points see of the whitened values: all by a dense taper, or neighbours by lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ...ensemble.localization import Localization

__all__ = ["Nearby"]


Normal: TypeAlias = Callable[[Int[Array, " batch"] | None], tuple[Array, Array]]


class Nearby(eqx.Module):
    """Anomalies s and innovation d of whitened values, and which of them each point uses, how much.

    Args:
        taper: weights of all values; else `lists`.
    """

    s: Float[Array, "N m"]
    d: Float[Array, " m"]
    taper: Float[Array, "points m"] | None
    lists: Localization | None

    @property
    def used(self) -> int:
        """Values of one point."""
        return len(self.d) if self.lists is None else self.lists.neighbours.shape[1]

    def of(self, point: Int[Array, ""]) -> tuple[Float[Array, "N k"], Float[Array, " k"], Float[Array, " k"]]:
        """s and d of one point, and the square roots of their weights."""
        if self.lists is None:
            assert self.taper is not None
            return self.s, self.d, jnp.sqrt(self.taper[point])
        near = self.lists.neighbours[point]
        return self.s[:, near], self.d[near], self.lists.sqrt_weights[point]

    def normal_matrices(self) -> Normal:
        """index (None: all points) -> S_i S_iᵀ (batch, N, N) and S_i d_i (batch, N)."""
        return self._by_neighbours(self.lists) if self.lists is not None else self._by_one_product()

    def _by_one_product(self) -> Normal:
        """One product with the taper."""
        assert self.taper is not None
        s, taper = self.s, self.taper.astype(self.s.dtype)
        n_members, m = s.shape
        with_d = jnp.concatenate([s, self.d[None]], axis=0)
        products = (s[:, None, :] * with_d[None, :, :]).reshape(-1, m)

        def normal(index: Int[Array, " batch"] | None) -> tuple[Array, Array]:
            weights = taper if index is None else taper[index]
            both = (weights @ products.T).reshape(-1, n_members, n_members + 1)
            return both[:, :, :-1], both[:, :, -1]

        return normal

    def _by_neighbours(self, lists: Localization) -> Normal:
        """Gathered neighbours."""
        neighbours, sqrt_weights = lists.neighbours, lists.sqrt_weights.astype(self.s.dtype)

        def normal(index: Int[Array, " batch"] | None) -> tuple[Array, Array]:
            near, weights = (
                (neighbours, sqrt_weights) if index is None else (neighbours[index], sqrt_weights[index])
            )
            local = self.s[:, near] * weights[None]
            return jnp.einsum("ibk,jbk->bij", local, local), jnp.einsum(
                "ibk,bk->bi", local, self.d[near] * weights
            )

        return normal
