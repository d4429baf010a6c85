"""The serial ensemble square-root filter."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...dynamics.base import Dynamics
from ...ensemble.inflation import Inflation
from ...ensemble.localization import as_radius_or_none, taper_matrix
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import mean_preserving_rotation
from ...measurements.measurement import Measurement
from ..base import EnsembleFilter, Info
from .geometry import measured_coordinates

__all__ = ["EnSRF"]


class EnSRF(EnsembleFilter):
    """Assimilates whitened values one after another: mean by K, anomalies by α K.

    For a value with anomalies s and innovation d: v = sᵀs/(N-1), K = Xᵀs/((N-1)(v+1)) tapered,
    α = 1/(1 + (1+v)^{-1/2}); mean += K d, X -= α s Kᵀ. The predicted values still to come are
    updated alike. The taper is a dense (n + m) × m array: for small and medium problems.

    Source: Whitaker & Hamill (2002), doi 10.1175/1520-0493(2002)130.

    Args:
        inflation: see `Inflation`.
        rotation: random mean-preserving rotation after each analysis.
        radius: Gaspari-Cohn length, support 2·radius; inf: no localisation (kept as None). Another finite
            one compiles nothing new.
        taper: filled in by `prepare`.
    """

    forms_gram: ClassVar[bool] = False

    inflation: Inflation = eqx.field(default_factory=Inflation)
    rotation: bool = eqx.field(static=True, default=False)
    radius: Float[Array, ""] | None = eqx.field(converter=as_radius_or_none, default=math.inf)
    taper: Float[Array, "m n_plus_m"] | None = None

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> EnSRF:
        if self.radius is None:
            return self
        state, measured = measured_coordinates("EnSRF", self.radius, dynamics, measurement)
        to_state = taper_matrix(measured, state, self.radius)
        channels = math.prod(dynamics.state_shape) // state.n_points
        taper = jnp.concatenate(
            [
                jnp.tile(jnp.asarray(to_state), (1, channels)),
                jnp.asarray(taper_matrix(measured, measured, self.radius)),
            ],
            axis=1,
        )
        return dataclasses.replace(self, taper=taper)

    def draws(self, key: PRNGKeyArray, n_members: int, mask: Bool[Array, " m"], dtype: Any) -> Array | None:
        """The rotation."""
        return mean_preserving_rotation(key, n_members, dtype) if self.rotation else None

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        return self.exact_transform(self.draws(key, len(x), mask, x.dtype), x, innovations, mask)

    def exact_transform(
        self,
        draws: Array | None,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        if self.taper is None and self.radius is not None:
            raise ValueError("EnSRF needs its taper: call filter.prepare(dynamics, measurement).")
        n_members, n = x.shape
        joint = jnp.concatenate([x, -innovations], axis=1)  # predicted values minus z: same anomalies
        mean, deviations = anomalies(joint)

        def one(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            mean, deviations = carry
            s = deviations[:, n + j]
            variance = (s @ s) / (n_members - 1)
            gain = (s @ deviations) / ((n_members - 1) * (1.0 + variance))
            if self.taper is not None:
                gain = gain * self.taper[j].astype(x.dtype)
            alpha = 1.0 / (1.0 + 1.0 / jnp.sqrt(1.0 + variance))
            return mean - gain * mean[n + j], deviations - alpha * s[:, None] * gain[None]

        mean, deviations = jax.lax.fori_loop(0, innovations.shape[1], one, (mean, deviations))
        deviations = deviations[:, :n]
        if draws is not None:
            deviations = draws @ deviations
        return mean[None, :n] + deviations, {}
