"""Files made to reach elsewhere, to take all memory, or damaged: refused in a sentence, by a process of their
own that is ended where it does not end itself."""

from __future__ import annotations

import json
import os
import signal
import zlib

import h5py
import numpy as np
import pytest
import xarray as xr

from masf_jax.observations import dataset_files
from masf_jax.observations.errors import FileError, printable


def hdf5(folder, fill):
    """time (5,), and what `fill` writes, whose value has the dimension time."""
    path = folder / "obs.nc"
    with h5py.File(path, "w") as file:
        file["time"] = np.arange(5.0)
        file["time"].make_scale("time")
        fill(file)
        link = file.get("value", getlink=True)
        if isinstance(link, h5py.HardLink):
            file["value"].dims[0].attach_scale(file["time"])
    return path


def external_storage(file):
    np.arange(5.0).tofile(os.path.join(os.path.dirname(file.filename), "secret.bin"))
    file.create_dataset("value", (5,), "f8", external=[("secret.bin", 0, 40)])


def external_link(file):
    file["value"] = h5py.ExternalLink("/etc/passwd", "/value")


def link_beside(file):
    file["value"] = np.arange(5.0)
    file.create_group("a/b")
    file["a/b/c"] = h5py.ExternalLink("other.h5", "/value")


def virtual(file):
    layout = h5py.VirtualLayout((5,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "value", (5,))
    file.create_virtual_dataset("value", layout)


def giant(file):
    file["station"] = np.zeros(1)
    file["station"].make_scale("station")
    file.create_dataset("value", (5,), "f8", maxshape=(None,), chunks=(5,))
    file["value"].resize((10**13,))
    file["time"].id  # noqa: B018
    del file["time"]
    file.create_dataset("time", (10**13,), "f8", chunks=(5,))
    file["time"].make_scale("time")


def objects(file):
    file.create_dataset("value", (5,), h5py.vlen_dtype(np.float64))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external_storage, "'/value' keeps its values in another file, secret.bin"),
        (external_link, "'value' is a link into another file, /etc/passwd"),
        (link_beside, "/a/b: 'c' is a link into another file, other.h5"),
        (virtual, "'/value' is a virtual dataset"),
        (giant, r"of shape \(10000000000000,\) would take 8e\+04 GB; the limit here is"),
        (objects, "'value': it holds objects, neither numbers nor text"),
    ],
)
def test_netcdf(tmp_path, read, fill, message):
    with pytest.raises(FileError, match=rf"cannot read .*obs.nc as NetCDF-4: .*{message}"):
        read(hdf5(tmp_path, fill))


def store(folder, version=2):
    path = folder / "obs.zarr"
    data = xr.Dataset({"value": ("time", np.arange(5.0))}, {"time": np.arange(5.0)})
    data.to_zarr(path, consolidated=False, zarr_format=version)
    return path


def edited(path, **changes):
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | changes))


def as_link(chunk):
    chunk.unlink()
    chunk.symlink_to("/etc/passwd")


def as_pipe(chunk):
    chunk.unlink()
    os.mkfifo(chunk)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: as_link(path / "value" / "0"), "value/0 is a link, no plain file"),
        (lambda path: as_pipe(path / "value" / "0"), "value/0 is a pipe or device"),
        (lambda path: (path / "more").symlink_to("/etc"), "more is a link"),
        (lambda path: edited(path / "value/.zarray", filters=[{"id": "pickle"}]), "a codec 'pickle'"),
        (lambda path: edited(path / "value/.zarray", dtype="|O"), "zarr"),
        (lambda path: edited(path / "value/.zarray", chunks=[10**13]), "a chunk of .* would take 8e"),
        (lambda path: (path / "value/.zarray").write_text("[" * 50_000), "RecursionError"),
        (lambda path: (path / "value/0").write_bytes(b"\x02\x01"), "cannot read"),
    ],
)
def test_zarr(tmp_path, read, spoil, message):
    pytest.importorskip("zarr")
    path = store(tmp_path)
    spoil(path)
    with pytest.raises(FileError, match=message):
        read(path)


def test_zarr_codecs_inside_others(tmp_path, read):
    pytest.importorskip("zarr")
    path = store(tmp_path, 3)
    inner = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "numcodecs.pickle"}]}}
    edited(path / "value/zarr.json", codecs=[inner])
    with pytest.raises(FileError, match=r"a codec 'numcodecs\.pickle'"):
        read(path)


def test_no_plain_file(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.nc")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.zarr").write_text("")
    for name, message in {
        "pipe.csv": "no plain file",
        "pipe.nc": "no plain file",
        "zero.csv": "no plain file",
        "folder.csv": "is a folder",
        "file.zarr": "must be a folder",
        "a\0.csv": r"there is no file|is no path",
        "a" * 5000 + ".csv": "is no path",
    }.items():
        with pytest.raises(FileError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"", b"time,value\n1,2\n", b"CDF\x05" + bytes(40), b"\x89HDF\r\n\x1a\n", b"CDF\x01"]
)
def test_no_netcdf(tmp_path, read, content):
    (tmp_path / "obs.nc").write_bytes(content)
    with pytest.raises(FileError, match="cannot read"):
        read(tmp_path / "obs.nc")


def test_escape_sequences(tmp_path, read):
    def fill(file):
        file["value"] = np.arange(5.0)
        file["value"].attrs["units"] = "\x1b[31mK\x07\u202e"

    path = hdf5(tmp_path, fill)
    assert read(path).units == r"\x1b[31mK\x07\u202e"
    with pytest.raises(FileError) as error:
        read(path, units="K")
    assert "\x1b" not in str(error.value)
    assert printable("a\nb\x9b\u2028é°") == "a\nb\\x9b\\u2028é°"
    assert printable("abcdef", 4) == "abc…"


def test_the_reading_process(own_process, tmp_path, read, monkeypatch):
    """One answers, one computes without end, one sleeps, one breaks down."""
    path = tmp_path / "obs.nc"
    xr.Dataset({"value": ("time", np.arange(5.0)), "time": ("time", np.arange(5.0))}).to_netcdf(
        path, engine="h5netcdf"
    )
    assert read(path).values.ravel().tolist() == [0, 1, 2, 3, 4]
    script = tmp_path / "reader.py"
    monkeypatch.setattr(dataset_files, "_READER", script)
    crash = "import os; os.kill(os.getpid(), {})"
    endless = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass"
    for text, message in {
        endless: "did not come to an end",
        "import time; time.sleep(60)": "took more than 3 s, and was ended",
        crash.format(int(signal.SIGSEGV)): r"broke down on it \(code -11\): it is damaged",
        crash.format(int(signal.SIGKILL)): "too much memory or time",
    }.items():
        script.write_text(text)
        monkeypatch.setattr(dataset_files, "_SECONDS", 3.0 if "sleep" in text else 60.0)
        with pytest.raises(FileError, match=message):
            read(path)


@pytest.mark.slow
def test_a_bomb_is_ended(own_process, tmp_path, read):
    """A chunk that unpacks to a thousand times what its shape says."""
    pytest.importorskip("zarr")

    path = store(tmp_path)
    edited(path / "value/.zarray", compressor={"id": "zlib", "level": 9})
    pack = zlib.compressobj(1)
    with (path / "value/0").open("wb") as file:
        for _ in range(90):
            file.write(pack.compress(bytes(2**24)))
        file.write(pack.flush())
    with pytest.raises(FileError, match=r"cannot read .*more memory than its shapes"):
        read(path)
