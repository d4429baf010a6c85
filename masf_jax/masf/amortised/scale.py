"""A model's climate, and how many of its cells are as large as one that a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ...dynamics.base import Dynamics
from ...dynamics.rollout import climatological_states
from .coarse import block_correlation

__all__ = ["climate_states", "correlation_of", "matching_coarsening"]

_FEWEST_STATES, _MOST_NUMBERS = 16, 2**24
"""Of a climatology that is drawn: no more states than have so many numbers together (64 MB)."""
_TOLERANCE = 1.6
"""On 1 - correlation; blocks of twice as many cells have about four times as much where fields are smooth."""


def climate_states(dynamics: Dynamics, seed: int, n: int = 1000) -> Float[Array, "K *x"]:
    """`n` states of the model's long run, or fewer where they are large; runs from the host or inside jit."""
    most = max(_FEWEST_STATES, _MOST_NUMBERS // math.prod(dynamics.state_shape))
    key = jax.random.split(jax.random.key(seed))[0]
    return eqx.filter_jit(climatological_states)(dynamics, key, min(n, most))[0]


def correlation_of(states: Float[Array, "K *x"], coarsening: int, space: int) -> float:
    """`block_correlation` as a number; 1 for states that never differ."""
    found = float(block_correlation(states, coarsening, space))
    return found if math.isfinite(found) else 1.0


def matching_coarsening(
    states: Float[Array, "K *x"], space: int, correlation: float, multiple: int = 1
) -> int:
    """The smallest blocks that differ from their neighbours as much as cells of a training did.

    The smallest c with 1 - ρ_c ≥ (1 - ρ)/1.6, ρ_c the correlation of neighbouring blocks of c cells each way
    in a climate's states (`block_correlation`) and ρ that of the climate that a network was trained on (of a
    family, the mean of its smoother models). So a finer grid of the same field has blocks as large as the
    cells of the training, and a model of waves over many points is seen at the scale of its waves. 1 where no
    c will do.

    Args:
        states: of the model's climate (`climate_states`).
        space: number of space axes.
        correlation: ρ.
        multiple: numbers of blocks along each axis are multiples of this, where the grid's are.
    """
    grid = states.shape[states.ndim - space :]
    for c in _dividing(grid, multiple):
        if 1 - correlation_of(states, c, space) >= (1 - correlation) / _TOLERANCE:
            return c
    return 1


def _dividing(grid: Sequence[int], multiple: int) -> list[int]:
    """Sizes of blocks that divide the grid into at least 8 along each axis."""
    kept = multiple if all(size % multiple == 0 for size in grid) else 1
    most = max(1, min(grid) // 8)
    return [c for c in range(1, most + 1) if all(size % (c * kept) == 0 for size in grid)]
