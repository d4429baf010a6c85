"""What a file of observations holds, before it is fitted to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import FileError
from .safety import check_memory
from .times import Clock

__all__ = ["Table", "of_rows"]


class Table(NamedTuple):
    """Values by time and column.

    clock: K times; values: (K, *rest), NaN where missing; dims: names of `rest` where the file has them.
    index (columns,): which measured value each column is, None: in order; positions (columns, d): where each
    was measured; stations: what each is called. rows: values came one by one, in any order of time.
    outside: (K, …), where a value lies outside the file's own valid range, or how many do.
    """

    clock: Clock
    values: np.ndarray
    index: np.ndarray | None = None
    positions: np.ndarray | None = None
    stations: Sequence[str] | None = None
    units: str | None = None
    dims: tuple[str, ...] = ()
    rows: bool = False
    outside: np.ndarray | None = None


def of_rows(
    path: Path, clock: Clock, values: np.ndarray, places: np.ndarray | None, where: Callable[[int], str]
) -> tuple[Table, np.ndarray | None]:
    """The table of values that come one by one, and the places of its columns.

    Args:
        clock: time of each row; values: (R,); places: (R, …) numbers or names, None: there is one.
        where: a row's number -> where it stands, for messages.

    Raises:
        FileError: two values of one time and place.
    """
    if places is None:
        found, column = None, np.zeros(len(values), int)
    else:
        found, column = np.unique(places, axis=0, return_inverse=True)
        column = column.reshape(-1)
    times, row = np.unique(clock.numbers, return_inverse=True)
    n_columns = 1 if found is None else len(found)
    check_memory(path, len(times) * n_columns)
    _, first = np.unique(row * n_columns + column, return_index=True)
    if len(first) < len(values):
        again = int(np.setdiff1d(np.arange(len(values)), first)[0])
        raise FileError(
            f"{path}, {where(again)}: a second value for its time{'' if found is None else ' and place'}."
        )
    if found is None:  # one series: in the order of the file
        return Table(clock, values[:, None]), None
    out = np.full((len(times), n_columns), np.nan)
    out[row, column] = values
    return Table(clock._replace(numbers=times), out, rows=True), found
