"""Scores of fields (channels, ny, nx): where the extremes are, and how alike the structures look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arrays import of_arrays

__all__ = ["critical_success_index", "structural_similarity"]

_WINDOW, _WIDTH = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


@of_arrays("x", "truth")
def critical_success_index(
    x: Float[Array, "*field"], truth: Float[Array, "*field"], quantile: float = 0.95
) -> Float[Array, ""]:
    """CSI = hits/(hits + misses + false alarms) of the points above the truth's quantile.

    Each channel has a threshold of its own; they are counted together. 1: the same points; NaN where
    neither field has any. A point where one of them is not finite counts nowhere.

    Source: Schaefer (1990), "The critical success index as an indicator of warning skill".

    Raises:
        ValueError: fields of other shapes, or a quantile that is none.
    """
    _check(x)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie in (0, 1); got {quantile}.")
    valid = jnp.isfinite(x) & jnp.isfinite(truth)
    known = jnp.where(valid, truth, jnp.nan)
    threshold = jnp.nanquantile(known, quantile, axis=(1, 2), keepdims=True)
    seen, there = valid & (x > threshold), valid & (truth > threshold)
    return (seen & there).sum().astype(x.dtype) / (seen | there).sum().astype(x.dtype)


@of_arrays("x", "truth")
def structural_similarity(x: Float[Array, "*field"], truth: Float[Array, "*field"]) -> Float[Array, ""]:
    """SSIM of each channel as it is, averaged; the dynamic range L is that of the truth's channel.

        SSIM = (2 μ_x μ_y + C_1)(2 σ_xy + C_2) / ((μ_x² + μ_y² + C_1)(σ_x² + σ_y² + C_2)),  C_i = (k_i L)²

    Source: Wang, Bovik, Sheikh & Simoncelli (2004), doi 10.1109/TIP.2003.819861, with their Gaussian window
    of 11 points and width 1.5, where it fits, and constants .01 and .03. Moments are taken about the truth's
    mean, since float32 loses the variances of fields that are far from 0.

    Raises:
        ValueError: fields of other shapes, or smaller than the window.
    """
    _check(x)
    if min(x.shape[1:]) < _WINDOW:
        raise ValueError(f"SSIM needs fields of at least {_WINDOW} x {_WINDOW} points; got {x.shape[1:]}.")
    places = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-0.5 * (places / _WIDTH) ** 2)
    window = jnp.asarray(weights / weights.sum(), x.dtype)

    def along(axis: int, field: Array) -> Array:
        return jnp.apply_along_axis(lambda line: jnp.convolve(line, window, mode="valid"), axis, field)

    def blurred(field: Array) -> Array:
        return along(1, along(0, field))

    def one(x: Array, truth: Array) -> Array:
        span, origin = truth.max() - truth.min(), truth.mean()
        unit = jnp.where(span > 0, span, 1.0)
        a, b = (x - origin) / unit, (truth - origin) / unit
        mean_a, mean_b = blurred(a), blurred(b)
        square = jnp.maximum(blurred(a**2) - mean_a**2, 0.0) + jnp.maximum(blurred(b**2) - mean_b**2, 0.0)
        product = blurred(a * b) - mean_a * mean_b
        a, b = mean_a + origin / unit, mean_b + origin / unit
        alike = (2 * a * b + _C1) / (a**2 + b**2 + _C1)
        return jnp.mean(alike * (2 * product + _C2) / (square + _C2))

    return jax.vmap(one)(x, truth).mean()


def _check(x: Array) -> None:
    if x.ndim != 3:
        raise ValueError(f"scores of fields need a state (channels, ny, nx); this one has shape {x.shape}.")
