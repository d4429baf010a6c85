"""The statistics that DAPPER keeps of every forecast and analysis, as `extra_scores` of `assimilate`.

DAPPER (1.8, defaults) keeps per stage: mean, spread, error, Gaussian (log) score and CRPS of every
component, each with its mean, root mean square and mean absolute value; mean absolute deviation,
skewness and excess kurtosis averaged over components; the rank of the truth in every component;
singular values of the anomalies and the error projected on the singular vectors; and for `EnKF` the
trace of HK. Mean and spread are what `save=("mean", "spread")` keeps; the rest is here. The CRPS is
DAPPER's: of the empirical distribution, not the fair one.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from masf_jax.filters.base import EnsembleState
from masf_jax.metrics.scores import crps_ensemble

__all__ = ["SAVE", "same_statistics"]

SAVE = ("mean", "spread")


def _summaries(values: Array) -> Array:
    """Mean, root mean square and mean absolute value over components (last axis)."""
    return jnp.stack([values.mean(-1), jnp.sqrt((values**2).mean(-1)), jnp.abs(values).mean(-1)], -1)


def _statistics(state: EnsembleState, truth: Array, trace: bool) -> dict[str, Array]:
    ensemble = state.ensemble
    n_members = ensemble.shape[0]
    mean, variance = state.moments()
    deviations = ensemble - mean[None]
    error, spread = mean - truth, jnp.sqrt(variance)
    square = deviations**2
    cube = square * deviations

    distance = jnp.abs(ensemble - truth[None]).mean(0)  # the fair CRPS is distance - pairs / (2 N (N-1))
    crps = distance - (distance - crps_ensemble(ensemble, truth)) * (n_members - 1) / n_members
    gaussian = jnp.log(variance) + error**2 / variance

    # Singular values and right singular vectors of the anomalies, from the N x N Gram matrix.
    values, vectors = jnp.linalg.eigh(deviations @ deviations.T / (n_members - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    positive = values > values[0] * 1e-6
    length = jnp.where(positive, jnp.sqrt((n_members - 1) * jnp.where(positive, values, 1.0)), 1.0)
    projected = jnp.where(positive, vectors.T @ (deviations @ error) / length, 0.0)

    out = {
        "error": error,
        "gaussian_score": gaussian,
        "crps": crps,
        "summaries": _summaries(jnp.stack([mean, spread, error, gaussian, crps])),
        "mean_absolute_deviation": jnp.abs(deviations).mean(),
        "skewness": (cube.mean(0) / (variance * spread)).mean(),
        "kurtosis": ((square**2).mean(0) / variance**2).mean() - 3.0,
        "rank": (ensemble < truth[None]).sum(0),
        "singular_values": jnp.sqrt(jnp.maximum(values, 0.0)),
        "error_in_singular_directions": projected,
    }
    if trace:  # all of the state observed with R = I, from the forecast's singular values
        out["trace_hk"] = (values / (values + 1.0)).sum() / truth.shape[0]
    return out


def same_statistics(trace: bool) -> dict:
    """`extra_scores` with one entry, a dictionary of everything above; `trace`: with the trace of HK."""
    return {"statistics": lambda state, truth, where: _statistics(state, truth, trace)}
