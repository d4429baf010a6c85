"""Dense linear measurement operators."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from .base import Operator, Structure

__all__ = ["Linear"]


class Linear(Operator):
    """z = A ravel(x) + b.

    Args:
        matrix: A, (m, state size).
        offset: b, (m,), or None.
        positions: (m, d) or (m,) positions of the measured values, for localisation only.
    """

    structure: ClassVar[Structure] = "dense"
    matrix: Float[Array, "m n"]
    offset: Float[Array, " m"] | None
    positions: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)

    def __init__(
        self, matrix: ArrayLike, offset: ArrayLike | None = None, positions: ArrayLike | None = None
    ):
        self.matrix = jnp.asarray(matrix, dtype=float)
        if self.matrix.ndim != 2:
            raise ValueError(f"matrix must have two dimensions (m, n); got shape {self.matrix.shape}.")
        self.offset = None if offset is None else jnp.asarray(offset, dtype=float)
        if self.offset is not None and self.offset.shape != self.matrix.shape[:1]:
            raise ValueError(f"offset must have shape {self.matrix.shape[:1]}; got {self.offset.shape}.")
        self.positions = None
        if positions is not None:
            points = np.asarray(positions, dtype=np.float64)
            points = points[:, None] if points.ndim == 1 else points
            if points.ndim != 2 or len(points) != self.matrix.shape[0]:
                raise ValueError(
                    f"positions must be an array ({self.matrix.shape[0]}, dimensions); got shape "
                    f"{np.shape(positions)}."
                )
            self.positions = tuple(map(tuple, points.tolist()))

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, " m"]:
        if x.size != self.matrix.shape[1]:
            raise ValueError(
                f"the matrix {self.matrix.shape} needs a state of {self.matrix.shape[1]} components; "
                f"got shape {x.shape}."
            )
        z = self.matrix.astype(x.dtype) @ x.reshape(-1)
        return z if self.offset is None else z + self.offset.astype(x.dtype)

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        if self.positions is None:
            return None
        return Coordinates(np.asarray(self.positions), state.period)
