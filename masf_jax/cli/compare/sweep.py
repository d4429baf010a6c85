"""Sweeps: Hydra's multirun over every combination of listed values, one folder a job, one table."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from ..config.builders.filters import FILTERS
from ..config.compose import chosen, compose, config_folder
from ..config.filter_file import is_filter_file
from ..config.overrides import expand, parse
from ..config.settings import Settings
from ..errors import InputError, RunError, Terminated, WriteError, warn
from ..exit_codes import ExitCode
from ..files import check_writable, remedy
from ..process import precision, within_memory
from ..report import print_sweep
from ..run.folder import Interrupted, finished
from ..run.problem import build_models
from ..run.run import run

__all__ = ["run_sweep"]

_RAISE = "HYDRA_FULL_ERROR"
"""Set to "1", Hydra raises what it else prints before it ends the process."""
_FAILURE = "error.txt"
"""In a job's folder: why it failed."""


def run_sweep(overrides: list[str]) -> ExitCode:
    """Runs all jobs through Hydra (and its launcher, if one is chosen); returns the exit code.

    Every job's settings are checked before the first starts. A job that fails leaves its reason in
    its folder and does not stop the others.
    """
    own, of_hydra, folder = [], [], Path("outputs/sweep")
    for override in parse(overrides):
        if override.key_or_group == "output_dir":
            if override.is_sweep_override():
                line = override.input_line
                raise InputError(f"{line}: a sweep has one output_dir; its jobs get folders in it.")
            folder = Path(str(override.value()))
        elif re.match(r"hydra[./]", override.key_or_group):
            of_hydra.append(override.input_line or "")
        else:
            own.append(override)
    jobs = expand(own)
    for job in jobs:
        compose(job)
        file = chosen(parse(job)).get("filter")
        if is_filter_file(file):
            raise InputError(
                f"filter={file}: a sweep takes filters by name; files are compared with "
                "masf-jax compare filters=[…]."
            )
    check_writable(folder)
    folders = [folder / str(number) for number in range(len(jobs))]
    for job, each in zip(jobs, folders, strict=True):  # all is refused before any job starts
        settings = _settings(job, each)
        finished(each, settings)
        if not any(each.startswith("hydra/launcher") for each in of_hydra):
            _check_parts(
                job, settings
            )  # else jobs have processes of their own, and devices are left to these
    for each in folders:
        (each / _FAILURE).unlink(missing_ok=True)
    earlier = [_written(each) for each in folders]
    _launch(jobs, of_hydra, folder)
    same = set.intersection(*map(set, jobs))
    rows = []
    for number, (job, each) in enumerate(zip(jobs, folders, strict=True)):
        differing = " ".join(text for text in job if text not in same) or "-"
        fresh = _written(each) != earlier[number]
        fresh |= not (each / _FAILURE).exists() and finished(each, _settings(job, each))
        rows.append({"job": number, "overrides": differing, **_outcome(each, fresh)})
    print_sweep(rows, folder)
    failed = [row["status"] for row in rows if row["status"].startswith("failed")]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(rows)} jobs failed; the same command tries them again. First {failed[0]}"
        )
    return ExitCode.UNUSABLE if any(row["status"] != "done" for row in rows) else ExitCode.DONE


def _check_parts(job: list[str], settings: Settings) -> None:
    """Builds model, sensor and filter of a job, without its climate and network.

    Raises:
        InputError: values that make none.
    """
    try:
        with precision(settings.precision), within_memory():
            build_models(settings)
            FILTERS.build(settings.filter)
    except InputError as error:
        raise InputError(f"{' '.join(job)}: {error}") from error


def _launch(jobs: list[list[str]], of_hydra: list[str], folder: Path) -> None:
    """Hydra launches the jobs by number. It reads the process's arguments, so they are set for the call."""
    where = [f"hydra.sweep.dir='{folder.as_posix()}'", "hydra.sweep.subdir=${hydra.job.num}"]
    numbers = f"+job={','.join(map(str, range(len(jobs))))}"
    before, handlers = sys.argv, logging.root.handlers[:]
    reports = os.environ.get(_RAISE)
    sys.argv, os.environ[_RAISE] = ["masf-jax", "--multirun", *where, *of_hydra, numbers], "1"
    task = functools.wraps(_job)(functools.partial(_job, jobs))
    try:
        hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(task)()
    except HydraException as error:  # a missing part is an OSError too
        raise InputError(f"Hydra could not launch the sweep: {error}") from error
    except OSError as error:  # of Hydra's own files: a job tells of its own
        raise WriteError(
            f"could not write {error.filename or folder}: {error.strerror or error}. What is done stays: "
            f"{remedy(error)}, and give the same command again."
        ) from error
    finally:
        sys.argv, logging.root.handlers = before, handlers
        os.environ.pop(_RAISE) if reports is None else os.environ.update({_RAISE: reports})


def _job(jobs: list[list[str]], config: DictConfig) -> None:
    """One job of a sweep, in whatever process the launcher put it."""
    overrides = jobs[int(config.job)]
    folder = Path(HydraConfig.get().runtime.output_dir)
    GlobalHydra.instance().clear()
    try:
        run(_settings(overrides, folder), " ".join(["masf-jax", "run", *overrides]))
    except Interrupted as error:  # ends the sweep, not the job alone
        raise Terminated(error.exit_code) from error
    except RunError as error:
        try:
            (folder / _FAILURE).write_text(f"{error}\n", encoding="utf-8")
        except OSError:  # the disk is full
            warn(str(error))


def _settings(job: list[str], folder: Path) -> Settings:
    return compose([*job, f"output_dir='{folder.as_posix()}'"])


def _written(folder: Path) -> int | None:
    """When the folder's metrics were written, in nanoseconds; None if they are not there."""
    path = folder / "metrics.json"
    return path.stat().st_mtime_ns if path.is_file() else None


def _outcome(folder: Path, fresh: bool) -> dict[str, Any]:
    """Status and numbers of a job."""
    if (folder / _FAILURE).is_file():
        return {"status": "failed: " + (folder / _FAILURE).read_text(encoding="utf-8").strip()}
    if not fresh:
        return {"status": f"failed: no new results in {folder}"}
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    skipped = metrics["skipped_cycles"]
    status = "diverged" if metrics["diverged"] else f"{skipped} cycles not used" if skipped else "done"
    return metrics | {"status": status}
