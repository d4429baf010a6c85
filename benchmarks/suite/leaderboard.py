"""docs/leaderboard.md: filters × systems, from benchmarks/results/comparison.txt.

python benchmarks/suite/leaderboard.py
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "comparison.txt"
PAGE = ROOT / "docs" / "leaderboard.md"
HEAD = """# Leaderboard

RMSE of the analysis, mean ± standard error over five seeds; each filter's values tuned with the same budget
on other seeds (`masf-jax tune`), all filters with the same truths, measurements and first members
(`masf-jax compare`). **Bold**: the least of a system, and what is within two of its standard errors.
"n/5 lost": so many seeds with NaN, which no mean has, or an RMSE not below that of the model's climatology. A
dash: not run there; why stands below. Rows: most systems first, then by the share of filters ahead.

How, and what was tuned: [comparisons.md](comparisons.md). All numbers (forecast, CRPS, seconds, values):
[comparison.txt](../benchmarks/results/comparison.txt), whose first line is the command. This page by
`python benchmarks/suite/leaderboard.py`.
"""


class Entry(NamedTuple):
    rmse: float
    error: float
    ratio: float
    lost: int
    seeds: int
    seconds: float


class System(NamedTuple):
    name: str
    about: str
    entries: dict[str, Entry]
    absent: dict[str, str]


def systems(text: str) -> list[System]:
    """Each paragraph that has a table: its name, what it is, rows, and why other filters have none."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        rule = next((i for i, line in enumerate(lines) if line.startswith("-----")), None)
        if rule is None:
            continue
        name, about = lines[0].split(": ", 1)
        rows = [re.split(r"\s{2,}", line.strip()) for line in lines[rule + 1 :]]
        entries = {row[0]: _entry(row) for row in rows if len(row) > 5}
        absent = [line.split(": ", 1) for line in lines[rule + 1 :] if re.match(r"\w+: ", line)]
        found.append(System(name, about, entries, {filter: why for filter, why in absent}))
    return found


def _entry(row: list[str]) -> Entry:
    rmse, error = map(float, (*row[1].split(" ± "), "nan")[:2])  # no error: one seed was not lost, or none
    ratio = float(row[3].split(" ± ")[0])
    lost, seeds = map(int, row[5].split("/"))
    return Entry(rmse, error, ratio, lost, seeds, float(row[6]))


def page() -> str:
    found = systems(RESULTS.read_text(encoding="utf-8"))
    parts = [HEAD.strip(), _table(found, _rmse), "## How sure they are", _SPREAD, _table(found, _ratio)]
    parts += ["## Seconds a cycle", _SECONDS, _table(found, lambda system, entry: f"{entry.seconds:.2g}")]
    parts.append("## The systems")
    for system in found:
        why = "".join(f"\n* {filter}: {reason}" for filter, reason in system.absent.items())
        parts.append(f"**{system.name}**: {system.about}\n{why}".rstrip())
    return "\n\n".join(parts) + "\n"


_SPREAD = "Spread over RMSE of the analysis: 1 is reliable, less too sure, more too cautious."
_SECONDS = (
    "Wall clock without compilation, two cores of a shared machine: ratios of two and more mean something."
)


def _table(found: list[System], cell: Callable[[System, Entry], str]) -> str:
    names = {name for system in found for name in system.entries}
    order = sorted(names, key=lambda name: (-sum(name in s.entries for s in found), _rank(found, name), name))
    lines = ["| | " + " | ".join(system.name for system in found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in order:
        cells = [cell(s, s.entries[name]) if name in s.entries else "–" for s in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rank(found: list[System], name: str) -> float:
    """Mean share of the system's filters that are ahead."""
    shares = []
    for system in found:
        if name in system.entries:
            mine = system.entries[name].rmse
            ahead = sum(each.rmse < mine for each in system.entries.values())
            shares.append(ahead / len(system.entries))
    return sum(shares) / len(shares)


def _rmse(system: System, entry: Entry) -> str:
    best = min((each for each in system.entries.values() if not each.lost), key=lambda each: each.rmse)
    error = "" if math.isnan(entry.error) else f" ± {entry.error:.3f}"
    shown = "" if math.isnan(entry.rmse) else f"{entry.rmse:.3f}{error}, "
    if entry.lost:
        return f"{shown}{entry.lost}/{entry.seeds} lost"
    shown = shown.removesuffix(", ")
    return f"**{shown}**" if entry.rmse <= best.rmse + 2 * best.error else shown


def _ratio(system: System, entry: Entry) -> str:
    return "–" if math.isnan(entry.ratio) else f"{entry.ratio:.2f}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
