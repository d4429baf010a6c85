"""The numbers of a comparison: each filter's averages over seeds, as a table, CSV and LaTeX."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ...metrics.summary import mean_and_standard_error, with_error
from ...metrics.width import NEAR, SURE
from ..config.overrides import listed
from ..config.settings import Settings
from ..run.metrics import versions
from .by_variable import lines_by_variable
from .differences import difference_lines, difference_numbers
from .entries import Entry
from .seed_runs import SharedProblem

__all__ = [
    "AVERAGED",
    "Comparison",
    "Result",
    "csv_text",
    "latex",
    "notes",
    "run_rows",
    "table_rows",
]

AVERAGED = (
    "rmse_analysis",
    "rmse_forecast",
    "spread_skill_ratio",
    "spread_skill_ratio_forecast",
    "crps_analysis",
    "crps_forecast",
)
_COLUMNS = {
    "rmse_analysis": "RMSE analysis",
    "rmse_forecast": "RMSE forecast",
    "spread_skill_ratio": "spread/RMSE",
    "crps_analysis": "CRPS",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One filter's runs, a mapping of numbers for each seed; or why there are none."""

    entry: Entry
    runs: list[dict[str, Any]]
    failure: str | None = None
    has_members: bool = True
    seconds_prepare: float = math.nan
    seconds_compile: float = math.nan
    remark: str | None = None
    """What else is to be known of the filter."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared, and the results so far."""

    settings: Settings
    """Of any of the filters: what all share."""
    problem: SharedProblem
    at_once: int
    command: str
    results: Sequence[Result]

    def lost(self, result: Result) -> list[bool]:
        """Which runs diverged: NaN, or no better than the climatology, or near it and sure of it (the
        climatology as a filter by NaN alone)."""
        itself = result.entry.settings.filter["name"] == "climatology"
        limit = math.inf if itself else self.problem.climatology
        return [
            not run["rmse_analysis"] < limit
            or (run["rmse_analysis"] > NEAR * limit and run["spread_skill_ratio"] < SURE)
            for run in result.runs
        ]

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """A row for each filter."""
        return [self.summary(result) for result in self.results]

    def summary(self, result: Result) -> dict[str, Any]:
        """Mean and standard error of each score over the runs without NaN, and the counts."""
        settings = result.entry.settings
        row: dict[str, Any] = {
            "filter": result.entry.label,
            "name": settings.filter["name"],
            "ensemble_size": settings.ensemble_size if result.has_members else None,
            "status": "done" if result.failure is None else f"failed: {result.failure}",
        }
        kept = [run for run in result.runs if math.isfinite(run["rmse_analysis"])]
        for name in AVERAGED:
            row[name], row[f"{name}_se"] = mean_and_standard_error([run[name] for run in kept])
        row |= difference_numbers(result.runs, next((each.runs for each in self.results if each.runs), []))
        seconds = [run["seconds_per_cycle"] for run in result.runs]
        return row | {
            "seconds_per_cycle": float(np.median(seconds)) if seconds else math.nan,
            "seconds_prepare": result.seconds_prepare,
            "seconds_compile": result.seconds_compile,
            "runs": len(result.runs),
            "diverged": sum(self.lost(result)),
            "repaired_members": sum(run["repaired_members"] for run in result.runs),
            "skipped_cycles": sum(run["skipped_cycles"] for run in result.runs),
            "tuning": settings.experiment.tuning,
        }


def table_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table, as text; a filter that failed says so in place of its numbers."""
    summaries, rows = comparison.summaries, []
    shown = {
        key: label for key, label in _COLUMNS.items() if any(math.isfinite(row[key]) for row in summaries)
    }
    for result, row in zip(comparison.results, summaries, strict=True):
        cells = [with_error(row[key], row[f"{key}_se"]) for key in shown]
        if result.failure is not None:
            cells = ["failed", *[""] * (len(shown) - 1)] if shown else []
        seconds = "" if math.isnan(row["seconds_per_cycle"]) else f"{row['seconds_per_cycle']:.1e}"
        diverged = "" if result.failure is not None else f"{row['diverged']}/{row['runs']}"
        members = "" if row["ensemble_size"] is None else str(row["ensemble_size"])
        rows.append([row["filter"], members, *cells, seconds, diverged])
    return ["filter", "N", *shown.values(), "s/cycle", "diverged"], rows


def notes(comparison: Comparison) -> list[str]:
    """What the numbers are, where each filter's values come from, and what failed; a line each."""
    settings, problem = comparison.settings, comparison.problem
    together = "" if comparison.at_once == 1 else f", {comparison.at_once} runs at once"
    lines = [
        f"Mean ± standard error over the seeds {listed(problem.seeds)}, each with the same truth, "
        "observations and first members for all filters; "
        f"{settings.n_cycles} cycles, of which the first {problem.burn_in} do not count.",
        f"diverged: runs with NaN, which no average has, or an RMSE not below {problem.climatology:.3g}, "
        f"that of the model's climatology, or above {NEAR:g} of it with a spread below {SURE:g} of the "
        f"RMSE. s/cycle: median over the seeds, without compilation{together}.",
    ]
    runs = {each.entry.label: each.runs for each in comparison.results}
    lines += difference_lines(runs) + lines_by_variable(runs, problem.dynamics)
    sizes = {result.entry.settings.ensemble_size for result in comparison.results if result.has_members}
    if len(sizes) > 1:
        lines.append(
            "The filters have different numbers of members N, the same first ones; ensemble_size=N gives all "
            "as many."
        )
    lines.append("Values of the filters:")
    lines += [f"  {r.entry.label}: {r.entry.settings.experiment.tuning}" for r in comparison.results]
    lines += [
        f"{row['filter']}: {row['skipped_cycles']} analyses could not be used; there the forecast stands."
        for row in comparison.summaries
        if row["skipped_cycles"]
    ]
    lines += [
        f"{row['filter']}: {row['diverged']} of {row['runs']} seeds lost the truth; the averages have all of "
        "them but those with NaN."
        for row in comparison.summaries
        if row["diverged"]
    ]
    lines += [f"{r.entry.label}: {r.remark}." for r in comparison.results if r.remark is not None]
    lines += [f"{r.entry.label} failed: {r.failure}" for r in comparison.results if r.failure is not None]
    return lines


def run_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """A row for each run: filter and seed."""
    for result in comparison.results:
        for run, lost in zip(result.runs, comparison.lost(result), strict=True):
            yield {"filter": result.entry.label, **run, "diverged": int(lost)}


def latex(comparison: Comparison) -> str:
    """The table for \\input in a document with the package booktabs; the lowest RMSE in bold."""
    head, rows = table_rows(comparison)
    rmse = [row["rmse_analysis"] for row in comparison.summaries]
    rows = [[_tex(cell) for cell in row] for row in rows]
    if np.isfinite(rmse).any():
        best = rows[int(np.nanargmin(rmse))]
        best[2] = rf"\boldmath {best[2]}"
    lines = [
        f"% masf-jax {versions()['masf-jax']}: {comparison.command}",
        "% needs \\usepackage{booktabs}",
        *(f"% {line}" for line in notes(comparison)),
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(_tex(cell) for cell in head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
    ]
    for result in comparison.results:
        origin = _tex(f"{result.entry.label}: {result.entry.settings.experiment.tuning}")
        lines.append(rf"\multicolumn{{{len(head)}}}{{l}}{{\footnotesize {origin}}} \\")
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    if "±" in text:
        mean, error = text.split(" ± ")
        return rf"${mean} \pm {error}$"
    for sign, written in {"_": r"\_", "%": r"\%", "#": r"\#", "&": r"\&", "×": r"$\times$"}.items():
        text = text.replace(sign, written)
    return text


def csv_text(rows: Iterable[dict[str, Any]]) -> str:
    """Rows under the names of all their columns."""
    text, rows = io.StringIO(), list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
