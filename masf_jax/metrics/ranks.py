"""Rank histograms: is the truth one more member?"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arrays import of_arrays

__all__ = ["rank_counts"]


@of_arrays("ensemble", "truth")
def rank_counts(
    ensemble: Float[Array, "N *x"], truth: Float[Array, "*x"], n_bins: int | None = None
) -> Float[Array, " bins"]:
    """How many components have the truth at rank 0 … N among the members; flat if reliable.

    Expected counts: a truth that ties with k members has any of the k + 1 ranks, each with the share 1/(k+1);
    and where n_bins < N + 1 equal bins divide the ranks' range, a rank that lies across an edge counts in
    both bins by its share. So exchangeable members give a flat histogram also when they are rounded, and
    for every number of bins.

    Source: Hamill (2001). A component whose truth or members are not finite counts nowhere.

    Args:
        n_bins: at most so many equal bins; None: N + 1.

    Raises:
        ValueError: a truth of another shape than a member, or n_bins below 1.
    """
    n = ensemble.shape[0]
    if n_bins is not None and n_bins < 1:
        raise ValueError(f"n_bins must be at least 1; got {n_bins}.")
    bins = n + 1 if n_bins is None else min(n_bins, n + 1)
    below = (ensemble < truth[None]).sum(0).reshape(-1).astype(truth.dtype)
    ties = (ensemble == truth[None]).sum(0).reshape(-1).astype(truth.dtype)
    valid = (jnp.isfinite(ensemble).all(0) & jnp.isfinite(truth)).reshape(-1)
    # the truth lies uniformly in [below, below + ties + 1) of the ranks' range [0, N + 1)
    scale = bins / (n + 1)
    low, high = (rank[:, None] * scale for rank in (below, below + ties + 1))
    edges = jnp.arange(bins, dtype=truth.dtype)[None]
    overlap = jnp.clip(jnp.minimum(high, edges + 1) - jnp.maximum(low, edges), 0.0)
    return jnp.where(valid[:, None], overlap / (high - low), 0.0).sum(0)
