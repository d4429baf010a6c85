"""A taper between grid points and the components that are measured, and between those."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..coordinates import Coordinates
from ..dynamics.layout import MemberLayout
from .localization import Localization, localize
from .points import dense_weights, is_dense, shares

__all__ = ["LocalTaper", "local_taper"]


class LocalTaper(eqx.Module):
    """Gaspari-Cohn weights of the m measured components, numbered in order, as seen from each grid point.

    Of neighbour lists (`near`, and `own` of the measured components themselves), or `weights` of all.

    Args:
        measured: which components of the raveled state they are.
        shared, needed: filled in by `spread`: `near` by points on several devices (see `shares`), for what is
            made there of all members at once.
    """

    measured: Int[Array, " m"]
    near: Localization | None
    own: Localization | None
    weights: Float[Array, "points m"] | None
    shared: Localization | None = None
    needed: Int[Array, "devices q"] | None = None

    @property
    def used(self) -> int:
        """Measured components at one point."""
        return self.measured.size if self.near is None else self.near.neighbours.shape[1]

    @property
    def n_points(self) -> int:
        return len(self.near.neighbours if self.weights is None else self.weights)  # pyright: ignore[reportOptionalMemberAccess]

    def between(self, columns: Float[Array, "N m"]) -> Float[Array, "m k"]:
        """(D Dᵀ) ∘ C of the measured components: all of it, or of their neighbours."""
        if self.weights is not None:
            return (columns.T @ columns) * self.weights[self.measured % self.n_points].astype(columns.dtype)
        assert self.own is not None
        products = jnp.einsum("ni,nik->ik", columns, columns[:, self.own.neighbours])
        return products * self.own.sqrt_weights.astype(columns.dtype) ** 2

    def product(self, between: Float[Array, "m k"], u: Float[Array, " m"]) -> Float[Array, " m"]:
        """That matrix times u."""
        return between @ u if self.own is None else (between * u[self.own.neighbours]).sum(-1)

    def spread(self, layout: MemberLayout) -> LocalTaper:
        """Its points lying on the devices."""
        if layout.devices is None or self.near is None:
            return self
        shared, needed = shares(self.near, layout)
        return dataclasses.replace(self, shared=shared, needed=needed)


def local_taper(
    coordinates: Coordinates, measured: Int[np.ndarray, " m"], radius: float | Float[Array, ""]
) -> LocalTaper | None:
    """The taper of length `radius` around components `measured` (distinct, of the raveled state).

    None where its support is more than half a periodic domain: such a matrix may have negative eigenvalues.
    """
    largest = 4 * float(radius)
    if any(0 < length < largest for length in coordinates.period):
        return None
    near = localize(coordinates, coordinates.at(measured), radius)
    place = jnp.asarray(measured, jnp.int32)
    if is_dense(near, len(measured)):
        return LocalTaper(place, None, None, dense_weights(near, len(measured)))
    rows = np.asarray(measured) % coordinates.n_points
    own = Localization(near.neighbours[rows], near.sqrt_weights[rows])
    return LocalTaper(place, near, own, None)
