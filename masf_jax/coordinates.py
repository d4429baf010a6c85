"""Where state components and measurements sit in space, for localisation."""

from __future__ import annotations

import dataclasses

import numpy as np

__all__ = ["Coordinates"]


@dataclasses.dataclass(frozen=True, eq=False)
class Coordinates:
    """Positions of the grid points of a state, and the period of each direction.

    A state of shape `(*channels, *grid)` has `p` grid points; its raveled components `c * p + i`
    (channel c) all sit at `positions[i]`.

    Args:
        positions: array (p, d), in any unit of length.
        period: length d; the domain's length in each direction, 0 where it is not periodic.
    """

    positions: np.ndarray
    period: tuple[float, ...]

    def __post_init__(self) -> None:
        positions = np.asarray(self.positions, dtype=np.float64)
        if positions.ndim == 1:
            positions = positions[:, None]
        if positions.ndim != 2 or not np.all(np.isfinite(positions)):
            raise ValueError(
                f"positions must be a finite array (points, dimensions); got shape {positions.shape}."
            )
        period = tuple(float(length) for length in self.period)
        if len(period) != positions.shape[1] or any(length < 0 for length in period):
            raise ValueError(
                f"period must hold one non-negative length per direction ({positions.shape[1]}), "
                f"0 for a direction that is not periodic; got {self.period}."
            )
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "period", period)

    @classmethod
    def grid(cls, shape: tuple[int, ...], length: tuple[float, ...], periodic: bool = True) -> Coordinates:
        """A regular grid of `shape` points over a box of side `length`, first index slowest.

        Spacing is length / shape; a periodic grid leaves out the repeated end point.
        """
        axes = [np.arange(n) * (side / n) for n, side in zip(shape, length, strict=True)]
        mesh = np.meshgrid(*axes, indexing="ij")
        positions = np.stack([axis.ravel() for axis in mesh], axis=-1)
        return cls(positions, tuple(length) if periodic else (0.0,) * len(shape))

    @property
    def n_points(self) -> int:
        return self.positions.shape[0]

    def at(self, indices: np.ndarray) -> Coordinates:
        """The positions of raveled state components `indices` (channels share their point)."""
        return Coordinates(self.positions[np.asarray(indices) % self.n_points], self.period)

    def wrapped(self) -> np.ndarray:
        """Positions with periodic directions brought into [0, period)."""
        period = np.asarray(self.period)
        safe = np.where(period > 0, period, 1.0)
        inside = np.mod(self.positions, safe)
        inside = np.where(inside >= safe, 0.0, inside)  # mod(-1e-17, L) rounds to L
        return np.where(period > 0, inside, self.positions)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Coordinates)
            and self.period == other.period
            and np.array_equal(self.positions, other.positions)
        )

    def __hash__(self) -> int:
        return hash((self.period, self.positions.shape, self.positions.tobytes()))
