"""Random keys of members."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PRNGKeyArray

__all__ = ["member_keys"]


def member_keys(key: PRNGKeyArray, n_members: int) -> Key[Array, " {n_members}"]:
    """A key for each member, the same whatever the number of members."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n_members, dtype=jnp.uint32))
