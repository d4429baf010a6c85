"""Simulated pairs of state and measured values, in the coordinates that a regression leaves."""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...bases import IdentityBasis
from ...diffusion.lift import lift
from ...diffusion.process import Frame
from ...ensemble.density import KernelDensity
from ...ensemble.statistics import anomalies, member_mean
from ...measurements.measurement import Measurement
from ...measurements.noise import Noise

__all__ = ["Layout", "Pairs", "feature_shape", "simulated_pairs"]

Layout = Literal["vector", "grid"]

_FARTHEST = 5.0  # standard deviations up to which the regression follows a measured value


class Pairs(eqx.Module):
    """Draws of (x0, z) ~ p(x0) p(z | x0) for the kernel density of a forecast ensemble.

    x0 is given as u = (x0 - c(z))/σ, where c(z) is the ensemble's linear regression of x0 on z (that of the
    EnKF) and σ the deviation it leaves: for any z a change of coordinates, in which a denoiser starts out
    near N(0, 1) however much z tells. Values beyond 5 standard deviations count in c(z) as 5: an outlier
    moves c(z) no further.

    z is given as arcsinh((d - mean)/deviation) of d = R^{-1/2}(z - H(mean)), zero where missing, and beside
    it which values are there: appended ("vector"), or at the components they belong to ("grid", `lift`).

    Args:
        density: of the forecast.
        measurement: any operator and any noise that can be drawn from; mask: the values that are there.
        law: the noise at the members' mean H(x), whose covariance is R; reference: H(mean).
        centre, spread: mean and deviation of d.
        gain: of x0 on (d - mean)/deviation, (*x, m).
        scale: σ.
    """

    density: KernelDensity
    measurement: Measurement
    mask: Bool[Array, "*z"]
    law: Noise
    reference: Float[Array, "*z"]
    centre: Float[Array, " m"]
    spread: Float[Array, " m"]
    gain: Float[Array, "*x_and_m"]
    scale: Float[Array, "*x"]
    layout: Layout = eqx.field(static=True)

    def standardised(self, z: Float[Array, "*z"]) -> Float[Array, " m"]:
        """(d - mean)/deviation of each value; zero where it is missing."""
        shape = self.scale.shape
        d = self.law.whiten(self.measurement.difference(z, self.reference, shape), self.mask).reshape(-1)
        return jnp.where(self.mask.reshape(-1), (d - self.centre) / self.spread, 0.0)

    def frame(self, z: Float[Array, "*z"]) -> Frame:
        """The coordinates of u, given z."""
        followed = jnp.clip(self.standardised(z), -_FARTHEST, _FARTHEST)
        centre = self.density.mean + jnp.tensordot(self.gain, followed, axes=1)
        return Frame(centre, self.scale, IdentityBasis())

    def features(self, z: Float[Array, "*z"]) -> Float[Array, "*features"]:
        """What a network is to see of z."""
        values = jnp.arcsinh(self.standardised(z))
        there = self.mask.reshape(-1).astype(values.dtype)
        if self.layout == "vector":
            return jnp.concatenate([values, there])
        operator, shape = self.measurement.operator, self.scale.shape
        both = [lift(operator, part.reshape(z.shape), shape) for part in (values, there)]
        return jnp.concatenate(both) if len(shape) > 2 else jnp.stack(both)

    def draw(
        self, key: PRNGKeyArray, member: Float[Array, "*x"]
    ) -> tuple[Float[Array, "*x"], Float[Array, "*features"]]:
        """u and the features of one pair, from the kernel around this member."""
        key_state, key_z = jax.random.split(key)
        x0 = self.density.draw(key_state, member)
        z = self.measurement.sample(key_z, x0)
        return self.frame(z).encode(x0), self.features(z)


def feature_shape(
    layout: Layout, state_shape: tuple[int, ...], measured_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Shape of `Pairs.features`."""
    if layout == "vector":
        return (2 * math.prod(measured_shape),)
    return (2 * state_shape[0], *state_shape[1:]) if len(state_shape) > 2 else (2, *state_shape)


def simulated_pairs(
    ensemble: Float[Array, "N *x"],
    measurement: Measurement,
    mask: Bool[Array, "*z"],
    bandwidth: Float[Array, ""] | None = None,
    layout: Layout = "vector",
) -> Pairs:
    """The pairs of a forecast ensemble with a measurement of which `mask` is there.

    The regression is that of the EnKF: with the members' anomalies A of x and S of d (over √(N - 1)) its
    gain on d is AᵀS(SᵀS + I)⁻¹, and σ² the diagonal of what is left, the noise's share included.
    """
    density = KernelDensity.of(ensemble, bandwidth)
    n, shape = ensemble.shape[0], ensemble.shape[1:]
    values = jax.vmap(measurement.operator)(ensemble)
    reference = measurement.operator(density.mean)
    law = measurement.noise.at(member_mean(values))

    def whitened(value: Array) -> Array:
        return law.whiten(measurement.difference(value, reference, shape), mask).reshape(-1)

    centre, s = anomalies(jax.vmap(whitened)(values))
    root = jnp.sqrt(jnp.asarray(n - 1, ensemble.dtype))
    s, a = s / root, density.deviations.reshape(n, -1) / root
    if s.shape[1] <= n:
        gain = jnp.linalg.solve(s.T @ s + jnp.eye(s.shape[1], dtype=s.dtype), s.T @ a).T
    else:
        gain = a.T @ jnp.linalg.solve(s @ s.T + jnp.eye(n, dtype=s.dtype), s)
    variance = ((a - s @ gain.T) ** 2).sum(0) + (gain**2).sum(1)
    tiny = 1e-6 * (a**2).sum(0)
    scale = jnp.sqrt(jnp.maximum(variance, tiny)).reshape(shape)
    spread = jnp.sqrt(1 + (s**2).sum(0))
    return Pairs(
        density=density,
        measurement=measurement,
        mask=mask,
        law=law,
        reference=reference,
        centre=centre,
        spread=spread,
        gain=(gain * spread[None]).reshape(*shape, -1),
        scale=jnp.where(scale > 0, scale, 1.0),
        layout=layout,
    )
