"""CSV: stations with times of their own, and text that is no such file."""

from __future__ import annotations

import numpy as np
import pytest

from masf_jax.observations.errors import FileError

STATIONS = "time,station,value\n0,A,1\n1,A,2\n3,A,\n1,B,20\n2,B,30\n"


def write(folder, text):
    (folder / "obs.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "obs.csv"


def test_stations_with_times_of_their_own(tmp_path, read):
    record = read(write(tmp_path, STATIONS), (2,))
    assert record.steps.tolist() == [0, 1, 2, 3]
    expected = np.array([[1, np.nan], [2, 20], [np.nan, 30], [np.nan, np.nan]])
    np.testing.assert_array_equal(record.mask, np.isfinite(expected))
    np.testing.assert_array_equal(record.values, np.nan_to_num(expected))
    record = read(write(tmp_path, STATIONS), (3,), stations=("B", "C", "A"))
    np.testing.assert_array_equal(record.mask[:, [2, 0]], np.isfinite(expected))


def test_numbered_stations(tmp_path, read):
    record = read(write(tmp_path, STATIONS.replace("A", "1").replace("B", "0")), (2,))
    assert record.values[1].tolist() == [20, 2]


def test_times_that_differ_by_round_off_are_one(tmp_path, read):
    record = read(write(tmp_path, "time,index,value\n0.3,0,1\n0.30000000000000004,1,2\n0.4,1,3\n"), (2,), 0.1)
    assert record.values.tolist() == [[1, 2], [0, 3]]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbftime,value\n1,2\n",
        b"time,value\r\n1,2\r\n",
        b"time,value\r1,2",
        b"time,value\n1,2\n,\n , \n",  # rows without anything, as spreadsheets leave them
        b'\xef\xbb\xbf# units: K\r\n"time","value"\r\n"1","2"\r\n\r\n',
    ],
)
def test_endings_of_lines_and_byte_order_marks(tmp_path, read, text):
    assert read(write(tmp_path, text)).values.tolist() == [[2]]


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        (STATIONS, 3, r"stations A, B: which of the 3 .* observations.stations=\[A,B\]"),
        (STATIONS.replace("A", "C"), 2, r"stations C, B: which"),
        (STATIONS + "1,B,9\n", 2, "line 7: a second value for its time and place"),
        ("time,value\n1,2\n2,3,4\n", 1, "line 3: 3 cells, but the header has 2 columns .a decimal comma"),
        ('# c\n\ntime,value\n1,"2\n"\n', 1, "line 4: a quoted cell goes on"),
        ('time,value\n1,"2\n', 1, "line 2: .*quotation mark"),
        (f"time,value\n1,{'2' * 200_000}\n", 1, "line 2: a cell has more than 131,072 characters"),
        ('time,value\n1,"1,5"\n', 1, "line 2: value must be a number; got '1,5' .decimals have a point"),
        ("time;value\n1;1,5\n", 1, "not separated by commas .time;value.: write commas"),
        ("time\tvalue\n1\t2\n", 1, "not separated by commas"),
        ("time,value,value\n1,2,3\n", 1, "two columns have the name 'value'"),
        ("time,value\n1,1e999\n", 1, "line 2: value 1e999 is beyond double precision"),
        ("time,value\n1,1_000\n", 1, "line 2: value must be a number; got '1_000'"),
        ("time,value\n1,\x1b[31m2\n", 1, r"line 2: value must be a number; got .*\\x1b\[31m2"),
        ("", 1, "holds no rows"),
        ("\n\n# only comments\n", 1, "holds no rows"),
        (b"t\0i\0m\0e\0\xff", 1, "is not UTF-8 text"),
        (b"\0" * 100, 1, "holds no rows"),
    ],
)
def test_refused(tmp_path, read, text, shape, message):
    with pytest.raises(FileError, match=message) as error:
        read(write(tmp_path, text), (shape,))
    assert "obs.csv" in str(error.value)
    assert "\x1b" not in str(error.value)


def test_sizes_are_known_before_memory_is_taken(tmp_path, read, monkeypatch):
    from masf_jax.observations import csv_files, safety

    file = write(tmp_path, STATIONS)
    monkeypatch.setattr(safety, "memory_limit", lambda: 60)
    with pytest.raises(FileError, match=r"would take 6.4e-08 GB .* the limit here is 6e-08 GB"):
        read(file, (2,))
    monkeypatch.setattr(csv_files, "memory_limit", lambda: 60)
    with pytest.raises(FileError, match=r"has .* GB of text; the limit here is"):
        read(file, (2,))


@pytest.mark.parametrize(("fill", "most"), [("-9999", "4999.5"), ("1e20", "5e+19")])
def test_a_usual_fill_value_is_named(tmp_path, read, fill, most):
    file = write(tmp_path, f"time,value\n0,1\n1,{fill}\n2,-98\n3,2\n")
    (text,) = read(file, n_cycles=4).warnings
    assert text.startswith(f"{file}: 1 of 4 observed values are {float(fill):g}, far from all others")
    assert f"observations.valid_range=[-{most},{most}]" in text
    assert read(file, valid_range=(-5000.0, 5000.0), n_cycles=4).mask.ravel().tolist() == [1, 0, 1, 1]
    assert read(write(tmp_path, "time,value\n0,1\n1,-9000\n2,-99\n"), n_cycles=3).warnings == ()


def test_a_valid_range_is_reported_once(tmp_path, read):
    file = write(tmp_path, "time,value\n0,1\n1,1e300\n2,-99\n3,2\n")
    record = read(file, valid_range=(0.0, 10.0), n_cycles=4)
    assert record.mask.ravel().tolist() == [True, False, False, True]
    assert record.outside == 2
    (text,) = record.warnings
    assert "2 values outside observations.valid_range = [0, 10]" in text
    assert "1e+300 (cycle 1, time 1, value 0)" in text
