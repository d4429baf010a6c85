"""Sweeps: Hydra's multirun over every combination of listed values, one folder a job, one table."""

from __future__ import annotations

import itertools
import json
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.compose import compose, config_folder, parse
from ..config.filter_file import is_filter_file
from ..errors import DIVERGED, InputError, RunError
from ..files import check_writable

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

__all__ = ["expand", "run_sweep"]

_FAILURE = "error.txt"
"""In a job's folder: why it failed."""


def expand(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job: every combination of the swept values, the last key fastest.

    Raises:
        InputError: an override that is no list of values (Hydra's `interval`, …), or a bad one.
    """
    options = []
    for override in parse(overrides):
        if not override.is_sweep_override():
            options.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            options.append([f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()])
        else:
            raise InputError(
                f"{override.input_line}: a sweep takes lists of values: KEY=A,B,C or range(1,10)."
            )
    return [list(job) for job in itertools.product(*options)]


def run_sweep(overrides: list[str]) -> int:
    """Runs all jobs through Hydra (and its launcher, if one is chosen); returns the exit code.

    Every job's settings are checked before the first starts. A job that fails leaves its reason in
    its folder and does not stop the others.
    """
    own, hydra_overrides, folder = _split(overrides)
    jobs = expand(own)
    for overrides in jobs:
        compose(overrides)
        _refuse_files(overrides)
    check_writable(folder)
    folders = [folder / str(number) for number in range(len(jobs))]
    for each in folders:
        (each / _FAILURE).unlink(missing_ok=True)
    earlier = [_written(each) for each in folders]
    _launch(own, hydra_overrides, folder)
    rows = []
    for number, each in enumerate(folders):
        rows.append(_row(number, jobs[number], each, fresh=_written(each) != earlier[number]))
    _shorten(rows, jobs)
    from ..report import print_sweep

    print_sweep(rows, folder)
    if any(row["status"].startswith("failed") for row in rows):
        return 1
    return DIVERGED if any(row["status"] == "diverged" for row in rows) else 0


def _refuse_files(overrides: list[str]) -> None:
    """Hydra composes a sweep's jobs too, and knows the groups' own choices only."""
    for override in parse(overrides):
        if override.key_or_group == "filter" and is_filter_file(override.value()):
            raise InputError(
                f"{override.input_line}: a sweep takes filters by name; files are compared with "
                "masf-jax compare filters=[…]."
            )


def _split(overrides: list[str]) -> tuple[list[str], list[str], Path]:
    """Our overrides, those of Hydra itself (hydra/launcher=joblib, …), and the sweep's output folder."""
    own, of_hydra, folder = [], [], "outputs/sweep"
    parsed: list[Override] = parse(overrides)
    for override, text in zip(parsed, overrides, strict=True):
        if override.key_or_group == "output_dir":
            if override.is_sweep_override():
                raise InputError(f"{text}: a sweep has one output_dir; its jobs get folders in it.")
            folder = str(override.value())
        elif re.match(r"hydra[./]", override.key_or_group):
            of_hydra.append(text)
        else:
            own.append(text)
    return own, of_hydra, Path(folder)


def _launch(overrides: list[str], hydra_overrides: list[str], folder: Path) -> None:
    """Hydra reads the process's arguments, so they are set for the length of the call."""
    import hydra

    where = [f"hydra.sweep.dir='{folder.as_posix()}'", "hydra.sweep.subdir=${hydra.job.num}"]
    before, handlers = sys.argv, logging.root.handlers[:]
    sys.argv = ["masf-jax", "--multirun", *where, *hydra_overrides, *overrides]
    try:
        hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(job)()
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise InputError("Hydra could not launch the sweep; its message is above.") from stop
    finally:
        sys.argv, logging.root.handlers = before, handlers


def job(config: DictConfig) -> None:
    """One job of a sweep, in whatever process the launcher put it.

    Settings are composed anew from the job's overrides, which also applies a preset's tuning.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from ..run.run import run

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    folder = Path(hydra_config.runtime.output_dir)
    GlobalHydra.instance().clear()
    try:
        settings = compose([*overrides, f"output_dir='{folder.as_posix()}'"])
        run(settings, " ".join(["masf-jax", "run", *overrides]))
    except RunError as error:
        (folder / _FAILURE).write_text(f"{error}\n", encoding="utf-8")


def _written(folder: Path) -> int | None:
    """When the folder's metrics were written, in nanoseconds; None if they are not there."""
    path = folder / "metrics.json"
    return path.stat().st_mtime_ns if path.is_file() else None


def _row(number: int, overrides: list[str], folder: Path, fresh: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"job": number, "overrides": " ".join(overrides)}
    if (folder / _FAILURE).is_file():
        return row | {"status": "failed: " + (folder / _FAILURE).read_text(encoding="utf-8").strip()}
    if not fresh:
        return row | {"status": f"failed: no new results in {folder}"}
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return row | metrics | {"status": "diverged" if metrics["diverged"] else "done"}


def _shorten(rows: list[dict[str, Any]], jobs: list[list[str]]) -> None:
    """Leaves only the overrides in which the jobs differ."""
    same = set.intersection(*(set(overrides) for overrides in jobs))
    for row, overrides in zip(rows, jobs, strict=True):
        row["overrides"] = " ".join(text for text in overrides if text not in same) or "-"
