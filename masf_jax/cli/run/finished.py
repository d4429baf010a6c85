"""Figures and animations of a finished run, from its result: `masf-jax figures`, `masf-jax animate`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import InputError
from ..files import check_writable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["animate", "figures", "parse_cycles", "read_result"]


class _Parser(argparse.ArgumentParser):
    """Arguments of a command on a run's folder; mistakes are `InputError`s."""

    def __init__(self, command: str, description: str, dpi: int, dpi_help: str):
        super().__init__(prog=f"masf-jax {command}", description=description, add_help=False)
        self.add_argument("-h", "--help", action="store_true", help="this text")
        self.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path, help="a run's output folder")
        self.add_argument("--dpi", type=int, default=dpi, help=f"pixels per inch {dpi_help}({dpi})")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}\n{self.format_usage().strip()}")

    def read(self, given: Sequence[str]) -> argparse.Namespace | None:
        """The arguments, or None after printing the help."""
        arguments = self.parse_args(given)
        if arguments.help:
            print(self.format_help(), end="")
            return None
        if arguments.run_dir is None:
            self.error("RUN_DIR is missing: the output folder of a run")
        if arguments.dpi < 1:
            self.error(f"--dpi must be at least 1; got {arguments.dpi}")
        check_writable(arguments.run_dir)
        return arguments


@contextlib.contextmanager
def read_result(folder: Path) -> Iterator[xr.Dataset]:
    """The dataset of a finished run, whose values are read as they are needed.

    Raises:
        InputError: there is none, or it is damaged, or not of this program.
    """
    from .results import RESULT

    path = next((folder / name for name in RESULT.values() if (folder / name).exists()), None)
    if path is None:
        raise InputError(
            f"{folder} holds no {' or '.join(RESULT.values())}: give the output folder of a finished run."
        )
    with _damaged(path), _opened(path) as data:
        if int(data.attrs["burn_in"]) < 0:
            raise ValueError(f"burn_in {data.attrs['burn_in']}")
        yield data


def _opened(path: Path) -> xr.Dataset:
    if path.is_dir():
        from .store import open_store

        return open_store(path)
    from ..observations.dataset_files import check_readable

    check_readable(path)
    import xarray as xr

    return xr.open_dataset(path, engine="h5netcdf", cache=False)


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """What goes wrong with a file from outside is said of the file."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"{path} is damaged, or not of a run of this version ({type(error).__name__}: {error}): copy it "
            "again, or repeat the run with masf-jax run --config."
        ) from error


def parse_cycles(text: str, n_cycles: int) -> list[int]:
    """Cycles from "0,25,50", or from FIRST:LAST[:STRIDE] with both ends included and either left out.

    Raises:
        InputError: not of these forms, or outside the run's cycles.
    """
    cycles: list[int] = []
    try:
        for part in text.split(","):
            if ":" in part:
                first, last, *stride = part.split(":")
                step = int(*stride) if stride else 1
                cycles += range(int(first or 0), int(last or n_cycles - 1) + 1, step)
            else:
                cycles.append(int(part))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"--cycles takes numbers such as 0,25,50 or FIRST:LAST[:STRIDE]; got {text!r}."
        ) from error
    if not cycles or not all(0 <= cycle < n_cycles for cycle in cycles):
        raise InputError(f"--cycles {text}: the run has the cycles 0 … {n_cycles - 1}.")
    return cycles


def figures(given: Sequence[str]) -> int:
    """`masf-jax figures`: draws the figures of a run anew; returns the exit code."""
    parser = _Parser("figures", "Draws the figures of a finished run anew, into its folder.", 130, "")
    parser.add_argument("--cycles", help="cycles shown of a flow: 0,25,50 (first, middle and last)")
    arguments, cycles = parser.read(given), None
    if arguments is None:
        return 0
    from ..plots.flow_data import is_flow
    from ..plots.run_plots import write_figures

    with read_result(arguments.run_dir) as data:
        if arguments.cycles is not None:
            if not is_flow(data):
                raise InputError("--cycles is for flows; this run's states are not velocities on a grid.")
            cycles = parse_cycles(arguments.cycles, data.sizes["cycle"])
        burn_in = int(data.attrs["burn_in"])
        print(*write_figures(arguments.run_dir, data, burn_in, cycles, arguments.dpi), sep="\n")
    return 0


def animate(given: Sequence[str]) -> int:
    """`masf-jax animate`: writes vorticity.gif or .mp4 of a flow's run; returns the exit code."""
    from ..plots.animate import FORMATS, write_animation

    what = "Animates a flow: vorticity of truth, analysis and error, a frame per cycle."
    parser = _Parser("animate", what, 100, "of 8.4 inches' width ")
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="gif, or mp4: needs ffmpeg (gif)"
    )
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second (8)")
    parser.add_argument("--cycles", default=":", help="FIRST:LAST[:STRIDE] or 0,1,2 (all)")
    parser.add_argument("--no-points", action="store_true", help="do not mark the measured points")
    arguments = parser.read(given)
    if arguments is None:
        return 0
    from ..plots.flow_data import is_flow

    with read_result(arguments.run_dir) as data:
        if not is_flow(data):
            raise InputError(
                f"{arguments.run_dir} is not the run of a flow with saved means; "
                "animations show the vorticity of velocities on a grid (dynamics=kolmogorov_64, save=[mean])."
            )
        cycles, points = parse_cycles(arguments.cycles, data.sizes["cycle"]), not arguments.no_points
        how = (arguments.format, arguments.fps, points, arguments.dpi)
        print(write_animation(arguments.run_dir, data, cycles, *how))
    return 0
