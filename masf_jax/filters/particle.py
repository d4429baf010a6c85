"""The bootstrap particle filter."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..derivatives import root_or_zero
from ..dynamics.layout import Placement, current
from ..ensemble.resampling import systematic
from ..ensemble.statistics import effective_sample_size
from ..measurements.measurement import Measurement
from ..numbers import within
from .base import EnsembleState, Info, MemberFilter, innovation_info, whitened_innovations

__all__ = ["ParticleFilter"]


class ParticleFilter(MemberFilter):
    """Weights particles by p(z | x); resamples systematically when few carry the weight.

    When the effective sample size 1/Σw² falls below `threshold`·N, particles are resampled and
    jittered by N(0, h² C): C the weighted covariance before resampling,
    h = `regularization` · N^{-1/(n+4)} (Silverman's rate). Where no particle has any weight (z so far away
    that all p(z | x) are 0 as numbers, or NaN) the particles stay, equally weighted, and the effective sample
    size reported is 0.

    Derivatives are those of expectations, not of one run, which jumps where another particle is picked: a
    picked particle's weight 1/N counts as w/N over w where it is no more varied, so that derivatives of the
    weights go on through the resampling. They are noisy: take the mean over many keys.

    Source: Gordon, Salmond & Smith (1993); regularisation: Musso, Oudjane & Le Gland (2001); derivatives:
    Ścibior & Wood (2021), arXiv 2106.10314.

    Args:
        threshold: in (0, 1]; 1 resamples every cycle.
        regularization: factor of the jitter's bandwidth; 0: none (only for models with random error).
    """

    uses_noise_of_each_state: ClassVar[bool] = True
    placement: ClassVar[Placement] = "components"
    threshold: Float[Array, ""] = eqx.field(converter=within("threshold", "(0, 1]"), default=0.5)
    regularization: Float[Array, ""] = eqx.field(converter=within("regularization", "[0, inf]"), default=1.0)

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> EnsembleState:
        n = ensemble.shape[0]
        return EnsembleState(ensemble, jnp.full((n,), -jnp.log(float(n)), ensemble.dtype))

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        particles, log_weights = state.ensemble, state.log_weights
        if log_weights is None:
            raise ValueError("the particle filter needs log-weights: start from filter.init(key, ensemble).")
        likelihood = current().each(lambda x: measurement.log_prob(z, x, mask), particles)
        n = particles.shape[0]
        uniform = jnp.full((n,), -jnp.log(float(n)), likelihood.dtype)
        total = jnp.nan_to_num(log_weights + likelihood, nan=-jnp.inf, neginf=-jnp.inf)
        lost = jnp.isneginf(total.max())
        weighted = jnp.where(lost, uniform, jax.nn.log_softmax(jnp.where(lost, 0.0, total)))
        size = jnp.where(lost, 0.0, effective_sample_size(weighted))

        def resample(_: None) -> tuple[Array, Array]:
            x, picked = self._resample(key, particles.reshape(n, -1), jnp.exp(weighted))
            return x, uniform + _slope_alone(weighted[picked])

        def keep(_: None) -> tuple[Array, Array]:
            return particles.reshape(n, -1), weighted

        few = ~lost & (size < self.threshold.astype(size.dtype) * n)
        x, log_weights = jax.lax.cond(few, resample, keep, None)
        d = whitened_innovations(particles, z, mask, measurement)
        info = innovation_info(d, mask.sum().astype(d.dtype)) | {"effective_sample_size": size}
        return EnsembleState(x.reshape(particles.shape), log_weights), info

    def _resample(
        self, key: PRNGKeyArray, x: Float[Array, "N n"], weights: Float[Array, " N"]
    ) -> tuple[Float[Array, "N n"], Int[Array, " N"]]:
        """Systematically resampled and jittered particles, and which of the particles they were."""
        n_particles, n = x.shape
        key_pick, key_jitter = jax.random.split(key)
        picked = systematic(key_pick, jax.lax.stop_gradient(weights))
        mean = weights @ x
        deviations = root_or_zero(weights)[:, None] * (x - mean[None])
        width = self.regularization.astype(x.dtype) * n_particles ** (-1.0 / (n + 4))
        if n <= n_particles:  # C = FᵀF, from the anomalies: their product can be singular in round-off
            factor = jnp.linalg.qr(deviations, mode="r")
            noise = jax.random.normal(key_jitter, x.shape, x.dtype) @ factor
        else:  # random combinations of the weighted anomalies: the same law, no n × n matrix
            noise = jax.random.normal(key_jitter, (n_particles, n_particles), x.dtype) @ deviations
        return x[picked] + width * noise, picked


def _slope_alone(log_weights: Float[Array, " N"]) -> Float[Array, " N"]:
    """Zeros, with the derivatives of these less their mean: the weights' sum has none."""
    known = jnp.where(jnp.isfinite(log_weights), log_weights, 0.0)
    slope = known - jax.lax.stop_gradient(known)
    return slope - slope.mean()
