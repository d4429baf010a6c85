"""Points of a model that a localised filter never corrects, since no measurement is near enough."""

from __future__ import annotations

import numpy as np

from ...dynamics import Dynamics
from ...filters import Filter
from ...filters.kalman.geometry import measured_coordinates
from ...measurements import Measurement
from ...numbers import as_float
from ..errors import warn
from .cost import Work

__all__ = ["out_of_reach", "tell_out_of_reach"]

_SHARE = 0.1
"""Of the points, from which on it is said."""


def out_of_reach(filter: Filter, dynamics: Dynamics, measurement: Measurement) -> str | None:
    """A sentence where many points have no measurement within 2 · radius, the taper's support; else None.

    Raises:
        ValueError: no coordinates, which the filter's own preparation says too.
    """
    from scipy.spatial import KDTree

    radius = filter.localization_radius
    if radius is None or not np.isfinite(as_float(radius)):
        return None
    state, measured = measured_coordinates(type(filter).__name__, radius, dynamics, measurement)
    boxsize = [length if length > 0 else 0.0 for length in state.period]
    nearest, _ = KDTree(measured.wrapped(), boxsize=boxsize).query(state.wrapped())
    support = 2 * as_float(radius)
    share = float(np.mean(nearest >= support))
    if share <= _SHARE:
        return None
    return (
        f"radius {as_float(radius):.4g}: {share:.0%} of the model's points have no measurement within "
        f"{support:.4g}, where the taper ends (the nearest is up to {nearest.max():.3g} away), and keep the "
        "forecast. A wider filter.radius reaches them; it is in the unit of the model's coordinates."
    )


def tell_out_of_reach(works: list[Work]) -> None:
    """Says so of each filter on stderr."""
    for work in works:
        said = out_of_reach(work.filter, work.dynamics, work.measurement)
        if said is not None:
            warn(f"{work.label}: {said}")
