"""Convolutions on periodic grids, channels last."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["CircularConv", "pad_circular", "upsample"]


def pad_circular(x: Array, space: int, before: int, after: int) -> Array:
    """`before` and `after` cells more on either side of each spatial axis, taken from the other end."""
    for axis in range(x.ndim - 1 - space, x.ndim - 1):
        size = x.shape[axis]
        parts = [lax.slice_in_dim(x, size - before, size, axis=axis), x]
        if after:
            parts.append(lax.slice_in_dim(x, 0, after, axis=axis))
        x = jnp.concatenate(parts, axis=axis)
    return x


def upsample(x: Array, space: int) -> Array:
    """Each cell repeated twice along each spatial axis."""
    for axis in range(x.ndim - 1 - space, x.ndim - 1):
        x = jnp.repeat(x, 2, axis=axis)
    return x


class CircularConv(nn.Module):
    """A convolution of width 3 in each of the `space` axes before the last, circular, with a bias.

    x (*batch, *space, C) → (*batch, *space / stride, features).

    One cell too many is padded on, and taken off again by a negative padding of the convolution: XLA's CPU
    convolution without any padding of its own is up to five times slower (jaxlib 0.10).
    """

    features: int
    space: int
    stride: int = 1
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_space C"]) -> Float[Array, "*batch_and_less_space D"]:
        after = 1 if self.stride == 1 else 0  # an even size in steps of two never reads beyond the last cell
        return nn.Conv(
            self.features,
            (3,) * self.space,
            strides=self.stride,
            padding=[(-1, 0)] * self.space,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(pad_circular(x, self.space, 2, after))
