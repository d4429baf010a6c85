"""Each filter against the first over the same seeds: whether a lead is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...metrics.summary import paired_difference, with_error

__all__ = ["difference_lines", "difference_numbers"]

_SCORE = "rmse_analysis"
Runs = Sequence[Mapping[str, Any]]
"""Of a filter: the numbers of each seed."""


def difference_numbers(runs: Runs, first: Runs) -> dict[str, float]:
    """Mean over the seeds of RMSE minus the first filter's, and its standard error: columns of a table."""
    found = paired_difference(*_pair(runs, first))[:2]
    return dict(zip((f"{_SCORE}_difference", f"{_SCORE}_difference_se"), found, strict=True))


def difference_lines(runs: Mapping[str, Runs]) -> list[str]:
    """What `difference_numbers` are, a line for each filter; of one seed, or one filter, none.

    Args:
        runs: by filter; those without runs are left out.
    """
    there = {label: each for label, each in runs.items() if each}
    first, lines, most = next(iter(there), ""), [], 0
    for label, each in there.items():
        own, its = _pair(each, there[first])
        mean, error, n = paired_difference(own, its)
        if label != first and not n and len(its) > 1:
            lines.append(
                f"  {label}: no difference, as there is no seed in which it and {first} have an RMSE"
            )
        if label == first or n < 2:
            continue
        lower = sum(a < b for a, b in zip(own, its, strict=True))
        lines.append(f"  {label}: {with_error(mean, error)} (lower in {lower} of {n} seeds)")
        most = max(most, n)
    if not most:
        return lines
    head = (
        f"RMSE of the analysis minus that of {first}, seed by seed, mean ± standard error; of equal filters "
        f"one in 20 such means is beyond ± {_quantile(most - 1):.2g} standard errors:"
    )
    return [head, *lines]


def _pair(runs: Runs, first: Runs) -> tuple[list[float], list[float]]:
    """The score of both, seed by seed; NaN where one has no run."""
    own, its = ({run["seed"]: run[_SCORE] for run in each} for each in (runs, first))
    return [own.get(seed, math.nan) for seed in its], list(its.values())


def _quantile(degrees: int) -> float:
    """97.5 % of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))
