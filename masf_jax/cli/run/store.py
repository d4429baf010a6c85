"""The zarr store that a run's results came in, kept as its result: `result=zarr`."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from ...results.cycles import Cycles
    from ...results.variables import Variable

__all__ = ["finish_store", "is_unfinished", "name_arrays", "open_store"]

_STATE, _OTHERS = "state", "not_of_the_result"


def name_arrays(path: Path, data: xr.Dataset, variables: Mapping[str, Variable], cycles: Cycles) -> None:
    """Dimensions, attributes and coordinates for what streamed; what did not is written beside it.

    A run can still be gone on with, until `finish_store`; done twice it is as done once.

    Args:
        data: coordinates and global attributes.
        variables: of the result; fields lie in arrays of their names already.
    """
    import zarr

    group = zarr.open_group(path, mode="r+", zarr_format=3)
    streamed = group.attrs["paths"]
    assert isinstance(streamed, Mapping)
    others = [name for name in streamed if name not in variables]
    data.attrs |= {key: value for key, value in group.attrs.items() if key != "coordinates"}  # xarray's own
    data.attrs |= {_OTHERS: others}
    for name, each in variables.items():
        about = {key: np.asarray(value).tolist() for key, value in each.about.items()}
        if name in streamed:
            _describe(path / name / "zarr.json", each.dims, about)
            continue
        for part in cycles.parts():
            values = each.read(part)
            if part.start == 0:
                array = group.create_array(
                    name, shape=(cycles.n, *values.shape[1:]), chunks=values.shape, dtype=values.dtype,
                    dimension_names=each.dims, attributes=about, overwrite=True,
                )  # fmt: skip
            array[part] = values
    with warnings.catch_warnings():  # text, of which version 3 has no specification yet
        warnings.filterwarnings("ignore", module="zarr")
        data.to_zarr(path, mode="a", consolidated=False, zarr_format=3)


def _describe(file: Path, dims: tuple[str, ...], about: dict[str, Any]) -> None:
    described = json.loads(file.read_text()) | {"dimension_names": dims, "attributes": about}
    part = file.with_suffix(".part")
    part.write_text(json.dumps(described, indent=2))
    os.replace(part, file)


def is_unfinished(path: Path) -> bool:
    """Whether it has the state of a run still."""
    return (path / _STATE).exists()


def finish_store(path: Path) -> None:
    """Takes out what was for the run to go on."""
    import zarr

    group = zarr.open_group(path, mode="r+", zarr_format=3)
    others = group.attrs.get(_OTHERS, [])
    assert isinstance(others, list)
    for name in others:
        shutil.rmtree(path / str(name), ignore_errors=True)
    shutil.rmtree(path / _STATE)


def open_store(path: Path) -> xr.Dataset:
    """The result, whose values are read as they are needed."""
    import xarray as xr

    return xr.open_zarr(path, chunks=None, consolidated=False)
