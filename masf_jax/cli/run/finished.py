"""Figures and animations of a finished run, from its result: `masf-jax plot`, `masf-jax animate`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InputError, of_files
from ..exit_codes import ExitCode
from ..files import check_writable

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Parser",
    "animate",
    "check_whole",
    "folder_of",
    "is_comparison",
    "parse_cycles",
    "plot",
    "read_result",
]


_BROKEN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What libraries raise of a damaged file."""


class Parser(argparse.ArgumentParser):
    """Arguments of a command on a run's folder; mistakes are `InputError`s."""

    def __init__(self, command: str, description: str, dpi: int, dpi_help: str, of: str = "RUN_DIR"):
        super().__init__(prog=f"masf-jax {command}", description=description, add_help=False)
        self.add_argument("-h", "--help", action="store_true", help="this text")
        more = "" if of == "RUN_DIR" else ", or its result file, or a comparison's folder"
        what = f"a run's output folder{more}"
        self.add_argument("run_dir", metavar=of, nargs="?", type=Path, help=what)
        self.add_argument("--dpi", type=int, default=dpi, help=f"pixels per inch {dpi_help}({dpi})")
        self.of = of

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}\n{self.format_usage().strip()}")

    def read(self, given: Sequence[str]) -> argparse.Namespace | None:
        """The arguments, or None after printing the help."""
        arguments = self.parse_intermixed_args(given)
        if arguments.help:
            print(self.format_help(), end="")
            return None
        if arguments.run_dir is None:
            self.error(f"{self.of} is missing: the output folder of a run")
        if arguments.dpi < 1:
            self.error(f"--dpi must be at least 1; got {arguments.dpi}")
        check_writable(folder_of(arguments.run_dir))
        return arguments


def folder_of(path: Path) -> Path:
    """The folder that figures go to: that of the run, also where its result is named."""
    return path.parent if path.is_file() or (path / "zarr.json").is_file() else path


@contextlib.contextmanager
def read_result(folder: Path) -> Iterator[xr.Dataset]:
    """The dataset of a finished run, whose values are read as they are needed.

    Args:
        folder: of the run, or the path of its result.

    Raises:
        InputError: there is none, or it is damaged, or not of this program.
    """
    from .results import RESULT

    path = next((folder / name for name in RESULT.values() if (folder / name).exists()), None)
    if path is None and (folder.is_file() or (folder / "zarr.json").is_file()):
        path = folder
    if path is None:
        raise InputError(
            f"{folder} holds no {' or '.join(RESULT.values())}: give the output folder of a finished run."
        )
    with _damaged(path), _opened(path) as data:
        if int(data.attrs["burn_in"]) < 0:
            raise ValueError(f"burn_in {data.attrs['burn_in']}")
        yield data


def check_whole(path: Path) -> None:
    """Opens a result of this folder's run, whose values are not read.

    Raises:
        InputError: it is damaged.
    """
    try:
        if path.is_dir():
            from .store import open_store

            open_store(path).close()
        else:
            import h5py

            h5py.File(path).close()
    except _BROKEN as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}): overwrite=true makes the run anew."
        ) from error


def _opened(path: Path) -> xr.Dataset:
    if path.is_dir():
        from .store import open_store

        return open_store(path)
    from ...observations.dataset_files import check_readable

    with of_files():
        check_readable(path)
    import xarray as xr

    return xr.open_dataset(path, engine="h5netcdf", cache=False)


@contextlib.contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """What goes wrong with a file from outside is said of the file."""
    try:
        yield
    except _BROKEN as error:
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


def plot(given: Sequence[str]) -> ExitCode:
    """`masf-jax plot`: draws figures of a run, or of a comparison, anew; returns the exit code."""
    from ...plots.style import LAST
    from .figures import DPI, OF_A_RUN, drawn, save

    about = "Draws the figures of a finished run, or of a comparison, anew, into its folder."
    parser = Parser("plot", about, DPI, "", "RUN")
    parser.add_argument(
        "what", metavar="WHAT", nargs="*", help="figures by name (those a run draws by itself)"
    )
    parser.add_argument("--cycles", help="cycles shown of a flow: 0,25,50 (first, middle and last)")
    parser.add_argument(
        "--last", type=int, help=f"so many last cycles of series and hovmoeller {tuple(LAST.values())}"
    )
    parser.add_argument("--components", help="those of series: 0,7 (the first four)")
    arguments = parser.read(given)
    if arguments is None:
        return ExitCode.DONE
    from .results import RESULT

    folder = folder_of(arguments.run_dir)
    of_a_run = any((folder / name).exists() for name in RESULT.values())
    if is_comparison(folder) and not (arguments.what and of_a_run):
        if arguments.what not in ([], ["comparison"]):
            raise InputError(
                f"{folder} is the folder of a comparison, which has one figure, comparison; got "
                f"{' '.join(arguments.what)}. Figures of one run are drawn by masf-jax run."
            )
        from ..compare.dataset import draw, read_comparison

        print(draw(folder, read_comparison(folder), arguments.dpi))
        return ExitCode.DONE
    with read_result(arguments.run_dir) as data:
        options = _options(data, arguments)
        figures = drawn(data, arguments.what or OF_A_RUN, options, named=bool(arguments.what))
        print(*save(folder, figures, arguments.dpi), sep="\n")
    return ExitCode.DONE


def is_comparison(folder: Path) -> bool:
    return (folder / "comparison.nc").is_file()


def _options(data: xr.Dataset, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By figure, what the command line asks for."""
    from ...plots.automatic import suited
    from ...plots.components import series
    from ...plots.flow_data import is_flow
    from .figures import OF_A_RUN

    found: dict[str, dict[str, Any]] = {name: {} for name in ("states", "vorticity", "series", "hovmoeller")}
    if arguments.cycles is not None:
        if not is_flow(data):
            raise InputError("--cycles is for flows; this run's states are not velocities on a grid.")
        found["states"] = found["vorticity"] = {"cycles": parse_cycles(arguments.cycles, data.sizes["cycle"])}
    if arguments.last is not None:
        if arguments.last < 1:
            raise InputError(f"--last must be at least 1; got {arguments.last}.")
        found["series"], found["hovmoeller"] = {"last": arguments.last}, {"last": arguments.last}
        if not is_flow(data):
            found["states"] = {"last": arguments.last}
    if arguments.components is not None:
        asked = arguments.what or OF_A_RUN
        try:
            by_series = "states" in asked and suited(data) is series  # of few components
        except ValueError as error:  # no means were saved
            raise InputError(str(error)) from error
        if "series" not in asked and not by_series:
            raise InputError(
                "--components is for the figure series: masf-jax plot RUN series --components 0,7."
            )
        try:
            found["series"]["components"] = [int(part) for part in arguments.components.split(",")]
            if by_series:
                found["states"]["components"] = found["series"]["components"]
        except ValueError as error:
            raise InputError(
                f"--components takes numbers such as 0,7; got {arguments.components!r}."
            ) from error
    return found


def animate(given: Sequence[str]) -> ExitCode:
    """`masf-jax animate`: writes vorticity.gif or .mp4 of a flow's run; returns the exit code."""
    from .animate import FORMATS, write_animation

    what = "Animates a flow: vorticity of truth, analysis and error, a frame per cycle."
    parser = Parser("animate", what, 100, "of 8.4 inches' width ")
    parser.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="gif, or mp4: needs ffmpeg (gif)"
    )
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second (8)")
    parser.add_argument("--cycles", default=":", help="FIRST:LAST[:STRIDE] or 0,1,2 (all)")
    parser.add_argument("--no-points", action="store_true", help="do not mark the measured points")
    arguments = parser.read(given)
    if arguments is None:
        return ExitCode.DONE
    from ...plots.flow_data import is_flow

    with read_result(arguments.run_dir) as data:
        if not is_flow(data):
            raise InputError(
                f"{arguments.run_dir} is not the run of a flow with saved means; "
                "animations show the vorticity of velocities on a grid (dynamics=kolmogorov_64, save=[mean])."
            )
        cycles, points = parse_cycles(arguments.cycles, data.sizes["cycle"]), not arguments.no_points
        how = (arguments.format, arguments.fps, points, arguments.dpi)
        print(write_animation(arguments.run_dir, data, cycles, *how))
    return ExitCode.DONE
