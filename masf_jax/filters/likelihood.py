"""How likely a filter's forecast makes what was measured: log p(z_k | z_1, …, z_{k-1})."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

from ..dynamics.base import Dynamics
from ..dynamics.layout import current
from ..ensemble.localization import as_radius, taper_matrix
from ..ensemble.statistics import anomalies
from ..measurements.measurement import Measurement
from ..numbers import number
from .base import (
    EnsembleState,
    Filter,
    GaussianState,
    State,
    whitened_innovations,
    with_one_noise_law,
)
from .kalman.exact import factor_of, linearize
from .kalman.geometry import measured_coordinates

__all__ = ["Likelihood", "gaussian_log_likelihood"]

_LARGEST = 4096


class Likelihood(eqx.Module):
    """log p(z | forecast) of one cycle; the sum over cycles is that of the model, the filter and its numbers.

    Of an ensemble: z ~ N(mean H(x), R + C ∘ cov H(x)), C the taper between measured values. Few members know
    the covariance of far values badly, so a localised filter's is localised too; as C is a correlation
    matrix, this is still a density. A radius of 0 leaves the product of the densities of single values, the
    composite likelihood: consistent, but too sure of itself where values tell the same. Of weighted
    particles: Σ_i w_i p(z | x_i). Of a Gaussian state: z ~ N(H(m), R + G P Gᵀ), exact for the Kalman filter
    of a linear-Gaussian problem. Missing values are left out; a cycle without any has log-likelihood 0.

    It is of the forecast that the analysis uses (inflated, where the forecast is), and biased low for few
    members, as the sample covariance varies. Noise that is not Gaussian counts by its variance, but for
    particles.

    Sources: Evensen et al. (2022), chapter 18; composite: Varin, Reid & Firth (2011), Statistica Sinica 21.

    Args:
        radius: Gaspari-Cohn length of the taper in the coordinates' unit; "filter": the filter's own; None or
            inf: no taper; 0: each value by itself.
        taper: filled in by `prepare`.
    """

    radius: float | Literal["filter"] | None = eqx.field(static=True, default="filter")
    taper: Float[Array, "m m"] | None = None

    def __check_init__(self) -> None:
        if self.radius not in ("filter", None):
            number(
                "the likelihood's radius", self.radius, "[0, inf]", must='be "filter", None or not negative'
            )

    def prepare(self, filter: Filter, dynamics: Dynamics, measurement: Measurement) -> Likelihood:
        """With the taper between the measured values.

        Raises:
            ValueError: more than 4096 values, or values without positions.
        """
        radius = filter.localization_radius if self.radius == "filter" else self.radius
        if radius is None or self.radius in (0, math.inf):
            return self
        radius = as_radius(radius)
        _, measured = measured_coordinates("the likelihood", radius, dynamics, measurement)
        if measured.n_points > _LARGEST:
            raise ValueError(
                f"the likelihood's taper between {measured.n_points} measured values is a matrix (largest: "
                f"{_LARGEST}): use Likelihood(radius=0), each value by itself, or fewer values."
            )
        taper = jnp.asarray(taper_matrix(measured, measured, radius), dtype=float)
        return dataclasses.replace(self, taper=taper)

    def __call__(
        self,
        filter: Filter,
        state: State,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> Float[Array, ""]:
        mask = mask & jnp.isfinite(z)
        z = jnp.where(mask, z, 0.0)
        if isinstance(state, EnsembleState) and state.log_weights is not None:
            each = current().each(lambda x: measurement.log_prob(z, x, mask), state.ensemble)
            return logsumexp(state.log_weights + each)
        measurement = with_one_noise_law(state, measurement)
        mask = mask & jnp.isfinite(measurement.noise.standard_deviation(z))  # else it is not measured
        scale, count = measurement.noise.log_scale(z, mask), mask.sum().astype(z.dtype)
        if isinstance(state, GaussianState):
            d, jacobian = linearize(measurement, state.mean, z, mask)
            s = (jacobian @ factor_of(state)).T
        else:
            used = filter.as_used(state, z, mask, measurement)
            assert isinstance(used, EnsembleState)
            d, deviations = anomalies(whitened_innovations(used.ensemble, z, mask, measurement))
            s = deviations / jnp.sqrt(jnp.asarray(len(deviations) - 1, d.dtype))
        if self.radius == 0:
            single = jax.scipy.stats.norm.logpdf(d, 0.0, jnp.sqrt(1 + (s**2).sum(0)))
            return scale + jnp.where(mask.reshape(-1), single, 0.0).sum()
        return scale + gaussian_log_likelihood(d, s, count, self.taper)


def gaussian_log_likelihood(
    d: Float[Array, " m"],
    s: Float[Array, "N m"],
    count: Float[Array, ""],
    taper: Float[Array, "m m"] | None = None,
) -> Float[Array, ""]:
    """log N(d; 0, I + C ∘ SᵀS) of `count` values that are there; rows and columns of the others are 0.

    Without C in the smaller of both spaces: with A = I + S Sᵀ and w = A⁻¹ S d,
    dᵀ(I + SᵀS)⁻¹d = |d - Sᵀw|² + |w|², a sum of what is not negative, and |I + SᵀS| = |A|.
    """
    n, m = s.shape
    constant = -0.5 * count * math.log(2 * math.pi)
    if taper is not None or m < n:
        product = s.T @ s if taper is None else taper.astype(s.dtype) * (s.T @ s)
        lower = jnp.linalg.cholesky(jnp.eye(m, dtype=s.dtype) + product)
        away = (solve_triangular(lower, d, lower=True) ** 2).sum()
    else:
        lower = jnp.linalg.cholesky(jnp.eye(n, dtype=s.dtype) + s @ s.T)
        w = cho_solve((lower, True), s @ d)
        away = ((d - w @ s) ** 2).sum() + (w**2).sum()
    return constant - jnp.log(jnp.diagonal(lower)).sum() - 0.5 * away
