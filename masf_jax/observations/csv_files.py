"""Observations in CSV: long (one value a row) or wide (one time a row)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from .errors import FileError, printable
from .safety import memory_limit
from .table import Table, of_rows
from .times import Clock, iso_date

__all__ = ["VALID", "read_csv", "roles_of"]

_MISSING = ("", "nan", "na")
VALID = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_COLUMNS = "time,value[,index | ,station | ,x[,y]][,valid] or time,value_0,value_1,…"
_OWN = "observations.columns=[TIME,VALUE,…], or [TIME,VALUE,station:STATION] with one value a row"
_ROLES = ("index", "station", "x", "y", "valid")
_PLACES = (["index"], ["station"], ["x"], ["x", "y"], [])
_BYTES_A_BYTE = 8
"""Memory that a byte of text takes while it is read."""

Rows = list[tuple[int, list[str]]]


def read_csv(path: Path, named: Sequence[str] | None = None) -> Table:
    """Reads `# key: value` comments, a header row, and the rows.

    Args:
        named: what the file calls the column of times and, in order, those of the measured values; or, with
            one value a row, those of times and values and `ROLE:NAME` of what else there is; others are not
            read. None: they have the names of docs/observations.md.

    Raises:
        FileError: naming file, line and column.
    """
    size, limit = path.stat().st_size, memory_limit()
    if _BYTES_A_BYTE * size > limit:
        raise FileError(
            f"{path} has {size / 1e9:.3g} GB of text; the limit here is {limit / _BYTES_A_BYTE / 1e9:.3g} GB."
        )
    about: dict[str, str] = {}
    rows: Rows = []
    lines = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = _Lines(file, about)
            reader = csv.reader(lines, strict=True)
            while True:
                row = next(reader, None)
                if row is None:
                    break
                if lines.taken > 1:
                    raise FileError(
                        f"{path}, line {lines.first}: a quoted cell goes on over the end of the line."
                    )
                lines.taken = 0
                cells = [cell.strip() for cell in row]
                if any(cells):  # spreadsheets write commas alone for rows without anything
                    rows.append((lines.number, cells))
    except UnicodeDecodeError as error:
        raise FileError(
            f"cannot read {path}: it is not UTF-8 text ({error.reason}): save it as UTF-8."
        ) from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}.") from error
    except csv.Error as error:
        large = "field limit" in str(error)
        what = f"a cell has more than {csv.field_size_limit():,} characters" if large else str(error)
        hint = " (a quotation mark that is not closed?)"
        raise FileError(f"{path}, line {lines.first if lines else 1}: {what}{hint}.") from error
    if len(rows) < 2:
        raise FileError(f"{path} holds no rows: expected a header {_COLUMNS} and a row per value.")
    return _table(path, rows[0][1], rows[1:], about, named)


class _Lines(Iterator[str]):
    """The lines that hold cells, and where they stand; `about` takes what comments say.

    number: of the last line; first, taken: where the row being read began, and its number of lines.
    """

    def __init__(self, file: TextIO, about: dict[str, str]):
        self._file, self._about = file, about
        self.number = self.first = self.taken = 0

    def __next__(self) -> str:
        for line in self._file:
            self.number += 1
            if line.startswith("#") and not self.taken:
                key, _, text = line[1:].partition(":")
                self._about[key.strip()] = text.strip()
            elif line.strip() or self.taken:
                self.taken += 1
                if self.taken == 1:
                    self.first = self.number
                return line
        raise StopIteration


def _table(
    path: Path, header: list[str], rows: Rows, about: dict[str, str], named: Sequence[str] | None
) -> Table:
    _check_separated(path, header)
    if named is None:
        _check_header(path, header)
    else:
        _check_named(path, header, named)
    for line, row in rows:
        if len(row) != len(header):
            comma = " (a decimal comma? write 1.5)" if len(row) > len(header) else ""
            raise FileError(
                f"{path}, line {line}: {len(row)} cells, but the header has {len(header)} columns{comma}."
            )
    called = {name: printable(name, 60) for name in header}
    of_times = "time" if named is None else called[named[0]]
    if named is not None and (roles := roles_of(named)):
        own = {named[0]: "time", named[1]: "value"} | dict(zip(roles.values(), roles, strict=True))
        kept = [i for i, name in enumerate(header) if name in own]
        called = {own[header[i]]: printable(header[i], 60) for i in kept}
        header = list(called)
        rows, named = [(line, [row[i] for i in kept]) for line, row in rows], None
    columns = {name: [row[i] for _, row in rows] for i, name in enumerate(header)}
    lines = [line for line, _ in rows]
    units = about.get("units")
    time, *names = ["time", *header[1:]] if named is None else named
    clock = _clock(path, lines, of_times, columns[time], about.get("time_units"))
    if named is not None or "value" not in header:
        wide = [_numbers(path, lines, called[name], columns[name], missing=True) for name in names]
        found = (None, None) if named is None else (np.arange(len(names)), names)
        return Table(clock, np.stack(wide, -1), index=found[0], stations=found[1], units=units)
    values = _numbers(path, lines, called["value"], columns["value"], missing=True)
    if "valid" in header:
        valid = [
            _is_valid(path, line, called["valid"], text)
            for line, text in zip(lines, columns["valid"], strict=True)
        ]
        values[~np.array(valid)] = np.nan
    names = [name for name in ("index", "station", "x", "y") if name in header]
    places = None
    if names == ["station"]:
        places = np.array([[text] for text in columns["station"]])
    elif names:
        places = np.stack([_numbers(path, lines, called[name], columns[name]) for name in names], -1)
    if names == ["index"] and places is not None and np.any(places != np.round(places)):
        bad = int(np.argmax(places[:, 0] != np.round(places[:, 0])))
        raise FileError(
            f"{path}, line {lines[bad]}: {called['index']} must be a whole number; "
            f"got {columns['index'][bad]!r}."
        )
    table, found = of_rows(path, clock, values, places, lambda row: f"line {lines[row]}")
    table = table._replace(units=units)
    if found is None:
        return table
    if names == ["index"]:
        return table._replace(index=_whole(path, found[:, 0]))
    if names == ["station"]:
        order = list(dict.fromkeys(columns["station"]))
        names = found[:, 0].tolist()
        by_first = [names.index(name) for name in order]
        return table._replace(stations=order, values=table.values[:, by_first])
    return table._replace(positions=found)


def _whole(path: Path, index: np.ndarray) -> np.ndarray:
    if np.any(np.abs(index) >= 2**53):
        raise FileError(f"{path}: index {index[np.abs(index) >= 2**53][0]:g} is no place of a value.")
    return index.astype(np.int64)


def _check_separated(path: Path, header: list[str]) -> None:
    shown = printable(", ".join(header), 200)
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise FileError(
            f"{path}: its columns are not separated by commas ({shown}): write commas between cells, and "
            "points in "
            "decimals."
        )
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FileError(f"{path}: two columns have the name {printable(twice, 60)!r}.")


def roles_of(named: Sequence[str]) -> dict[str, str]:
    """Of a file with one value a row: what it calls the columns beside time and value, by their roles."""
    pairs = [name.split(":", 1) for name in named[1:]]
    return {role: name for role, *rest in pairs for name in rest if role in _ROLES}


def _check_named(path: Path, header: list[str], named: Sequence[str]) -> None:
    roles = roles_of(named)
    names = [*named[:2], *roles.values()] if roles else named
    if len(names) < 2 or len(set(names)) < len(names) or len(set(named)) < len(named):
        raise FileError(
            "observations.columns must name the column of times, then each column of values once; got "
            f"[{', '.join(named)}]."
        )
    if roles and (len(named) != 2 + len(roles) or roles_of(named[:2])):
        raise FileError(
            "observations.columns with roles (station:NAME) is of files with one value a row: the column of "
            f"times, that of values, then the roles; got [{', '.join(named)}]."
        )
    places = [role for role in roles if role != "valid"]
    if sorted(places) not in _PLACES:
        raise FileError(
            "observations.columns may say where a value was measured by index:NAME, by station:NAME, or by "
            f"x:NAME with or without y:NAME; got {', '.join(f'{role}:{roles[role]}' for role in places)}."
        )
    for name in names:
        if name not in header:
            shown = printable(", ".join(header), 200)
            raise FileError(
                f"{path} has no column {printable(name, 60)!r} (observations.columns); its columns are "
                f"{shown}."
            )


def _check_header(path: Path, header: list[str]) -> None:
    shown = printable(", ".join(header), 200)
    if "time" not in header:
        raise FileError(
            f"{path} has no column 'time'; its columns are {shown}. Expected {_COLUMNS}; or name them: "
            f"{_OWN}."
        )
    rest = [name for name in header if name not in ("time", "value", "valid")]
    if "value" in header and sorted(rest) in _PLACES:
        return
    if header != ["time", *(f"value_{i}" for i in range(len(header) - 1))] or len(header) < 2:
        raise FileError(f"{path} has columns {shown}; expected {_COLUMNS}; or name them: {_OWN}.")


def _clock(path: Path, lines: list[int], column: str, texts: list[str], units: str | None) -> Clock:
    """Numbers, or ISO dates in all rows."""
    first = next((text for text in texts if text), "")
    if "-" not in first[1:] or "e" in first.lower():
        hint = " (dates: ISO, as 2000-01-31T06:00Z, in every row)"
        return Clock(_numbers(path, lines, column, texts, hint=hint), units)
    if units is not None:
        raise FileError(f"{path} holds dates, but its comment time_units says {printable(units, 80)!r}.")
    dates, zones = [], []
    for line, text in zip(lines, texts, strict=True):
        try:
            date, zoned = iso_date(text)
        except ValueError as error:
            raise FileError(
                f"{path}, line {line}: {column} must be a number, or an ISO date as 2000-01-31T06:00Z; got "
                f"{printable(text, 60)!r}."
            ) from error
        if zones and zoned != zones[0]:
            raise FileError(
                f"{path}, line {line}: some dates have a time zone and some have none; got {text!r}."
            )
        dates.append(date)
        zones.append(zoned)
    return Clock(np.array(dates, np.int64), dates=True)


def _numbers(
    path: Path, lines: list[int], column: str, texts: list[str], missing: bool = False, hint: str = ""
) -> np.ndarray:
    """`hint`: what a message ends with where a cell is no number."""
    return np.array(
        [_number(path, line, text, column, missing, hint) for line, text in zip(lines, texts, strict=True)]
    )


def _number(path: Path, line: int, text: str, column: str, missing: bool, hint: str) -> float:
    try:
        if not text.isascii() or "_" in text:
            raise ValueError(text)
        number = math.nan if missing and text.lower() in _MISSING else float(text)
        if math.isinf(number) and "inf" not in text.lower():
            raise FileError(
                f"{path}, line {line}: {column} {printable(text, 60)} is beyond double precision."
            )
    except ValueError as error:
        if not hint and "," in text:
            hint = " (decimals have a point: 1.5)"
        shown = printable(text, 60)
        raise FileError(f"{path}, line {line}: {column} must be a number; got {shown!r}{hint}.") from error
    if not missing and not math.isfinite(number):
        raise FileError(
            f"{path}, line {line}: {column} must be a finite number; got {printable(text, 60)!r}."
        )
    return number if math.isfinite(number) else math.nan


def _is_valid(path: Path, line: int, column: str, text: str) -> bool:
    if text.lower() not in VALID:
        raise FileError(
            f"{path}, line {line}: {column} must be 1 or 0 (true or false); got {printable(text, 60)!r}."
        )
    return VALID[text.lower()]
