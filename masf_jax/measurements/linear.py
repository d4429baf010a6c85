"""Dense linear measurement operators."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
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

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        """|A_kj| · period_j of a row with one circular value j; of several the smallest, which must divide
        the others.

        Raises:
            ValueError: it does not (inside `jit` a value then counts as a number).
        """
        if state is None:
            return None
        traced = any(isinstance(x, Tracer) for x in (state, self.matrix))
        xp: Any = jnp if traced else np
        turns = xp.abs(xp.asarray(self.matrix)) * xp.asarray(state)[None]
        smallest = xp.where(turns > 0, turns, np.inf).min(1)
        safe = xp.where(xp.isfinite(smallest), smallest, 1.0)
        ratio = turns / safe[:, None]
        divides = (xp.abs(ratio - xp.round(ratio)) < 1e-4 * xp.maximum(ratio, 1.0)).all(1)
        if not traced and not divides.all():
            raise ValueError(
                f"row {int(np.argmin(divides))} of the matrix adds circular values whose turns, "
                f"{', '.join(f'{x:g}' for x in turns[np.argmin(divides)] if x > 0)}, have no common measure: "
                "the sum is known up to nothing. Measure them one by one."
            )
        found = xp.where(xp.isfinite(smallest) & divides, safe, 0.0)
        return found if traced or found.any() else None

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        if self.positions is None:
            return None
        return Coordinates(np.asarray(self.positions), state.period)
