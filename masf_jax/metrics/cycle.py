"""The scores of one cycle, by name: what `assimilate` computes inside its scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..filters.base import EnsembleState, State
from .fields import critical_success_index, structural_similarity
from .ranks import rank_counts
from .scores import (
    crps_ensemble,
    crps_gaussian,
    energy_score as energy,
    masked_mean,
    rmse as root_mean_square_error,
    root_mean_variance,
)

__all__ = ["DEFAULT_SCORES", "SCORES", "Score", "cycle_scores"]

Score: TypeAlias = Callable[[State, Float[Array, "*state"], Bool[Array, "*state"] | None], Array]
"""(filter state, truth, components to score or None for all) -> array."""


def rmse(state: State, truth: Array, where: Array | None) -> Array:
    """Root-mean-square error of the mean."""
    return root_mean_square_error(state.moments()[0], truth, where)


def spread(state: State, truth: Array, where: Array | None) -> Array:
    """Root of the mean variance."""
    return root_mean_variance(state.moments()[1], where)


def crps(state: State, truth: Array, where: Array | None) -> Array:
    """Mean fair CRPS (closed form for Gaussian states)."""
    if isinstance(state, EnsembleState):
        return masked_mean(crps_ensemble(state.ensemble, truth, state.log_weights), where)
    return masked_mean(crps_gaussian(*state.moments(), truth), where)


def energy_score(state: State, truth: Array, where: Array | None) -> Array:
    """Fair energy score; NaN for states without members, equal weights assumed."""
    if not isinstance(state, EnsembleState) or state.log_weights is not None:
        return jnp.full((), jnp.nan, truth.dtype)
    ensemble = state.ensemble
    if where is not None:
        ensemble, truth = jnp.where(where[None], ensemble, 0.0), jnp.where(where, truth, 0.0)
    return energy(ensemble, truth)


def rank_histogram(state: State, truth: Array, where: Array | None) -> Array:
    """Expected counts of the truth's rank among the members (at most 51 bins)."""
    if not isinstance(state, EnsembleState) or state.log_weights is not None:
        return jnp.zeros((1,), truth.dtype)
    return rank_counts(state.ensemble, truth, 51)


def csi(state: State, truth: Array, where: Array | None) -> Array:
    """Critical success index of the mean's points above the truth's 95th percentile; of fields."""
    return critical_success_index(state.moments()[0], truth)


def ssim(state: State, truth: Array, where: Array | None) -> Array:
    """Structural similarity of the mean; of fields."""
    return structural_similarity(state.moments()[0], truth)


SCORES: dict[str, Score] = {
    "rmse": rmse,
    "spread": spread,
    "crps": crps,
    "energy_score": energy_score,
    "rank_histogram": rank_histogram,
    "csi": csi,
    "ssim": ssim,
}
DEFAULT_SCORES = ("rmse", "spread", "crps", "rank_histogram")
_SPLIT = ("rmse", "spread", "crps")


def cycle_scores(
    names: tuple[str, ...],
    state: State,
    truth: Float[Array, "*state"],
    observed: Bool[Array, "*state"] | None,
    extra: dict[str, Score] | None = None,
) -> dict[str, Array]:
    """All named scores; RMSE, spread and CRPS also over observed and unobserved components.

    The split is left out where `observed` is None (everything, or nothing in particular, is observed).
    """
    out = {}
    for name in names:
        out[name] = SCORES[name](state, truth, None)
        if observed is not None and name in _SPLIT:
            out[f"{name}_observed"] = SCORES[name](state, truth, observed)
            out[f"{name}_unobserved"] = SCORES[name](state, truth, ~observed)
    for name, score in (extra or {}).items():
        out[name] = score(state, truth, None)
    return out
