"""`masf-jax animate`: the file lies in the run's folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...plots.frames import FORMATS, animation
from ..errors import InputError, WriteError
from ..files import write_all

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FORMATS", "write_animation"]


def write_animation(
    folder: Path,
    data: xr.Dataset,
    cycles: Sequence[int],
    format: str = "gif",
    frames_per_second: float = 8.0,
    points: bool = True,
    dpi: int = 100,
) -> Path:
    """Writes vorticity.gif or vorticity.mp4 into the folder and returns its path; see `plots.animation`.

    Raises:
        InputError: a cycle that the run does not have; an MP4 without ffmpeg.
        WriteError: the file could not be written.
    """

    def write(path: Path) -> None:
        animation(data, path, cycles, frames_per_second, points, dpi)

    try:
        return write_all(folder, {f"vorticity.{format}": write})[0]
    except ValueError as error:
        raise InputError(str(error)) from error
    except RuntimeError as error:
        raise WriteError(str(error)) from error
