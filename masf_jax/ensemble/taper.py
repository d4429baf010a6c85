"""Tapers as operators on fields: products with, and draws from, a Gaspari-Cohn correlation matrix."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ..coordinates import Coordinates
from ..dynamics.layout import current
from .localization import taper_matrix

__all__ = ["Taper", "taper"]

_DENSE_LIMIT = 4096


class Taper(eqx.Module):
    """A correlation matrix C over p grid points: dense with its root, or circulant with its spectrum.

    Exactly one of `root` (p, p; C = root rootᵀ) and `spectrum` (over the rfftn modes of `grid`) is given.
    """

    root: Float[Array, "p p"] | None
    spectrum: Float[Array, "..."] | None
    grid: tuple[int, ...] = eqx.field(static=True)

    @property
    def n_points(self) -> int:
        return math.prod(self.grid)

    def matrix(self) -> Float[Array, "p p"]:
        """C itself."""
        return self.apply(jnp.eye(self.n_points))

    def apply(self, x: Float[Array, "k p"]) -> Float[Array, "k p"]:
        """C x for each row of x."""
        if self.spectrum is None:
            return (x @ self._root(x.dtype)) @ self._root(x.dtype).T
        return self._filtered(x, self.spectrum.astype(x.dtype))

    def draw(self, key: PRNGKeyArray, count: int, dtype: jnp.dtype) -> Float[Array, "count p"]:
        """`count` draws of N(0, C)."""
        white = jax.random.normal(key, (count, self.n_points), dtype)
        if self.spectrum is None:
            return white @ self._root(dtype).T
        return self._filtered(white, jnp.sqrt(self.spectrum.astype(dtype)))

    def _root(self, dtype: jnp.dtype) -> Array:
        assert self.root is not None
        return self.root.astype(dtype)

    def _filtered(self, x: Array, response: Array) -> Array:
        axes = tuple(range(1, 1 + len(self.grid)))
        fields = x.reshape(x.shape[0], *self.grid)
        spectrum = jnp.fft.rfftn(current().whole(fields), axes=axes)
        spectrum = spectrum * response[None].astype(spectrum.dtype)
        return jnp.fft.irfftn(spectrum, s=self.grid, axes=axes).reshape(x.shape).astype(x.dtype)


def taper(
    coordinates: Coordinates,
    state_shape: tuple[int, ...],
    radius: float | Float[Array, ""],
    needed: bool = True,
) -> Taper | None:
    """The Gaspari-Cohn taper of length `radius` between the grid points of a state.

    On a regular periodic grid products are Fourier transforms; elsewhere the matrix is formed. Negative
    eigenvalues (a support of more than half the domain) are set to zero and the diagonal brought back to 1.

    Made by NumPy; of a traced radius (under `jit` or `vmap`) by the compiled program. A matrix's root may
    then be another one, so that draws have the same law but are others.

    Raises:
        ValueError: more than 4096 points without a regular periodic grid; None there if it is not `needed`.
    """
    p = coordinates.n_points
    grid = _regular_grid(coordinates, state_shape)
    xp = jnp if isinstance(radius, Tracer) else np
    if grid is not None:
        row = taper_matrix(coordinates.at(np.zeros(1, int)), coordinates, radius).reshape(grid)
        spectrum = xp.maximum(xp.fft.rfftn(row).real, 0.0)
        spectrum = spectrum / xp.fft.irfftn(spectrum, s=grid, axes=tuple(range(len(grid)))).ravel()[0]
        return Taper(None, jnp.asarray(spectrum, dtype=float), grid)
    if p > _DENSE_LIMIT and not needed:
        return None
    if p > _DENSE_LIMIT:
        raise ValueError(
            f"localisation radius {radius} over {p} points that are not a regular periodic grid needs a "
            f"{p} × {p} matrix (largest: {_DENSE_LIMIT}); use radius inf, or LETKF."
        )
    values, vectors = xp.linalg.eigh(taper_matrix(coordinates, coordinates, radius))
    root = vectors * xp.sqrt(xp.maximum(values, 0.0))[None, :]
    root = root / xp.sqrt((root**2).sum(1, keepdims=True))
    return Taper(jnp.asarray(root, dtype=float), None, (p,))


def _regular_grid(coordinates: Coordinates, state_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The grid's shape, if the points are a regular periodic grid over the last axes of the state."""
    period = coordinates.period
    grid = tuple(state_shape[-len(period) :])
    if math.prod(grid) != coordinates.n_points or min(period) <= 0:
        return None
    expected = Coordinates.grid(grid, period)
    close = np.allclose(expected.positions, coordinates.positions, rtol=0, atol=1e-9 * max(period))
    return grid if close else None
