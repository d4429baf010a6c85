"""Noise that grows with what is measured."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .noise import Gaussian, Noise, _scale

__all__ = ["Multiplicative"]


class Multiplicative(Noise):
    """ε ~ N(0, floor² + (fraction · H(x))²), independent: z = H(x)(1 + fraction η) + floor η'.

    `Measurement` draws and scores z with the standard deviation at its own x, so a particle filter is exact,
    and so is MASF's route "conditional". Filters that need one noise covariance for all states (Kalman type,
    3D-Var, MASF otherwise) get the Gaussian law at the forecast's mean H(x); the error of that grows with
    fraction · spread of H(x) / mean H(x). (For a positive quantity with purely relative errors, `Log` with
    Gaussian noise needs no such approximation.)

    Args:
        fraction: relative standard deviation; scalar or array of z's shape.
        floor: standard deviation where H(x) = 0, in the units of z; > 0; scalar or array of z's shape.
    """

    fraction: Float[Array, ...]
    floor: Float[Array, ...]

    def __init__(self, fraction: ArrayLike, floor: ArrayLike):
        self.fraction = _scale("fraction of the multiplicative noise", fraction)
        self.floor = _scale("floor of the multiplicative noise", floor)

    @property
    def depends_on_value(self) -> bool:
        return True

    def at(self, value: Float[Array, "*z"]) -> Gaussian:
        """The Gaussian law where the noise-free measurement is `value`."""
        fraction, floor = self.fraction.astype(value.dtype), self.floor.astype(value.dtype)
        return Gaussian(jnp.sqrt(floor**2 + (fraction * value) ** 2))

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        raise ValueError(_UNKNOWN)

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        raise ValueError(_UNKNOWN)

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        raise ValueError(_UNKNOWN)


_UNKNOWN = (
    "multiplicative noise has no law without the measured value: use noise.at(H(x)), or the methods of "
    "Measurement, which do."
)
