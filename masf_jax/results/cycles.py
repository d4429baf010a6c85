"""What a run has left, read some cycles at a time: memory does not grow with their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..measurements.measurement import Measurement
from .given import Given

__all__ = ["Cycles"]


@dataclasses.dataclass(frozen=True)
class Cycles:
    """Of a run that has ended: of an `Assimilation` or a `Smoothing`."""

    result: Any

    @property
    def given(self) -> Given:
        """What the run was given.

        Raises:
            ValueError: it is not known.
        """
        if self.result.given is None:
            raise ValueError(
                "this result has no dataset: made inside jax.jit, vmap or grad, it does not know its model "
                "and observations. Call assimilate (or the smoother) outside of them."
            )
        return self.result.given

    @property
    def n(self) -> int:
        return len(self.result.faults)

    @property
    def rejected(self) -> Any:
        """Which values did not pass quality control, (K, *z); None where there was none."""
        return getattr(self.result, "rejected", None)

    @property
    def measured_shape(self) -> tuple[int, ...]:
        return self.given.observation.shape[1:]

    def parts(self) -> Iterator[slice]:
        """All cycles in order, as many at a time as lie in one piece on disk."""
        length = getattr(self.given.observation, "chunks", (self.n,))[0]
        return (slice(i, min(i + length, self.n)) for i in range(0, self.n, length))

    def observation(self, part: slice) -> np.ndarray:
        """(cycles, *z), NaN where nothing was measured."""
        values, mask = (np.asarray(x[part]) for x in (self.given.observation, self.given.observation_mask))
        return np.where(mask, values, np.nan).astype(values.dtype)

    def used(self, part: slice) -> np.ndarray:
        """Which values the analyses used, (cycles, *z): measured, not rejected, in cycles not left out."""
        used = np.asarray(self.given.observation_mask[part])
        if self.rejected is not None:
            used = used & ~np.asarray(self.rejected[part])
        return used & ~np.asarray(self.result.skipped[part]).reshape(-1, *(1,) * (used.ndim - 1))

    def residual(self, stage: str, part: slice) -> np.ndarray:
        """z - H(mean), (cycles, *z), NaN where no value was used; of runs with saved means only."""
        return self.departure(stage, part, self.given.observation, self.used(part))

    def departure(self, stage: str, part: slice, values: Any, where: np.ndarray) -> np.ndarray:
        """z - H(mean) of any values (K, *z), NaN but `where` (cycles, *z)."""
        mean = jax.device_put(np.asarray(getattr(self.result, stage)["mean"][part]))
        values = np.where(where, np.asarray(values[part]), 0.0).astype(mean.dtype)
        return np.where(where, np.asarray(_differences(self.given.measurement, values, mean)), np.nan)

    def each(self, numbers: Callable[[slice], np.ndarray]) -> np.ndarray:
        """Numbers of all cycles, (K, …), from those of a part."""
        return np.concatenate([numbers(part) for part in self.parts()])


@eqx.filter_jit
def _differences(measurement: Measurement, values: Any, mean: jax.Array) -> jax.Array:
    return jax.vmap(measurement.innovation)(values, mean)
