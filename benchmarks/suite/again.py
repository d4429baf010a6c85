"""A filter once more by chance: what two equally good runs of it differ by."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from masf_jax import filters as f


class Again(f.LETKF):
    """The LETKF with other first members, of the same mean and spread, and other rotations."""

    def init(self, key: jax.Array, ensemble: jax.Array) -> f.EnsembleState:
        mean, spread = ensemble.mean(0, keepdims=True), ensemble.std(0, keepdims=True)
        noise = jax.random.normal(jax.random.fold_in(key, 1), ensemble.shape)
        return super().init(key, mean + spread * noise)

    def update(self, key: jax.Array, *given: Any) -> Any:
        return super().update(jax.random.fold_in(key, 1), *given)


def again(letkf: f.LETKF) -> Again:
    """Of the same settings."""
    return Again(letkf.radius, letkf.inflation, rotation=True)


def by_chance(first: np.ndarray, second: np.ndarray) -> list[str]:
    """Ratio of the means of two such filters' RMSE by seed, of the worst seed either way, its deviation."""
    ratio = second / first
    worst = max(ratio.max(), (1 / ratio).max())
    return [f"{second.mean() / first.mean():.3f}", f"{worst:.3f}", f"{np.std(np.log(ratio)):.3f}"]
