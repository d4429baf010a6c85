"""What a run prints at its end."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from .config.settings import Settings
from .run.run import Outcome

__all__ = ["print_outcome", "print_sweep"]

_ROWS = (
    ("route to the analysis", "route"),
    ("RMSE of the analysis", "rmse_analysis"),
    ("RMSE of the analysis, observed", "rmse_observed_analysis"),
    ("RMSE of the analysis, unobserved", "rmse_unobserved_analysis"),
    ("RMSE of the forecast", "rmse_forecast"),
    ("spread of the analysis", "spread_analysis"),
    ("spread of the forecast", "spread_forecast"),
    ("spread / RMSE (1: reliable)", "spread_skill_ratio"),
    ("CRPS of the analysis", "crps_analysis"),
    ("RMS of observation - forecast", "innovation_rms_forecast"),
    ("RMS of observation - analysis", "innovation_rms_analysis"),
    ("log-likelihood", "log_likelihood"),
    ("values rejected by quality control", "rejected_values"),
    ("  of all that were measured", "rejected_fraction"),
    ("repaired members", "repaired_members"),
    ("seconds to pretrain", "seconds_train"),
    ("seconds to compile", "seconds_compile"),
    ("seconds per cycle", "seconds_per_cycle"),
)
_ONLY_NONZERO = ("repaired_members", "seconds_train")
_COLUMNS = {
    "job": "#",
    "overrides": "overrides",
    "rmse_analysis": "RMSE",
    "expected_rmse_analysis": "expected",
    "spread_analysis": "spread",
    "innovation_rms_forecast": "innovation",
    "seconds_per_cycle": "s/cycle",
    "status": "status",
}
_IN_FILE = {key for _, key in _ROWS} | {*_COLUMNS, "n_cycles", "burn_in", "ensemble_size"}
_IN_FILE -= {"job", "overrides", "status"}


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _exists(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def print_outcome(settings: Settings, outcome: Outcome) -> None:
    """A table of the run's numbers, then the paths of its files and figures."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    metrics = outcome.metrics
    name = settings.experiment.name or settings.dynamics["name"]
    table = Table(title=f"{name}: {settings.filter['name']}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    if metrics["ensemble_size"] is not None:
        table.add_row("members", str(metrics["ensemble_size"]))
    table.add_row("cycles (burn-in)", f"{metrics['n_cycles']} ({metrics['burn_in']})")
    for label, key in _ROWS:
        if _exists(metrics.get(key)) and not (key in _ONLY_NONZERO and metrics[key] == 0):
            units = metrics.get("observation_units") if key.startswith("innovation_rms") else None
            label = label if units is None else f"{label} ({escape(units)})"
            table.add_row(label, _number(metrics[key]))
        if key == "rmse_analysis" and settings.experiment.expected is not None:
            table.add_row("  expected", _number(settings.experiment.expected))
    console = Console()
    console.print(table)
    if settings.experiment.reference:
        console.print(f"Reference: {settings.experiment.reference}", highlight=False, soft_wrap=True)
    for heading, paths in (("Results", outcome.files), ("Figures", outcome.figures)):
        if paths:
            console.print(f"{heading}:", highlight=False)
        for path in paths:
            console.print(f"  {path}", highlight=False, soft_wrap=True, markup=False)


def print_sweep(rows: list[dict[str, Any]], folder: Path) -> None:
    """A table with one line per job of a sweep, and the same as summary.csv in its folder."""
    from rich.console import Console
    from rich.table import Table

    from .files import write_all

    table = Table(title=f"{len(rows)} runs", title_justify="left")
    shown = {key: label for key, label in _COLUMNS.items() if any(_exists(row.get(key)) for row in rows)}
    for key, label in shown.items():
        table.add_column(label, overflow="fold", ratio=None if key != "overrides" else 1)
    for row in rows:
        table.add_row(*(_number(row[key]) if _exists(row.get(key)) else "" for key in shown))
    columns = ["job", "overrides", "status", *dict.fromkeys(k for row in rows for k in row if k in _IN_FILE)]

    def summary(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    console = Console()
    console.print(table)
    for line in over_seeds(rows):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    (path,) = write_all(folder, {"summary.csv": summary})
    console.print(f"Summary: {path}", highlight=False, soft_wrap=True, markup=False)


def over_seeds(rows: list[dict[str, Any]]) -> list[str]:
    """Mean ± standard error of the analysis RMSE of runs that differ in their seed only, a line each."""
    from ..metrics.summary import mean_and_standard_error

    groups: dict[str, list[float]] = {}
    for row in rows:
        if _exists(row.get("rmse_analysis")):
            words = [word for word in row["overrides"].split() if not word.startswith("seed=")]
            groups.setdefault(" ".join(words) or "all runs", []).append(row["rmse_analysis"])
    lines = []
    for name, values in groups.items():
        if len(values) > 1:
            mean, error = mean_and_standard_error(values)
            lines.append(f"{name}: RMSE of the analysis {mean:.4g} ± {error:.2g} over {len(values)} seeds")
    return lines
