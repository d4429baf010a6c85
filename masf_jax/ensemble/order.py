"""What XLA computes after what."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["after"]


def after(value: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
    """`value`, which XLA cannot use before it has computed `other`; NaN where that begins with one.

    On CPUs jaxlib 0.10 waits for ever where two LAPACK calls for more than 32 matrices run at the same time
    (docs/performance.md): of what a decomposition is made of, another is the second.
    """
    return jnp.where(jnp.isnan(other.reshape(-1)[0]), jnp.nan, value)
