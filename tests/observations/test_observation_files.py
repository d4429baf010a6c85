"""Observation files: three formats, one content; every mistake named."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from masf_jax.cli.errors import InputError
from masf_jax.cli.groups import shipped_file
from masf_jax.observations.errors import FileError
from masf_jax.observations.reading import read_observations
from masf_jax.observations.source import ObservationFile

TIMES = np.array([0.5, 1.0, 2.5])
VALUES = np.array([[1.0, np.nan], [2.0, 20.0], [np.nan, 30.0]])
LONG = (
    "# units: K\ntime,value,index,valid\n0.5,1,3,1\n1,2,3,1\n1,20,0,1\n2.5,,3,1\n2.5,30,0,true\n0.5,9,0,0\n"
)
WIDE = "# units: K\ntime,value_0,value_1\n0.5,1,\n1.0,2,20\n2.5,nan,30\n"


def dataset(**extra):
    data = xr.Dataset({"value": (("cycle", "station"), VALUES, {"units": "K"}), "time": ("cycle", TIMES)})
    return data.assign({name: (dims, np.asarray(values)) for name, (dims, values) in extra.items()})


def read(path, shape=(5,), dt=0.5, n_cycles=None, positions=None, **source):
    source = ObservationFile(path=str(path), **({"time_origin": 0.0} | source))
    return read_observations(source, shape, dt, n_cycles, positions)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("kind", ["csv", "nc", "zarr"])
def test_formats_agree(tmp_path, kind):
    path = tmp_path / f"obs.{kind}"
    data = dataset(index=("station", [3, 0]))
    if kind == "csv":
        write(path, LONG)
    elif kind == "nc":
        data.to_netcdf(path, engine="h5netcdf")
    else:
        pytest.importorskip("zarr")
        data.to_zarr(path, consolidated=False)
    record = read(path, units="K")
    expected = np.full((3, 5), np.nan)
    expected[:, [3, 0]] = VALUES
    np.testing.assert_array_equal(record.mask, np.isfinite(expected))
    np.testing.assert_array_equal(record.values[record.mask], expected[record.mask])
    np.testing.assert_array_equal(record.steps, [1, 2, 5])
    np.testing.assert_array_equal(record.times, TIMES)


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "", "NA"])
def test_values_that_are_not_finite_are_missing(tmp_path, text):
    record = read(write(tmp_path / "w.csv", f"time,value_0,value_1\n1,{text},2\n2,3,4\n"), shape=(2,))
    assert record.mask.tolist() == [[False, True], [True, True]]
    assert np.isfinite(record.values).all()


@pytest.mark.parametrize(
    ("found", "expected", "kept"), [("K", None, "K"), ("K", "K", "K"), (None, "mm", "mm")]
)
def test_units_are_kept(tmp_path, found, expected, kept):
    text = WIDE if found else WIDE.split("\n", 1)[1]
    assert read(write(tmp_path / "w.csv", text), shape=(2,), units=expected).units == kept
    data = dataset()
    data["value"].attrs = {"units": found} if found else {}
    data.to_netcdf(tmp_path / "w.nc", engine="h5netcdf")
    assert read(tmp_path / "w.nc", shape=(2,), units=expected).units == kept


def test_wide_csv_in_order(tmp_path):
    record = read(write(tmp_path / "wide.csv", WIDE), shape=(2,))
    np.testing.assert_array_equal(record.mask, np.isfinite(VALUES))


def test_mask_per_value_and_per_cycle(tmp_path):
    dataset(mask=("cycle", [1, 0, 1])).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert read(tmp_path / "a.nc", shape=(2,)).mask.tolist() == [[True, False], [False, False], [False, True]]
    dataset(mask=(("cycle", "station"), [[0, 1], [1, 0], [1, 1]])).to_netcdf(
        tmp_path / "b.nc", engine="h5netcdf"
    )
    assert read(tmp_path / "b.nc", shape=(2,)).mask.tolist() == [[False, False], [True, False], [False, True]]


def test_positions_find_their_place(tmp_path):
    path = write(tmp_path / "x.csv", "time,value,x\n1,5,2.0\n1,6,0.0\n")
    record = read(path, shape=(3,), positions=np.array([[0.0], [1.0], [2.0]]))
    np.testing.assert_array_equal(record.values, [[6.0, 0.0, 5.0]])
    with pytest.raises(FileError, match="nearest measured position"):
        read(path, shape=(3,), positions=np.array([[0.0], [1.0], [3.0]]))
    with pytest.raises(FileError, match="give an index"):
        read(path, shape=(3,))


def test_default_origin_is_the_first_time(tmp_path):
    assert read(write(tmp_path / "w.csv", WIDE), shape=(2,), time_origin=None).steps.tolist() == [0, 1, 4]


def test_first_cycles_only(tmp_path):
    assert read(write(tmp_path / "w.csv", WIDE), shape=(2,), n_cycles=2).steps.tolist() == [1, 2]


def test_times_between_steps_go_to_the_nearest_where_that_is_asked_for(tmp_path):
    path = write(tmp_path / "w.csv", "time,value\n0.9,1\n2.2,2\n2.9,3\n")
    assert read(path, shape=(1,), dt=1.0, time_origin=0.0, nearest=True).steps.tolist() == [1, 2, 3]
    with pytest.raises(FileError, match=r"observations\.nearest=true moves each time"):
        read(path, shape=(1,), dt=1.0, time_origin=0.0)
    with pytest.raises(FileError, match=r"times 2\.2 and 2\.9 are both nearest to model step 1"):
        read(path, shape=(1,), dt=3.0, time_origin=0.0, nearest=True)


@pytest.mark.parametrize(
    ("text", "options", "parts"),
    [
        (WIDE, {"n_cycles": 4, "shape": (2,)}, ("holds 3 times", "n_cycles = 4")),
        (WIDE, {"shape": (3,)}, ("2 value(s) per time", "measurement has 3")),
        (WIDE, {"shape": (2,), "units": "degC"}, ("'K'", "'degC'")),
        (WIDE, {"shape": (2,), "dt": 0.4}, ("not on a model step", "dynamics.dt = 0.4")),
        (WIDE, {"shape": (2,), "time_origin": 1.0}, ("before model step 0",)),
        (LONG, {"shape": (3,)}, ("index 3 is outside",)),
        ("time,value\n1,abc\n", {}, ("line 2", "value must be a number", "'abc'")),
        ("time,value\n2020-01-01,1\n", {}, ("holds dates", "observations.time_unit=hours")),
        ("time,value\ninf,1\n", {}, ("line 2", "time must be a finite number")),
        ("time,value\n1,2,3\n", {}, ("line 2", "3 cells", "2 columns")),
        ("when,value\n1,2\n", {}, ("no column 'time'", "when")),
        ("time,flow\n1,2\n", {}, ("time, flow", "expected time,value")),
        ("time,value,weight\n1,2,3\n", {}, ("weight",)),
        ("time,value\n", {}, ("no rows",)),
        ("time,value\n1,2\n1,3\n", {}, ("line 3", "second value")),
        ("time,value,index\n1,2,0.5\n", {}, ("line 2", "whole number")),
        ("time,value,valid\n1,2,maybe\n", {}, ("line 2", "valid must be", "'maybe'")),
        ("time,value\n2,2\n1,2\n", {"shape": (1,)}, ("times must increase",)),
        ("time,value\n1,\n", {"shape": (1,)}, ("no valid value",)),
    ],
)
def test_bad_csv_names_the_place(tmp_path, text, options, parts):
    with pytest.raises(FileError) as error:
        read(write(tmp_path / "obs.csv", text), **options)
    for part in ("obs.csv", *parts):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (dataset().drop_vars("time"), "no variable 'time'"),
        (dataset().rename(value="temperature"), "no variable 'value'"),
        (dataset(mask=("station", [1, 0])), "'mask' has shape"),
        (dataset(index=("cycle", [1, 2, 3])), "'index' has shape"),
        (dataset(index=("station", [1, 1])), "share one index"),
        (dataset(index=("station", [0.5, 1])), "whole numbers"),
        (dataset(time=("cycle", [0.0, np.nan, 1.0])), "'time' holds a missing value"),
        (dataset(time=("other", [0.0, 1.0])), "'time' (other) (2,)"),
    ],
)
def test_bad_netcdf_names_the_variable(tmp_path, data, part):
    data.to_netcdf(tmp_path / "obs.nc", engine="h5netcdf")
    with pytest.raises(FileError) as error:
        read(tmp_path / "obs.nc")
    assert part in str(error.value)
    assert "obs.nc" in str(error.value)


def test_files_that_are_not_there_or_not_readable(tmp_path):
    with pytest.raises(FileError, match="no file"):
        read(tmp_path / "none.csv")
    with pytest.raises(FileError, match="must end in"):
        read(write(tmp_path / "obs.txt", WIDE))
    with pytest.raises(FileError, match="cannot read"):
        read(write(tmp_path / "obs.nc", WIDE))
    (tmp_path / "latin.csv").write_bytes(b"time,value\n1,\xff\n")
    with pytest.raises(FileError, match="cannot read"):
        read(tmp_path / "latin.csv")
    with pytest.raises(InputError, match=r"'nile.csv'"):
        shipped_file("shipped:nil.csv")
