"""Features of the diffusion time, and the conditioning they give to every block of a network."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["TimeEmbedding", "fourier_features", "scale_and_shift"]


def fourier_features(
    t: Float[Array, "*batch"], size: int, highest: float = 100.0
) -> Float[Array, "*batch F"]:
    """(sin ω_k t, cos ω_k t) for size/2 angular frequencies, geometric from 1 to `highest`.

    Args:
        t: Diffusion time in [0, 1].
        size: Number of features, even and at least 4.
        highest: Largest angular frequency: the features tell times 1/highest apart.

    Raises:
        ValueError: `size` is odd or below 4.
    """
    if size < 4 or size % 2:
        raise ValueError(f"the number of time features must be even and at least 4, got {size}")
    frequencies = jnp.geomspace(1.0, highest, size // 2, dtype=t.dtype)
    phase = t[..., None] * frequencies.reshape((1,) * t.ndim + (-1,))
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


class TimeEmbedding(nn.Module):
    """Fourier features through two dense layers: what the blocks of a network are conditioned on."""

    size: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch E"]:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        features = fourier_features(t, max(4, self.size // 2 * 2)).astype(self.dtype)
        hidden = nn.silu(nn.Dense(self.size, **kinds)(features))
        return nn.silu(nn.Dense(self.size, **kinds)(hidden))


def scale_and_shift(
    h: Float[Array, "*batch_and_space C"], parameters: Float[Array, "*batch 2*C"]
) -> Float[Array, "*batch_and_space C"]:
    """h·(1 + a) + b with (a, b) the halves of `parameters`, the same at every place (FiLM).

    Source: Perez et al. (2018), arXiv 1709.07871.
    """
    space = (1,) * (h.ndim - parameters.ndim)
    parameters = parameters.reshape(parameters.shape[:-1] + space + parameters.shape[-1:])
    scale, shift = jnp.split(parameters, 2, axis=-1)
    return h * (1.0 + scale) + shift
