"""Figures of a result as PNG files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, unknown
from ..files import write_all

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["DPI", "OF_A_RUN", "drawn", "file_names", "save", "write_figures"]

DPI = 300
OF_A_RUN = ("error_spread", "innovations", "states", "spectra", "rank_histogram", "estimates")
"""Those that a run draws by itself, where it has the data."""


def file_names() -> list[str]:
    """Of all figures that a run's folder may have."""
    return [f"{name}.png" for name in OF_A_RUN]


def drawn(
    data: xr.Dataset, what: Sequence[str], options: Mapping[str, dict[str, Any]], named: bool
) -> dict[str, Figure]:
    """The figures by name; those without data are left out, unless they were asked for by name.

    Raises:
        InputError: a name that is no figure, or options or data that do not fit one that was asked for.
    """
    from ...plots.figures import FIGURES
    from ...plots.style import MissingError

    found = {}
    for name in what:
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
        try:
            found[name] = FIGURES[name](data, **options.get(name, {}))
        except MissingError as error:
            if named:
                raise InputError(str(error)) from error
        except ValueError as error:
            raise InputError(f"{name}: {error}") from error
    return found


def save(folder: Path, figures: Mapping[str, Figure], dpi: int = DPI) -> list[Path]:
    """Writes NAME.png, all or none."""
    # each is drawn once: bbox_inches would draw it twice
    writers = {f"{name}.png": lambda path, f=f: f.savefig(path, dpi=dpi) for name, f in figures.items()}
    return write_all(folder, writers)


def write_figures(folder: Path, data: xr.Dataset) -> list[Path]:
    """What a run draws by itself; figures of an earlier run that this one does not have go."""
    figures = save(folder, drawn(data, OF_A_RUN, {}, named=False))
    for name in file_names():
        if folder / name not in figures:
            (folder / name).unlink(missing_ok=True)
    return figures
