"""The figure of `rivals.py cost --plot`: seconds per cycle against n, log-log, each filter with its name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

LABEL_GAP = 1.42
"""Least ratio between the heights of two labels, so that they do not lie on each other."""
FAMILIES = {
    "#3b6fb6": ("enkf", "enkf_n", "ensrf", "etkf", "ienkf", "letkf", "particle"),
    "#c4452d": ("masf", "masf_gaussian", "masf_kernel"),
    "#7a7a7a": (),
}
"""Colours: Kalman and particle filters, MASF, the rest (filters of other papers)."""


def cost_figure(cases: dict[str, dict[str, Any]]) -> Any:
    """A line for each filter up to the largest n it was timed at, with its name and why it stops there."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 7))
    ends = []
    for name, sizes in cases.items():
        points = [(int(n), found["cycle"]) for n, found in sizes.items() if isinstance(found, dict)]
        if not points:
            continue
        points.sort()
        colour = next((c for c, names in FAMILIES.items() if name in names), "#7a7a7a")
        axes.plot(*zip(*points, strict=True), marker="o", ms=3.5, lw=1.3, color=colour)
        why = next((found for found in sizes.values() if isinstance(found, str)), "")
        label = f"{name} ({why} at the next n)" if why.startswith("over") else name
        ends.append((*points[-1], label, colour))
    largest = max(n for n, *_ in ends)
    for n in {n for n, *_ in ends}:
        heights = _apart([y for x, y, *_ in ends if x == n])
        for (x, y, label, colour), height in zip([e for e in ends if e[0] == n], heights, strict=True):
            axes.annotate(
                label, (x, y), (x * 1.6, height), va="center", fontsize=9, color=colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkA": 0, "shrinkB": 2},
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(30, largest * 1.3), xlabel="variables n")
    axes.set_ylabel("CPU seconds per cycle")
    axes.set_title("Lorenz-96, N = 20, every variable measured", loc="left", fontsize=10)
    for text, colour in zip(
        ("Kalman and particle filters", "MASF", "filters of other papers"), FAMILIES, strict=True
    ):
        axes.plot([], [], color=colour, label=text)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _apart(values: list[float]) -> list[float]:
    """The values, moved up until none is within LABEL_GAP of another, then all down by half of that."""
    order = sorted(range(len(values)), key=values.__getitem__)
    moved = list(values)
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] * LABEL_GAP)
    excess = max((m / v for m, v in zip(moved, values, strict=True)), default=1.0) ** 0.5
    return [value / excess for value in moved]
