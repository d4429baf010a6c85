"""Periodic convolutions: blurs and spectral cut-offs, given by what they do to Fourier modes."""

from __future__ import annotations

import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from ..dynamics.layout import current
from .base import Operator, Structure

__all__ = ["Blur"]


class Blur(Operator):
    """z = F⁻¹(transfer · F x): a periodic convolution along the grid axes; z has the state's shape.

    The grid axes are the one of a state (n,) and the last two of (ny, nx) or (channels, ny, nx); all
    channels share the transfer function. F is `rfft` or `rfft2`, and HᵀH is diagonal in Fourier space,
    |transfer|². A real kernel has transfer(-k) = conj(transfer(k)); of what breaks that on the modes where
    the array could (wavenumber 0 and n/2 of the last axis), only the part of a real kernel counts.

    Args:
        transfer: real or complex, (n // 2 + 1,) or (ny, nx // 2 + 1): the kernel's `rfft` or `rfft2`.
    """

    structure: ClassVar[Structure] = "fourier"
    transfer: Inexact[Array, "*modes"]

    def __init__(self, transfer: ArrayLike):
        array = jnp.asarray(transfer)
        self.transfer = array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(float)
        if self.transfer.ndim not in (1, 2):
            raise ValueError(
                "transfer must have shape (n // 2 + 1,) or (ny, nx // 2 + 1), the modes of rfft or rfft2; "
                f"got {self.transfer.shape}."
            )
        if not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
            raise ValueError("transfer must be finite at every mode; it holds NaN or Inf.")

    @classmethod
    def gaussian(cls, shape: tuple[int, ...], width: int | float | Float[Array, ""]) -> Blur:
        """Gaussian blur that keeps the mean: transfer(k) = exp(-½ |k|² width²), k = 2π · waves / n.

        Args:
            shape: the state's.
            width: standard deviation of the kernel, in grid spacings; 0 leaves the state as it is.
        """
        if not isinstance(width, Tracer) and not (math.isfinite(width) and width >= 0):
            raise ValueError(f"width of the blur must be a number of grid spacings from 0 up; got {width}.")
        grid = np.reshape(_grid(shape), (-1,) + (1,) * len(_grid(shape)))
        k_squared = np.sum((2 * np.pi / grid * _waves(shape)) ** 2, axis=0)
        return cls(jnp.exp(-0.5 * jnp.asarray(k_squared, float) * jnp.asarray(width, float) ** 2))

    @classmethod
    def low_pass(cls, shape: tuple[int, ...], cutoff: int | float) -> Blur:
        """Spectral cut-off: 1 for modes with at most `cutoff` waves across the domain, 0 beyond.

        In two dimensions the waves along y and x count together, √(m_y² + m_x²).

        Args:
            shape: the state's.
            cutoff: largest wavenumber kept, in waves across the domain; 0 keeps the mean alone.
        """
        if not (math.isfinite(cutoff) and cutoff >= 0):
            raise ValueError(f"cutoff must be a number of waves from 0 up; got {cutoff}.")
        return cls((np.sum(_waves(shape) ** 2, axis=0) <= cutoff**2).astype(float))

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*state"]:
        grid = _grid(x.shape)
        modes = (*grid[:-1], grid[-1] // 2 + 1)
        if self.transfer.shape != modes:
            raise ValueError(
                f"a state of shape {x.shape} has modes {modes}, but transfer has shape "
                f"{self.transfer.shape}: build the operator for the shape of this state."
            )
        axes = tuple(range(-len(grid), 0))
        work = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)  # no transforms in half precision
        spectrum = jnp.fft.rfftn(current().whole(work), axes=axes)
        transfer = _of_real_kernel(self.transfer.astype(spectrum.dtype), grid[-1])
        factor = transfer.reshape((1,) * (x.ndim - len(grid)) + modes)
        return jnp.fft.irfftn(factor * spectrum, s=grid, axes=axes).astype(x.dtype)

    def coordinates(self, state: Coordinates) -> Coordinates:
        return state


def _grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The grid axes of a state's shape."""
    if not shape:
        raise ValueError("a state must have at least one axis to be convolved; got shape ().")
    return tuple(shape[-2:])


def _waves(shape: tuple[int, ...]) -> Float[np.ndarray, "axes *modes"]:
    """Signed number of waves across the domain along each grid axis, for each mode of the transform."""
    *full, last = _grid(shape)
    axes = [np.rint(np.fft.fftfreq(n, 1 / n)) for n in full] + [np.arange(last // 2 + 1.0)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _of_real_kernel(transfer: Inexact[Array, "*modes"], last: int) -> Inexact[Array, "*modes"]:
    """The average of transfer(k) and conj(transfer(-k)) where the array holds both."""
    own = np.unique([0, last // 2] if last % 2 == 0 else [0])
    columns = transfer[..., own]
    mirrored = columns.conj()
    if transfer.ndim == 2:
        mirrored = jnp.roll(mirrored[::-1], 1, axis=0)
    return transfer.at[..., own].set(0.5 * (columns + mirrored))
