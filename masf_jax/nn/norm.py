"""Group normalisation, channels last."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["GroupNorm"]


class GroupNorm(nn.Module):
    """(x - mean)/√(variance + 10⁻⁵) · a + b, moments over the places of one sample and a group of channels.

    8 groups, or fewer where they would not divide the channels or have less than 4 of them. The moments are
    sums per channel first and then one multiplication and addition a value; in single precision at least.

    Source: Wu & He (2018), arXiv 1803.08494.
    """

    space: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_space C"]) -> Float[Array, "*batch_and_space C"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        exact = x.dtype if x.dtype == jnp.float64 else jnp.dtype(jnp.float32)
        groups = _groups(channels)
        places = tuple(range(x.ndim - 1 - self.space, x.ndim - 1))

        def group_mean(values: Array) -> Array:
            """Mean over places, then over the channels of a group: (*batch, groups, 1)."""
            per_channel = jnp.mean(values.astype(exact), axis=places)
            return jnp.mean(
                per_channel.reshape((*per_channel.shape[:-1], groups, -1)), axis=-1, keepdims=True
            )

        mean = group_mean(x)
        variance = jnp.maximum(group_mean(lax.square(x.astype(exact))) - lax.square(mean), 0.0)
        weight = scale.astype(exact).reshape((1,) * (mean.ndim - 2) + (groups, -1)) * lax.rsqrt(
            variance + 1e-5
        )
        shift = bias.astype(exact).reshape((1,) * (mean.ndim - 2) + (groups, -1)) - mean * weight
        shape = x.shape[: x.ndim - 1 - self.space] + (1,) * self.space + (channels,)
        return x * weight.reshape(shape).astype(x.dtype) + shift.reshape(shape).astype(x.dtype)


def _groups(channels: int) -> int:
    groups = 8
    while groups > 1 and (channels % groups or channels // groups < 4):
        groups //= 2
    return groups
