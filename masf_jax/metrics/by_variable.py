"""Scores of each variable of a state apart: metres and metres per second have no common mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["rmse_by_variable", "spread_by_variable"]


def rmse_by_variable(mean: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """√ mean (mean - truth)² over the points of each variable, each cycle.

    Args:
        mean, truth: (K, V, *points), V variables along the state's first axis.

    Returns:
        (K, V), each in its variable's units; of a variable of one point, |mean - truth|.
    """
    return _root_mean_square(np.asarray(mean, np.float64) - np.asarray(truth, np.float64))


def spread_by_variable(spread: ArrayLike) -> np.ndarray:
    """√ mean variance over the points of each variable, each cycle.

    Args:
        spread: standard deviations, (K, V, *points).

    Returns:
        (K, V), each in its variable's units.
    """
    return _root_mean_square(np.asarray(spread, np.float64))


def _root_mean_square(values: np.ndarray) -> np.ndarray:
    """(K, V) of (K, V, *points)."""
    return np.sqrt((values.reshape(*values.shape[:2], -1) ** 2).mean(-1))
