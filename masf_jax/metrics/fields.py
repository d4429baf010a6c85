"""Scores of fields (channels, ny, nx): where the extremes are, and how alike the structures look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["critical_success_index", "structural_similarity"]

_WINDOW = 11


def critical_success_index(
    x: Float[Array, "*field"], truth: Float[Array, "*field"], quantile: float = 0.95
) -> Float[Array, ""]:
    """CSI = hits/(hits + misses + false alarms) of the points above the truth's quantile.

    Each channel has a threshold of its own; they are counted together. 1: the same points; NaN where
    neither field has any.

    Source: Schaefer (1990), "The critical success index as an indicator of warning skill".
    """
    _check(x)
    threshold = jnp.quantile(truth, quantile, axis=(1, 2), keepdims=True)
    seen, there = x > threshold, truth > threshold
    return (seen & there).sum().astype(x.dtype) / (seen | there).sum().astype(x.dtype)


def structural_similarity(x: Float[Array, "*field"], truth: Float[Array, "*field"]) -> Float[Array, ""]:
    """SSIM of each channel as it is, averaged; the dynamic range L is that of the truth's channel.

        SSIM = (2 μ_x μ_y + C_1)(2 σ_xy + C_2) / ((μ_x² + μ_y² + C_1)(σ_x² + σ_y² + C_2)),  C_i = (k_i L)²

    Source: Wang, Bovik, Sheikh & Simoncelli (2004), doi 10.1109/TIP.2003.819861, with their Gaussian window
    of 11 points and constants .01 and .03; computed by dm-pix.

    Raises:
        ValueError: a field smaller than the window.
    """
    import dm_pix

    _check(x)
    if min(x.shape[1:]) < _WINDOW:
        raise ValueError(f"SSIM needs fields of at least {_WINDOW} x {_WINDOW} points; got {x.shape[1:]}.")

    def one(x: Array, truth: Array) -> Array:
        width = truth.max() - truth.min()
        a, b = (field[..., None] / jnp.where(width > 0, width, 1.0) for field in (x, truth))
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return jnp.asarray(dm_pix.ssim(a, b, filter_size=_WINDOW)).astype(x.dtype)

    return jax.vmap(one)(x, truth).mean()


def _check(x: Array) -> None:
    if x.ndim != 3:
        raise ValueError(f"scores of fields need a state (channels, ny, nx); this one has shape {x.shape}.")
