"""What innovations tell of the covariances that an assimilation works with."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..measurements.measurement import Measurement, Observations
from ..measurements.rows import ObservationsLike, as_observations

__all__ = ["Desroziers", "desroziers"]


class Desroziers(NamedTuple):
    """Covariances in measured space, in the units of the values: (m, m), or their diagonals (m,).

    noise: R; forecast: H P_f Hᵀ; analysis: H P_a Hᵀ; innovation: R + H P_f Hᵀ. counts: cycles behind each
    number; what no cycle has is NaN.
    """

    noise: Array
    forecast: Array
    analysis: Array
    innovation: Array
    counts: Array


def desroziers(
    measurement: Measurement,
    observations: ObservationsLike,
    forecast: Float[Array | np.ndarray, "K *state"],
    analysis: Float[Array | np.ndarray, "K *state"],
    *,
    skip: int = 0,
    diagonal: bool = False,
) -> Desroziers:
    """Desroziers' diagnostics from the means of a run, `run.forecast["mean"]` and `run.analysis["mean"]`.

    With d_b = z - H(x_f), d_a = z - H(x_a) and d_ab = H(x_a) - H(x_f), where gain and covariances are right

        R = E[d_a d_bᵀ],  H P_f Hᵀ = E[d_ab d_bᵀ],  H P_a Hᵀ = E[d_ab d_aᵀ],  R + H P_f Hᵀ = E[d_b d_bᵀ],

    here means over cycles, symmetrised. Far from what a run was given, they say which way to go: one step of
    an iteration, as the gain was not right.

    Source: Desroziers, Berre, Chapnik & Poli (2005), doi 10.1256/qj.05.108.

    Args:
        skip: cycles at the beginning that do not count.
        diagonal: only the diagonals, for many values.
    """
    observations = as_observations(observations)
    _check(measurement, observations, forecast, analysis, skip)
    z, mask = observations.values[skip:], observations.mask[skip:]

    def residuals(z: Array, valid: Array, x: Array) -> Array:
        return jnp.where(valid, measurement.innovation(z, x), 0.0).reshape(-1)

    d_b, d_a = (jax.vmap(residuals)(z, mask, jnp.asarray(x)[skip:]) for x in (forecast, analysis))
    d_ab, weights = d_b - d_a, mask.reshape(len(mask), -1).astype(d_b.dtype)

    def total(first: Array, second: Array) -> Array:
        if diagonal:
            return (first * second).sum(0)
        product = jnp.matmul(first.T, second, precision="highest")
        return (product + product.T) / 2

    counts = total(weights, weights)

    def mean(first: Array, second: Array) -> Array:
        return jnp.where(counts > 0, total(first, second) / jnp.where(counts > 0, counts, 1.0), jnp.nan)

    return Desroziers(mean(d_a, d_b), mean(d_ab, d_b), mean(d_ab, d_a), mean(d_b, d_b), counts)


def _check(
    measurement: Measurement, observations: Observations, forecast: Any, analysis: Any, skip: int
) -> None:
    """Refuses arrays of which one would be broadcast to another, and a skip that leaves nothing."""
    n, shape = observations.n_cycles, jnp.shape(forecast)
    if shape != jnp.shape(analysis) or shape[:1] != (n,):
        raise ValueError(
            f"forecast and analysis must be means of the {n} cycles of the observations, of one shape (K, "
            f"*state); got {shape} and {jnp.shape(analysis)}."
        )
    expected, found = measurement.output_shape(shape[1:]), observations.values.shape[1:]
    if expected != found:
        raise ValueError(
            f"observations have shape {found} per cycle, but the measurement of a state of shape {shape[1:]} "
            f"has shape {expected}."
        )
    if not 0 <= skip < n:
        raise ValueError(f"skip must be 0 to {n - 1} of {n} cycles; got {skip}.")
