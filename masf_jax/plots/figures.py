"""The figures of a result by name, and which of them a dataset has the data for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .automatic import states
from .components import series
from .energy import spectra
from .flow import vorticity
from .leads import lead_times
from .probabilities import reliability
from .ranks import rank_histogram
from .rings import hovmoeller
from .scores import error_spread, innovations
from .skill import spread_skill
from .style import MissingError
from .unknowns import estimates

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "USUAL", "drawn"]

FIGURES: dict[str, Callable[..., Figure]] = {
    "error_spread": error_spread,
    "innovations": innovations,
    "states": states,
    "series": series,
    "hovmoeller": hovmoeller,
    "vorticity": vorticity,
    "spectra": spectra,
    "rank_histogram": rank_histogram,
    "spread_skill": spread_skill,
    "reliability": reliability,
    "estimates": estimates,
    "lead_times": lead_times,
}
USUAL = (
    "error_spread",
    "innovations",
    "states",
    "spectra",
    "rank_histogram",
    "spread_skill",
    "reliability",
    "estimates",
)
"""Those that are drawn of any result that has the data for them."""


def drawn(data: xr.Dataset, **options: dict[str, Any]) -> dict[str, Figure]:
    """The usual figures that the dataset has the data for, by name.

    Args:
        options: by the figure's name, its keyword arguments.
    """
    found = {}
    for name in USUAL:
        try:
            found[name] = FIGURES[name](data, **options.get(name, {}))
        except MissingError:
            continue
    return found
