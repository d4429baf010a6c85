"""What a file calls the places of its values: which measured value each is, and which are withheld."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..measurements.withholding import drawn_places
from .errors import FileError, printable

__all__ = ["names_of", "of_stations", "withheld_values"]


def of_stations(
    path: Path, names: Sequence[str] | None, wanted: Sequence[str] | None, size: int
) -> np.ndarray:
    """Which measured value each station is."""
    if names is None:
        raise FileError(f"observations.stations is given, but {path} names no stations.")
    found = [str(name) for name in names]
    shown = printable(", ".join(found[:20]), 200) + (", …" if len(found) > 20 else "")
    if wanted is not None:
        if len(wanted) != size or len(set(wanted)) != size:
            raise FileError(
                f"observations.stations must name each of the {size} measured values once; it has "
                f"{len(wanted)} names."
            )
        strange = [name for name in found if name not in wanted]
        if strange:
            raise FileError(
                f"{path} has a station {printable(strange[0], 60)!r} that observations.stations does not "
                "name "
                f"({', '.join(wanted)})."
            )
        return np.array([wanted.index(name) for name in found])
    if sorted(found) == sorted(str(i) for i in range(size)):
        return np.array([int(name) for name in found])
    numbered = all(name.isdecimal() for name in found)
    if len(set(found)) != size or found != sorted(found, key=int if numbered else None):
        raise FileError(
            f"{path} has the stations {shown}: which of the {size} measured values is each? Name them in "
            "order: "
            f"observations.stations=[{shown.replace(', ', ',')}]."
        )
    return np.arange(size)


def names_of(
    of_file: Sequence[str] | None, wanted: Sequence[str] | None, index: np.ndarray, size: int
) -> tuple[str, ...] | None:
    """The stations of all measured values, in their order."""
    if wanted is not None:
        return tuple(wanted)
    if of_file is None or len(of_file) != size or len(index) != size or len(set(of_file)) != size:
        return None
    names = dict(zip(index.tolist(), map(str, of_file), strict=True))
    return tuple(printable(names[i], 60) for i in range(size))


def withheld_values(
    wanted: float | Sequence[str | int], seed: int, names: Sequence[str] | None, there: np.ndarray
) -> np.ndarray:
    """Which measured values are withheld, (*z,).

    Args:
        wanted: names or numbers; or a share, of which seed says the draw.
        there: (*z,) what the file has a value of.

    Raises:
        FileError: no such station or number, or no share.
    """
    shape, size = there.shape, there.size
    if not isinstance(wanted, Sequence):
        hint = f": the measured value {wanted:g} alone is [{wanted:g}]" if wanted >= 1 else ""
        try:
            return drawn_places(wanted, seed, there)
        except ValueError as error:
            raise FileError(f"observations.withhold={wanted:g}{hint}: {error}") from error
    which = np.zeros(size, bool)
    station = "" if names is None else f"a station ({printable(', '.join(names[:20]), 200)}) or "
    for each in map(str, wanted):
        if names is not None and each in names:
            which[list(names).index(each)] = True
        elif each.isdecimal() and int(each) < size:
            which[int(each)] = True
        else:
            raise FileError(
                f"observations.withhold: {printable(each, 60)!r} is not {station}a number of the "
                f"{size} measured values (0 … {size - 1})."
            )
    return which.reshape(shape)
