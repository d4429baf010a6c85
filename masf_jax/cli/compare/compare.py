"""`masf-jax compare`: filters on the same truths, observations and first members, in one table."""

from __future__ import annotations

import dataclasses
import math
import shlex
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ...filters import Filter
from ...progress import cycle_bar
from ...results.netcdf import netcdf_bytes
from ..config.compose import with_file
from ..config.overrides import seeds_of, split, whole
from ..console import plain_console
from ..errors import InputError, RunError
from ..exit_codes import ExitCode
from ..files import text_writer, write_all
from ..parts import Parts
from ..process import computing
from ..run.cost import tell
from ..run.figures import DPI
from ..run.folder import claimed, deciding
from ..run.pretrained import network_remark, pretraining_fit
from ..run.problem import build_models
from ..run.reach import tell_out_of_reach
from ..run.results import configuration_text
from .comparison import Comparison, Result, csv_text, latex, notes, run_rows, table_rows
from .dataset import comparison_dataset, draw
from .entries import Entry, output_folder, read_entries
from .seed_runs import SeedRuns, SharedProblem, prepared, share, work

__all__ = ["compare", "fitting"]

_OWN = ("filters", "seeds", "seeds_at_once")
_NOT_OF_THE_FILE = ("filter", "output_dir", "seed")
"""Keys of `--config FILE` that are those of a single run."""
_WIDTH = 120
_LESS_NEEDED = ("RMSE forecast", "CRPS", "s/cycle")
"""Columns that a narrow terminal goes without, first ones first."""
_TRACEBACK = ".error.txt"
"""Behind a filter's label: the file with the traceback of what made it fail."""


def compare(overrides: list[str]) -> ExitCode:
    """Runs every filter of `filters=…` at every seed; returns the exit code: 1 if a filter failed.

    Settings are checked, and all filters built and traced (those that pretrain a network excepted), before
    anything is run. The files are written anew after each filter.

    Raises:
        InputError: settings that do not make a comparison.
        WriteError: the output folder cannot be written.
    """
    command = shlex.join(["masf-jax", "compare", *overrides])
    own, others = split(with_file(overrides, _NOT_OF_THE_FILE), _OWN)
    entries = read_entries(own.get("filters"), others)
    settings = dataclasses.replace(
        entries[0].settings, ensemble_size=max(entry.settings.ensemble_size for entry in entries)
    )
    seeds = seeds_of(own.get("seeds"), settings.seed, 5)
    if not seeds:
        raise InputError("seeds: a comparison needs at least one.")
    if seeds[0] != settings.seed and any(override.key_or_group == "seed" for override in others):
        raise InputError(f"{own['seeds'].input_line} names the seeds; leave seed={settings.seed} out.")
    _check_disjoint(entries, seeds)
    at_once = whole(own.get("seeds_at_once"), 1, 1)
    folder = output_folder("compare", settings, others)
    parts = Parts(folder, settings.overwrite)
    with claimed(folder), computing(settings, at_once):
        earlier = [_earlier(parts, entry, seeds, at_once) for entry in entries]
        dynamics, _ = build_models(settings)
        filters = [entry.build(dynamics) for entry in entries]
        problem = share(settings, seeds)
        runs = [
            None
            if found or pretraining_fit(filter) is not None
            else prepared(entry, filter, problem, at_once)
            for entry, filter, found in zip(entries, filters, earlier, strict=True)
        ]
        to_do = zip(entries, filters, runs, strict=True)
        works = [work(problem, entry, filter) for entry, filter, each in to_do if each is not None]
        tell(works)
        tell_out_of_reach(works)
        comparison = Comparison(settings, problem, min(at_once, len(seeds)), command, [])
        files: list[Path] = []
        for number, entry in enumerate(entries):
            result = earlier[number]
            if result is None:
                result = _result(entry, filters[number], runs[number], problem, at_once, folder)
                _keep(parts, result, seeds, at_once)
            else:
                print(f"{entry.label}: from before (overwrite=true: anew)", flush=True)
            result = dataclasses.replace(result, remark=network_remark(filters[number]))
            runs[number] = None  # its compiled program, and the device memory with it
            comparison = dataclasses.replace(comparison, results=[*comparison.results, result])
            files = _write(folder, comparison)
        if settings.figures:
            files.append(draw(folder, comparison_dataset(comparison), DPI))
        else:
            (folder / "comparison.png").unlink(missing_ok=True)
    _print(comparison, files)
    failed = any(result.failure is not None for result in comparison.results)
    return ExitCode.FAILED if failed else ExitCode.DONE


def _check_disjoint(entries: list[Entry], seeds: tuple[int, ...]) -> None:
    """No filter may be scored on seeds that its values were tuned on."""
    for entry in entries:
        tuning = entry.file and entry.file.tuning
        both = sorted(set(tuning.seeds) & set(seeds)) if tuning else []
        if entry.file and both:
            raise InputError(
                f"{entry.label}: {entry.file.path} was tuned on seed(s) {', '.join(map(str, both))}, "
                "which are also to be compared on: its score there would be too good. Give other seeds, "
                "e.g. seeds=5 (0 … 4)."
            )


def _result(
    entry: Entry, filter: Filter, runs: SeedRuns | None, problem: SharedProblem, at_once: int, folder: Path
) -> Result:
    """The runs, or why there are none: a filter that fails must not take the others' results along.

    A filter that pretrains a network does so here, when its turn comes.
    """
    path, n_cycles = folder / f"{entry.label}{_TRACEBACK}", entry.settings.n_cycles or 0
    path.unlink(missing_ok=True)
    print(f"{entry.label} …", flush=True)
    try:
        runs = runs or prepared(entry, filter, problem, at_once)
        with cycle_bar(entry.settings.progress, n_cycles * len(problem.seeds)) as advance:
            rows = runs(lambda n: advance(n * n_cycles))
    except Exception as error:
        write_all(folder, {path.name: text_writer(traceback.format_exc())})
        kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        seconds = math.nan if runs is None else runs.seconds_prepare
        return Result(entry, [], f"{kind}{reason} ({path.name})", seconds_prepare=seconds)
    return Result(entry, rows, None, runs.has_members, runs.seconds_prepare, runs.seconds_compile)


_NUMBERS = ("has_members", "seconds_prepare", "seconds_compile")


def _about(entry: Entry, seeds: tuple[int, ...], at_once: int) -> dict[str, Any]:
    own = {"seed", "experiment.name"}  # the seeds decide, and a name nothing
    keys = {key: value for key, value in deciding(entry.settings).items() if key not in own}
    return keys | {"seeds": seeds, "seeds_at_once": at_once}


def _earlier(parts: Parts, entry: Entry, seeds: tuple[int, ...], at_once: int) -> Result | None:
    """The filter's runs, where an earlier call of the same settings has made them."""
    about = _about(entry, seeds, at_once)
    found = None if entry.settings.overwrite else parts.read(entry.label, about)
    if found is None:
        return None
    return Result(entry, found["runs"], None, **{name: found[name] for name in _NUMBERS})


def _keep(parts: Parts, result: Result, seeds: tuple[int, ...], at_once: int) -> None:
    if result.failure is None:
        found = {"runs": result.runs} | {name: getattr(result, name) for name in _NUMBERS}
        parts.write(result.entry.label, _about(result.entry, seeds, at_once), found)


def _write(folder: Path, comparison: Comparison) -> list[Path]:
    last = comparison.results[-1].entry
    repeat = dataclasses.replace(last.settings, output_dir=last.settings.automatic_output_dir)
    texts = {
        "comparison.csv": csv_text(comparison.summaries),
        "runs.csv": csv_text(run_rows(comparison)),
        "comparison.tex": latex(comparison),
        f"{last.label}.yaml": configuration_text(repeat),
    }
    content = netcdf_bytes(comparison_dataset(comparison))
    writers = {name: text_writer(text) for name, text in texts.items()}
    return write_all(folder, {"comparison.nc": lambda path: path.write_bytes(content)} | writers)[:4]


def fitting(title: str, head: list[str], rows: list[list[str]], console: Console) -> tuple[Table, list[str]]:
    """The table, and which columns it has not since the console is too narrow for all."""
    left_out: list[str] = []
    while True:
        table = Table(title=title, title_justify="left")
        kept = [number for number, label in enumerate(head) if label not in left_out]
        for number in kept:
            table.add_column(head[number], justify="left" if number == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(row[number] for number in kept))
        more = [label for label in _LESS_NEEDED if label in head and label not in left_out]
        free = console.options.update(width=10**6)
        if not more or console.measure(table, options=free).maximum <= console.width:
            return table, left_out
        left_out.append(more[0])


def _print(comparison: Comparison, files: list[Path]) -> None:
    settings = comparison.settings
    counts = f"{len(comparison.results)} filters, {len(comparison.problem.seeds)} seeds"
    console = plain_console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = _WIDTH
    table, left_out = fitting(f"{settings.called}: {counts}", *table_rows(comparison), console)
    console.print(table)
    narrow = [f"Too wide for this terminal: {', '.join(left_out)} (in comparison.csv)."] if left_out else []
    for line in [*narrow, *notes(comparison), "Files:", *(f"  {path}" for path in files)]:
        console.print(line, highlight=False, soft_wrap=True)
