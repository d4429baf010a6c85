"""Animations of two-dimensional flows: vorticity of truth, analysis and error, a frame per cycle."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .flow import Panels, add_legend, check_flow, diverging
from .flow_data import measured_points, vorticity_fields
from .style import with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "animation", "ffmpeg"]

FORMATS = ("gif", "mp4")
_WIDTH = 8.4
"""Inches."""


def ffmpeg() -> str:
    """The ffmpeg program: that of the machine, or the one that imageio-ffmpeg brings.

    Raises:
        ValueError: there is neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:  # RuntimeError: the package came without its program
        raise ValueError(
            "an MP4 needs ffmpeg, which this machine does not have. Install it, or "
            "pip install 'masf-jax[animation]', which brings one; a GIF needs neither."
        ) from error


def animation(
    data: xr.Dataset,
    path: str | os.PathLike[str],
    cycles: Sequence[int] | None = None,
    frames_per_second: float = 8.0,
    points: bool = True,
    dpi: int = 100,
) -> Path:
    """Writes the vorticity of truth, analysis mean and error, a frame per cycle, and returns the path.

    All frames share their colour scales, which are symmetric about zero.

    Args:
        path: ends in .gif, or in .mp4 (H.264; needs ffmpeg).
        cycles: one frame each, in this order; None: all.
        points: mark the measured grid points, where the measurement has places.
        dpi: pixels per inch; the figure is 8.4 inches wide.

    Raises:
        MissingError: not of a flow, or the means were not saved.
        ValueError: another ending, a cycle that the run does not have, an MP4 without ffmpeg.
        RuntimeError: ffmpeg failed, with its words.
    """
    path = Path(path)
    if (format := path.suffix.removeprefix(".")) not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}.")
    if not frames_per_second > 0:
        raise ValueError(f"the frames per second must be positive; got {frames_per_second}.")
    check_flow(data, "animation")
    cycles = range(data.sizes["cycle"]) if cycles is None else cycles
    program = ffmpeg() if format == "mp4" else None
    fields = vorticity_fields(data, cycles)
    figure, (panels,) = Panels.figure(data, fields, 1, _WIDTH)
    panels.axes[0].set_ylabel(with_units("y", data["y"].attrs))
    title, name = figure.suptitle("", fontsize="medium", wrap=True), data.attrs.get("title", "")

    def show(frame: int) -> None:
        panels.show(frame, measured_points(data, cycles[frame]) if points else None)
        title.set_text(f"{name}\n{panels.moment(frame)}".strip())

    show(0)
    add_legend(figure, [panels])
    figure.draw_without_rendering()
    figure.draw_without_rendering()  # the first leaves too little room above panels of fixed aspect
    figure.set_layout_engine("none")  # panels stay where they are from the first frame on
    figure.set_dpi(dpi)
    if program is None:
        _save_gif(path, figure, show, len(cycles), frames_per_second)
    else:
        _save_mp4(path, figure, show, len(cycles), frames_per_second, program)
    return path


def _save_gif(path: Path, figure: Figure, show: Callable[[int], None], n: int, rate: float) -> None:
    """The palette of all frames is the colours of the two maps and greys, so that none of them flickers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    scales = [diverging(name)(np.linspace(0, 1, 111)) for name in ("vorticity", "error")]
    greys = np.repeat(np.linspace(0, 1, 256 - 2 * 111)[:, None], 3, axis=1)
    colors = np.concatenate([scale[:, :3] for scale in scales] + [greys])
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * colors).astype(np.uint8).tobytes())
    canvas = FigureCanvasAgg(figure)

    def frame(number: int) -> Image.Image:
        show(number)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        return image.quantize(palette=palette, dither=Image.Dither.NONE)

    later = (frame(number) for number in range(1, n))
    milliseconds = max(20, 10 * round(100 / rate))  # viewers slow down anything shorter
    frame(0).save(path, save_all=True, append_images=later, duration=milliseconds, loop=0, optimize=False)


def _save_mp4(path: Path, figure: Figure, show: Callable, n: int, rate: float, program: str) -> None:
    import matplotlib
    from matplotlib.animation import FFMpegWriter

    with matplotlib.rc_context({"animation.ffmpeg_path": program}):
        # quality 18: no visible loss; a rate that is not whole is fine, whatever matplotlib's stubs say
        writer = FFMpegWriter(fps=rate, codec="h264", extra_args=["-crf", "18"])  # type: ignore[arg-type]
        try:
            with writer.saving(figure, str(path), figure.dpi):
                for number in range(n):
                    show(number)
                    writer.grab_frame()
        except subprocess.CalledProcessError as error:
            lines = str(error.stderr or error.output or error).strip().splitlines()
            reason = lines[-1] if lines else f"exit code {error.returncode}"
            raise RuntimeError(f"ffmpeg ({program}) could not make the MP4: {reason}") from error
