"""Energy spectra of flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .flow import check_flow
from .flow_data import energy_spectra
from .style import COLORS, burn_in_of, heading, legend_below, new_figure, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["spectra"]

_ROUND_OFF = 1e-11
"""Energies below this fraction of the largest are not shown: float32 transforms do not resolve them."""
_STYLES = {
    "truth": {"color": "#b4b4b4", "lw": 3.5},
    "forecast mean": {"color": "#b4b4b4", "lw": 3.5},
    "analysis members": {"color": "#56B4E9", "lw": 1.6},
    "analysis mean": {"color": COLORS["analysis"], "lw": 1.2, "ls": "--"},
    "error of the analysis mean": {"color": COLORS["forecast"], "lw": 1.1},
    "increment": {"color": COLORS["forecast"], "lw": 1.1},
}


def spectra(data: xr.Dataset, burn_in: int | None = None) -> Figure:
    """Energy spectra averaged over the cycles after the burn-in; the members' too, where they were saved.

    Raises:
        MissingError: not of a flow, or the means were not saved.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    check_flow(data, "spectra")
    first = burn_in_of(data, burn_in)
    k, found = energy_spectra(data, first)
    last = data.sizes["cycle"] - 1
    figure, axes = new_figure(data.attrs.get("title"), height=2.2)
    axis = axes[0, 0]
    for name, style in _STYLES.items():
        if name in found:
            axis.loglog(k, np.where(found[name] > 0, found[name], np.nan), label=name, **style)
    velocity, length = (str(data[name].attrs.get("units", "1")) for name in ("analysis_mean", "x"))
    of_k = "1" if length == "1" else f"1/{length}"
    of_energy = "1" if "1" in (velocity, length) else f"({velocity})² {length}"
    axis.set_xlabel(with_units("wavenumber k", {"units": of_k}))
    axis.set_ylabel(with_units("energy spectrum E(k)", {"units": of_energy}))
    axis.set_xlim((k[0], k[-1]) if k.size else None)
    axis.set_ylim(_smallest(found), None)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    heading(axis, f"mean of cycles {first} … {last}")
    legend_below(figure, [axis])
    return figure


def _smallest(spectra: dict[str, np.ndarray]) -> float | None:
    """Where to end the axis: below everything that is not round-off."""
    values = np.concatenate([np.zeros(0), *spectra.values()])
    values = values[values > _ROUND_OFF * values.max()] if values.size else values
    return 0.5 * float(values.min()) if values.size else None
