"""Range and bearing of a tracked point."""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from .base import Operator

__all__ = ["RangeBearing"]


class RangeBearing(Operator):
    """Distance and direction of a moving point from fixed or moving sensors.

    With (x, y) the point's position and (a, b) a sensor's: range √((x-a)² + (y-b)²), bearing
    atan2(y - b, x - a) in radians in (-π, π], anticlockwise from the x axis. z is a vector: the ranges of all
    sensors, then the bearings. A bearing is known up to 2π: `Measurement` takes z - H(x) in (-π, π].
    On top of a sensor both derivatives are zero.

    Args:
        sensors: (s, 2) positions (a, b), in the units of the state's position.
        components: which two components of the raveled state are x and y of the point (a vortex, a target).
        quantity: "both", "range" alone, or "bearing" alone.
    """

    sensors: Float[Array, "s 2"]
    components: tuple[int, int] = eqx.field(static=True)
    quantity: Literal["both", "range", "bearing"] = eqx.field(static=True)

    def __init__(
        self,
        sensors: ArrayLike,
        components: tuple[int, int] = (0, 1),
        quantity: Literal["both", "range", "bearing"] = "both",
    ):
        self.sensors = jnp.asarray(sensors, dtype=float)
        if self.sensors.ndim != 2 or self.sensors.shape[1] != 2 or not self.sensors.shape[0]:
            raise ValueError(f"sensors must be an array (sensors, 2); got shape {self.sensors.shape}.")
        pair = tuple(int(i) for i in components)
        if len(pair) != 2 or pair[0] == pair[1] or min(pair) < 0:
            raise ValueError(
                f"components must be two different indices of the raveled state, from 0 up; got {components}."
            )
        if quantity not in ("both", "range", "bearing"):
            raise ValueError(f'quantity must be "both", "range" or "bearing"; got {quantity!r}.')
        self.components, self.quantity = (pair[0], pair[1]), quantity

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, " m"]:
        if max(self.components) >= x.size:
            raise ValueError(
                f"component {max(self.components)} is outside a state of {x.size} components "
                f"(shape {x.shape})."
            )
        point = x.reshape(-1)[np.asarray(self.components)]
        offset = point[None] - self.sensors.astype(x.dtype)
        squared = jnp.sum(offset**2, axis=1)
        away = squared > 0  # neither root nor arctangent has a derivative at 0: keep it finite (zero)
        safe = jnp.where(away[:, None], offset, 1.0)
        distance = jnp.where(away, jnp.sqrt(jnp.where(away, squared, 1.0)), 0.0)
        bearing = jnp.where(away, jnp.arctan2(safe[:, 1], safe[:, 0]), 0.0)
        parts = {"both": [distance, bearing], "range": [distance], "bearing": [bearing]}
        return jnp.concatenate(parts[self.quantity])

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        """2π of bearings, 0 of ranges."""
        if self.quantity == "range":
            return None
        count = self.sensors.shape[0]
        return np.repeat([0.0, 2 * math.pi] if self.quantity == "both" else [2 * math.pi], count)
