"""A plain array where observations are expected: a row a cycle, one model step apart."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Shaped

from .measurement import Observations

__all__ = ["ObservationsLike", "as_observations"]

ObservationsLike: TypeAlias = Observations | Shaped[Array | np.ndarray, "K *z"]
"""`Observations`, or an array of values whose rows are those of steps 1, 2, …, K."""


def as_observations(given: Any) -> Observations:
    """Observations as they are; an array (K, *z), traced or not, as `Observations(given, 1)`.

    Tables of pandas and xarray have times of their own, which nobody would look at: they are refused.

    Raises:
        TypeError: something else.
        ValueError: an array that has no rows, or that holds no real numbers.
    """
    if isinstance(given, Observations):
        return given
    if isinstance(given, jax.Array | np.ndarray):
        return Observations(given, 1)
    raise TypeError(
        "observations must be measurements.Observations(values, steps), steps being the model step "
        "number of each row, or one number of steps between rows, or an array (cycles, *z) with a row of "
        f"values after each model step; got {type(given).__name__}{_meant(given)}"
    )


def _meant(given: Any) -> str:
    if isinstance(getattr(given, "observations", None), Observations):
        return ": give its .observations."
    return ". From a table with dates: docs/observations.md."
