"""Fewer observations from dense ones: every k-th value, or means of blocks. Host-side NumPy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .base import Operator
from .coarsen import Coarsen
from .measurement import Observations
from .rows import ObservationsLike, as_observations
from .selection import Subset, grid_stride

__all__ = ["Superobs", "Thinned", "superob", "thin"]


class Thinned(NamedTuple):
    """Observations at the kept places, and what picks them: measure with `operator @ H` from now on."""

    observations: Observations
    operator: Subset


class Superobs(NamedTuple):
    """Block means, their error's standard deviation, and what takes them: measure with `operator @ H`."""

    observations: Observations
    std: Float[np.ndarray, "..."]
    operator: Operator


def thin(observations: ObservationsLike, every: int, start: int = 0) -> Thinned:
    """Every `every`-th value along each grid direction.

    The measurement has shape (m,), (ny, nx) or (channels, ny, nx). Where errors are correlated over short
    distances and filters take them for independent: thinned to more than that distance, they are. The values
    kept are a vector; so is what `operator @ H` gives. Noise with an std per value needs
    `std.ravel()[operator.indices]`.

    Args:
        every: 1 keeps all; with 2, a plane keeps a quarter.
        start: first value kept along each direction.

    Raises:
        ValueError: `every` < 1, or a `start` that leaves nothing.
    """
    observations = as_observations(observations)
    values = np.asarray(observations.values)
    shape = values.shape[1:]
    mask = grid_stride(shape, every, start)
    if not mask.any():
        raise ValueError(f"nothing is left: start {start} lies outside a measurement of shape {shape}.")
    operator = Subset.from_mask(mask)
    kept = operator.indices
    flat = values.reshape(len(values), -1)[:, kept]
    valid = np.asarray(observations.mask).reshape(len(values), -1)[:, kept]
    return Thinned(_with(observations, flat, valid), operator)


def superob(
    observations: ObservationsLike,
    std: ArrayLike,
    factor: int,
    *,
    least: float = 1.0,
    correlation: float = 0.0,
) -> Superobs:
    """Means over blocks of `factor` values (× `factor` on a plane) as single observations of smaller error.

    With b values in a block, c of them used and pairwise error correlation ρ, the error of the mean has

        std² = mean(σ²) · ((1 - ρ)/c + ρ),

    exact for equal σ, and for unequal ones with ρ = 0 and c = b. Filters keep one noise law for all cycles,
    so c is the fewest values a block is accepted with, ceil(least · b); blocks with fewer are missing. With
    `least` < 1 a mean over some values stands for that over all, right where the field is smooth in a block.

    Args:
        observations: of a measurement (m,), (ny, nx) or (channels, ny, nx), as `Coarsen` takes.
        std: σ of the single values; scalar or array of the measurement's shape.
        factor: values along a side of a block; must divide every grid side.
        least: fraction of a block's values that must be valid, in (0, 1].
        correlation: ρ of the errors of two values of one block, in [0, 1].

    Raises:
        ValueError: a factor that does not divide, or a number out of range.
    """
    observations = as_observations(observations)
    values, valid = np.asarray(observations.values), np.asarray(observations.mask)
    measured = values.shape[1:]
    if not 0 < least <= 1 or not 0 <= correlation <= 1:
        raise ValueError(
            f"least must lie in (0, 1] and correlation in [0, 1]; got {least} and {correlation}."
        )
    sigma = np.asarray(std, dtype=np.float64)
    if sigma.shape not in ((), measured) or not bool((sigma > 0).all()):
        raise ValueError(f"std must be positive, one number or of shape {measured}; got shape {sigma.shape}.")
    operator = Coarsen(factor, measured)
    size = factor ** min(len(measured), 2)
    fewest = math.ceil(least * size - 1e-9)
    count = _block_sums(valid.astype(np.float64), factor)
    total = _block_sums(np.where(valid, values.astype(np.float64), 0.0), factor)
    accepted = count >= fewest
    means = np.where(accepted, total / np.maximum(count, 1), 0.0)
    variance = sigma**2 if sigma.ndim == 0 else _block_sums(sigma[None] ** 2, factor)[0] / size
    reduced = np.sqrt(variance * ((1 - correlation) / fewest + correlation))
    return Superobs(_with(observations, means.astype(values.dtype), accepted), reduced, operator)


def _block_sums(values: np.ndarray, factor: int) -> np.ndarray:
    """Sums over blocks along the last one or two axes of (K, *z)."""
    n_axes = min(values.ndim - 1, 2)
    lead, grid = values.shape[:-n_axes], values.shape[-n_axes:]
    split = values.reshape(*lead, *(size for n in grid for size in (n // factor, factor)))
    return split.sum(axis=tuple(len(lead) + 2 * i + 1 for i in range(n_axes)))


def _with(observations: Observations, values: np.ndarray, mask: np.ndarray) -> Observations:
    """The same times with other values."""
    steps = observations.interval if observations.interval is not None else observations.steps
    return Observations(values, steps, mask)
