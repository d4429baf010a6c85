"""One run: build the problem, assimilate, write the results, draw the figures."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...driver import Assimilation, FaultError, assimilate
from ...estimation import Estimate
from ...filters import MASF
from ...filters.faults import FaultPolicy, FaultWarning, described
from ...metrics import time_average
from ...metrics.remarks import remarks
from ...processes import ProcessLostError, alone, first_tells
from ...quality_control import GrossErrorCheck
from ...results.cycles import Cycles
from ...training.files import CheckpointError
from ..config.builders.smoothers import Smoothed
from ..config.own_files import label
from ..config.settings import Settings
from ..errors import InputError, RunError
from ..process import computing, precision
from .cost import Work, tell
from .estimating import estimated, estimated_numbers, keep
from .folder import (
    CONTENT,
    Stoppable,
    claimed,
    clear_partial,
    files_of,
    finished,
    partial_record,
    read_metrics,
)
from .metrics import summarize
from .pretrained import checkpoint_digest, network_remark, pretraining_fit, with_progress
from .problem import Problem, build, member_layout
from .reach import tell_out_of_reach
from .results import write_results
from .sensors import sensor_remarks
from .smoothing import check_smoother, smooth

__all__ = ["Outcome", "precision", "run"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run leaves: numbers by name, paths of the files, and what is to be said of cycles not used."""

    metrics: dict[str, Any]
    folder: Path
    files: list[Path]
    figures: list[Path]
    warnings: list[str]
    unusable: bool
    """Whether the filter diverged, or cycles could not be used."""


def run(settings: Settings, command: str = "") -> Outcome | None:
    """Runs the experiment and writes result.nc or result.zarr, metrics.json, config.yaml and the figures.

    Of several processes (`jax.distributed`) the first writes them; None: this is another one.

    Args:
        command: how the run was started, for the history attribute.

    Raises:
        InputError: settings that do not make a run.
        WriteError: the output folder cannot be written (found before the run where possible).
    """
    folder = Path(settings.output_dir or settings.automatic_output_dir)
    with contextlib.ExitStack() as stack:
        try:
            if first_tells(lambda: _done(stack, folder, settings)):
                return _earlier(folder, settings) if alone() else None
            return _computed(folder, settings, command)
        except ProcessLostError as error:
            raise RunError(f"{error} The same command lines go on from {folder}.") from error


def _done(stack: contextlib.ExitStack, folder: Path, settings: Settings) -> int:
    """Takes the folder, until the stack ends; 1: this run has been made, 0: not."""
    stack.enter_context(claimed(folder))
    if not finished(folder, settings):
        return 0
    clear_partial(folder)
    return int(settings.observations.path is None)


def _computed(folder: Path, settings: Settings, command: str) -> Outcome | None:
    with computing(settings):
        start = time.perf_counter()
        problem = build(settings)
        check_smoother(settings, problem)
        seconds_prepare = time.perf_counter() - start
        with partial_record(folder, settings) as record:
            problem, seconds_train, result, found = _compute(problem, settings, record)
            if not alone():
                return None
            cycles = Cycles(result)
            metrics = summarize(settings, problem, cycles)
            metrics |= {"seconds_prepare": seconds_prepare, "seconds_train": seconds_train}
            metrics |= estimated_numbers(found, settings)
            told = _told(problem, result, settings.burn_in) + sensor_remarks(metrics)
            if record.began_at:
                done = max(1, len(result.faults) - record.began_at)
                metrics["resumed_at_cycle"] = record.began_at
                metrics["seconds_per_cycle"] = metrics["seconds_assimilate"] / done
            if isinstance(problem.filter, MASF):
                metrics["route"] = problem.filter.route_of(problem.measurement)
            if content := checkpoint_digest(settings):
                metrics[CONTENT] = content
            if network := network_remark(problem.filter):
                metrics["network"] = network
            whole = settings.faults.action != "error" or not np.any(result.faults)
            smoothed, said = smooth(settings, problem) if whole else (Smoothed({}, {}), [])
            for name, values in smoothed.scores.items():
                if np.ndim(values) == 1:
                    metrics[f"{name}_smoothed"] = time_average(np.asarray(values), settings.burn_in)
            files = write_results(
                folder, settings, problem, cycles, metrics, command, smoothed, record.path, found
            )
    clear_partial(folder)
    figures = _draw(folder, settings)
    faults, diverged, skipped = (np.asarray(a) for a in (result.faults, result.diverged, result.skipped))
    said += described(faults, diverged, skipped) + told
    if settings.faults.action == "error" and faults.any():
        said.append(f"faults.action=error: the run ended with the cycles before {len(faults)}.")
    return Outcome(metrics, folder, files, figures, said, bool((diverged | skipped).any()))


def _told(problem: Problem, result: Assimilation, burn_in: int) -> list[str]:
    names, units = problem.dynamics.variable_names, problem.dynamics.variable_units
    flags = np.asarray(result.skipped), np.asarray(result.diverged)
    truth = None if result.given is None else result.given.truth
    return remarks(result.info, result.forecast, names, units, burn_in, *flags, truth)


def _earlier(folder: Path, settings: Settings) -> Outcome:
    """What a finished run of the same configuration left; figures that it did not come to are drawn."""
    from .figures import file_names
    from .finished import check_whole

    metrics = read_metrics(folder / "metrics.json")
    check_whole(folder / files_of(settings)[0])
    figures = [folder / name for name in file_names() if (folder / name).exists()]
    if settings.figures and not figures:
        figures = _draw(folder, settings)
    said = [f"{folder} has this run's results from before: nothing was computed (overwrite=true: anew)."]
    unusable = bool(metrics["diverged"] or metrics["skipped_cycles"])
    return Outcome(metrics, folder, [folder / name for name in files_of(settings)], figures, said, unusable)


def _draw(folder: Path, settings: Settings) -> list[Path]:
    """Draws the figures; those of an earlier run that this one does not have go."""
    from .figures import file_names, write_figures
    from .finished import read_result

    if settings.figures:
        with read_result(folder) as data:
            return write_figures(folder, data)
    for name in file_names():
        (folder / name).unlink(missing_ok=True)
    return []


def _compute(
    problem: Problem, settings: Settings, record: Stoppable
) -> tuple[Problem, float, Assimilation, Estimate | None]:
    """Pretrains the filter's network, where it has one, finds what is unknown, and assimilates.

    Returns the problem with the prepared filter and the estimate, the seconds that pretraining took, the
    result, and the estimate.
    """
    threshold, start, seconds = settings.quality_control.threshold, time.perf_counter(), 0.0
    found: Estimate | None = None
    options: dict[str, Any] = {
        "layout": member_layout(settings),
        "quality_control": None if threshold is None else GrossErrorCheck(threshold),
        "policy": FaultPolicy(settings.faults.action, settings.faults.innovation),
    }
    with warnings.catch_warnings():  # reported by the caller, once the results are written
        warnings.simplefilter("ignore", FaultWarning)
        try:
            if pretraining_fit(problem.filter) is not None:
                if jax.process_count() > 1:
                    raise InputError("a network is trained by one process, beforehand: masf-jax train.")
                filter = with_progress(problem.filter) if settings.progress else problem.filter
                problem = problem._replace(filter=filter.prepare(problem.dynamics, problem.measurement))
                seconds = time.perf_counter() - start
            tell([_work(problem, settings)])
            tell_out_of_reach([_work(problem, settings)])
            if settings.estimate:
                problem, found = estimated(problem, settings, **options)
            if found is not None and found.run is not None:
                return problem, seconds, keep(found, problem, settings, record), found
            with record.listening():
                result = assimilate(
                    problem.key,
                    problem.filter,
                    problem.dynamics,
                    problem.measurement,
                    problem.observations,
                    problem.ensemble,
                    truth=problem.truth,
                    save=settings.save,
                    scores=settings.scores,
                    chunk=settings.chunk,
                    progress=settings.progress,
                    timed=True,
                    save_to=record,
                    **options,
                )
        except FaultError as error:
            result = error.result
        except CheckpointError:  # of the record, whose `partial_record` says what to do
            raise
        except (ValueError, NotImplementedError) as error:  # the latter: no climatology to draw from
            raise InputError(str(error)) from error
    return problem, seconds, result, found


def _work(problem: Problem, settings: Settings) -> Work:
    held = jax.tree.leaves((problem.truth, problem.observations))
    return Work(
        label(settings.filter["name"]),
        problem.filter,
        problem.dynamics,
        problem.measurement,
        len(problem.ensemble),
        settings.steps_per_cycle,
        problem.observations.n_cycles,
        sum(leaf.nbytes for leaf in held if isinstance(leaf, jax.Array | np.ndarray)),
    )
