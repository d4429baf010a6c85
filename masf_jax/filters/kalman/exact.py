"""The exact Kalman filter (extended by linearisation for nonlinear models): the oracle."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, MemberLayout
from ...ensemble.statistics import anomalies
from ...measurements.measurement import Measurement
from ...numbers import number
from ..base import Filter, GaussianState, Info

__all__ = ["KalmanFilter", "gaussian_update", "linearize"]


def linearize(
    measurement: Measurement, mean: Float[Array, "*state"], z: Float[Array, "*z"], mask: Bool[Array, "*z"]
) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """Whitened innovation at `mean` and the Jacobian of the whitened measurement there."""

    def innovation(flat: Array) -> Array:
        return measurement.whitened_innovation(z, flat.reshape(mean.shape), mask)

    flat = mean.reshape(-1)
    return innovation(flat), -jax.jacfwd(innovation)(flat)


def gaussian_update(
    covariance: Float[Array, "n n"], jacobian: Float[Array, "m n"]
) -> tuple[Float[Array, "n m"], Float[Array, "n n"]]:
    """Kalman gain and analysis covariance for whitened measurements (R = I), in Joseph's form.

    K = P Gᵀ (G P Gᵀ + I)^{-1};  P_a = (I - K G) P (I - K G)ᵀ + K Kᵀ.
    """
    m, n = jacobian.shape
    eye = jnp.eye(m, dtype=covariance.dtype)
    innovation = jacobian @ covariance @ jacobian.T + eye
    gain = cho_solve(cho_factor(innovation), jacobian @ covariance).T
    keep = jnp.eye(n, dtype=covariance.dtype) - gain @ jacobian
    return gain, keep @ covariance @ keep.T + gain @ gain.T


class KalmanFilter(Filter):
    """Exact for linear-Gaussian problems; otherwise the extended Kalman filter.

    Forecast, each step: m ← M(m), P ← J P Jᵀ + Q with J the model's Jacobian at m and Q the model
    error's variance of a step. Analysis: gain and Joseph's form at the linearised measurement.

    Source: Kalman (1960).

    Args:
        mean, covariance: the initial Gaussian; None: sample mean and covariance of the ensemble.
        inflation: factor on the forecast covariance.
    """

    mean: Float[Array, "*state"] | None
    covariance: Float[Array, "n n"] | None
    inflation: Float[Array, ""]

    def __init__(
        self, mean: ArrayLike | None = None, covariance: ArrayLike | None = None, inflation: float = 1.0
    ):
        self.mean = None if mean is None else jnp.asarray(mean, dtype=float)
        self.covariance = None if covariance is None else jnp.asarray(covariance, dtype=float)
        self.inflation = number("inflation of the forecast covariance", inflation, "[0, inf]")

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> KalmanFilter:
        n = math.prod(dynamics.state_shape)
        if n > 10_000:
            raise ValueError(f"the Kalman filter holds an n × n covariance; n = {n} is too large.")
        return self

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> GaussianState:
        n_members = ensemble.shape[0]
        mean, deviations = anomalies(ensemble)
        flat = deviations.reshape(n_members, -1)
        covariance = flat.T @ flat / (n_members - 1)
        if self.mean is not None:
            mean = jnp.broadcast_to(self.mean, mean.shape).astype(mean.dtype)
        if self.covariance is not None:
            covariance = self.covariance.astype(covariance.dtype)
        return GaussianState(mean, covariance)

    def forecast(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> GaussianState:
        shape = state.mean.shape
        n = state.mean.size
        variance = dynamics.step_noise_variance

        def one(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            flat, covariance = carry
            time = ((step + i).astype(dynamics.dt.dtype) * dynamics.dt).astype(flat.dtype)

            def model(x: Array) -> Array:
                return dynamics.mean_step(x.reshape(shape), time).reshape(-1)

            jacobian = jax.jacfwd(model)(flat)
            covariance = jacobian @ covariance @ jacobian.T
            if variance is not None:
                noise = jnp.broadcast_to(variance, shape).reshape(-1).astype(flat.dtype)
                covariance = covariance + noise[:, None] * jnp.eye(n, dtype=flat.dtype)
            return model(flat), covariance

        flat, covariance = jax.lax.fori_loop(0, n_steps, one, (state.mean.reshape(-1), state.covariance))
        return GaussianState(flat.reshape(shape), self.inflation.astype(covariance.dtype) * covariance)

    def update(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[GaussianState, Info]:
        innovation, jacobian = linearize(measurement, state.mean, z, mask)
        gain, covariance = gaussian_update(state.covariance, jacobian)
        mean = state.mean + (gain @ innovation).reshape(state.mean.shape)
        return GaussianState(mean, covariance), {}
