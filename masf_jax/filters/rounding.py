"""How much of an analysis is round-off, in posterior standard deviations."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..ensemble.double import round_off
from ..measurements.measurement import Measurement

__all__ = ["of_algebra", "of_gaussian", "of_storage"]

_STORED = 3.0
"""Roundings of a component between an analysis and its mean over members: of each member, and of sums."""


def of_algebra(
    d: Float[Array, " m"],
    s: Float[Array, "k m"],
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    measurement: Measurement,
    total: Callable[[Float[Array, "m 2"]], Float[Array, " 2"]] | None = None,
    gram: bool = True,
    limit: float = math.inf,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Estimates for the working precision u, and for double precision without Gram matrices.

    u times, with whitened innovation d and measured values z/std,

        |S|²_F (of Gram matrices; else |S|_F)  +  √Σ(d² + z²/std²)  +  condition of R.

    Args:
        s: whitened square root of the forecast's covariance: anomalies over √(N-1).
        total: the largest local sums over the measured values; None: the sums over all of them.
        gram: whether the algebra in working precision forms S Sᵀ.
        limit: the largest |S|²_F that it is made for.
    """
    std = measurement.noise.standard_deviation(z)
    values = jnp.where(mask, z / std, 0.0).reshape(-1)
    if total is None:
        square, seen = (s**2).sum(), (d**2 + values**2).sum()
    else:
        square, seen = total(jnp.stack([(s**2).sum(0), d**2 + values**2], axis=1))
    condition = jnp.asarray(measurement.noise.condition, z.dtype)
    rest = jnp.sqrt(seen) + condition
    size = jnp.where(square > limit, jnp.inf, square if gram else jnp.sqrt(square))
    return round_off(z.dtype) * (size + rest), round_off(jnp.float64) * (jnp.sqrt(square) + rest)


def is_too_sure(z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement) -> Bool[Array, ""]:
    """Whether a measured value has a noise whose 1/std² is beyond the working precision."""
    sure = measurement.noise.standard_deviation(z) < 1.0 / math.sqrt(float(jnp.finfo(z.dtype).max))
    return (mask & sure).any()


def of_gaussian(
    forecast: Float[Array, " n"],
    mean: Float[Array, " n"],
    std: Float[Array, " n"],
    rounding: Float[Array, ""],
) -> Float[Array, ""]:
    """`rounding`, and 3 u |mean| / std of the worst component that had a forecast `std`."""
    relative = jnp.where(forecast > 0, jnp.abs(mean) / std, 0.0)
    return rounding + _STORED * round_off(mean.dtype) * relative.max()


def of_storage(
    forecast: Float[Array, "N *x"], analysis: Float[Array, "N *x"], rounding: Float[Array, ""] | float
) -> Float[Array, ""]:
    """`rounding`, and 3 u |x| / spread of the analysis' worst component: members lie on a grid of numbers.

    Components that are the same in all forecast members count for nothing.
    """
    forecast, analysis = jax.lax.stop_gradient((forecast, analysis))
    n = analysis.shape[0]

    shift = analysis - analysis[:1]
    total, square, moved = shift.sum(0), (shift**2).sum(0), (forecast != forecast[:1]).any(0)
    variance = jnp.maximum(square - total**2 / n, 0.0) / (n - 1)
    relative = jnp.where(moved, jnp.abs(analysis[0]) / jnp.sqrt(variance), 0.0)
    return rounding + _STORED * round_off(analysis.dtype) * relative.max()
