"""`masf-jax compare`: filters on the same truths, observations and first members, in one table."""

from __future__ import annotations

import dataclasses
import shlex
import time
import traceback
from pathlib import Path

from ...dynamics import Dynamics
from ...filters import Filter
from ..config.settings import Settings
from ..errors import InputError, RunError
from ..files import check_writable, text_writer, write_all
from ..process import computing
from ..run.pretrained import pretraining_fit
from ..run.problem import build_filter
from ..run.results import configuration_text
from .comparison import Comparison, Result, latex, notes, runs_csv, summary_csv, table_rows
from .entries import Entry, read_entries
from .own_keys import seeds_of, split, whole
from .seed_runs import SeedRuns, SharedProblem, share

__all__ = ["compare"]

_OWN = ("filters", "seeds", "seeds_at_once")
_WIDTH = 120
_TRACEBACK = ".error.txt"
"""Behind a filter's label: the file with the traceback of what made it fail."""


def compare(overrides: list[str]) -> int:
    """Runs every filter of `filters=…` at every seed; returns the exit code: 1 if a filter failed.

    Settings are checked, and all filters built and traced (those that pretrain a network excepted), before
    anything is run. The files are written anew after each filter.

    Raises:
        InputError: settings that do not make a comparison.
        WriteError: the output folder cannot be written.
    """
    own, others = split(overrides, _OWN)
    entries = read_entries(own.get("filters"), others)
    settings = dataclasses.replace(
        entries[0].settings, ensemble_size=max(entry.settings.ensemble_size for entry in entries)
    )
    seeds = _seeds(own, others, settings)
    _check_disjoint(entries, seeds)
    at_once = whole(own.get("seeds_at_once"), 1, 1)
    folder = _folder(settings, others)
    check_writable(folder)
    with computing(settings, at_once):
        built = [_built(entry) for entry in entries]
        problem = share(settings, seeds)
        prepared = [
            _Prepared(entry, filter, problem, at_once) for entry, filter in zip(entries, built, strict=True)
        ]
        for each in prepared:
            each.check()
        command = shlex.join(["masf-jax", "compare", *overrides])
        comparison = Comparison(settings, problem, min(at_once, len(seeds)), command, [])
        files: list[Path] = []
        for each in prepared:
            (folder / f"{each.entry.label}{_TRACEBACK}").unlink(missing_ok=True)
            result = each.result(settings.progress, folder)
            comparison = dataclasses.replace(comparison, results=[*comparison.results, result])
            files = _write(folder, comparison)
    if settings.figures:
        files += _draw(folder, comparison)
    else:
        (folder / "comparison.png").unlink(missing_ok=True)
    _print(comparison, files)
    return 1 if any(result.failure is not None for result in comparison.results) else 0


def _seeds(own: dict, others: list, settings: Settings) -> tuple[int, ...]:
    seeds = seeds_of(own.get("seeds"), settings.seed, 5)
    if not seeds:
        raise InputError("seeds: a comparison needs at least one.")
    if seeds[0] != settings.seed and any(override.key_or_group == "seed" for override in others):
        raise InputError(f"{own['seeds'].input_line} names the seeds; leave seed={settings.seed} out.")
    return seeds


def _check_disjoint(entries: list[Entry], seeds: tuple[int, ...]) -> None:
    """No filter may be scored on seeds that its values were tuned on."""
    for entry in entries:
        if entry.file is None or entry.file.tuning is None:
            continue
        both = sorted(set(entry.file.tuning.seeds) & set(seeds))
        if both:
            raise InputError(
                f"{entry.label}: {entry.file.path} was tuned on seed(s) {', '.join(map(str, both))}, "
                "which are also to be compared on: its score there would be too good. Give other seeds, "
                "e.g. seeds=5 (0 … 4)."
            )


def _folder(settings: Settings, others: list) -> Path:
    given = any(override.key_or_group == "output_dir" for override in others)
    what = settings.experiment.name or settings.dynamics["name"]
    return Path(settings.output_dir if given and settings.output_dir else f"outputs/compare-{what}")


def _built(entry: Entry) -> Filter:
    from ..config.builders.dynamics import DYNAMICS

    dynamics: Dynamics = DYNAMICS.build(entry.settings.dynamics)
    try:
        return build_filter(entry.settings, dynamics)
    except InputError as error:
        raise InputError(f"{entry.label}: {error}") from error


class _Prepared:
    """A filter on its way to its runs; one that pretrains a network does so when its turn comes."""

    def __init__(self, entry: Entry, filter: Filter, problem: SharedProblem, at_once: int):
        self.entry, self.filter, self.problem, self.at_once = entry, filter, problem, at_once
        self.runs: SeedRuns | None = None
        self.seconds = 0.0

    def check(self) -> None:
        if pretraining_fit(self.filter) is not None:
            return
        try:
            self.prepare()
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"{self.entry.label}: {error}") from error

    def prepare(self) -> SeedRuns:
        start = time.perf_counter()
        filter = self.filter.prepare(self.problem.dynamics, self.problem.measurement)
        self.runs = SeedRuns(self.problem, filter, self.entry.settings.ensemble_size, self.at_once)
        self.runs.trace()
        self.seconds = time.perf_counter() - start
        return self.runs

    def result(self, progress: bool, folder: Path) -> Result:
        """The runs, or why there are none: a filter that fails must not take the others' results along."""
        from ...progress import cycle_bar

        print(f"{self.entry.label} …", flush=True)
        try:
            runs = self.runs or self.prepare()
            n_cycles = self.entry.settings.n_cycles or 0
            with cycle_bar(progress, n_cycles * len(self.problem.seeds)) as advance:
                rows = runs(lambda n: advance(n * n_cycles))
        except Exception as error:
            path = folder / f"{self.entry.label}{_TRACEBACK}"
            write_all(folder, {path.name: text_writer(traceback.format_exc())})
            kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
            return Result(
                self.entry, [], f"{kind}{_first_line(error)} ({path.name})", seconds_prepare=self.seconds
            )
        finally:
            self.runs = None  # its compiled program, and the device memory with it
        return Result(self.entry, rows, None, runs.has_members, self.seconds, runs.seconds_compile)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _write(folder: Path, comparison: Comparison) -> list[Path]:
    last = comparison.results[-1].entry
    repeat = dataclasses.replace(last.settings, output_dir=last.settings.automatic_output_dir)
    return write_all(
        folder,
        {
            "comparison.csv": text_writer(summary_csv(comparison)),
            "runs.csv": text_writer(runs_csv(comparison)),
            "comparison.tex": text_writer(latex(comparison)),
            f"{last.label}.yaml": text_writer(configuration_text(repeat)),
        },
    )[:3]


def _draw(folder: Path, comparison: Comparison) -> list[Path]:
    from .comparison_plot import comparison_figure

    figure = comparison_figure(comparison)
    return write_all(
        folder, {"comparison.png": lambda path: figure.savefig(path, dpi=130, bbox_inches="tight")}
    )


def _print(comparison: Comparison, files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = comparison.settings
    title = f"{settings.experiment.name or settings.dynamics['name']}: {len(comparison.results)} filters, "
    title += f"{len(comparison.problem.seeds)} seeds"
    table = Table(title=title, title_justify="left")
    head, rows = table_rows(comparison)
    for number, label in enumerate(head):
        table.add_column(label, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console.width = _WIDTH
    console.print(table)
    for line in notes(comparison):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print("Files:", highlight=False)
    for path in files:
        console.print(f"  {path}", highlight=False, soft_wrap=True, markup=False)
