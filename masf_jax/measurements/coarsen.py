"""Block averages: a field on a coarser grid."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..coordinates import Coordinates
from .base import Operator, Structure

__all__ = ["Coarsen"]


class Coarsen(Operator):
    """z = averages over blocks of f cells of a state (n,), or f × f cells of (ny, nx) or (channels, ny, nx).

    z has shape (n/f,), (ny/f, nx/f) or (channels, ny/f, nx/f), and HHᵀ = I/f^d with d = 1 or 2.

    Args:
        factor: f, cells along a side of a block; must divide every grid axis.
        shape: the state's shape. Without it the operator applies to any, but in two dimensions has no
            `coordinates`, as positions alone do not say how the grid is laid out.
    """

    structure: ClassVar[Structure] = "block"
    factor: int = eqx.field(static=True)
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, factor: int, shape: tuple[int, ...] | None = None):
        if isinstance(factor, bool) or not isinstance(factor, int | np.integer) or factor < 1:
            raise ValueError(f"factor must be a whole number of cells from 1 up; got {factor}.")
        self.factor = int(factor)
        self.shape = None if shape is None else tuple(int(n) for n in shape)
        if self.shape is not None:
            self._blocks(self.shape)

    def _blocks(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Sizes of (blocks, cells of a block) along each grid axis, one after the other."""
        f, grid = self.factor, shape[-2:]
        if not grid or any(n % f for n in grid):
            raise ValueError(
                f"blocks of {f} cells do not fill the grid {grid} of a state of shape {shape}: "
                "take a factor that divides every side."
            )
        return tuple(size for n in grid for size in (n // f, f))

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*z"]:
        if self.shape is not None and x.shape != self.shape:
            raise ValueError(f"this Coarsen was built for a state of shape {self.shape}; got {x.shape}.")
        blocks = self._blocks(x.shape)
        split = x.reshape(*x.shape[:-2], *blocks)
        return split.mean(axis=tuple(range(1 - len(blocks), 0, 2)))

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        """Centres of the blocks, each the mean position of its cells."""
        n_points, n_directions = state.positions.shape
        if self.shape is None and n_directions > 1:
            return None
        blocks = self._blocks((n_points,) if self.shape is None else self.shape)
        if np.prod(blocks) != n_points:
            raise ValueError(
                f"the grid {self.shape} of this Coarsen has {np.prod(blocks)} cells, but there are "
                f"{n_points} positions."
            )
        centres = [
            _mean_position(positions.reshape(blocks), period)
            for positions, period in zip(state.positions.T, state.period, strict=True)
        ]
        return Coordinates(np.stack(centres, axis=-1), state.period)


def _mean_position(blocks: Float[np.ndarray, "..."], period: float) -> Float[np.ndarray, " centres"]:
    """Mean over every second axis; a block may straddle the end of a periodic direction."""
    within = tuple(range(1, blocks.ndim, 2))
    for axis in within:
        blocks = blocks if period == 0 else np.unwrap(blocks, axis=axis, period=period)
    return blocks.mean(axis=within).ravel()
