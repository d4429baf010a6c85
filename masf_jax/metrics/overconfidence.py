"""Innovations larger than spread and noise account for, over the second half of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["OVERCONFIDENT", "innovation_ratio", "overconfident"]

OVERCONFIDENT = 1.5
"""Of the ratio, which is 1 where spread and noise are right."""
_FEWEST, _LEFT_OUT = 20, 0.05
"""Cycles from which on something is said; the share of them that does not count."""


def innovation_ratio(info: Mapping[str, Any], burn_in: int = 0, skipped: Any = False) -> float:
    """Root mean square of (z - H(mean)) / √(spread² + noise²) over cycles; NaN where none has values.

    Args:
        info: what a filter reported: `innovation_ratio` is the root mean square over the values of a cycle.
        burn_in: cycles that do not count.
        skipped: (K,) cycles whose analysis was not used, which do not count.

    Source: the χ² test of innovations, e.g. Bar-Shalom, Li & Kirubarajan (2001), Estimation with
    Applications to Tracking and Navigation, 5.4.
    """
    found = _of_cycles(info, burn_in, skipped)
    return float(np.sqrt(np.mean(found**2))) if len(found) else float("nan")


def overconfident(info: Mapping[str, Any], burn_in: int = 0, skipped: Any = False) -> list[str]:
    """A sentence where the ratio is above `OVERCONFIDENT` over the second half of the cycles, else none.

    Of these, the 5 % where it is largest do not count: a few gross errors are no property of the filter.
    """
    late = max(burn_in, len(info.get("innovation_ratio", ())) // 2)
    found = np.sort(_of_cycles(info, late, skipped))
    kept = found[: len(found) - int(_LEFT_OUT * len(found))]
    ratio = float(np.sqrt(np.mean(kept**2))) if len(found) >= _FEWEST else 0.0
    if ratio <= OVERCONFIDENT:
        return []
    return [
        f"the filter is overconfident: observation - forecast is {ratio:.3g} times what spread and noise "
        "account for, over the second half of the cycles. More inflation (filter.inflation) or members, a "
        "smaller filter.radius or a larger measurement.noise.std may help; docs/troubleshooting.md."
    ]


def _of_cycles(info: Mapping[str, Any], first: int, skipped: Any) -> np.ndarray:
    """The ratios of the cycles from `first` on that were used and have a value."""
    if "innovation_ratio" not in info:
        return np.zeros(0)
    found = np.asarray(info["innovation_ratio"], np.float64)
    return found[np.isfinite(found) & ~np.asarray(skipped) & (np.arange(len(found)) >= first)]
