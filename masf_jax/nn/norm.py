"""Group normalisation with what usually follows it, channels last."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

__all__ = ["GroupNorm"]


class GroupNorm(nn.Module):
    """(x - mean)/√(variance + 10⁻⁵) · a + b, moments over the places of one sample and a group of channels.

    8 groups, or fewer where they would not divide the channels or have less than 4 of them. With `film`, the
    pair (c, d) in one vector, the result is multiplied by 1 + c and shifted by d, one number a channel (Perez
    et al. 2018, arXiv 1709.07871); with `activate`, silu is applied to it.

    All this is one multiplication and addition a value before the silu; moments in single precision at least.
    Between channels and groups go products with a matrix of zeros and ones: XLA fuses a reshape into the loop
    over all values, which then is up to five times slower on a CPU (jaxlib 0.10).

    Source: Wu & He (2018), arXiv 1803.08494.
    """

    space: int
    activate: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch_and_space C"], film: Float[Array, "*batch 2*C"] | None = None
    ) -> Float[Array, "*batch_and_space C"]:
        channels = x.shape[-1]
        a = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        b = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        exact = x.dtype if x.dtype == jnp.float64 else jnp.dtype(jnp.float32)
        groups = _groups(channels)
        places = tuple(range(x.ndim - 1 - self.space, x.ndim - 1))
        member = np.repeat(np.eye(groups), channels // groups, axis=0)  # (C, groups)
        one = (1,) * (x.ndim - 1)

        def group_mean(values: Array) -> Array:
            """Mean over places, then over the channels of a group: (*batch, 1, …, groups)."""
            per_channel = jnp.mean(values.astype(exact), axis=places, keepdims=True)
            return _product(per_channel, member * (groups / channels))

        mean = group_mean(x)
        variance = jnp.maximum(group_mean(lax.square(x.astype(exact))) - lax.square(mean), 0.0)
        inverse = lax.rsqrt(variance + 1e-5)
        a, b = a.astype(exact).reshape(*one, -1), b.astype(exact).reshape(*one, -1)
        weight = a * _product(inverse, member.T)
        shift = b - a * _product(mean * inverse, member.T)
        if film is not None:
            film = film.astype(exact).reshape(*film.shape[:-1], *(1,) * self.space, -1)
            c, d = jnp.split(film, 2, axis=-1)
            weight, shift = weight * (1.0 + c), shift * (1.0 + c) + d
        y = x * weight.astype(x.dtype) + shift.astype(x.dtype)
        return nn.silu(y) if self.activate else y


def _product(x: Array, matrix: np.ndarray) -> Array:
    return jnp.matmul(x, jnp.asarray(matrix, x.dtype), precision=lax.Precision.HIGHEST)


def _groups(channels: int) -> int:
    groups = 8
    while groups > 1 and (channels % groups or channels // groups < 4):
        groups //= 2
    return groups
