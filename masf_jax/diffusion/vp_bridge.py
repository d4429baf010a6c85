"""The variance-preserving bridge: a measurement as a state that stopped half-way on its way to noise."""

from __future__ import annotations

import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from ..bases import Basis
from ..measurements.measurement import Measurement
from .process import Frame, Process, ProcessFamily
from .whitened import check_structure, whitened

__all__ = ["VP", "VPBridge", "vp_bridge"]


class VPBridge(Process):
    """v_t = cos(tθ) v_0 + sin(tθ) η per component, with θ_i = atan2(1, s_i).

    Let G = R^{-1/2} H diag(scale) = U S Vᵀ and y = Uᵀ R^{-1/2}(z - H centre), so that y_i = s_i v_i + ε_i.
    Then y_i/√(1 + s_i²) = cos θ_i v_i + sin θ_i ε_i: the measurement *is* v_1, whatever H and R are; θ_i is
    π/2 in directions that nothing is known of. Always well posed: fewer or more values than components,
    rank-deficient H, correlated R.

    Args:
        theta: θ, in (0, π/2].
        measured: y_i/√(1 + s_i²); observed: where s_i > 0.
    """

    frame: Frame
    theta: Float[Array, "*v"]
    measured: Float[Array, "*v"]
    observed: Bool[Array, "*v"]

    def gain(self, t: Scalar) -> Float[Array, "*v"]:
        return jnp.maximum(jnp.cos(t * self.theta), 0.0)

    def std(self, t: Scalar) -> Float[Array, "*v"]:
        return jnp.sin(t * self.theta)

    def angle(self, t: Scalar) -> Float[Array, "*v"]:
        return t * self.theta

    def rescaled(self, v: Float[Array, "*v"], t: Scalar) -> Float[Array, "*v"]:
        return v


def vp_bridge(
    measurement: Measurement,
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    centre: Float[Array, "*x"],
    scale: Float[Array, "..."],
    basis: Basis | None = None,
    at: Float[Array, "*x"] | None = None,
    tempering: Scalar | float = 1.0,
) -> VPBridge:
    """The bridge between states around `centre` and the measured values z.

    Args:
        measurement: an operator and Gaussian noise (another law counts by its covariance).
        z, mask: measured values, and which of them are valid.
        centre: state-shaped; best the forecast or climatological mean.
        scale: typical deviation from it, broadcastable to the state.
        basis: V; None: by the operator's structure (see `whitened`).
        at: where a nonlinear operator is linearised; None: at `centre`.
        tempering: the noise variance is multiplied by this.

    Raises:
        ValueError: a structure that scale or noise break.
    """
    problem = whitened(measurement, z, mask, centre, scale, basis, at)
    root = jnp.sqrt(jnp.asarray(tempering, problem.values.dtype))
    s, values = problem.singular_values / root, problem.values / root
    observed = s > 0
    theta = jnp.where(observed, jnp.arctan2(jnp.ones_like(s), s), 0.5 * math.pi)
    measured = values / jnp.hypot(1.0, s)
    return VPBridge(frame=problem.frame, theta=theta, measured=measured, observed=observed)


class VP(ProcessFamily):
    """`vp_bridge`: for any linear measurement, and for the tangents of another."""

    linearizes: ClassVar[bool] = True
    keeps_levels: ClassVar[bool] = True

    def __call__(
        self,
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        centre: Float[Array, "*x"],
        scale: Float[Array, "..."],
        at: Float[Array, "*x"] | None = None,
        tempering: Scalar | float = 1.0,
    ) -> VPBridge:
        return vp_bridge(measurement, z, mask, centre, scale, at=at, tempering=tempering)

    def check(
        self, measurement: Measurement, state_shape: tuple[int, ...], scale_shape: tuple[int, ...]
    ) -> None:
        check_structure(measurement, scale_shape, state_shape)
