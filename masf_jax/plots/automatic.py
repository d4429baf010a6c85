"""The states of a run by whichever figure suits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .components import series
from .flow import vorticity
from .flow_data import is_flow
from .rings import hovmoeller
from .style import require, stage_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["states", "suited"]

_FEW = 4


def states(data: xr.Dataset, **options: Any) -> Figure:
    """`vorticity` of a flow, `series` of up to four components, else `hovmoeller`; options: of these.

    Raises:
        MissingError: the means were not saved.
    """
    return suited(data)(data, **options)


def suited(data: xr.Dataset) -> Callable[..., Figure]:
    """Which figure shows the states of this dataset.

    Raises:
        MissingError: the means were not saved.
    """
    stage = stage_of(data)
    require(data, "states", f"{stage}_mean")
    if is_flow(data):
        return vorticity
    return series if data[f"{stage}_mean"][0].size <= _FEW else hovmoeller
