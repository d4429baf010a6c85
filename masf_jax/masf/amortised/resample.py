"""Fields on finer or coarser periodic grids of the same domain."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...ensemble.normalization import Moments

__all__ = ["on_grid", "resampled"]


def resampled(climate: Moments, grid: tuple[int, ...]) -> Moments:
    """Moments of a field (…, *grid) on another grid of as many axes: by the Fourier modes both carry.

    The variance is kept within the bounds it had.
    """
    mean, variance = (on_grid(np.asarray(x, np.float64), grid) for x in climate)
    lowest, highest = float(jnp.min(climate.variance)), float(jnp.max(climate.variance))
    kind = climate.mean.dtype
    return Moments(jnp.asarray(mean, kind), jnp.asarray(np.clip(variance, lowest, highest), kind))


def on_grid(x: np.ndarray, grid: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Fields on another grid, by the Fourier modes both carry."""
    axes = tuple(range(-len(grid), 0))
    own = x.shape[-len(grid) :]
    waves = [
        np.arange(-((min(pair) - 1) // 2), (min(pair) - 1) // 2 + 1) for pair in zip(own, grid, strict=True)
    ]
    at = np.ix_(*waves)
    out = np.zeros((*x.shape[: -len(grid)], *grid), complex)
    out[..., *at] = np.fft.fftn(x, axes=axes)[..., *at] * math.prod(grid) / math.prod(own)
    return np.fft.ifftn(out, axes=axes).real
