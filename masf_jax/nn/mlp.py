"""A residual network for vectors, conditioned on the diffusion time."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from .embedding import TimeEmbedding, scale_and_shift

__all__ = ["MLP"]


class MLP(nn.Module):
    """h ← h + W₂ silu(film(W₁ h, t)), `depth` times, between two linear maps, the last of them zero at first.

    `net.init(key, x, t)` makes parameters, `net.apply(params, x, t)` evaluates; leading axes are a batch.

    Attributes:
        out_features: Length of the result.
        width: Length of h.
        depth: Number of residual blocks.
        second_head: Length of a second result read from the same h; with it, a pair is returned.
        embedding: Length of the time embedding.
        dtype: What is computed in (`jnp.bfloat16`, say); None follows x. The result has the type of x.
        param_dtype: What parameters are kept in.
    """

    out_features: int
    width: int = 128
    depth: int = 3
    second_head: int | None = None
    embedding: int = 64
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch n"], t: Float[Array, "*times"]
    ) -> Float[Array, "*batch m"] | tuple[Float[Array, "*batch m"], Float[Array, "*batch k"]]:
        dtype = x.dtype if self.dtype is None else self.dtype
        kinds = {"dtype": dtype, "param_dtype": self.param_dtype}
        time = TimeEmbedding(self.embedding, **kinds)(jnp.broadcast_to(t, x.shape[:-1]))
        h = nn.Dense(self.width, **kinds)(x.astype(dtype))
        for _ in range(self.depth):
            film = nn.Dense(2 * self.width, **kinds)(time)
            update = nn.silu(scale_and_shift(nn.Dense(self.width, **kinds)(h), film))
            h = h + nn.Dense(self.width, **kinds)(update)
        zero = {**kinds, "kernel_init": nn.initializers.zeros}
        first = nn.Dense(self.out_features, name="head", **zero)(h).astype(x.dtype)
        if self.second_head is None:
            return first
        return first, nn.Dense(self.second_head, name="second_head", **zero)(h).astype(x.dtype)
