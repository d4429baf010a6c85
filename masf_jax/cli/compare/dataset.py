"""A comparison as a dataset, comparison.nc, and its figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import write_all

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from .comparison import Comparison

__all__ = ["comparison_dataset", "comparison_figure", "draw", "read_comparison"]

_NAME = "comparison.nc"


def comparison_dataset(comparison: Comparison) -> xr.Dataset:
    """The numbers of all runs along filter and seed, with what the comparison was."""
    from ...results.averages import of_numbers
    from ...results.places import state_units
    from ..run.metrics import versions
    from .comparison import notes

    results, problem, settings = comparison.results, comparison.problem, comparison.settings
    rows = {each.entry.label: [_without_seed(run) for run in each.runs] for each in results}
    data = of_numbers(rows, problem.seeds, state_units(problem.dynamics))
    said = {}
    for result, row in zip(results, comparison.summaries, strict=True):
        if result.failure is not None:
            said[row["filter"]] = "failed"
        elif row["diverged"]:
            said[row["filter"]] = f"{row['diverged']} of {row['runs']} diverged"
        elif result.remark is not None:
            said[row["filter"]] = "network is zero"
    data.attrs = {
        "title": settings.experiment.description or settings.called,
        "problem": settings.problem,
        "references": settings.experiment.reference or "",
        "command": comparison.command,
        "climatology": problem.climatology,
        "n_cycles": settings.n_cycles or 0,
        "burn_in": problem.burn_in,
        "notes": json.dumps(notes(comparison)),
        "said_of": json.dumps(said),
        "versions": json.dumps(versions()),
    }
    return data


def _without_seed(run: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key != "seed"}


def read_comparison(folder: Path) -> xr.Dataset:
    """What `masf-jax compare` wrote.

    Raises:
        InputError: it is damaged.
    """
    import xarray as xr

    path = folder / _NAME
    try:
        with xr.open_dataset(path, engine="h5netcdf") as data:
            found = data.load()
        if "rmse_analysis" not in found or not isinstance(json.loads(found.attrs["said_of"]), dict):
            raise ValueError("no RMSE")
        return found
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} is damaged, or not of a comparison ({error}): give the comparison's command again."
        ) from error


def draw(folder: Path, data: xr.Dataset, dpi: int) -> Path:
    """Writes comparison.png."""
    figure = comparison_figure(data)
    return write_all(folder, {"comparison.png": lambda path: figure.savefig(path, dpi=dpi)})[0]


def comparison_figure(data: xr.Dataset) -> Figure:
    from ...plots.bars import comparison

    return comparison(data, float(data.attrs["climatology"]), json.loads(data.attrs["said_of"]))
