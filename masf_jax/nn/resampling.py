"""Periodic grids of other numbers of cells: for levels of a U-Net whose sizes are odd."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["even", "resampled"]


def even(x: Float[Array, "*batch_and_space C"], space: int) -> Float[Array, "*batch_and_new_space C"]:
    """x with one cell more along each of the `space` axes before the last whose size is odd (`resampled`)."""
    return resampled(x, [size + size % 2 for size in x.shape[-1 - space : -1]])


def resampled(
    x: Float[Array, "*batch_and_space C"], sizes: Sequence[int]
) -> Float[Array, "*batch_and_new_space C"]:
    """The trigonometric polynomial through x at n' places of the same circle, along the axes before the last.

    y_j = (1/n) Σ_k x̂_k e^{2πi kj/n'}, x̂ the discrete Fourier transform of x, over the waves |k| < n/2, n'/2
    that both sizes n and n' carry. From an odd n to n + 1 and back it is x again; an axis of the size it is
    to have is left as it is.
    """
    precise = x.dtype if x.dtype == jnp.float64 else jnp.float32  # transforms know no half precision
    for axis, size in enumerate(sizes, x.ndim - 1 - len(sizes)):
        n = x.shape[axis]
        if n != size:
            waves = jnp.fft.rfft(x.astype(precise), axis=axis)
            waves = lax.slice_in_dim(waves, 0, (min(n, size) + 1) // 2, axis=axis)
            x = (jnp.fft.irfft(waves, n=size, axis=axis) * (size / n)).astype(x.dtype)
    return x
