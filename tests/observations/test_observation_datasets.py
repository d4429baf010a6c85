"""NetCDF and zarr: dimensions by name, CF attributes, masks and flags."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

from masf_jax.observations.errors import FileError

TIMES = np.arange(3.0)


def netcdf(folder, variables, engine="h5netcdf", encoding=None):
    """variables: name -> (dims, values[, attributes]); time is there unless given."""
    variables = {"time": ("time", TIMES)} | variables
    xr.Dataset(variables).to_netcdf(folder / "obs.nc", engine=engine, encoding=encoding)
    return folder / "obs.nc"


SQUARE = np.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize("type", ["f4", "f8", ">f4", ">f8", "i2", "i4", ">i2"])
def test_types(tmp_path, read, engine, type):
    record = read(netcdf(tmp_path, {"value": (("time", "station"), SQUARE.astype(type))}, engine), (3,))
    np.testing.assert_array_equal(record.values, SQUARE)
    assert record.values.dtype == np.float64
    assert record.mask.all()


def test_time_is_found_by_its_name(tmp_path, read):
    mask = np.eye(3, dtype="i1")[:, [1, 2, 0]]
    file = {"value": (("station", "time"), SQUARE), "mask": (("time", "station"), mask)}
    record = read(netcdf(tmp_path, file), (3,))
    np.testing.assert_array_equal(record.mask, mask)
    np.testing.assert_array_equal(record.values, np.where(mask, SQUARE.T, 0))


@pytest.mark.parametrize("names", [("x", "y", "time"), ("time", "lat", "lon"), ("lon", "time", "lat")])
def test_axes_of_fields_are_found_by_their_names(tmp_path, read, names):
    field = np.arange(27.0).reshape(3, 3, 3)  # time, y, x
    own = [{"time": 0, "lat": 1, "y": 1, "lon": 2, "x": 2}[name] for name in names]
    record = read(netcdf(tmp_path, {"value": (names, field.transpose(own))}), (3, 3))
    np.testing.assert_array_equal(record.values, field)


def test_grids_must_have_the_measured_shape(tmp_path, read):
    file = netcdf(tmp_path, {"value": (("time", "a", "b"), np.zeros((3, 2, 3)))})
    with pytest.raises(FileError, match=r"shape \(2, 3\) \(a, b\) at a time, but .* shape \(3, 2\)"):
        read(file, (3, 2))


def test_a_grid_has_its_positions(tmp_path, read):
    field = np.arange(12.0).reshape(3, 2, 2)
    file = {"value": (("time", "y", "x"), field), "x": ("x", [0.0, 2.0]), "y": ("y", [1.0, 3.0])}
    positions = np.array([[x, y] for y in range(4) for x in range(3)], float)
    record = read(netcdf(tmp_path, file), (12,), positions=positions)
    np.testing.assert_array_equal(record.values[0][record.mask[0]], field[0].ravel())
    assert positions[record.mask[0]].tolist() == [[0, 1], [2, 1], [0, 3], [2, 3]]
    file["y"] = ("y", [3.0, 1.0])
    with pytest.raises(FileError, match="'y' must increase"):
        read(netcdf(tmp_path, file), (12,), positions=positions)


@pytest.mark.parametrize(
    ("stored", "attributes", "expected"),
    [
        (np.array([1, -9, 3], "i2"), {"_FillValue": np.int16(-9)}, [1, None, 3]),
        (np.array([1, -9, -8], "f4"), {"missing_value": np.float64([-9, -8])}, [1, None, None]),
        (np.array([1e20, 2, 3], "f4"), {"_FillValue": 1e20}, [None, 2, 3]),
        (np.array([9.969209968386869e36, 2, 3], "f4"), {}, [None, 2, 3]),
        (np.array([-32767, 2, 3], "i2"), {}, [None, 2, 3]),
        (np.array([1, 2, 3], "i2"), {"scale_factor": 0.1, "add_offset": 5.0}, [5.1, 5.2, 5.3]),
        (np.array([1, 2, 3], "i2"), {"scale_factor": 0.1, "valid_max": np.int16(2)}, [0.1, 0.2, None]),
        (np.array([1, 2, 3], "i2"), {"scale_factor": 0.1, "valid_max": 0.25}, [0.1, 0.2, None]),
        (np.array([1, 2, 3], "f8"), {"valid_range": [1.5, 2.5]}, [None, 2, None]),
        (np.array([1, 2, 3], "f8"), {"valid_min": 2.0}, [None, 2, 3]),
        (np.array([-1, 2, 3], "i1"), {"_Unsigned": "true"}, [255, 2, 3]),
        (np.array([-1, 2, 3], "i1"), {"_Unsigned": "true", "_FillValue": np.int8(-1)}, [None, 2, 3]),
        (np.array([-1, 2, 3], "i2"), {"_Unsigned": "true", "missing_value": 65535}, [None, 2, 3]),
        (np.array([-1, 2, -9], "i1"), {"_Unsigned": "true", "valid_max": np.int8(-6)}, [None, 2, 247]),
        (np.array([-32767, 2, -1], "i2"), {"_Unsigned": "true"}, [None, 2, 65535]),
        (np.array([-9223372036854775806, 2, 3]), {}, [None, 2, 3]),
        (np.array([-9999.9, 2, 3]), {"missing_value": np.float32(-9999.9)}, [None, 2, 3]),
        (np.array([-9999.9, 2, 3], "f4"), {"_FillValue": np.nan, "missing_value": -9999.9}, [None, 2, 3]),
        (np.array([0.25, 0.2, 3], "f4"), {"valid_max": 0.2}, [None, float(np.float32(0.2)), None]),
        (np.array([0.25, 0.2, 0.1]), {"valid_min": np.float32(0.2)}, [0.25, 0.2, None]),
        (np.array([0, 2, 3], "i4"), {"_FillValue": np.int32(-1)}, [0, 2, 3]),
    ],
)
def test_cf_attributes_of_values(tmp_path, read, stored, attributes, expected):
    attributes = dict(attributes)
    encoding = {"value": {"_FillValue": attributes.pop("_FillValue", None)}}
    record = read(netcdf(tmp_path, {"value": ("time", stored, attributes)}, encoding=encoding))
    assert record.mask.ravel().tolist() == [value is not None for value in expected]
    np.testing.assert_allclose(record.values.ravel(), [value or 0.0 for value in expected], rtol=1e-15)
    assert record.outside == sum("valid" in name for name in attributes) * expected.count(None)


FLAGS = {"flag_values": np.array([0, 1, 2], "i1"), "flag_meanings": "good suspect bad"}
UNSIGNED = FLAGS | {"flag_values": np.array([-1, 0, 2], "i1"), "_Unsigned": "true"}
BITS = {"flag_masks": np.array([1, 2, 4], "i1"), "flag_meanings": "valid interpolated late"}


@pytest.mark.parametrize(
    ("mask", "attributes", "expected"),
    [
        (np.array([1, 0, 1], "i1"), {}, [1, 0, 1]),
        (np.array([1, 0, 1], "i1"), {"_FillValue": np.int8(0)}, [1, 0, 1]),
        (np.array([1, -1, 1], "i1"), {"_FillValue": np.int8(-1)}, [1, 0, 1]),
        (np.array([1, 0, 1], bool), {}, [1, 0, 1]),
        (np.array([1, 0, np.nan]), {}, [1, 0, 0]),
        (np.array(["True", "False", "no"]), {}, [1, 0, 0]),
        (np.array([0, 1, 2], "i1"), FLAGS, [1, 0, 0]),
        (np.array([0, 1, 7], "i1"), BITS, [0, 1, 1]),
        (np.array([-1, 1, 1], "i1"), {"_Unsigned": "true", "missing_value": np.int8(-1)}, [0, 1, 1]),
        (np.array([-1, 0, 2], "i1"), UNSIGNED, [1, 0, 0]),
    ],
)
def test_masks(tmp_path, read, mask, attributes, expected):
    encoding = {"mask": {"_FillValue": attributes["_FillValue"]}} if "_FillValue" in attributes else None
    attributes = {key: value for key, value in attributes.items() if key != "_FillValue"}
    file = {"value": ("time", TIMES), "mask": ("time", mask, attributes)}
    assert read(netcdf(tmp_path, file, encoding=encoding)).mask.ravel().tolist() == [
        bool(e) for e in expected
    ]


def test_quality_flags_that_values_name(tmp_path, read):
    file = {"value": ("time", TIMES, {"ancillary_variables": "qc error"})}
    file |= {"qc": ("time", np.array([0, 1, 0], "i1"), FLAGS), "error": ("time", TIMES)}
    assert read(netcdf(tmp_path, file)).mask.ravel().tolist() == [True, False, True]


def test_the_variable_of_the_values_can_be_named(tmp_path, read):
    about = {"units": "degC", "ancillary_variables": "qc"}
    file = {"t2m": ("time", TIMES, about), "value": ("time", TIMES + 9)}
    file |= {"qc": ("time", np.array([0, 1, 0], "i1"), FLAGS)}
    path = netcdf(tmp_path, file)
    record = read(path, variable="t2m")
    np.testing.assert_array_equal(record.values.ravel(), [0.0, 0.0, 2.0])
    assert record.mask.ravel().tolist() == [True, False, True]  # its own flags
    assert record.units == "degC"
    assert read(path).values.ravel().tolist() == [9.0, 10.0, 11.0]
    with pytest.raises(
        FileError, match=r"no variable 'tas'; its variables are .*t2m.*observations\.variable=NAME"
    ):
        read(path, variable="tas")
    with pytest.raises(FileError, match=r"observations\.variable=time: that is no variable of measured"):
        read(path, variable="time")
    (tmp_path / "a.csv").write_text("time,value\n0,1\n")
    with pytest.raises(FileError, match="call the column value"):
        read(tmp_path / "a.csv", variable="t2m")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"value": ("time", TIMES, {"units": "days since 2000-01-01"})}, "'value' holds dates"),
        ({"value": (("time", "lat"), SQUARE), "lat": ("lat", [3.0, 2.0, 1.0])}, "'lat' must increase"),
        ({"mask": ("time", ["ok", "?", "ok"])}, "'mask' must hold 1 .* or true and false; got '[?]'"),
        ({"mask": ("time", [1, 2, 0])}, "'mask' must hold 1 .valid. and 0; got 2.*flag_meanings"),
        (
            {"mask": ("time", [1, 1, 0], {"flag_masks": [1], "flag_meanings": "broken"})},
            "which flags of 'mask'",
        ),
        ({"value": ("time", TIMES, {"missing_value": "none"})}, "missing_value of 'value' must be a number"),
        ({"value": ("time", TIMES, {"scale_factor": 0.0})}, "scale_factor of 'value' must be one finite"),
        ({"value": ("time", TIMES, {"valid_range": [1.0, 2.0, 3.0]})}, "valid_range of 'value' must be two"),
        ({"value": ("time", ["a", "b", "c"])}, "'value' must hold numbers; it holds text"),
        ({"time": ("time", ["a", "b", "c"])}, "'time' must hold numbers"),
        ({"time": ("time", TIMES[:0]), "value": ("time", TIMES[:0])}, "holds no times"),
    ],
)
def test_refused(tmp_path, read, file, message):
    with pytest.raises(FileError, match=message):
        read(netcdf(tmp_path, {"value": ("time", TIMES)} | file))


@pytest.mark.parametrize("version", [2, 3])
def test_the_fill_value_of_zarr(tmp_path, read, version):
    zarr = pytest.importorskip("zarr")

    def write(fill, **attributes):
        group = zarr.open_group(str(tmp_path / "obs.zarr"), mode="w", zarr_format=version)
        values = {"time": TIMES, "value": np.array([0.0, -9.0, 2.0]), "mask": np.array([1, 1, 0], "i1")}
        for name, array in values.items():
            named = {} if version == 2 else {"dimension_names": ["time"]}
            own = fill if name == "value" else 0
            stored = group.create_array(name, shape=(3,), dtype=array.dtype, fill_value=own, **named)
            stored[...] = array
            stored.attrs.update({"_ARRAY_DIMENSIONS": ["time"]} if version == 2 else {})
        group["value"].attrs.update(attributes)
        return tmp_path / "obs.zarr"

    assert read(write(0.0)).mask.ravel().tolist() == [True, True, False]
    if version == 2:  # as xarray writes it
        assert read(write(-9.0)).mask.ravel().tolist() == [True, False, False]
    else:
        with pytest.raises(FileError, match="'value' holds -9, its fill_value: missing, or a value"):
            read(write(-9.0))
        assert read(write(-9.0, missing_value=-9.0)).mask.ravel().tolist() == [True, False, False]
        with pytest.raises(FileError, match="_FillValue is no text of zarr 3: name it missing_value"):
            read(write(0.0, _FillValue=-9.0))


def test_dimensions_without_names(tmp_path, read):
    with h5py.File(tmp_path / "obs.h5", "w") as file:
        file["value"], file["time"] = SQUARE[:2], TIMES
    np.testing.assert_array_equal(read(tmp_path / "obs.h5", (2,)).values, SQUARE[:2].T)
    with h5py.File(tmp_path / "obs.h5", "w") as file:
        file["value"], file["time"] = SQUARE, TIMES
    with pytest.raises(FileError, match="which of the dimensions of 'value'"):
        read(tmp_path / "obs.h5", (3,))


def test_one_value_a_row(tmp_path, read):
    """The time of each value, and its station, as CF's indexed ragged arrays have them."""
    file = {"time": ("obs", [0.0, 2.0, 1.0, 2.0]), "value": ("obs", [1.0, 3.0, 20.0, 30.0])}
    for place in ({"index": ("obs", [0, 0, 1, 1])}, {"station": ("obs", ["a", "a", "b", "b"])}):
        record = read(netcdf(tmp_path, file | place), (2,))
        assert record.steps.tolist() == [0, 1, 2]
        assert record.mask.tolist() == [[True, False], [False, True], [True, True]]
        assert record.values[record.mask].tolist() == [1, 20, 3, 30]


def test_stations_by_name(tmp_path, read):
    file = netcdf(tmp_path, {"value": (("time", "s"), SQUARE), "station": ("s", ["a", "b", "c"])})
    np.testing.assert_array_equal(read(file, (3,)).values, SQUARE)
    record = read(file, (4,), stations=("c", "d", "b", "a"))
    np.testing.assert_array_equal(record.values[:, [3, 2, 0]], SQUARE)
    assert not record.mask[:, 1].any()


@pytest.mark.parametrize(
    ("names", "columns"), [(["a", "b", "c"], [0, 1, 2]), ([5, 10, 20], [0, 1, 2]), ([2, 0, 1], [1, 2, 0])]
)
def test_stations_that_say_their_order(tmp_path, read, names, columns):
    file = netcdf(tmp_path, {"value": (("time", "station"), SQUARE), "station": names})
    np.testing.assert_array_equal(read(file, (3,)).values, SQUARE[:, columns])
    file = netcdf(tmp_path, {"value": (("time", "depth", "station"), SQUARE[:, None]), "station": names})
    np.testing.assert_array_equal(read(file, (3,)).values, SQUARE[:, columns])


def test_stations_in_no_order_are_asked_for(tmp_path, read):
    for names in (["a", "a", "b"], ["c", "a", "b"]):
        file = netcdf(tmp_path, {"value": (("time", "station"), SQUARE), "station": names})
        with pytest.raises(FileError, match=rf"has the stations {', '.join(names)}: which of the 3"):
            read(file, (3,))
    np.testing.assert_array_equal(read(file, (3,), stations=("c", "a", "b")).values, SQUARE)


@pytest.mark.parametrize(
    ("scalar", "keys"),
    [
        ({"index": 1}, {}),
        ({"station": "b"}, {"stations": ("a", "b")}),
        ({"x": 2.0, "y": 1.0}, {"positions": np.array([[1.0, 1.0], [2.0, 1.0]])}),
    ],
)
def test_one_place_of_many(tmp_path, read, scalar, keys):
    """A place that all values share, as `Dataset.isel` leaves it."""
    file = netcdf(tmp_path, {"value": ("time", TIMES)} | {name: ((), each) for name, each in scalar.items()})
    record = read(file, (2,), **keys)
    assert record.values[:, 1].tolist() == TIMES.tolist()
    assert record.mask.tolist() == [[False, True]] * 3


def test_a_line_across_a_field(tmp_path, read):
    file = {"value": (("time", "x"), SQUARE[:, :2]), "x": [3.0, 1.0], "y": ((), 2.0)}
    record = read(netcdf(tmp_path, file), (2,), positions=np.array([[1.0, 2.0], [3.0, 2.0]]))
    np.testing.assert_array_equal(record.values, SQUARE[:, [1, 0]])


def test_rows_outside_the_valid_range_are_reported(tmp_path, read):
    file = {"time": ("obs", [0.0, 1.0, 1.0]), "value": ("obs", [1.0, 99.0, 2.0], {"valid_max": 9.0})}
    record = read(netcdf(tmp_path, file | {"index": ("obs", [0, 0, 1])}), (2,))
    assert record.mask.tolist() == [[True, False], [False, True]]
    assert record.outside == 1
    assert "1 values outside the file's own valid range" in record.warnings[0]
