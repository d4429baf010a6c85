"""Values that files have in place of missing ones."""

from __future__ import annotations

import numpy as np

__all__ = ["likely_fill"]

_FILLS = (-99.0, -999.0, -9999.0, -99999.0, -32768.0, 1e20, 9.969209968386869e36)
"""What files have in place of missing values (the last: NetCDF's own)."""


def likely_fill(values: np.ndarray) -> tuple[float, str] | None:
    """A usual fill value that lies far beyond all other values, and what is to be said of it; None: none.

    Args:
        values: those that count as measured, at least one.
    """
    for end in (values.min(), values.max()):
        fill = next((each for each in _FILLS if np.isclose(end, each, rtol=1e-6)), None)
        others = values[values != end]
        if fill is not None and np.abs(others).max(initial=1.0) < 0.5 * abs(fill):
            return fill, (
                f"{values.size - others.size} of {values.size} observed values are {fill:g}, far from all "
                "others, and are used as measured: where that stands for missing, "
            )
    return None
