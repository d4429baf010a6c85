"""What a run's numbers say of the run itself, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .outliers import outlying
from .overconfidence import overconfident
from .width import lost, too_wide

__all__ = ["remarks"]


def remarks(
    info: Mapping[str, Any],
    forecast: Mapping[str, Any],
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    burn_in: int = 0,
    skipped: Any = False,
    diverged: Any = False,
    truth: Any = None,
) -> list[str]:
    """Of gross errors used, a spread too small for the innovations or the error, one too wide for the state;
    none of these: an empty list.

    Args:
        info: what the filter reported of each cycle.
        forecast: saved arrays by name; without mean and spread nothing is said of the width.
        names, units: of the variables along the state's first axis, told apart; one, or None: one variable.
        burn_in: cycles whose innovations do not count.
        skipped, diverged: (K,) cycles whose analysis was not used; with fewer than two sound members.
        truth: (K, *state), where it is known.
    """
    sure = overconfident(info, burn_in, skipped)
    said = outlying(info, burn_in, skipped) + sure
    if not {"mean", "spread"} <= set(forecast):
        return said
    mean, spread, truth = (_on_host(each) for each in (forecast["mean"], forecast["spread"], truth))
    gone = np.flatnonzero(np.broadcast_to(diverged, mean.shape[0]))
    until = int(gone[0]) if len(gone) else mean.shape[0]
    truth = None if truth is None else truth[:until]
    if truth is not None and not sure:
        said += lost(mean[:until], spread[:until], truth, names, units)
    return said + too_wide(mean[:until], spread[:until], names, units, truth)


def _on_host(values: Any) -> Any:
    """What is on disk stays there: some cycles are read of it."""
    return np.asarray(values) if isinstance(values, jax.Array) else values
