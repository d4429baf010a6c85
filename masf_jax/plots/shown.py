"""The methods by which a result is a dataset, a file, a figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["Shown"]


class Shown:
    """`to_xarray`, `to_netcdf` and `plot` of what a run or a smoother leaves."""

    def to_xarray(self, **options: Any) -> xr.Dataset:
        """The result as a dataset with the names of the CF conventions (docs/results.md).

        Dimension `cycle`, with `time` (model time), `step`, and space from the model's `coordinates`; truth,
        observations and their mask, the states by stage (forecast, analysis, smoothed), scores, what was
        reported, and flags. Pieces of one run (`start=`) join: `xarray.concat([...], "cycle")`.

        Args:
            dates: (K,) dates of the cycles: `time` has these then, and `model_time` the model's.
            units: of the observations, and of the state where components are measured as they are.
            title: what the run is, for figures.
            burn_in: first cycles that averages leave out, for figures.

        Raises:
            ValueError: a result made inside jax.jit, vmap or grad, which does not know its model.
        """
        from ..results.datasets import dataset

        return dataset(self, **options)

    def to_netcdf(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Writes `to_xarray(**options)` as NetCDF 4, whole or not at all, and returns the path."""
        from ..results.datasets import to_netcdf

        return to_netcdf(self, path, **options)

    def plot(
        self,
        what: str = "error_spread",
        burn_in: int = 0,
        dates: Any = None,
        units: str | None = None,
        title: str | None = None,
        **options: Any,
    ) -> Figure:
        """A figure of `masf_jax.plots` by its name, of this result; options are the figure's own.

        Args:
            burn_in, dates, units, title: as of `to_xarray`.

        Raises:
            ValueError: no figure of this name, or (MissingError) the result lacks what it shows.
        """
        from .figures import FIGURES

        if what not in FIGURES:
            raise ValueError(f"there is no figure {what!r}; there are {', '.join(FIGURES)}.")
        about = {"burn_in": burn_in, "dates": dates, "units": units, "title": title}
        return FIGURES[what](self.to_xarray(**about), **options)
