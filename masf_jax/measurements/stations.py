"""Point sensors anywhere between the grid points of a model."""

from __future__ import annotations

import itertools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from .averages import WeightedSums

__all__ = ["Stations"]

_ROUNDING = 1e-6  # of the largest coordinate: axes that differ by less are one, as in a file of float32


class Stations(WeightedSums):
    """z_j = the state at position_j, linear along each axis between the grid points around it.

    Positions are in the units of the model's coordinates (km, degrees); so are those by which localised
    filters and observation files find the values. Axes may be unevenly spaced, run down, and be periodic.
    Linear, structure "dense": Kalman-type filters take it at any size, the bridges of MASF up to 4096 state
    components. In grid spacings: `LineAverage` with segments of length 0.

    Args:
        shape: the state's, (*channels, *grid) with as many grid axes as the coordinates have.
        positions: (m, d), a column an axis of the grid in the axes' order; (m,) for one axis.
        coordinates: the model's (`dynamics.coordinates`), of a grid with straight axes.
        channel: which one is measured, number in the raveled channel axes.

    Raises:
        ValueError: coordinates of no such grid, a channel that is not there, a station outside of the grid.
    """

    positions: tuple[tuple[float, ...], ...] = eqx.field(static=True)

    def __init__(
        self, shape: tuple[int, ...], positions: ArrayLike, coordinates: Coordinates, channel: int = 0
    ):
        shape, n_axes = tuple(shape), coordinates.positions.shape[1]
        grid = shape[len(shape) - n_axes :]
        if len(grid) != n_axes or math.prod(grid) != coordinates.n_points:
            raise ValueError(
                f"the coordinates have {coordinates.n_points} points in {n_axes} dimension(s), which is no "
                f"grid of a state of shape {shape}."
            )
        channels = math.prod(shape[: len(shape) - n_axes])
        if not 0 <= channel < channels:
            raise ValueError(
                f"channel must lie in 0 … {channels - 1} for a state of shape {shape}; got {channel}."
            )
        places = np.asarray(positions, dtype=np.float64)
        places = places[:, None] if places.ndim == 1 and n_axes == 1 else places
        if places.ndim != 2 or places.shape[1] != n_axes or not len(places) or not np.isfinite(places).all():
            raise ValueError(
                f"positions must be a finite array (stations, {n_axes}); got shape {places.shape}."
            )
        between = [
            _between(axis, places[:, number], coordinates.period[number], number)
            for number, axis in enumerate(_axes(coordinates, grid))
        ]
        indices, weights = [], []
        for corner in itertools.product((0, 1), repeat=n_axes):
            cells = [low if side == 0 else high for side, (low, high, _) in zip(corner, between, strict=True)]
            shares = [
                1 - part if side == 0 else part for side, (*_, part) in zip(corner, between, strict=True)
            ]
            indices.append(np.ravel_multi_index(cells, grid))
            weights.append(np.prod(shares, axis=0))
        first = channel * coordinates.n_points
        self.indices = jnp.asarray(np.stack(indices, 1) + first, jnp.int32)
        self.weights = jnp.asarray(np.stack(weights, 1), dtype=float)
        self.shape, self.positions = shape, tuple(map(tuple, places.tolist()))

    def coordinates(self, state: Coordinates) -> Coordinates:
        return Coordinates(np.asarray(self.positions), state.period)


def _axes(coordinates: Coordinates, grid: tuple[int, ...]) -> list[Float[np.ndarray, " n"]]:
    """The coordinate of each grid axis.

    Raises:
        ValueError: an axis is not straight, or neither rises nor falls.
    """
    points, axes = coordinates.positions.reshape(*grid, len(grid)), []
    for number, n in enumerate(grid):
        along = np.moveaxis(points[..., number], number, 0).reshape(n, -1)
        steps = np.diff(along[:, 0])
        bent = np.ptp(along, axis=1).max() > _ROUNDING * np.abs(along).max()
        if bent or not (np.all(steps > 0) or np.all(steps < 0)):
            raise ValueError(
                f"axis {number} of the grid is not straight, or does not run one way: its points have no "
                "coordinate of their own to interpolate between. Write the interpolation as a function: "
                "measurements.Function(h, positions=…, linear=True)."
            )
        axes.append(along[:, 0])
    return axes


def _between(
    axis: Float[np.ndarray, " n"], places: Float[np.ndarray, " m"], period: float, number: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The two grid points around each place, and how far it is from the first to the second, in [0, 1].

    Raises:
        ValueError: a place is outside of an axis that is not periodic.
    """
    order = np.argsort(axis)
    nodes = axis[order]
    if period > 0:
        places = nodes[0] + np.mod(places - nodes[0], period)
        nodes, order = np.append(nodes, nodes[0] + period), np.append(order, order[0])
    outside = np.flatnonzero((places < nodes[0]) | (places > nodes[-1]))
    if outside.size:
        j = int(outside[0])
        raise ValueError(
            f"station {j} is outside of the grid: {places[j]:g} on axis {number}, which reaches from "
            f"{nodes[0]:g} to {nodes[-1]:g}."
        )
    if len(nodes) == 1:
        return order[:1].repeat(len(places)), order[:1].repeat(len(places)), np.zeros(len(places))
    low = np.clip(np.searchsorted(nodes, places, side="right") - 1, 0, len(nodes) - 2)
    return order[low], order[low + 1], (places - nodes[low]) / (nodes[low + 1] - nodes[low])
