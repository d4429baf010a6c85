"""Runs in a process of its own: reads variables of a NetCDF file or zarr store, within limits.

    python reader.py PATH ENGINE LIMIT_BYTES NAME…

The first NAME is that of the measured values, whose ancillary variables are read too.

Writes to stdout a line of JSON, {"error": …} or {"variables": {name: {"dims", "attributes"}}, "all": […]},
then each variable as an .npy block; of NAME "*" every variable is read, and none written. What a damaged or
hostile file does to the libraries (endless loops, crashes, memory) ends with this process. Nothing of
masf_jax is imported: it starts in half a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

_CPU_SECONDS = 5
_SPARE_BYTES = 2**30
_MOST_OBJECTS = 100_000
_MOST_METADATA = 16 * 2**20
_SECONDS_PER_BYTE = 1 / 20e6
_CODECS = {
    *("adler32", "astype", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta", "endian"),
    *("fixedscaleoffset", "fletcher32", "gzip", "lz4", "lzma", "packbits", "quantize", "sharding_indexed"),
    *("shuffle", "transpose", "vlen-bytes", "vlen-utf8", "zlib", "zstd"),
}
"""Of zarr; those that run what is in the file (pickle) are not among them."""


class Refused(Exception):
    """The file does what a file of observations has no need to."""


def limit(resource_name: str, amount: float) -> None:
    """Sets a soft limit of this process, where the system knows it."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        which = getattr(resource, resource_name)
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (int(amount), hard))


def taken() -> int:
    """Bytes of address space in use."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 2**40


def check_hdf5(path: str) -> None:
    """Refuses whatever reaches outside the file."""
    import h5py

    low: Any = h5py
    seen: set[Any] = set()

    def look(group: h5py.Group) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise Refused(f"{group.name}: '{name}' is a link into another file, {link.filename}")
            if isinstance(link, h5py.SoftLink):
                continue  # to a place in this file, looked at where it is
            item = group[name]
            if len(seen) > _MOST_OBJECTS:
                raise Refused(f"it has more than {_MOST_OBJECTS} variables and groups")
            identity = low.h5o.get_info(item.id).addr
            if identity in seen:
                continue
            seen.add(identity)
            if isinstance(item, h5py.Group):
                look(item)
            elif isinstance(item, h5py.Dataset):
                if item.external:
                    raise Refused(f"'{item.name}' keeps its values in another file, {item.external[0][0]}")
                if item.is_virtual:
                    raise Refused(f"'{item.name}' is a virtual dataset: its values are in other files")

    with h5py.File(path, "r") as file:
        look(file)


def metadata(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON documents of a zarr store, all of whose entries must be plain files and folders."""
    count = 0
    for folder, folders, files in os.walk(path, onerror=_raise):
        for name in (*folders, *files):
            place = os.path.join(folder, name)
            mode = os.lstat(place).st_mode
            count += 1
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "link" if stat.S_ISLNK(mode) else "pipe or device"
                raise Refused(f"{os.path.relpath(place, path)} is a {kind}, no plain file")
            if count > 50 * _MOST_OBJECTS:
                raise Refused(f"it has more than {50 * _MOST_OBJECTS} files")
        for name in ("zarr.json", ".zarray", ".zattrs", ".zgroup"):
            if name in files:
                place = os.path.join(folder, name)
                if os.path.getsize(place) > _MOST_METADATA:
                    raise Refused(f"{os.path.relpath(place, path)} is too large")
                with open(place, encoding="utf-8") as file:
                    yield os.path.relpath(place, path), json.load(file)


def _raise(error: OSError) -> None:
    raise error


def check_zarr(path: str) -> dict[str, dict[str, Any]]:
    """Refuses links, pipes and codecs that run code; the metadata of the root's arrays by name."""
    found: dict[str, dict[str, Any]] = {}
    for place, document in metadata(path):
        fill = (document.get("attributes") or {}).get("_FillValue") if isinstance(document, dict) else None
        if (
            fill is not None
            and str(document.get("data_type")).startswith("float")
            and isinstance(fill, int | float)
        ):
            raise Refused(f"{place}: its attribute _FillValue is no text of zarr 3: name it missing_value")
        for codec in codecs(document):
            if codec.removeprefix("numcodecs.") not in _CODECS:
                raise Refused(f"{place} names a codec {codec!r}; known are {', '.join(sorted(_CODECS))}")
        folder, file = os.path.split(place)
        kind = {".zattrs": "attributes"}.get(file, "array")
        if folder and os.sep not in folder and file != ".zgroup":
            found.setdefault(folder, {})[kind] = document
    return found


def codecs(document: Any) -> Iterator[str]:
    """Names of all codecs in the metadata of an array, nested ones included."""
    if not isinstance(document, dict):
        raise Refused("its metadata are no mapping")
    given: list[Any] = [document.get("compressor"), *(document.get("filters") or [])]
    given += document.get("codecs") or []
    while given:
        each = given.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            yield str(each.get("id", each.get("name")))
            inner = each.get("configuration")
            if isinstance(inner, dict):
                given += [*(inner.get("codecs") or []), *(inner.get("index_codecs") or [])]


def fill_of_zarr(attributes: dict[str, Any], about: dict[str, Any]) -> None:
    """A fill value of zarr's own: of version 2, other than 0, it stands for missing, as xarray writes it;
    0 is the default there, no sign of anything. Of version 3 only the attribute says so."""
    array = about.get("array", {})
    fill = array.get("fill_value")
    if array.get("zarr_format") == 2:
        if "_FillValue" not in about.get("attributes", {}) and fill in (0, False):
            attributes.pop("_FillValue", None)
    elif "_FillValue" not in attributes and isinstance(fill, int | float) and fill not in (0, 1):
        attributes["zarr_fill"] = np.asarray(fill)


def plain(value: Any) -> dict[str, Any] | str | None:
    """An attribute as JSON has it; None: of another kind."""
    if isinstance(value, str | bytes):
        return value if isinstance(value, str) else value.decode("utf-8", "replace")
    array = np.asarray(value)
    if array.dtype.kind in "fiub" and array.size <= 10_000:
        return {"type": array.dtype.newbyteorder("=").str, "values": array.ravel().tolist()}
    if array.dtype.kind in "US" and array.size == 1:
        return plain(array.reshape(-1)[0].item())
    return None


def text(array: np.ndarray) -> np.ndarray:
    """Fixed-length text of objects or bytes."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "O":
        if not all(isinstance(each, str) for each in array.ravel()):
            raise Refused("it holds objects, neither numbers nor text")
        return array.astype(str)
    return array


def read(path: str, engine: str, most: int, names: list[str]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header and the arrays of those variables that are there."""
    about: dict[str, dict[str, Any]] = {}
    if engine == "h5netcdf":
        check_hdf5(path)
    elif engine == "zarr":
        about = check_zarr(path)
    import xarray as xr

    limit("RLIMIT_AS", taken() + _SPARE_BYTES)
    raw: dict[str, Any] = dict.fromkeys(("mask_and_scale", "decode_times", "decode_coords"), False)
    raw |= {"decode_timedelta": False, "create_default_indexes": False}
    options = {"zarr": {"consolidated": False}, "h5netcdf": {"phony_dims": "access"}}.get(engine)
    with xr.open_dataset(path, engine=engine, backend_kwargs=options, **raw) as data:
        variables = data.variables
        value = variables.get(names[0])
        beside = "" if value is None else str(value.attrs.get("ancillary_variables", ""))
        wanted = [name for name in dict.fromkeys([*names, *beside.split()]) if name in variables]
        wanted = [str(name) for name in variables] if names == ["*"] else wanted
        n_bytes = 0
        for name in wanted:
            variable = variables[name]
            stored = [variable.encoding.get(key) for key in ("chunksizes", "chunks", "shards")]
            for shape in [variable.shape, *(each for each in stored if isinstance(each, tuple))]:
                n_values = int(np.prod([int(n) for n in shape], dtype=object))
                size = n_values * max(8, variable.dtype.itemsize)
                if size > most:
                    kind = "" if shape == variable.shape else "a chunk of "
                    raise Refused(
                        f"{kind}'{name}' of shape {shape} would take {size / 1e9:.3g} GB; the limit here is "
                        f"{most / 1e9:.3g} GB (an eighth of the free memory)"
                    )
                n_bytes += size
        limit("RLIMIT_AS", taken() + _SPARE_BYTES + 6 * n_bytes)
        limit("RLIMIT_CPU", _CPU_SECONDS + n_bytes * _SECONDS_PER_BYTE)
        found, arrays = {}, []
        for name in wanted:
            try:
                array = text(np.asarray(variables[name].values))
            except (Refused, ValueError, UnicodeError) as error:
                raise Refused(f"'{name}': {error}") from error
            attributes = dict(variables[name].attrs)
            if engine == "zarr":
                fill_of_zarr(attributes, about.get(name, {}))
            known = {key: plain(each) for key, each in attributes.items()}
            kept = {key: each for key, each in known.items() if each is not None}
            if names == ["*"]:  # whether it can be read was the question
                continue
            found[name] = {"dims": list(variables[name].dims), "attributes": kept}
            arrays.append(array.astype(array.dtype.newbyteorder("=")))
        return {"variables": found, "all": [str(name) for name in variables][:100]}, arrays


def answer(out: BinaryIO, path: str, engine: str, most: int, names: list[str]) -> None:
    """Reads, and writes what was read, or why nothing was."""
    arrays: list[np.ndarray] = []
    try:
        header, arrays = read(path, engine, most, names)
    except Refused as error:
        header = {"error": str(error)}
    except MemoryError:
        header = {"error": "it takes more memory than its shapes account for (damaged, or made to)"}
    except Exception as error:  # of any library, on a damaged file: said in one line
        header = {"error": f"it is damaged, or of another kind ({type(error).__name__}: {str(error)[:200]})"}
    out.write(json.dumps(header).encode() + b"\n")
    pipe: Any = types.SimpleNamespace(write=out.write)  # one that NumPy does not look for a position in
    for array in arrays:
        np.lib.format.write_array(pipe, array, allow_pickle=False)


def main(path: str, engine: str, most: str, *names: str) -> None:
    """Answers on stdout."""
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_CPU", _CPU_SECONDS)
    limit("RLIMIT_AS", taken() + 2 * _SPARE_BYTES)
    warnings.simplefilter("ignore")
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what libraries print is not part of the answer
        answer(out, path, engine, int(most), list(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
