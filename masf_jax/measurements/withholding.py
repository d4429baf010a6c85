"""Observations kept from the analyses, to be scored: a filter's own sensors cannot say that it is right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .measurement import Observations
from .rows import ObservationsLike, as_observations

__all__ = ["drawn_places", "withhold"]


def withhold(
    observations: ObservationsLike, which: float | Sequence[int], seed: int = 0
) -> tuple[Observations, Observations]:
    """The observations in two parts: those for the analyses, and those that are withheld to score them.

    Args:
        observations: K cycles of values (*z).
        which: numbers 0 … m-1 of the raveled z, whose values are withheld in all cycles; or a share of them,
            0 < share < 1: so many (rounded, at least one), drawn at random of those that were ever measured.
        seed: of that draw.

    Returns:
        Two `Observations` with the steps and values of the given ones; each value is valid in one at most.

    Raises:
        ValueError: no such number, a share that is none, or nothing left in one of the parts.
    """
    observations = as_observations(observations)
    there = np.logical_or.reduce(np.asarray(observations.mask))
    if isinstance(which, float):
        places = drawn_places(which, seed, there)
    else:
        numbers = np.asarray(which)
        if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(
                f"which must be numbers of measured values or a share such as 0.2; got {which!r}."
            )
        bad = numbers[(numbers < 0) | (numbers >= there.size)]
        if bad.size:
            raise ValueError(
                f"which: {bad[0]} is none of the {there.size} measured values (0 … {there.size - 1})."
            )
        places = np.isin(np.arange(there.size), numbers).reshape(there.shape)
    if not (there & places).any() or not (there & ~places).any():
        raise ValueError(f"which = {which} leaves no value to score, or none for the analyses.")
    return _only(observations, ~places), _only(observations, places)


def drawn_places(share: float, seed: int, there: Bool[np.ndarray, "*z"]) -> Bool[np.ndarray, "*z"]:
    """A random choice of the places that are True: share · their number, rounded, at least one, never all.

    Raises:
        ValueError: not 0 < share < 1, or fewer than two places.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of the measured values lies between 0 and 1; got {share:g}.")
    (candidates,) = np.nonzero(there.ravel())
    if len(candidates) < 2:
        raise ValueError(f"of {len(candidates)} measured values no share can be withheld: two are needed.")
    n = min(max(math.floor(share * len(candidates) + 0.5), 1), len(candidates) - 1)
    drawn = np.zeros(there.size, bool)
    drawn[np.random.default_rng(seed).choice(candidates, n, replace=False)] = True
    return drawn.reshape(there.shape)


def _only(observations: Observations, places: np.ndarray) -> Observations:
    mask: Array = observations.mask & places[None]
    parts = mask, jnp.where(mask, observations.values, 0.0)
    return eqx.tree_at(lambda each: (each.mask, each.values), observations, parts)
