"""An ensemble far wider than what it is an estimate of, or far narrower than its error: nothing in the
innovations need show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["NEAR", "SURE", "TOO_WIDE", "lost", "too_wide", "widths"]

TOO_WIDE, TOO_WIDE_OF_TRUTH = 2.0, 1.5
"""Spread over the state's own variation, as the means have it, or the truth: a free ensemble has 1 of the
second, and a filter that works well below. Means vary less than the state where little is known of it."""
NEAR, SURE = 0.5, 0.2
"""RMSE over the climatology's, and spread/RMSE: above the one, below the other a run has lost the truth."""
_FEWEST, _MOST = 20, 40
"""Cycles from which on something is said; cycles that are read."""


def widths(mean: Any, spread: Any, apart: bool = False, truth: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The spread late in a run, and the largest of its first one and the variations of means and truth, all
    in the state's units.

    With root mean squares over points, s_k that of the spread at cycle k, and v the deviation of the means
    from their mean over cycles and points, these are the root mean square of s_k over the last quarter of
    the cycles and max(s_0, v), or max(s_0, v, v of the truth) where that is known. Of
    long runs some 40 cycles are read, evenly apart.

    Args:
        mean, spread: of the forecasts, (K, *state).
        apart: the state's first axis counts variables, each with numbers of its own.
        truth: (K, *state), or None.

    Returns:
        Two arrays (V,); V is 1 unless `apart`.
    """
    n = spread.shape[0]
    every = max(1, n // _MOST)
    courses = [_by_variable(each[::every], apart) for each in (mean, truth) if each is not None]
    late = _by_variable(spread[n - max(1, n // 4) :: every], apart)
    first = _by_variable(spread[:1], apart)
    levels = [np.mean(first**2, axis=(0, 2)), *(each.var(axis=(0, 2)) for each in courses)]
    return np.sqrt(np.mean(late**2, axis=(0, 2))), np.sqrt(np.max(levels, axis=0))


def too_wide(
    mean: Any,
    spread: Any,
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    truth: Any = None,
) -> list[str]:
    """A sentence where the spread late in a run is more than `TOO_WIDE` times (with a truth
    `TOO_WIDE_OF_TRUTH` times) what it should be below.

    Args:
        mean, spread: of the forecasts, (K, *state).
        names: of the variables along the state's first axis; one, or None: the state is one variable.
        units: of these; None: not known.
        truth: (K, *state), where it is known.
    """
    if spread.shape[0] < _FEWEST:
        return []
    late, level = widths(mean, spread, len(names or ()) > 1, truth)
    known = np.isfinite(late) & np.isfinite(level) & (level > 0)
    factor = np.divide(late, level, out=np.zeros_like(late), where=known)
    worst = int(factor.argmax())
    if factor[worst] <= (TOO_WIDE if truth is None else TOO_WIDE_OF_TRUTH):
        return []
    of = "" if names is None else f" of {names[worst]}"
    unit = _unit(names, units, worst)
    return [
        f"the ensemble is too wide: over the last quarter of the cycles the forecast's spread{of} is "
        f"{late[worst]:.3g}{unit}, {factor[worst]:.3g} times what the first ensemble had or the state varies "
        f"by, {level[worst]:.3g}{unit}. Between sensors this grows without large innovations. Less inflation "
        "(filter.inflation is a factor a cycle), inflation that adapts (filter.adaptive=true), relaxation "
        "(filter.rtps=.5) or another filter.radius may help, if the sensors say anything of the state; "
        "docs/troubleshooting.md."
    ]


def lost(
    mean: Any, spread: Any, truth: Any, names: Sequence[str] | None = None, units: Sequence[str] | None = None
) -> list[str]:
    """A sentence where forecasts late in a run are far from the truth and sure of themselves.

    That is, over the last quarter of the cycles their root mean square error is above `NEAR` times what the
    truth varies by, and their spread below `SURE` times that error. Where the noise is larger than the state
    varies, the innovations do not tell.

    Args:
        mean, spread, truth: of the forecasts, (K, *state).
        names, units: as for `too_wide`.
    """
    n = spread.shape[0]
    if n < _FEWEST:
        return []
    every, apart = max(1, n // _MOST), len(names or ()) > 1
    late = slice(n - max(1, n // 4), None, every)
    error = _by_variable(np.asarray(mean[late]) - np.asarray(truth[late]), apart)
    error, width = (
        np.sqrt(np.mean(each**2, axis=(0, 2))) for each in (error, _by_variable(spread[late], apart))
    )
    varies = _by_variable(truth[::every], apart).std(axis=(0, 2))
    far = (error > NEAR * varies) & (width < SURE * error)
    if not far.any():
        return []
    worst = int(np.where(far, error / np.where(varies > 0, varies, 1.0), 0.0).argmax())
    of, unit = "" if names is None else f" of {names[worst]}", _unit(names, units, worst)
    return [
        f"the filter has lost the truth: over the last quarter of the cycles the forecast's error{of} is "
        f"{error[worst]:.3g}{unit}, where the truth varies by {varies[worst]:.3g}{unit}, and its spread "
        f"{width[worst]:.3g}{unit}: docs/troubleshooting.md."
    ]


def _unit(names: Sequence[str] | None, units: Sequence[str] | None, number: int) -> str:
    """Of a variable, with a space before it; empty where it has none."""
    return "" if names is None or units is None or units[number] in ("", "1") else f" {units[number]}"


def _by_variable(values: Any, apart: bool) -> np.ndarray:
    """(cycles, V, points)."""
    values = np.asarray(values, np.float64)
    return values.reshape(len(values), values.shape[1] if apart else 1, -1)
