"""What a run prints at its end."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.own_files import label as short
from .errors import printable
from .files import text_writer, write_all

if TYPE_CHECKING:
    from rich.console import Console

    from .config.settings import Settings
    from .run.run import Outcome

__all__ = ["over_seeds", "print_outcome", "print_sweep", "score_rows"]

_ROWS = {
    "route": "route to the analysis",
    "network": "network",
    "rmse_analysis": "RMSE of the analysis",
    "expected_rmse_analysis": "  expected",
    "rmse_observed_analysis": "RMSE of the analysis, observed",
    "rmse_unobserved_analysis": "RMSE of the analysis, unobserved",
    "rmse_forecast": "RMSE of the forecast",
    "rmse_smoothed": "RMSE of the smoother",
    "spread_analysis": "spread of the analysis",
    "spread_forecast": "spread of the forecast",
    "spread_smoothed": "spread of the smoother",
    "spread_skill_ratio": "spread / RMSE (1: reliable)",
    "crps_analysis": "CRPS of the analysis",
    "innovation_rms_forecast": "RMS of observation - forecast",
    "innovation_rms_analysis": "RMS of observation - analysis",
    "withheld_share": "share of the values that is withheld",
    "withheld_rms_forecast": "RMS of withheld value - forecast",
    "innovation_ratio": "observation - forecast / √(spread² + noise²)",
    "log_likelihood": "log-likelihood",
    "mean_gate": "gate: weight of the network",
    "values_outside_range": "values outside the valid range",
    "outlying_cycles": "cycles with a value 6 forecast std off",
    "rejected_values": "values rejected by quality control",
    "rejected_fraction": "  of all that were measured",
    "repaired_members": "repaired members",
    "skipped_cycles": "cycles not used",
    "seconds_train": "seconds to pretrain",
    "seconds_compile": "seconds to compile",
    "seconds_per_cycle": "seconds per cycle",
}
_MOST_VARIABLES = 8
_ONLY_NONZERO = ("outlying_cycles", "repaired_members", "skipped_cycles", "seconds_train")
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
_IN_FILE = {*_ROWS, *_COLUMNS, "n_cycles", "burn_in", "ensemble_size"} - {"job", "overrides", "status"}


def _shown(value: Any) -> str:
    """Empty where there is no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_lines(console: Console, lines: Iterable[Any]) -> None:
    for line in lines:
        console.print(printable(str(line)), highlight=False, soft_wrap=True)


def score_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """What the numbers of a run are called, and each as text; those without a value are left out."""
    rows: list[tuple[str, str]] = []
    if metrics["ensemble_size"] is not None:
        rows.append(("members", str(metrics["ensemble_size"])))
    rows.append(("cycles (burn-in)", f"{metrics['n_cycles']} ({metrics['burn_in']})"))
    units = metrics.get("observation_units") or ""
    for key, label in _ROWS.items():
        of_values = key.startswith(("innovation_rms", "withheld_rms"))
        of_several_units = metrics.get("sensors_differ") and of_values
        shown = (
            ""
            if of_several_units
            else expected_range(metrics)
            if key.startswith("expected")
            else _shown(metrics.get(key))
        )
        if shown and not (key in _ONLY_NONZERO and metrics[key] == 0):
            rows.append((f"{label} ({units})" if units and of_values else label, shown))
        if key == "innovation_rms_analysis" and len(metrics.get("by_sensor", {})) > 1:
            rows += _sensor_rows(metrics["by_sensor"])
        if key == "innovation_rms_analysis" and metrics.get("withheld"):
            rows += _sensor_rows(metrics["withheld"], ", withheld")
        if key == "rmse_unobserved_analysis":
            rows += _variable_rows(metrics.get("by_variable", {}))
    for key in metrics:
        if key.startswith("estimated_") and f"{key}_std" in metrics:
            spread = _shown(metrics[f"{key}_std"])
            shown = f"{_shown(metrics[key])} ± {spread}" if spread else _shown(metrics[key])
            rows.append((f"{key.removeprefix('estimated_')}, estimated", shown))
    return rows


def _variable_rows(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """RMSE and spread of each variable, which have a unit where their sum has none."""
    rows = []
    for name, numbers in list(found.items())[:_MOST_VARIABLES]:
        shown = {
            kind: text for kind in ("rmse", "spread") if (text := _shown(numbers.get(f"{kind}_analysis")))
        }
        units = f" ({numbers['units']})" if numbers.get("units", "1") not in ("1", "") else ""
        told = " | ".join("RMSE" if kind == "rmse" else kind for kind in shown)
        rows += [(f"  {name}{units}: {told}", " | ".join(shown.values()))] if shown else []
    if rows and len(found) > _MOST_VARIABLES:
        rows.append((f"  {len(found) - _MOST_VARIABLES} more variables", "in metrics.json"))
    return rows


def _sensor_rows(found: dict[str, dict[str, Any]], which: str = "") -> list[tuple[str, str]]:
    """Mean ± standard error and root mean square of observation - forecast of each sensor, in stds of its
    noise; of many, those whose means are most standard errors off 0."""

    def far(name: str) -> float:
        return abs(found[name]["mean"]) / (found[name].get("standard_error") or math.inf)

    names = sorted(found, key=far, reverse=True) if len(found) > _MOST_VARIABLES else list(found)
    rows = [(f"observation - forecast{which}, in std of the noise", "mean | RMS")]
    for name in names[:_MOST_VARIABLES]:
        mean, error, rms, n = (found[name].get(key) for key in ("mean", "standard_error", "rms", "n"))
        mean = f"{mean:.2f} ± {error:.2f}" if error and math.isfinite(error) else _shown(mean)
        rows.append((f"  {name} ({n} values)", f"{mean} | {_shown(rms)}"))
    if len(found) > _MOST_VARIABLES:
        rows.append((f"  {len(found) - _MOST_VARIABLES} more", "in metrics.json"))
    return rows


def expected_range(metrics: dict[str, Any]) -> str:
    """The RMSE to expect ± its standard deviation over seeds."""
    mean, std = (_shown(metrics.get(f"expected_rmse_{name}")) for name in ("analysis", "std"))
    if not mean:
        return ""
    return f"{mean} ± {std} over seeds" if std else f"{mean} (range over seeds: n/a)"


def print_outcome(settings: Settings, outcome: Outcome) -> None:
    """A table of the run's numbers, then the paths of its files and figures."""
    from rich.table import Table

    from .console import plain_console

    metrics = outcome.metrics
    table = Table(
        title=f"{settings.called}: {short(settings.filter['name'])}", title_justify="left", show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    for label, shown in score_rows(metrics):
        table.add_row(label, shown)
    console = plain_console()
    console.print(table)
    reference = settings.experiment.reference
    lines = [f"Reference: {reference}"] if reference else []
    for heading, paths in (("Results", outcome.files), ("Figures", outcome.figures)):
        lines += [f"{heading}:", *(f"  {path}" for path in paths)] if paths else []
    _print_lines(console, lines)


def _cell(row: dict[str, Any], key: str) -> str:
    """Of a sweep's table."""
    if key.startswith("expected"):
        return expected_range(row).removesuffix(" over seeds").replace("range over seeds: ", "±: ")
    return _shown(row.get(key))


def print_sweep(rows: list[dict[str, Any]], folder: Path) -> None:
    """A table with one line per job of a sweep, and the same as summary.csv in its folder."""
    from rich.table import Table

    from .console import plain_console

    table = Table(title=f"{len(rows)} runs", title_justify="left")
    shown = {key: label for key, label in _COLUMNS.items() if any(_cell(row, key) for row in rows)}
    for key, label in shown.items():
        table.add_column(label, overflow="fold", ratio=None if key != "overrides" else 1)
    for row in rows:
        table.add_row(*(_cell(row, key) for key in shown))
    columns = [
        "job",
        "overrides",
        "status",
        *dict.fromkeys(k for row in rows for k in row if k in _IN_FILE or k.startswith("estimated_")),
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    (path,) = write_all(folder, {"summary.csv": text_writer(text.getvalue())})
    console = plain_console()
    console.print(table)
    if "expected_rmse_analysis" in shown:
        _print_lines(console, ["expected: ± one standard deviation from seed to seed"])
    _print_lines(console, [*over_seeds(rows), f"Summary: {path}"])


def over_seeds(rows: list[dict[str, Any]]) -> list[str]:
    """Mean ± standard error of the analysis RMSE of runs that differ in their seed only, a line each."""
    from ..metrics.summary import mean_and_standard_error

    groups: dict[str, list[float]] = {}
    for row in rows:
        if _shown(row.get("rmse_analysis")):
            words = [word for word in row["overrides"].split() if not word.startswith("seed=")]
            groups.setdefault(" ".join(words) or "all runs", []).append(row["rmse_analysis"])
    lines = []
    for name, values in groups.items():
        if len(values) > 1:
            mean, error = mean_and_standard_error(values)
            lines.append(f"{name}: RMSE of the analysis {mean:.4g} ± {error:.2g} over {len(values)} seeds")
    return lines
