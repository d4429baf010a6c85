"""Times of observations in the model's unit: numbers, numbers "since" a date, ISO dates."""

from __future__ import annotations

import calendar
import datetime
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import FileError, printable

__all__ = ["Clock", "ModelTimes", "dates_of", "in_nanoseconds", "iso_date", "model_times"]

_SECONDS = {
    "nanoseconds": Fraction(1, 10**9),
    "microseconds": Fraction(1, 10**6),
    "milliseconds": Fraction(1, 1000),
    "seconds": Fraction(1),
    "minutes": Fraction(60),
    "hours": Fraction(3600),
    "days": Fraction(86400),
    "weeks": Fraction(7 * 86400),
}
_MONTHS = {"months": 1, "years": 12}
_NAMES = {
    "nanoseconds": "ns nsec nanosecond",
    "microseconds": "us µs usec microsecond",
    "milliseconds": "ms msec millisecond",
    "seconds": "s sec secs second",
    "minutes": "min mins minute",
    "hours": "h hr hrs hour",
    "days": "d day",
    "weeks": "week",
    "months": "month",
    "years": "yr yrs year",
}
_UNITS = {name: unit for unit, names in _NAMES.items() for name in (unit, *names.split())}
_GREGORIAN = ("standard", "gregorian", "proleptic_gregorian", "")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_SINCE = re.compile(r"\s*(\S+)\s+since\s+(\S.*?)\s*", re.IGNORECASE)
_REFERENCE = re.compile(
    r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T\s]\s*(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2})(\.\d*)?)?)?"
    r"\s*(?:Z|UTC|GMT|([+-])(\d{1,2}):?(\d{2})?)?",
    re.IGNORECASE,
)


class Clock(NamedTuple):
    """Times as a file gives them.

    numbers: (K,) double precision, or with `dates` int64 microseconds since 1970 (UTC).
    units: of numbers, as the file has them; rounding: relative, of the type they were stored in.
    """

    numbers: np.ndarray
    units: str | None = None
    calendar: str = "standard"
    dates: bool = False
    rounding: float = 0.0


class ModelTimes(NamedTuple):
    """Times and time of model step 0 in the model's unit, and that unit in words ("hours since …").

    dates: where the file has dates, int64 microseconds since 1970.
    """

    times: np.ndarray
    origin: float
    units: str | None
    dates: np.ndarray | None = None


def iso_date(text: str) -> tuple[int, bool]:
    """Microseconds since 1970 of an ISO date (2000-01-31T06:00+01:00, 2000-01), and whether it has a zone.

    Raises:
        ValueError: another form.
    """
    if not text.isascii() or not re.match(r"\d{4}-", text):
        raise ValueError(f"not an ISO date: {text!r}")
    found = datetime.datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d{2}", text) else text)
    zoned = found.tzinfo is not None
    return _microseconds(found if zoned else found.replace(tzinfo=datetime.UTC)), zoned


def model_times(path: Path, clock: Clock, time_unit: str | None, origin: float | str | None) -> ModelTimes:
    """The times in the model's unit.

    Args:
        time_unit: `observations.time_unit`; None: not said.
        origin: `observations.time_origin`, time of step 0: a number on the file's axis in the model's unit,
            or an ISO date; None: the first time.

    Raises:
        FileError: naming the file, where a unit or a date is needed to tell, or does not convert.
    """
    unit = _named(time_unit)
    start = None
    if isinstance(origin, str):
        try:
            start = iso_date(origin)[0]
        except ValueError as error:
            raise FileError(
                "observations.time_origin must be a number or an ISO date (2000-01-31T06:00Z); got "
                f"{origin!r}."
            ) from error
    if clock.dates:
        return _of_dates(path, clock.numbers, unit, origin, start, "dates")
    if clock.units is None or clock.units.strip() in ("", "1"):
        return _numbered(path, clock.numbers, origin, time_unit)
    since = _SINCE.fullmatch(clock.units)
    given = (since[1] if since else clock.units.strip()).lower()
    own = _UNITS.get(given)
    if unit is None:
        if own is None and since is None:  # a unit of the model's own: "model time"
            return _numbered(path, clock.numbers, origin, clock.units)
        raise _question(path, f"is in {clock.units!r}")
    if own is None:
        raise FileError(
            f"{path}: the unit of 'time', {printable(clock.units, 80)!r}, is none of {', '.join(_SECONDS)}, "
            "months, years: convert the times, or correct the unit."
        )
    if (unit in _MONTHS) != (own in _MONTHS):
        if own in _MONTHS:
            raise FileError(
                f"{path}: 'time' is in {own}, which have no fixed length in {unit}: give dates, or "
                f"observations.time_unit={own}."
            )
        dates = _reference(path, clock, since) + np.round(clock.numbers * float(_SECONDS[own] * 10**6))
        return _of_dates(path, dates.astype(np.int64), unit, origin, start, f"in {clock.units!r}")
    factor = Fraction(_MONTHS[own], _MONTHS[unit]) if own in _MONTHS else _SECONDS[own] / _SECONDS[unit]
    times = clock.numbers * factor.numerator / factor.denominator
    if start is not None:
        seconds = start - _reference(path, clock, since)
        if unit in _MONTHS:
            origin = _months(start - seconds, start) / _MONTHS[unit]
        else:
            origin = float(Fraction(seconds, 10**6) / _SECONDS[unit])
    label = f"{unit} since {since[2]}" if since else unit
    return ModelTimes(times, float(times[0] if origin is None else origin), label)


def _numbered(path: Path, times: np.ndarray, origin: float | str | None, units: str | None) -> ModelTimes:
    if "%" in (units or "") or _look_like_dates(times):
        raise FileError(
            f"{path}: its times ({times[0]:.12g}, …) look like dates written as numbers (as YYYYMMDD): "
            "write "
            "2000-01-31, or numbers since a date."
        )
    if isinstance(origin, str):
        raise FileError(
            f"observations.time_origin = {origin} is a date, but the times of {path} are plain numbers: "
            "give a "
            "number."
        )
    return ModelTimes(times, float(times[0] if origin is None else origin), units)


def _look_like_dates(times: np.ndarray) -> bool:
    """Whether all read as YYYYMMDD of 1700 to 2199, or as YYYYMM or YYYYMMDDHH[MM[SS]] of more than one year
    (day, …), whose differences are then none of months (hours, …)."""
    carries = np.ptp(np.floor(times / 100)) > 0
    return _reads_as(times, 2) or bool(carries and any(_reads_as(times, n) for n in (1, 3, 4, 5)))


def _reads_as(times: np.ndarray, n_parts: int) -> bool:
    """Whether all are a year and its first so many parts: month, day, hour, minute, second."""
    rest, fits = np.floor(times), np.ones(len(times), bool)
    for least, most in reversed(((1, 12), (1, 31), (0, 23), (0, 59), (0, 59))[:n_parts]):
        rest, part = np.divmod(rest, 100)
        fits &= (part >= least) & (part <= most)
    return bool(np.all(fits & (rest >= 1700) & (rest < 2200)))


def _of_dates(
    path: Path, dates: np.ndarray, unit: str | None, origin: float | str | None, start: int | None, kind: str
) -> ModelTimes:
    """Since the date of step 0, which is the first where none is given."""
    if unit is None:
        raise _question(path, "holds dates")
    if isinstance(origin, int | float):
        raise FileError(
            f"observations.time_origin = {origin:g} is a number, but the times of {path} are {kind}: give an "
            "ISO date, or null for the first time."
        )
    start = int(dates[0]) if start is None else start
    if unit in _MONTHS:
        try:
            label = f"{unit} since {_date(start)}"
            times = np.array([_months(start, int(date)) / _MONTHS[unit] for date in dates])
        except (OverflowError, ValueError) as error:
            raise FileError(f"{path}: its times lie outside the years 1 … 9999.") from error
        return ModelTimes(times, 0.0, label, dates)
    factor = 1 / (_SECONDS[unit] * 10**6)
    times = (dates - start).astype(np.float64) * factor.numerator / factor.denominator
    return ModelTimes(times, 0.0, f"{unit} since {_date(start)}", dates)


def _named(time_unit: str | None) -> str | None:
    if time_unit is None:
        return None
    if time_unit.strip().lower() not in _UNITS:
        units = ", ".join((*_SECONDS, *_MONTHS))
        raise FileError(f"observations.time_unit must be one of {units}; got {time_unit!r}.")
    return _UNITS[time_unit.strip().lower()]


def _question(path: Path, what: str) -> FileError:
    return FileError(
        f"the 'time' of {path} {what}, but in which unit does the model count time? Say so: "
        "observations.time_unit=hours (or seconds, minutes, days, weeks, months, years)."
    )


def _reference(path: Path, clock: Clock, since: re.Match[str] | None) -> int:
    """Microseconds since 1970 of "… since REFERENCE"."""
    shown = printable(clock.units or "", 80)
    if clock.calendar.lower() not in _GREGORIAN:
        raise FileError(
            f"{path}: 'time' has the calendar {printable(clock.calendar, 40)!r}, whose dates are not "
            "ours: count "
            "from a time_origin that is a number (or null), in a unit of fixed length."
        )
    found = None if since is None else _REFERENCE.fullmatch(since[2])
    if found is None:
        raise FileError(
            f"{path}: the unit of 'time', {shown!r}, gives no date to count from (hours since 2000-01-31 "
            "06:00)."
        )
    numbers = [int(each or 0) for each in found.groups()[:6]]
    sign = -1 if found[8] == "-" else 1
    ahead = sign * datetime.timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    fraction = datetime.timedelta(seconds=float(f"0{found[7] or ''}"))
    try:
        start = datetime.datetime(*numbers, tzinfo=datetime.UTC) - ahead + fraction
    except (ValueError, OverflowError) as error:
        raise FileError(f"{path}: the unit of 'time', {shown!r}, names no date: {error}.") from error
    if clock.calendar.lower() != "proleptic_gregorian" and start.year < 1583:
        raise FileError(
            f"{path}: 'time' counts from {since[2] if since else ''}, before the Gregorian calendar: give "
            "observations.time_origin as a number (or null), and a unit of fixed length."
        )
    return _microseconds(start)


def _microseconds(date: datetime.datetime) -> int:
    return (date - _EPOCH) // _MICROSECOND


def _date(microseconds: int) -> str:
    return (_EPOCH + microseconds * _MICROSECOND).replace(tzinfo=None).isoformat()


def _later(start: datetime.datetime, months: int) -> datetime.datetime:
    """The same day and time so many calendar months on; of a shorter month its last day."""
    year, month = divmod(12 * start.year + start.month - 1 + months, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)


def _months(start: int, date: int) -> float:
    """Calendar months from one date to another: whole on the same day of the month at the same time."""
    begun, end = (_EPOCH + each * _MICROSECOND for each in (start, date))
    whole = 12 * (end.year - begun.year) + end.month - begun.month
    whole -= _later(begun, whole) > end
    low, high = _later(begun, whole), _later(begun, whole + 1)
    return whole + (end - low) / (high - low)


def _after(start: int, months: float) -> np.datetime64:
    """The date so many calendar months later; where it leaves the years 1 … 9999 no date."""
    begun, whole = _EPOCH + start * _MICROSECOND, math.floor(months + 1e-9)
    try:
        low, high = _later(begun, whole), _later(begun, whole + 1)
    except (ValueError, OverflowError):
        return np.datetime64("NaT")
    found = low + max(months - whole, 0.0) * (high - low)
    return np.datetime64(found.replace(tzinfo=None), "us")


def dates_of(times: np.ndarray, units: str | None, calendar: str = "standard") -> np.ndarray | None:
    """Dates (datetime64, UTC) of times that count from a date ("hours since 2000-01-01"), to the microsecond.

    None where they count from none ("hours since launch"), or in another calendar, or leave the years
    1678 … 2261 of datetime64[ns].
    """
    since = _SINCE.fullmatch(units or "")
    if since is None or calendar.lower() not in _GREGORIAN or since[1].lower() not in _UNITS:
        return None
    try:
        start = _reference(Path(), Clock(times, units, calendar), since)
    except FileError:
        return None
    unit = _UNITS[since[1].lower()]
    if unit in _MONTHS:
        found = np.array([_after(start, float(time) * _MONTHS[unit]) for time in times], "datetime64[us]")
    else:
        microseconds = np.round(times * float(_SECONDS[unit] * 10**6))
        found = np.datetime64(start, "us") + microseconds.astype("timedelta64[us]")
    return in_nanoseconds(found)


def in_nanoseconds(dates: np.ndarray) -> np.ndarray | None:
    """Dates as datetime64[ns], which holds the years 1678 … 2261; None where they leave these."""
    dates = dates.astype("datetime64[us]")
    least, most = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")
    return dates.astype("datetime64[ns]") if np.all((dates >= least) & (dates < most)) else None
