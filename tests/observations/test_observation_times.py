"""Times in the model's unit: units since a date, ISO dates, months, long records."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from masf_jax.observations.errors import FileError
from masf_jax.observations.times import dates_of


def csv(folder, times, comment=""):
    rows = "".join(f"{time},{i}\n" for i, time in enumerate(times, 1))
    (folder / "obs.csv").write_text(f"{comment}time,value\n{rows}")
    return folder / "obs.csv"


def netcdf(folder, times, units, type="f8", **attributes):
    time = ("time", np.asarray(times, type), {"units": units} | attributes)
    xr.Dataset({"value": ("time", np.arange(1.0, len(times) + 1)), "time": time}).to_netcdf(
        folder / "obs.nc", engine="h5netcdf"
    )
    return folder / "obs.nc"


@pytest.mark.parametrize(
    ("times", "unit", "dt", "steps"),
    [
        (["2000-02-28T18:00", "2000-02-29", "2000-03-01"], "hours", 6.0, [0, 1, 5]),
        (["2000-02-28T18:00Z", "2000-02-29T02:00+02:00", "2000-02-28T22:30-07:30"], "days", 0.25, [0, 1, 2]),
        (["2021-03-28T01:00+01:00", "2021-03-28T03:00+02:00"], "hours", 1.0, [0, 1]),  # summer time begins
        (["2021-10-31T02:00+02:00", "2021-10-31T02:00+01:00"], "hours", 1.0, [0, 1]),  # and ends
        (["1900-02-28", "1900-03-01"], "days", 1.0, [0, 1]),
        (["1958-03-01", "1958-04-01", "1958-07-01", "1961-01-01"], "months", 1.0, [0, 1, 4, 34]),
        (["1958-03", "1958-04", "1958-07"], "months", 1.0, [0, 1, 4]),
        (["2000-01-15", "2000-02-15", "2000-04-15"], "months", 1.0, [0, 1, 3]),
        (["2000-01-31T06:00", "2000-02-29T06:00", "2001-01-31T06:00"], "months", 1.0, [0, 1, 12]),
        (["2000-02-20T06:30", "2003-02-20T06:30"], "years", 1.0, [0, 3]),
        (["1871-01-01", "1872-01-01", "1970-01-01"], "years", 1.0, [0, 1, 99]),
        (["2000-01-01", "2000-02-01"], "years", 1 / 12, [0, 1]),
    ],
)
def test_dates(tmp_path, read, times, unit, dt, steps):
    assert read(csv(tmp_path, times), dt=dt, time_unit=unit).steps.tolist() == steps


def test_a_date_as_origin(tmp_path, read):
    file = csv(tmp_path, ["2000-01-02", "2000-01-03"])
    record = read(file, dt=12.0, time_unit="h", time_origin="2000-01-01T12:00+12:00")
    assert record.steps.tolist() == [2, 4]
    assert record.time_units == "hours since 2000-01-01T00:00:00"
    file = netcdf(tmp_path, [24, 48], "hours since 2000-01-01 00:00:00")
    assert read(file, dt=0.5, time_unit="days", time_origin="2000-01-01T12:00Z").steps.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("numbers", "units", "unit", "dt", "steps"),
    [
        ([0, 6, 12], "hours since 2000-01-01", "days", 0.25, [0, 1, 2]),
        ([0, 6, 12], "h", "days", 0.25, [0, 1, 2]),
        ([5, 6, 8], "days since 1900-1-1 0:0:0", "hours", 24.0, [0, 1, 3]),
        ([0, 90, 3600], "seconds since 1970-01-01T00:00:00Z", "minutes", 0.5, [0, 3, 120]),
        ([0, 1, 3], "months since 2000-01-01", "months", 1.0, [0, 1, 3]),
        ([0, 1, 3], "months since 2000-01-15 06:00", "months", 1.0, [0, 1, 3]),
        ([0, 1, 3], "years since 2000-01-01", "months", 1.0, [0, 12, 36]),
        ([0, 31, 60], "days since 2000-01-01", "months", 1.0, [0, 1, 2]),
        ([0, 1, 3], "fortnights of the model", None, 1.0, [0, 1, 3]),
        ([0, 1, 3], "1", "days", 1.0, [0, 1, 3]),
        ([2000010100, 2000010101], "1", None, 1.0, [0, 1]),  # of one day: hours either way
        ([1700000000, 1700003600], "1", None, 3600.0, [0, 1]),
        ([60000 + 1 / 24, 60000 + 1 / 12], "days since 1850-01-01", "hours", 1.0, [0, 1]),
    ],
)
def test_numbers_with_units(tmp_path, read, numbers, units, unit, dt, steps):
    assert read(netcdf(tmp_path, numbers, units), dt=dt, time_unit=unit).steps.tolist() == steps
    file = csv(tmp_path, numbers, f"# time_units: {units}\n")
    assert read(file, dt=dt, time_unit=unit).steps.tolist() == steps


def test_calendars(tmp_path, read):
    """Of a fixed length in any calendar; months only where dates are ours."""
    file = netcdf(tmp_path, [0, 30, 60], "days since 2000-01-01", calendar="360_day")
    assert read(file, dt=24.0, time_unit="hours").steps.tolist() == [0, 30, 60]
    with pytest.raises(FileError, match="calendar '360_day'"):
        read(file, time_unit="months")
    with pytest.raises(FileError, match="calendar '360_day'"):
        read(file, time_unit="days", time_origin="2000-01-01")
    with pytest.raises(FileError, match="before the Gregorian calendar"):
        read(netcdf(tmp_path, [0, 31], "days since 0001-01-01"), time_unit="months")


@pytest.mark.parametrize("source", ["csv", "f8", "f4"])
def test_long_records(tmp_path, read, source):
    """Ten years by the hour, in days, with a step of an hour; single precision keeps what it can."""
    hours = np.array([0, 1, 2, 50_001, 87_599])
    times = hours / 24
    if source == "csv":
        file = csv(tmp_path, [repr(float(time)) for time in times])
    else:
        file = netcdf(tmp_path, times, "1", source)
    assert read(file, dt=1 / 24).steps.tolist() == hours.tolist()


def test_dt_of_a_tenth(tmp_path, read):
    assert read(csv(tmp_path, [0, 6000, 7000]), dt=0.1).steps.tolist() == [0, 60_000, 70_000]


@pytest.mark.parametrize(
    ("times", "keys", "message"),
    [
        (["2000-01-01", "2000-01-02"], {}, "holds dates, but in which unit .* observations.time_unit="),
        (["2000-01-01", "2000-01-02T00:00Z"], {"time_unit": "days"}, "line 3: some dates have a time zone"),
        (["2000-01-01", "3"], {"time_unit": "days"}, "line 3: time must be a number, or an ISO date .*'3'"),
        (["3", "2000-01-01"], {"time_unit": "days"}, "line 3: time must be a number.*dates: ISO"),
        (["01/02/2000"], {"time_unit": "days"}, "line 2: time must be a number.*dates: ISO"),
        (["2000-13-01"], {"time_unit": "days"}, "line 2: .* an ISO date .*'2000-13-01'"),
        (
            ["2000-01-01"],
            {"time_unit": "days", "time_origin": 0.0},
            "time_origin = 0 is a number, but .* dates",
        ),
        (["1", "2"], {"time_origin": "2000-01-01"}, "is a date, but the times .* are plain numbers"),
        (["1", "2"], {"time_origin": "start"}, "must be a number or an ISO date"),
        (["1", "2"], {"time_unit": "moons"}, "observations.time_unit must be one of .* got 'moons'"),
        (["20000101", "20000102"], {"time_unit": "days"}, "look like dates written as numbers"),
        (["200012", "200101"], {}, "look like dates written as numbers"),
        (["2000010123", "2000010200"], {}, "look like dates written as numbers"),
        (["200001010059", "200001010100"], {}, "look like dates written as numbers"),
        (["2021-02-28", "2021-02-29"], {"time_unit": "days"}, "line 3: .* an ISO date .*'2021-02-29'"),
        (["2021-10-31T02:00+02:00", "2021-10-31T00:00Z"], {"time_unit": "h"}, "line 3: a second value"),
        (["1", "2.4"], {}, r"time 2.4 \(number 2\) is not on a model step: .* nearest, 1, is at 2"),
        (["1", "2", "2"], {}, "line 4: a second value"),
        (["1", "2", "2.0000001"], {}, "times 2 and 2.0000001 are both nearest to model step 1"),
        (["1", "3", "2"], {}, "times must increase; 3 is followed by 2"),
        (["0", "3e9"], {}, "step 3000000000, too far from the origin"),
    ],
)
def test_refused_times(tmp_path, read, times, keys, message):
    with pytest.raises(FileError, match=message):
        read(csv(tmp_path, times), **keys)


@pytest.mark.parametrize(
    ("units", "keys", "message"),
    [
        ("hours since 2000-01-01", {}, "is in 'hours since 2000-01-01', but in which unit"),
        ("months since 2000-01-01", {"time_unit": "days"}, "no fixed length in days"),
        ("moons since 2000-01-01", {"time_unit": "days"}, "is none of nanoseconds"),
        ("day as %Y%m%d.%f", {}, "look like dates written as numbers"),
        ("days since launch", {"time_unit": "months"}, "gives no date to count from"),
        ("days since 2000-02-30", {"time_unit": "months"}, "names no date"),
    ],
)
def test_refused_units(tmp_path, read, units, keys, message):
    with pytest.raises(FileError, match=message):
        read(netcdf(tmp_path, [0, 1], units), **keys)


def test_as_xarray_decodes_it(tmp_path, read):
    times = pd.date_range("1999-12-31T12:00", periods=50, freq="3h")
    xr.Dataset({"value": ("time", np.arange(50.0))}, {"time": times}).to_netcdf(
        tmp_path / "obs.nc", engine="h5netcdf"
    )
    record = read(tmp_path / "obs.nc", dt=0.125, time_unit="days", time_origin="1999-12-31")
    assert record.steps.tolist() == list(range(4, 54))


@pytest.mark.parametrize(
    ("times", "units", "expected"),
    [
        ([0, 1.5], "days since 2000-02-28", ["2000-02-28", "2000-02-29T12:00"]),
        ([-6, 0.25], "hours since 2000-01-01T06:00:00", ["2000-01-01", "2000-01-01T06:15"]),
        ([0, 1, 1.5], "months since 2000-01-01", ["2000-01-01", "2000-02-01", "2000-02-15T12:00"]),
        ([0, 1, 3], "months since 2000-01-15", ["2000-01-15", "2000-02-15", "2000-04-15"]),
        ([0, 1, 2], "months since 2000-01-31", ["2000-01-31", "2000-02-29", "2000-03-31"]),
        ([-1, 0.5], "month since 2000-03-01T06:00", ["2000-02-01T06:00", "2000-03-16T18:00"]),
        ([0, 1, 129], "years since 1871-01-01", ["1871-01-01", "1872-01-01", "2000-01-01"]),
    ],
)
def test_dates_of_times(times, units, expected):
    found = dates_of(np.array(times, float), units)
    np.testing.assert_array_equal(found, np.array(expected, "datetime64[ns]"))


@pytest.mark.parametrize("unit", ["months", "years", "weeks", "hours"])
def test_the_dates_of_a_file_are_kept_to_the_microsecond(tmp_path, read, unit):
    """Not there and back through numbers of months, which put some of them on the day before."""
    dates = ["2000-01-15", "2000-02-15", "2001-03-15T06:29:59.999999", "2014-04-15T00:00:00.000001"]
    path = tmp_path / "obs.csv"
    path.write_text("time,value\n" + "".join(f"{date},1\n" for date in dates))
    record = read(path, time_unit=unit, dt=1e-3, nearest=True)
    np.testing.assert_array_equal(record.dates, np.array(dates, "datetime64[ns]"))


@pytest.mark.parametrize("units", ["hours since launch", "hours since 2000-02-30", "hours since 0001-01-01"])
def test_numbers_since_no_date_of_ours_are_numbers(tmp_path, read, units):
    record = read(netcdf(tmp_path, [0, 1], units), time_unit="hours")
    assert record.dates is None
    assert record.steps.tolist() == [0, 1]


def test_a_valid_range_without_any_value(tmp_path, read):
    path = tmp_path / "obs.csv"
    path.write_text("time,value\n0,1\n1,2\n")
    with pytest.raises(
        FileError, match=r"no value of .* is left\. .*: 2 values outside .*\[100, 200\].*first 1"
    ):
        read(path, valid_range=(100, 200))
    with pytest.raises(FileError, match=r"must be \[least, largest\]; got \[5, 2\]"):
        read(path, valid_range=(5, 2))


def test_times_that_are_no_dates():
    assert dates_of(np.arange(3.0), None) is None
    assert dates_of(np.arange(3.0), "hours") is None
    assert dates_of(np.arange(3.0), "days since 2000-01-01", "360_day") is None
    assert dates_of(np.array([0.0, 3e5]), "days since 2000-01-01") is None  # beyond nanoseconds
