"""Members that blow up: found and replaced after each forecast."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from .base import EnsembleState, State

__all__ = ["repair"]


def repair(key: PRNGKeyArray, state: State) -> tuple[State, Int[Array, ""], Bool[Array, ""]]:
    """Replaces each member that is not finite by a copy of a randomly chosen finite one.

    Returns the state, how many members were replaced, and whether fewer than two finite members
    remain (then nothing is replaced: the filter has diverged).
    """
    if not isinstance(state, EnsembleState):
        return state, jnp.asarray(0, jnp.int32), ~jnp.isfinite(state.mean).all()
    n = state.ensemble.shape[0]
    finite = jnp.isfinite(state.ensemble).reshape(n, -1).all(1)
    count = finite.sum().astype(jnp.int32)

    def mend(ensemble: Array) -> Array:
        finite_first = jnp.argsort(~finite)
        donor = finite_first[jax.random.randint(key, (n,), 0, jnp.maximum(count, 1))]
        return ensemble[jnp.where(finite, jnp.arange(n), donor)]

    broken = (count < n) & (count >= 2)
    ensemble = jax.lax.cond(broken, mend, lambda ensemble: ensemble, state.ensemble)
    mended = EnsembleState(ensemble, state.log_weights, state.memory)
    return mended, jnp.where(broken, n - count, 0).astype(jnp.int32), count < 2
