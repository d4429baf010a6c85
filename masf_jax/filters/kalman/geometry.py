"""The geometry a localised filter needs from its model and network, with errors that say what lacks."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Array, Float

from ...coordinates import Coordinates
from ...dynamics.base import Dynamics
from ...measurements.base import places
from ...measurements.measurement import Measurement
from ...numbers import shown

__all__ = ["measured_coordinates"]


def measured_coordinates(
    name: str, radius: Float[Array, ""] | None, dynamics: Dynamics, measurement: Measurement
) -> tuple[Coordinates, Coordinates]:
    """Coordinates of grid points and of measured values; placeholders without a radius."""
    if radius is None:
        m = math.prod(measurement.output_shape(dynamics.state_shape))
        n = math.prod(dynamics.state_shape)
        return Coordinates(np.zeros((n, 1)), (0.0,)), Coordinates(np.zeros((m, 1)), (0.0,))
    if not measurement.noise.diagonal:
        raise ValueError(
            f"{name} with localisation radius {shown(radius)} needs uncorrelated measurement errors, but the "
            f"noise is {type(measurement.noise).__name__}: use Gaussian(std), or radius inf."
        )
    state = dynamics.coordinates
    if state is None:
        raise ValueError(
            f"{name} with localisation radius {shown(radius)} needs coordinates, and "
            f"{type(dynamics).__name__} has none: give the model coordinates, or use radius inf (no "
            "localisation)."
        )
    measured = places(measurement.operator, dynamics.state_shape, state)
    if measured is None:
        raise ValueError(
            f"{name} with localisation radius {shown(radius)} needs positions of the measured values, and "
            f"{type(measurement.operator).__name__} has none: give it positions, or use radius inf."
        )
    n_values = math.prod(measurement.output_shape(dynamics.state_shape))
    if n_values % measured.n_points:
        raise ValueError(f"{n_values} measured values do not fit {measured.n_points} positions.")
    if n_values != measured.n_points:  # several channels measured at each point
        positions = np.tile(measured.positions, (n_values // measured.n_points, 1))
        measured = Coordinates(positions, measured.period)
    return state, measured
