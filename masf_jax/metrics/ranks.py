"""Rank histograms: is the truth one more member?"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

__all__ = ["rank_counts"]


def rank_counts(
    ensemble: Float[Array, "N *x"], truth: Float[Array, "*x"], n_bins: int | None = None
) -> Int[Array, " bins"]:
    """How many components have the truth at rank 0 … N among the members; flat if reliable.

    Source: Hamill (2001). A non-finite component counts nowhere.

    Args:
        n_bins: merge the N + 1 ranks into that many equal bins (large ensembles); None: N + 1.
    """
    n = ensemble.shape[0]
    bins = n + 1 if n_bins is None else min(n_bins, n + 1)
    rank = (ensemble < truth[None]).sum(0).reshape(-1)
    valid = (jnp.isfinite(ensemble).all(0) & jnp.isfinite(truth)).reshape(-1)
    # bin b counts ranks r with floor(r · bins / (N+1)) = b
    index = jnp.where(valid, (rank * bins) // (n + 1), bins)
    return (index[:, None] == jnp.arange(bins, dtype=index.dtype)[None, :]).sum(0)
