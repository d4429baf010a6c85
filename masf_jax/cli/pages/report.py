"""`masf-jax report`: one page of HTML about a finished run, or a comparison."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..exit_codes import ExitCode
from ..files import text_writer, write_all
from ..run.finished import Parser, folder_of, is_comparison, read_result
from .html import alert, figures, folded, page, paragraph, section, table

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["report"]

_PAGE, _DPI = "report.html", 220
_SCORES = {
    "rmse_analysis": "RMSE analysis",
    "rmse_forecast": "RMSE forecast",
    "spread_skill_ratio": "spread/RMSE",
    "crps_analysis": "CRPS",
}


def report(given: Sequence[str]) -> ExitCode:
    """Writes report.html into the folder; returns the exit code."""
    about = "Writes report.html into the folder of a run or a comparison: one file, to be opened or sent."
    parser = Parser("report", about, _DPI, "of the figures ", "RUN")
    arguments = parser.read(given)
    if arguments is None:
        return ExitCode.DONE
    folder = folder_of(arguments.run_dir)
    text = (
        _of_comparison(folder, arguments.dpi)
        if is_comparison(folder)
        else _of_run(arguments.run_dir, folder, arguments.dpi)
    )
    print(write_all(folder, {_PAGE: text_writer(text)})[0])
    return ExitCode.DONE


def _of_run(path: Path, folder: Path, dpi: int) -> str:
    from ...plots.automatic import suited
    from ...plots.figures import FIGURES, USUAL
    from ..report import score_rows
    from ..run.figures import drawn
    from ..run.folder import read_metrics

    with read_result(path) as data:
        attributes, state = dict(data.attrs), [*_lost(data), *_warnings(data)]
        data.attrs["title"] = ""  # the page has it
        shown = drawn(data, USUAL, {}, named=False)
        told = {name: suited(data) if name == "states" else FIGURES[name] for name in shown}
        pictures = figures([(name, _first_line(told[name]), each) for name, each in shown.items()], dpi)
    metrics = read_metrics(folder / "metrics.json") if (folder / "metrics.json").is_file() else None
    parts = [section("State of the run", alert(state, "No cycle was lost; nothing was flagged."))]
    if metrics is not None:
        parts.append(section("Scores", table(score_rows(metrics))))
    parts.append(section("Figures", pictures))
    parts.append(section("How it was made", _origin(attributes, metrics)))
    config = folder / "config.yaml"
    if config.is_file():
        text = config.read_text(encoding="utf-8", errors="replace")
        summary = "config.yaml: masf-jax run --config repeats the run"
        parts.append(section("Configuration", folded(summary, text)))
    return page(str(attributes.get("title", folder.name)), parts)


def _first_line(function: Any) -> str:
    """What a figure shows: the first sentence of its documentation."""
    text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    return text.replace("`", "")


def _lost(data: xr.Dataset) -> list[str]:
    from ...filters.faults import described
    from ...metrics.remarks import remarks

    names = ("faults", "diverged", "skipped")
    if not set(names) <= set(data):
        return []
    faults, diverged, skipped = (data[name].values for name in names)
    lost = described(faults, diverged.astype(bool), skipped.astype(bool))
    info = {name: data[name].values for name in ("innovation", "innovation_ratio") if name in data}
    saved = {name: data[f"forecast_{name}"] for name in ("mean", "spread") if f"forecast_{name}" in data}
    dim = str(saved["mean"].dims[1]) if "mean" in saved and saved["mean"].ndim > 1 else ""
    named = dim in ("variable", "channel") and data[dim].dtype.kind in "OUT"
    labels = (data[dim], data.get("variable_units")) if named else (None, None)
    names, units = (None if each is None else [str(x) for x in each.values] for each in labels)
    if not named and "mean" in saved and "variable" in (about := saved["mean"].attrs):
        names, units = [str(about["variable"])], [str(about.get("units", "1"))]
    burn_in = int(data.attrs.get("burn_in", 0))
    flags = skipped.astype(bool), diverged.astype(bool)
    return lost + remarks(info, saved, names, units, burn_in, *flags, data.get("truth"))


def _warnings(data: xr.Dataset) -> list[str]:
    found = []
    if "repaired_members" in data and (count := int(data["repaired_members"].values.sum())):
        found.append(f"{count} members were not finite and were replaced.")
    if "rejected_values" in data and (count := int(data["rejected_values"].values.sum())):
        measured = int(data["observation_mask"].values.sum())
        found.append(f"{count} of {measured} measured values were rejected by quality control.")
    return found


def _origin(attributes: dict[str, Any], metrics: dict[str, Any] | None) -> str:
    when, _, command = str(attributes.get("history", "")).partition(": ")
    rows: list[tuple[str, object]] = [("command", command), ("written", when)]
    told = ("references", "source", "seed", "route")
    rows += [(name, attributes[name]) for name in told if attributes.get(name) not in (None, "")]
    for name in ("device", "precision"):
        if metrics is not None and name in metrics:
            rows.append((name, metrics[name]))
    rows += [(f"version of {name}", value) for name, value in _json(attributes.get("versions"), {}).items()]
    return table(rows, numbers_from=9)


def _json(text: Any, otherwise: Any) -> Any:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def _of_comparison(folder: Path, dpi: int) -> str:
    from ..compare.dataset import comparison_figure, read_comparison

    data = read_comparison(folder)
    attributes = dict(data.attrs)
    data.attrs["title"] = ""
    picture = figures([("comparison", _first_line(_comparison()), comparison_figure(data))], dpi)
    said = _json(attributes.get("said_of"), {})
    warnings = [f"{name}: {text}." for name, text in said.items()]
    head, rows = _rows(folder / "comparison.csv")
    seeds = ", ".join(str(seed) for seed in data["seed"].values)
    origin: list[tuple[str, object]] = [("command", attributes.get("command", "")), ("seeds", seeds)]
    origin += [("cycles, burn-in", f"{attributes.get('n_cycles')}, {attributes.get('burn_in')}")]
    origin += [(f"version of {n}", v) for n, v in _json(attributes.get("versions"), {}).items()]
    parts = [
        section("State of the runs", alert(warnings, "No filter failed, and no run diverged.")),
        section("Scores", table(rows, head), *map(paragraph, _json(attributes.get("notes"), []))),
        section("Figures", picture),
        section("How it was made", table(origin, numbers_from=9)),
    ]
    configurations = [
        folded(path.name, path.read_text(encoding="utf-8", errors="replace"))
        for name in data["filter"].values
        if (path := folder / f"{name}.yaml").is_file() and path.parent == folder
    ]
    if configurations:
        parts.append(section("Configurations", *configurations))
    return page(f"Comparison: {attributes.get('title', folder.name)}", parts)


def _comparison() -> Any:
    from ...plots.bars import comparison

    return comparison


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Of comparison.csv: each score with its standard error."""
    from ...metrics.summary import with_error

    try:
        with path.open(encoding="utf-8", newline="") as file:
            held = list(csv.DictReader(file))
        shown = {key: label for key, label in _SCORES.items() if any(row[key] != "nan" for row in held)}
        rows = [
            [
                row["filter"],
                row["ensemble_size"],
                *(with_error(float(row[key]), float(row[f"{key}_se"])).replace("nan", "") for key in shown),
                _short(float(row["seconds_per_cycle"])),
                f"{row['diverged']}/{row['runs']}",
            ]
            for row in held
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): give the comparison's command again.") from error
    return ["filter", "N", *shown.values(), "s/cycle", "diverged"], rows


def _short(value: float) -> str:
    return "" if value != value else f"{value:.1e}"
