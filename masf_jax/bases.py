"""Coordinates in which a linear measurement acts on every component by itself."""

from __future__ import annotations

import abc
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .dynamics.layout import current

__all__ = ["Basis", "BlockBasis", "CellBasis", "FourierBasis", "IdentityBasis", "MatrixBasis"]


class Basis(eqx.Module):
    """A linear change of coordinates v = V⁻¹ x of ONE state, and back; orthonormal but for `MatrixBasis`."""

    @abc.abstractmethod
    def to(self, x: Float[Array, "*x"]) -> Float[Array, "*v"]:
        """The coordinates of x."""

    @abc.abstractmethod
    def back(self, v: Float[Array, "*v"]) -> Float[Array, "*x"]:
        """The state with coordinates v."""


class IdentityBasis(Basis):
    """The state's own components."""

    def to(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return x

    def back(self, v: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return v


class FourierBasis(Basis):
    """Hartley coordinates over the last axes: v_k = n^{-1/2} Σ_j x_j [cos(2π jk/n) + sin(2π jk/n)].

    Real, orthonormal and its own inverse; a convolution's HᵀH is diagonal in it, with entries |ĥ_k|².

    Args:
        n_axes: how many last axes are transformed, 1 or 2.
    """

    n_axes: int = eqx.field(static=True)

    def to(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        axes = tuple(range(-self.n_axes, 0))
        spectrum = jnp.fft.fftn(current().whole(x), axes=axes)
        size = math.prod(x.shape[-self.n_axes :])
        return ((spectrum.real - spectrum.imag) / math.sqrt(size)).astype(x.dtype)

    def back(self, v: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return self.to(v)


class BlockBasis(Basis):
    """Within every block of `factor` (× `factor`) cells: the normalised mean, and deviations from it.

    The coordinates keep the state's shape; a block's mean, times the square root of its size, sits at the
    block's first cell.
    """

    factor: int = eqx.field(static=True)
    n_axes: int = eqx.field(static=True)

    def _transform(self, x: Array, matrix: np.ndarray) -> Array:
        f, d = self.factor, self.n_axes
        grid, lead = x.shape[-d:], x.shape[:-d]
        split = x.reshape(*lead, *(n for size in grid for n in (size // f, f)))
        # bring the cells of a block together, last: (..., blocks y, blocks x, cells)
        k = len(lead)
        order = (*range(k), *range(k, k + 2 * d, 2), *range(k + 1, k + 2 * d, 2))
        cells = split.transpose(order).reshape(*lead, *(size // f for size in grid), f**d)
        turned = cells @ jnp.asarray(matrix.T, x.dtype)
        turned = turned.reshape(*lead, *(size // f for size in grid), *(f,) * d)
        return turned.transpose(tuple(int(i) for i in np.argsort(order))).reshape(x.shape)

    def to(self, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return self._transform(x, _mean_first(self.factor**self.n_axes))

    def back(self, v: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return self._transform(v, _mean_first(self.factor**self.n_axes).T)


def _mean_first(size: int) -> np.ndarray:
    """An orthogonal matrix with first row 1/√size: the reflection that takes e_1 to it."""
    u = np.full(size, -1 / math.sqrt(size))
    u[0] += 1.0
    norm = u @ u
    return np.eye(size) if norm == 0 else np.eye(size) - 2 * np.outer(u, u) / norm


class CellBasis(Basis):
    """At every grid cell the reflection of its channels between the first one and a direction d.

    v = x - 2 u (u·x)/(u·u) with u = d/|d| ± e_1: orthogonal and its own inverse; the identity where d = 0.

    Args:
        direction: d, (C, *grid); any length.
    """

    direction: Float[Array, "C *grid"]

    def to(self, x: Float[Array, "C *grid"]) -> Float[Array, "C *grid"]:
        d = self.direction.astype(x.dtype)
        length = jnp.sqrt(jnp.sum(d**2, axis=0))
        known = length > 0
        d = jnp.where(known[None], d / jnp.where(known, length, 1.0)[None], 0.0)
        u = d.at[0].add(jnp.where(d[0] < 0, -1.0, 1.0).astype(x.dtype))  # the longer of the two
        shift = 2 * jnp.sum(u * x, axis=0) / jnp.sum(u**2, axis=0)
        return x - jnp.where(known, shift, 0.0)[None] * u

    def back(self, v: Float[Array, "C *grid"]) -> Float[Array, "C *grid"]:
        return self.to(v)


class MatrixBasis(Basis):
    """x = V v for an invertible matrix V over the raveled state; the coordinates are a vector.

    Args:
        matrix: V, (n, n).
        inverse: V⁻¹; None: V is orthogonal, its inverse is its transpose.
        shape: the state's shape.
    """

    matrix: Float[Array, "n n"]
    inverse: Float[Array, "n n"] | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def to(self, x: Float[Array, "*x"]) -> Float[Array, " n"]:
        inverse = self.matrix.T if self.inverse is None else self.inverse
        return inverse.astype(x.dtype) @ x.reshape(-1)

    def back(self, v: Float[Array, " n"]) -> Float[Array, "*x"]:
        return (self.matrix.astype(v.dtype) @ v).reshape(self.shape)
