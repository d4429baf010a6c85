"""Averages along lines and over areas of a periodic grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from ..numbers import positive
from .base import Operator, Structure

__all__ = ["AreaAverage", "LineAverage", "WeightedSums"]


class WeightedSums(Operator):
    """z_j = Σ_k weights_jk · ravel(x)[indices_jk], of states of one shape."""

    structure: ClassVar[Structure] = "dense"
    indices: Int[Array, "m k"]
    weights: Float[Array, "m k"]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, " m"]:
        if x.shape != self.shape:
            raise ValueError(
                f"this {type(self).__name__} was built for a state of shape {self.shape}; got {x.shape}."
            )
        return (self.weights.astype(x.dtype) * x.reshape(-1)[self.indices]).sum(-1)


class _Averages(WeightedSums):
    """Weights that sum to 1; rows shorter than the longest are padded with weight 0."""

    centres: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)
    """Where each average sits, in grid spacings from the first grid point."""

    def _fill(
        self,
        shape: tuple[int, ...],
        rows: Sequence[Float[np.ndarray, " cells"]],
        centres: Float[np.ndarray, "m d"] | None,
        channel: int,
    ) -> None:
        """Sets the fields from weights over all cells of the grid, one row a value."""
        used = [np.flatnonzero(row) for row in rows]
        longest = max(len(cells) for cells in used)
        indices, weights = np.zeros((len(rows), longest), np.int32), np.zeros((len(rows), longest))
        for j, (row, cells) in enumerate(zip(rows, used, strict=True)):
            indices[j, : len(cells)] = cells + channel * row.size
            weights[j, : len(cells)] = row[cells] / row.sum()
        self.indices, self.weights = jnp.asarray(indices), jnp.asarray(weights, dtype=float)
        self.shape = shape
        self.centres = None if centres is None else tuple(map(tuple, centres.tolist()))

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        """The centres, on a regular grid whose first point and spacings are those of `state`."""
        if self.centres is None:
            return None
        grid = self.shape[-2:]
        if math.prod(grid) != state.n_points:
            raise ValueError(
                f"the grid {grid} of this {type(self).__name__} has {math.prod(grid)} points, but there are "
                f"{state.n_points} positions."
            )
        first = state.positions[0]
        strides = [math.prod(grid[i + 1 :]) for i in range(len(grid))]
        spacings = [
            state.positions[stride] - first if n > 1 else np.zeros_like(first)
            for stride, n in zip(strides, grid, strict=True)
        ]
        return Coordinates(first + np.asarray(self.centres) @ np.stack(spacings), state.period)


def _grid_of(shape: tuple[int, ...], channel: int) -> tuple[int, ...]:
    """The grid axes of a state (n,), (ny, nx) or (channels, ny, nx)."""
    shape = tuple(int(n) for n in shape)
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ValueError(f"shape must be (n,), (ny, nx) or (channels, ny, nx); got {shape}.")
    channels = shape[0] if len(shape) == 3 else 1
    if not 0 <= channel < channels:
        raise ValueError(
            f"channel must lie in 0 … {channels - 1} for a state of shape {shape}; got {channel}."
        )
    return shape[-2:]


def _points(name: str, values: ArrayLike, n_axes: int) -> Float[np.ndarray, "m d"]:
    points = np.asarray(values, dtype=np.float64)
    points = points[:, None] if points.ndim == 1 and n_axes == 1 else points
    if points.ndim != 2 or points.shape[1] != n_axes or not len(points) or not np.isfinite(points).all():
        raise ValueError(
            f"{name} must be a finite array (values, {n_axes}) of grid positions; got shape {points.shape}."
        )
    return points


class LineAverage(_Averages):
    """z_j = mean of the state along the straight segment from start_j to end_j.

    The state between grid points is its (bi)linear interpolant on the periodic grid, and its mean along the
    segment is exact: between two crossings of grid lines it is a quadratic, which Simpson's rule integrates.
    A segment of length 0 is a point sensor between grid points. Linear, structure "dense": Kalman-type
    filters take it at any size, the bridges of MASF up to 4096 state components.

    Args:
        shape: the state's, (n,), (ny, nx) or (channels, ny, nx).
        starts, ends: (m, d) in grid spacings from the first grid point, one number per grid axis in the axes'
            order (y, x); (m,) for one axis. They may lie outside the grid: a segment runs on periodically.
        channel: which channel is averaged.
    """

    def __init__(self, shape: tuple[int, ...], starts: ArrayLike, ends: ArrayLike, channel: int = 0):
        grid = _grid_of(shape, channel)
        first, last = _points("starts", starts, len(grid)), _points("ends", ends, len(grid))
        if first.shape != last.shape:
            raise ValueError(f"starts and ends must pair up; got {len(first)} starts and {len(last)} ends.")
        rows = [_segment(grid, a, b) for a, b in zip(first, last, strict=True)]
        self._fill(tuple(shape), rows, (first + last) / 2, channel)


def _segment(
    grid: tuple[int, ...], start: Float[np.ndarray, " d"], end: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " cells"]:
    """Weights of all cells in the mean along one segment."""
    cuts = [np.asarray([0.0, 1.0])]
    for a, b in zip(start, end, strict=True):
        lines = np.arange(math.ceil(min(a, b)), math.floor(max(a, b)) + 1)
        cuts.append((lines - a) / (b - a) if a != b else np.empty(0))
    t = np.unique(np.clip(np.concatenate(cuts), 0.0, 1.0))
    nodes = np.stack([t[:-1], (t[:-1] + t[1:]) / 2, t[1:]], axis=1)
    simpson = np.diff(t)[:, None] * np.asarray([1.0, 4.0, 1.0]) / 6
    points = start + nodes.reshape(-1, 1) * (end - start)
    corner = np.floor(points)
    beyond = points - corner
    out = np.zeros(grid)
    for offset in itertools.product((0, 1), repeat=len(grid)):
        place = np.mod(corner.astype(int) + offset, grid)
        share = np.prod(np.where(np.asarray(offset) == 1, beyond, 1 - beyond), axis=1)
        np.add.at(out, tuple(place.T), simpson.ravel() * share)
    return out.ravel()


class AreaAverage(_Averages):
    """z_j = Σ_i f_ji x_i / Σ_i f_ji: the mean of the state weighted by the sensor's footprint f_j.

    Build it from footprints, or with `boxes` or `discs`. Linear, structure "dense": Kalman-type filters take
    it at any size, the bridges of MASF up to 4096 state components. For blocks that tile the grid: `Coarsen`.

    Args:
        shape: the state's, (n,), (ny, nx) or (channels, ny, nx).
        footprints: (m, n) or (m, ny, nx) weights from 0 up, not all zero.
        channel: which channel is averaged.
        centres: (m, d) where the averages sit, in grid spacings, for localisation only.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        footprints: ArrayLike,
        channel: int = 0,
        centres: ArrayLike | None = None,
    ):
        grid = _grid_of(shape, channel)
        weights = np.asarray(footprints, dtype=np.float64)
        if weights.shape[1:] != grid or not weights.shape[0]:
            raise ValueError(
                f"footprints must have shape (values, {', '.join(map(str, grid))}); got {weights.shape}."
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError("footprints must hold finite weights from 0 up.")
        empty = np.flatnonzero(weights.reshape(len(weights), -1).sum(1) == 0)
        if empty.size:
            raise ValueError(f"footprint {empty[0]} is zero everywhere: it averages nothing.")
        points = None if centres is None else _points("centres", centres, len(grid))
        if points is not None and len(points) != len(weights):
            raise ValueError(f"there are {len(weights)} footprints, but {len(points)} centres.")
        self._fill(tuple(shape), list(weights.reshape(len(weights), -1)), points, channel)

    @classmethod
    def boxes(
        cls, shape: tuple[int, ...], centres: ArrayLike, width: ArrayLike, channel: int = 0
    ) -> AreaAverage:
        """Means over boxes; a grid point stands for the cell around it, and counts by its overlap.

        Args:
            centres: (m, d) in grid spacings.
            width: sides of the box in grid spacings, one number or one per grid axis.
        """
        grid = _grid_of(shape, channel)
        points = _points("centres", centres, len(grid))
        sides = np.broadcast_to(np.asarray(width, dtype=np.float64), (len(grid),))
        if not all(0 < side <= n for side, n in zip(sides, grid, strict=True)):
            raise ValueError(f"width must lie above 0 and within the grid {grid}; got {width}.")
        out = np.ones((len(points), *(1 for _ in grid)))
        for axis, (n, side) in enumerate(zip(grid, sides, strict=True)):
            distance = np.abs(_periodic(points[:, axis], n))
            images = np.stack([distance, n - distance])  # a box may meet a cell from both sides
            overlap = np.clip((side + 1) / 2 - images, 0.0, min(side, 1.0)).sum(0)
            out = out * overlap.reshape(len(points), *(n if i == axis else 1 for i in range(len(grid))))
        return cls(shape, out, channel, points)

    @classmethod
    def discs(
        cls, shape: tuple[int, ...], centres: ArrayLike, radius: float, channel: int = 0
    ) -> AreaAverage:
        """Means over the grid points within `radius` grid spacings of each centre, with equal weights."""
        grid = _grid_of(shape, channel)
        positive("radius of the discs", radius)
        points = _points("centres", centres, len(grid))
        squared = np.zeros((len(points), *(1 for _ in grid)))
        for axis, n in enumerate(grid):
            distance = _periodic(points[:, axis], n)
            squared = (
                squared
                + distance.reshape(len(points), *(n if i == axis else 1 for i in range(len(grid)))) ** 2
            )
        inside = squared <= radius**2
        if not inside.reshape(len(points), -1).any(1).all():
            raise ValueError(f"a disc of radius {radius} holds no grid point: give a larger radius.")
        return cls(shape, inside.astype(float), channel, points)


def _periodic(centres: Float[np.ndarray, " m"], n: int) -> Float[np.ndarray, "m n"]:
    """Signed distance of each of n grid points from each centre, in [-n/2, n/2)."""
    return np.mod(np.arange(n)[None] - centres[:, None] + n / 2, n) - n / 2
