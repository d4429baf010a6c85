"""Which file of observations is meant, and how it fits the model."""

from __future__ import annotations

import dataclasses

__all__ = ["ObservationFile"]


@dataclasses.dataclass(frozen=True)
class ObservationFile:
    """A file and how to read it: on the command line, keys under `observations`."""

    path: str | None = None
    variable: str = "value"
    """The one that holds the values, of a NetCDF or zarr file."""
    units: str | None = None
    time_unit: str | None = None
    """In which the model counts time: needed for dates and "hours since …"."""
    time_origin: float | str | None = None
    """Time of model step 0: a number, or an ISO date; null: the first time."""
    nearest: bool = False
    """Whether each time is moved to its nearest model step; else one between steps is refused."""
    valid_range: tuple[float, float] | None = None
    """Values outside count as missing."""
    stations: tuple[str | int, ...] | None = None
    """Names in the file, one for each measured value, in their order."""
    columns: tuple[str, ...] | None = None
    """What a CSV file calls its column of times and those of the measured values, in their order; with one
    value a row: of times and values, then station:NAME and the like."""
    withhold: float | tuple[str | int, ...] = ()
    """Stations by name, or measured values by number, that no analysis sees and that are scored; or a share
    of the measured values, 0 < share < 1, drawn at random."""
    withhold_seed: int = 0
    """Of that draw."""
