"""Sample statistics of an ensemble; the member axis comes first."""

from __future__ import annotations

import functools
import operator

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = [
    "anomalies",
    "effective_sample_size",
    "member_mean",
    "member_sum",
    "member_variance",
    "recentre",
    "weighted_moments",
]


def member_sum(values: Float[Array, "N *x"]) -> Float[Array, "*x"]:
    """Σ_i values_i over members.

    Large states are added member by member, where XLA's CPU reduction over the leading axis is far slower
    (the scores of benchmarks/speed/lorenz96_million.py rest on it).
    """
    n = values.shape[0]
    if n <= 64 and values.size >= 2**20:
        return functools.reduce(operator.add, [values[i] for i in range(n)])
    return values.sum(0)


def member_mean(ensemble: Float[Array, "N *x"]) -> Float[Array, "*x"]:
    """The ensemble mean."""
    return member_sum(ensemble) / ensemble.shape[0]


def anomalies(ensemble: Float[Array, "N *x"]) -> tuple[Float[Array, "*x"], Float[Array, "N *x"]]:
    """The ensemble mean and the members' deviations from it."""
    mean = member_mean(ensemble)
    return mean, ensemble - mean[None]


def recentre(mean: Float[Array, "*x"], deviations: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
    """mean + deviations, member by member."""
    return mean[None] + deviations


def member_variance(ensemble: Float[Array, "N *x"]) -> Float[Array, "*x"]:
    """Unbiased sample variance over members, (1/(N-1)) Σ (x_i - mean)²."""
    deviations = anomalies(ensemble)[1]
    return member_sum(deviations**2) / (ensemble.shape[0] - 1)


def weighted_moments(
    ensemble: Float[Array, "N *x"], weights: Float[Array, " N"]
) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
    """Weighted mean and unbiased weighted variance, Σ w (x-m)² / (1 - Σ w²); weights sum to 1.

    The variance is zero where one member holds all the weight. Members are taken from the first one on:
    rounded weights sum to 1 but for a rounding, which of states far from 0 would be more than their spread.
    """
    mean = ensemble[0] + jnp.tensordot(weights, ensemble - ensemble[:1], axes=1)
    square = jnp.tensordot(weights, (ensemble - mean[None]) ** 2, axes=1)
    free = 1.0 - (weights**2).sum()
    return mean, jnp.where(free > 0, square / jnp.where(free > 0, free, 1.0), 0.0)


def effective_sample_size(log_weights: Float[Array, " N"]) -> Float[Array, ""]:
    """1 / Σ w² for normalised log-weights: between 1 and N."""
    return 1.0 / jnp.exp(2.0 * log_weights).sum()
