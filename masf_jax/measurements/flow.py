"""Operators on the velocity of a two-dimensional flow."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..coordinates import Coordinates
from ..dynamics.spectral import SpectralGrid, vorticity
from .base import Operator, Structure

__all__ = ["Vorticity"]


class Vorticity(Operator):
    """Vorticity z = ∂v/∂x - ∂u/∂y of a velocity (2, ny, nx) on a periodic box, by spectral derivatives.

    z has shape (ny, nx), in units of velocity / length. Linear; HᵀH couples u and v, so the structure is
    "dense": Kalman-type filters take it at any size, the bridges of MASF up to 4096 state components.

    Args:
        length: (Ly, Lx), sides of the box in the order of the axes, or one number for a square.
    """

    structure: ClassVar[Structure] = "dense"
    length: tuple[float, float] = eqx.field(static=True)

    def __init__(self, length: float | tuple[float, float] = 2 * np.pi):
        self.length = SpectralGrid.of((4, 4), length).length

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "ny nx"]:
        if x.ndim != 3 or x.shape[0] != 2:
            raise ValueError(f"vorticity needs a velocity state (2, ny, nx); this state has shape {x.shape}.")
        return vorticity(x, self.length)

    def coordinates(self, state: Coordinates) -> Coordinates:
        return state
