"""CSV whose columns have names of their own."""

from __future__ import annotations

import numpy as np
import pytest

from masf_jax import dynamics, observations
from masf_jax.cli.config.compose import compose
from masf_jax.measurements import Gaussian, Identity, Measurement
from masf_jax.observations.errors import FileError

LEVELS = """lower,timestamp,remark,upper
1,2026-03-01T00:10,,2
,2026-03-01T00:30,pump off,4
"""
NAMES = ("timestamp", "upper", "lower")
SENSOR = Measurement(Identity(), Gaussian(0.1))


@pytest.fixture
def levels(tmp_path):
    (tmp_path / "levels.csv").write_text(LEVELS)
    return tmp_path / "levels.csv"


def test_columns_are_read_by_their_names_in_the_order_given(levels):
    model = dynamics.Function(lambda x: x, (2,), dt=10.0)
    about = {"time_unit": "minutes", "time_origin": "2026-03-01"}
    found = observations.read(levels, model, SENSOR, columns=list(NAMES), **about, withhold=["upper"])
    assert found.stations == ("upper", "lower")
    np.testing.assert_array_equal(found.observations.steps, [1, 3])
    np.testing.assert_array_equal(found.dates, np.array(["2026-03-01T00:10", "2026-03-01T00:30"], "M8[m]"))
    np.testing.assert_array_equal(found.withheld.values[:, 0], [2, 4])
    np.testing.assert_array_equal(found.observations.values[:, 1], [1, 0])
    np.testing.assert_array_equal(found.observations.mask, [[False, True], [False, False]])


LOG = """quality,when,level,logger,battery
1,2026-03-01T00:10,2,upper,12
0,2026-03-01T00:10,99,lower,12
1,2026-03-01T00:30,3,lower,11
"""
ROLES = ("when", "level", "station:logger", "valid:quality")


def test_one_value_a_row_by_the_roles_of_the_columns(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    model = dynamics.Function(lambda x: x, (2,), dt=10.0)
    about = {"time_unit": "minutes", "time_origin": "2026-03-01", "stations": ["lower", "upper"]}
    found = observations.read(tmp_path / "log.csv", model, SENSOR, columns=list(ROLES), **about)
    np.testing.assert_array_equal(found.observations.steps, [1, 3])
    np.testing.assert_array_equal(found.observations.mask, [[False, True], [True, False]])
    values = found.observations.values
    assert (values[0, 1], values[1, 0]) == (2, 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ("when", "level", "station:name"),
            "no column 'name' .*its columns are quality, when, level, logger",
        ),
        (("when", "level", "battery", "station:logger"), "is of files with one value a row"),
        (("when", "station:logger"), "is of files with one value a row"),
        (("when", "level", "station:logger", "station:logger"), "each column of values once"),
        (("when", "level", "station:logger", "index:battery"), "got station:logger, index:battery"),
        (("when", "level", "y:battery"), "x:NAME with or without y:NAME; got y:battery"),
        (("when", "level", "valid:logger", "x:battery"), "line 2: logger must be 1 or 0 .* got 'upper'"),
        (("when", "logger", "station:level"), "line 2: logger must be a number; got 'upper'"),
        (("when", "battery", "index:logger"), "line 2: logger must be a number; got 'upper'"),
        (("logger", "level", "station:battery"), "line 2: logger must be a number; got 'upper' .dates: ISO"),
        (("broken", "level", "station:logger"), "line 2: broken must be a number, or an ISO date"),
        (("when", "level", "index:share"), "line 2: share must be a whole number; got '0.5'"),
    ],
)
def test_roles_that_do_not_fit(tmp_path, read, columns, message):
    head, *rows = LOG.splitlines()
    log = [f"{head},broken,share", *(f"{row},2026-03-01 at 1,0.5" for row in rows)]
    (tmp_path / "log.csv").write_text("\n".join(log))
    with pytest.raises(FileError, match=message):
        read(tmp_path / "log.csv", (2,), 10.0, time_unit="minutes", columns=columns)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, r"no column 'time'; its columns are lower, timestamp, .*observations.columns=\[TIME,VALUE,"),
        ({"columns": ("date", "upper", "lower")}, "no column 'date' .*its columns are lower, timestamp"),
        ({"columns": ("timestamp", "upper")}, r"names 1 column\(s\) of values, but the measurement has 2"),
        ({"columns": ("timestamp",)}, "must name the column of times, then each"),
        ({"columns": ("timestamp", "upper", "upper")}, "each column of values once"),
        ({"columns": ("timestamp", "upper", "remark")}, "line 3: remark must be a number; got 'pump off'"),
        ({"columns": NAMES, "stations": ("a", "b")}, "give observations.columns or observations.stations"),
    ],
)
def test_what_does_not_fit(levels, read, source, message):
    with pytest.raises(FileError, match=message):
        read(levels, (2,), 10.0, time_unit="minutes", **source)


def test_datasets_have_no_columns(tmp_path, read):
    (tmp_path / "levels.nc").write_bytes(b"CDF")
    with pytest.raises(FileError, match=r"observations\.columns is of CSV files"):
        read(tmp_path / "levels.nc", (2,), columns=NAMES)


def test_the_key_of_the_command_line():
    settings = compose(["observations.path=levels.csv", "observations.columns=[timestamp,upper,lower]"])
    assert settings.observations.columns == NAMES
    settings = compose(["observations.path=log.csv", "observations.columns=[when,level,station:logger]"])
    assert settings.observations.columns == ("when", "level", "station:logger")
    assert compose([]).observations.columns is None
