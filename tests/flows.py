"""A dataset as a flow's run leaves it, with fields known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

NY, NX, CYCLES = 16, 24, 4
LY, LX = 2 * np.pi, 3 * np.pi


@pytest.fixture
def flow():
    """Truth u = a cos y, v = 0 with a = 1, 2, …; the analysis mean is the truth plus v = a/4 sin(4x/3).

    Every fourth point of both components is measured, none of them in cycle 1.
    """
    import xarray as xr

    y, x = LY / NY * np.arange(NY), LX / NX * np.arange(NX)
    amplitude = np.arange(1.0, CYCLES + 1)[:, None, None]
    truth, error = np.zeros((2, CYCLES, 2, NY, NX), np.float32)
    truth[:, 0] = amplitude * np.cos(y)[:, None]
    error[:, 1] = amplitude / 4 * np.sin(4 * x / 3)
    space = ("cycle", "channel", "y", "x")
    rows, columns = (axis.ravel() for axis in np.meshgrid(y[::4], x[::4], indexing="ij"))
    mask = np.ones((CYCLES, 2 * rows.size), np.int8)
    mask[1] = 0
    return xr.Dataset(
        {
            "truth": (space, truth),
            "analysis_mean": (space, truth + error),
            "forecast_mean": (space, truth + 2 * error),
            "observation_mask": (("cycle", "measured"), mask),
        },
        {
            "cycle": np.arange(CYCLES),
            "time": ("cycle", 0.5 * np.arange(1, CYCLES + 1)),
            "channel": ["u", "v"],
            "y": y,
            "x": x,
            "observation_y": ("measured", np.tile(rows, 2)),
            "observation_x": ("measured", np.tile(columns, 2)),
        },
        {"title": "two modes; filter none", "burn_in": 1},
    )
