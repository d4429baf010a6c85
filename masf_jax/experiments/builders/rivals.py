"""Score- and flow-based filters of other papers (docs/rivals.md)."""

from __future__ import annotations

from typing import Literal

from ... import filters as f
from ...diffusion.linear_schedule import LinearSchedule
from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization

__all__ = ["ensf"]


def _normalization(kind: Literal["cycle", "moving"] | None) -> Normalization | None:
    return None if kind is None else Normalization(kind)


def _ensf_sampler(
    eps_alpha: float,
    eps_beta: float,
    n_steps: int,
    batch_size: int | None,
    start: Literal["standardised", "noise", "forecast"],
    limit: float | None,
) -> f.EnSFSampler:
    return f.EnSFSampler(LinearSchedule(eps_alpha, eps_beta), n_steps, batch_size, start, limit)


def ensf(
    inflation: Inflation,
    *,
    eps_alpha: float = 0.5,
    eps_beta: float = 0.025,
    n_steps: int = 500,
    batch_size: int | None = 1,
    start: Literal["standardised", "noise", "forecast"] = "standardised",
    limit: float | None = 1000.0,
    normalization: Literal["cycle", "moving"] | None = None,
) -> f.Filter:
    """Ensemble score filter (Bao et al. 2024)."""
    sampler = _ensf_sampler(eps_alpha, eps_beta, n_steps, batch_size, start, limit)
    return f.EnSF(inflation, _normalization(normalization), sampler)
