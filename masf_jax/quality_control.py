"""Quality control of observations against the forecast."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from .dynamics.layout import current
from .filters.base import EnsembleState, GaussianState, State
from .measurements.measurement import Measurement
from .numbers import number

__all__ = ["GrossErrorCheck"]


class GrossErrorCheck(eqx.Module):
    """The gross-error (background) check: a value far from what the forecast expects is not used.

    Value j is rejected where |z_j - mean H(x)_j| > threshold · √(spread_j² + σ_j²): mean and spread those of
    H(x) over the forecast members (by their weights; for a filter without members the linearised law of
    H(x)), σ_j the standard deviation of its noise (of noise that depends on H(x): at the mean). Differences
    of circular values are taken around the circle. Where mean or spread of H(x) is not finite: rejected.

    With Gaussian forecast and noise a good value exceeds a threshold of 4 once in 16 000, of 5 once in
    1.7 million. A filter whose spread is too small rejects good values, and then drifts further: watch
    how many are rejected.

    Source: the background check in Andersson & Järvinen (1999), Q. J. R. Meteorol. Soc. 125, 697–722.

    Args:
        threshold: in standard deviations, > 0; a number, or an array of z's shape.
    """

    threshold: Float[Array, ...]

    def __init__(self, threshold: ArrayLike):
        self.threshold = number("threshold of the gross-error check", threshold, "(0, inf]")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError where the threshold does not fit a measurement of this shape."""
        if self.threshold.shape not in ((), shape):
            raise ValueError(
                "threshold of the gross-error check must be a number, or of the measurement's shape "
                f"{shape}; got shape {self.threshold.shape}."
            )

    def __call__(self, state: State, z: Float[Array, "*z"], measurement: Measurement) -> Bool[Array, "*z"]:
        """Which values are accepted, given the forecast."""
        expected, variance = _forecast(state, measurement)
        departure = measurement.difference(jnp.where(jnp.isfinite(z), z, 0.0), expected, state.mean.shape)
        noise = measurement.noise.at(expected)
        bound = jnp.sqrt(variance + noise.standard_deviation(departure) ** 2)
        # not "rejected where it exceeds": a comparison with NaN is False, and must not accept
        within = jnp.abs(departure) <= self.threshold.astype(z.dtype) * bound
        return jnp.isfinite(z) & jnp.isfinite(bound) & within


def _forecast(state: State, measurement: Measurement) -> tuple[Array, Array]:
    """Mean and variance of H(x)."""
    shape = state.mean.shape
    if isinstance(state, GaussianState):

        def measured(flat: Array) -> Array:
            return measurement.operator(flat.reshape(shape)).reshape(-1)

        jacobian = jax.jacfwd(measured)(state.mean.reshape(-1))
        variance = ((jacobian @ state.covariance) * jacobian).sum(1)
        mean = measurement.operator(state.mean)
        return mean, variance.reshape(mean.shape)
    values = current().each(measurement.operator, state.ensemble)
    middle = measurement.middle(values, shape, state.log_weights)
    if middle is None:
        return EnsembleState(values, state.log_weights).moments()
    # so that values on both sides of a circle's cut are near each other
    around = jax.vmap(lambda value: measurement.difference(value, middle, shape))(values)
    mean, variance = EnsembleState(around, state.log_weights).moments()
    return middle + mean, variance
