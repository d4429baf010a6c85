"""What a reader of observation files returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Table"]


class Table(NamedTuple):
    """What a file holds, before it is fitted to the model.

    times (K,), values (K, columns) with NaN where missing; index (columns,): which measured value
    each column is, None: in order; positions (columns, d): where each was measured, or None.
    """

    times: np.ndarray
    values: np.ndarray
    index: np.ndarray | None = None
    positions: np.ndarray | None = None
    units: str | None = None
