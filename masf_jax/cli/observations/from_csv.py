"""Observations in CSV: long form (one value a row) or wide form (one time a row)."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from ..errors import InputError
from .table import Table

__all__ = ["read_csv"]

_MISSING = ("", "nan", "na")
_VALID = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_COLUMNS = "time,value[,index | ,x[,y]][,valid] or time,value_0,value_1,…"


def read_csv(path: Path) -> Table:
    """Reads `# key: value` comments, a header row, and the rows.

    Raises:
        InputError: naming file, line and column.
    """
    units, lines = None, []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("#"):
                    key, _, text = line[1:].partition(":")
                    units = text.strip() if key.strip() == "units" else units
                elif line.strip():
                    lines.append((number, line))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if len(lines) < 2:
        raise InputError(f"{path} holds no rows: expected a header {_COLUMNS} and a row per value.")
    rows = list(csv.reader(line for _, line in lines))
    header = [name.strip() for name in rows[0]]
    cells = []
    for (number, _), row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(row)} cells, but the header has {len(header)} columns."
            )
        cells.append((number, dict(zip(header, (cell.strip() for cell in row), strict=True))))
    if "time" not in header:
        raise InputError(
            f"{path} has no column 'time'; its columns are {', '.join(header)}. Expected {_COLUMNS}."
        )
    if "value" in header:
        return _long(path, header, cells, units)
    wide = [f"value_{i}" for i in range(len(header) - 1)]
    if header[1:] != wide or not wide:
        raise InputError(f"{path} has columns {', '.join(header)}; expected {_COLUMNS}.")
    times = np.array([_number(path, line, row, "time") for line, row in cells])
    values = np.array(
        [[_number(path, line, row, name, missing=True) for name in wide] for line, row in cells]
    )
    return Table(times, values, units=units)


def _long(path: Path, header: list[str], cells: list[tuple[int, dict[str, str]]], units: str | None) -> Table:
    """Rows of one value each; rows of equal time are one cycle."""
    strange = [name for name in header if name not in ("time", "value", "index", "x", "y", "valid")]
    if strange or ("index" in header and "x" in header) or ("y" in header and "x" not in header):
        raise InputError(f"{path} has columns {', '.join(header)}; expected {_COLUMNS}.")
    axes = [name for name in ("index", "x", "y") if name in header]
    entries: dict[tuple[float, tuple[float, ...]], float] = {}
    for line, row in cells:
        time = _number(path, line, row, "time")
        place = tuple(_number(path, line, row, name) for name in axes)
        if "index" in header and not place[0].is_integer():
            raise InputError(f"{path}, line {line}: index must be a whole number; got {row['index']!r}.")
        if (time, place) in entries:
            where = "" if not axes else f" and {', '.join(axes)} {', '.join(row[name] for name in axes)}"
            raise InputError(f"{path}, line {line}: a second value for time {row['time']}{where}.")
        value = _number(path, line, row, "value", missing=True)
        entries[time, place] = value if _is_valid(path, line, row) else math.nan
    times = list(dict.fromkeys(time for time, _ in entries))
    places = sorted({place for _, place in entries})
    values = np.full((len(times), len(places)), np.nan)
    row_of, column_of = {t: i for i, t in enumerate(times)}, {p: j for j, p in enumerate(places)}
    for (time, place), value in entries.items():
        values[row_of[time], column_of[place]] = value
    where = np.array(places).reshape(len(places), -1)
    index = where[:, 0].astype(int) if "index" in header else None
    return Table(np.array(times), values, index, where if "x" in header else None, units)


def _number(path: Path, line: int, row: dict[str, str], column: str, missing: bool = False) -> float:
    text = row[column]
    if missing and text.lower() in _MISSING:
        return math.nan
    try:
        number = float(text)
    except ValueError as error:
        hint = " (dates: give numbers in the model's unit of time)" if column == "time" else ""
        raise InputError(f"{path}, line {line}: {column} must be a number; got {text!r}{hint}.") from error
    if missing and not math.isfinite(number):
        return math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}, line {line}: {column} must be a finite number; got {text!r}.")
    return number


def _is_valid(path: Path, line: int, row: dict[str, str]) -> bool:
    text = row.get("valid", "1").lower()
    if text not in _VALID:
        raise InputError(f"{path}, line {line}: valid must be 1 or 0 (true or false); got {row['valid']!r}.")
    return _VALID[text]
