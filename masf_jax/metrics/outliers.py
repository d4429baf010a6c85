"""Measured values far beyond what the forecast and the noise allow, counted from what filters report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["OUTLYING", "outlying", "outlying_cycles"]

OUTLYING = 6.0
"""Forecast standard deviations, spread and noise together: beyond it of 5·10⁸ Gaussian values one."""


def outlying_cycles(info: Mapping[str, Any], burn_in: int = 0, skipped: Any = False) -> np.ndarray:
    """Numbers of the cycles after the burn-in with a value further off than `OUTLYING`, which was used.

    Args:
        info: what a filter reported: `innovation` is max_j |z - H(mean)|_j / √(HPHᵀ + R)_jj of a cycle.
        skipped: (K,) cycles whose analysis was not used.
    """
    if "innovation" not in info:  # a filter that takes no notice of measurements
        return np.zeros(0, int)
    found = np.asarray(info["innovation"])
    return np.flatnonzero(
        (found > OUTLYING) & np.isfinite(found) & ~np.asarray(skipped) & (np.arange(len(found)) >= burn_in)
    )


def outlying(info: Mapping[str, Any], burn_in: int = 0, skipped: Any = False) -> list[str]:
    """A sentence where there are such cycles, else none."""
    cycles = outlying_cycles(info, burn_in, skipped)
    if not len(cycles):
        return []
    sizes = np.asarray(info["innovation"])[cycles]
    count = "1 cycle a value was" if len(cycles) == 1 else f"{len(cycles)} cycles values were"
    return [
        f"in {count} more than {OUTLYING:g} forecast standard deviations (spread and noise together) off, at "
        f"most {sizes.max():.3g} (cycle {int(cycles[sizes.argmax()])}), and used all the same: gross errors, "
        "which quality control leaves out (quality_control=GrossErrorCheck(5), quality_control.threshold=5; "
        "docs/observations.md), or an ensemble whose spread is too small."
    ]
