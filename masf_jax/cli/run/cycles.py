"""What a run has left, read some cycles at a time: memory does not grow with their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ...driver import Assimilation
from ...measurements import Measurement
from ...record import Stored

__all__ = ["Cycles"]


@dataclasses.dataclass(frozen=True)
class Cycles:
    """Of a run that has ended.

    given: observation (NaN where there is none), observation_mask and, of a simulated one, truth; by name.
    """

    measurement: Measurement
    result: Assimilation
    given: dict[str, Stored]

    @property
    def n(self) -> int:
        return len(self.result.faults)

    @property
    def measured_shape(self) -> tuple[int, ...]:
        return self.given["observation"].shape[1:]

    def parts(self) -> Iterator[slice]:
        """All cycles in order, as many at a time as lie in one piece on disk."""
        length = getattr(self.given["observation"], "chunks", (self.n,))[0]
        return (slice(i, min(i + length, self.n)) for i in range(0, self.n, length))

    def used(self, part: slice) -> np.ndarray:
        """Which values the analyses used, (cycles, *z): measured, not rejected, in cycles not left out."""
        used = np.asarray(self.given["observation_mask"][part])
        if self.result.rejected is not None:
            used = used & ~np.asarray(self.result.rejected[part])
        return used & ~np.asarray(self.result.skipped[part]).reshape(-1, *(1,) * (used.ndim - 1))

    def residual(self, stage: str, part: slice) -> np.ndarray:
        """z - H(mean), (cycles, *z), NaN where no value was used; of runs with saved means only."""
        used = self.used(part)
        mean = jax.device_put(np.asarray(getattr(self.result, stage)["mean"][part]))
        values = np.where(used, np.asarray(self.given["observation"][part]), 0.0).astype(mean.dtype)
        return np.where(used, np.asarray(_differences(self.measurement, values, mean)), np.nan)

    def each(self, numbers: Callable[[slice], np.ndarray]) -> np.ndarray:
        """Numbers of all cycles, (K, …), from those of a part."""
        return np.concatenate([numbers(part) for part in self.parts()])


@eqx.filter_jit
def _differences(measurement: Measurement, values: Any, mean: jax.Array) -> jax.Array:
    return jax.vmap(measurement.innovation)(values, mean)
