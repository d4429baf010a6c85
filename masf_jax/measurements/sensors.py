"""What instruments do to a value: rounding, saturation, a logarithmic scale."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..numbers import number
from .base import Elementwise

__all__ = ["Censored", "Log", "Quantised"]


class _SameUnits(Elementwise):
    """Sensors whose output is in the units of its input: an angle stays an angle."""

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        return state


@jax.custom_jvp
def _rounded(x: Float[Array, "*z"], step: Float[Array, "*z"]) -> Float[Array, "*z"]:
    return step * jnp.round(x / step)


@_rounded.defjvp
def _straight_through(primals: tuple, tangents: tuple) -> tuple:
    return _rounded(*primals), tangents[0]


class Quantised(_SameUnits):
    """z = step · round(x / step), component by component: a sensor of finite resolution.

    The true derivative is zero almost everywhere; what differentiates H (Kalman filter, 3D-Var, MASF's
    linearisations, the features of the amortised filter) sees the straight-through derivative 1, that
    of the mean of z over x uniform within a step. Ensemble filters and particles see the rounded values. A
    noise std of step/√12 or more covers the rounding itself.

    Args:
        step: resolution in the units of x; scalar, or an array of z's shape.
    """

    step: Float[Array, ...]

    def __init__(self, step: ArrayLike):
        self.step = number("step of a quantised sensor", step, "(0, inf)")

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*state"]:
        return _rounded(x, jnp.broadcast_to(self.step.astype(x.dtype), x.shape))


class Censored(_SameUnits):
    """z = min(max(x, lower), upper), component by component: a sensor that saturates at its limits.

    Saturated values have derivative 0: linearisations learn nothing from them. Members and particles
    beyond a limit all give the limit, so that ensemble and particle filters still use what a saturated
    value says: a member inside the limits does not fit it. The noise comes after the clipping.

    Args:
        lower, upper: limits in the units of x, scalars or arrays of z's shape; None: no such limit.
    """

    lower: Float[Array, ...] | None
    upper: Float[Array, ...] | None

    def __init__(self, lower: ArrayLike | None = None, upper: ArrayLike | None = None):
        if lower is None and upper is None:
            raise ValueError("a censored sensor needs a lower or an upper limit; both are None.")
        self.lower = None if lower is None else jnp.asarray(lower, dtype=float)
        self.upper = None if upper is None else jnp.asarray(upper, dtype=float)
        limits = [limit for limit in (self.lower, self.upper) if limit is not None]
        if any(isinstance(limit, Tracer) for limit in limits):
            return
        if any(np.isnan(np.asarray(limit)).any() for limit in limits):
            raise ValueError(f"limits of a censored sensor must not be NaN; got {lower}, {upper}.")
        if len(limits) == 2 and not bool(np.all(np.asarray(limits[0]) < np.asarray(limits[1]))):
            raise ValueError(f"lower must lie below upper; got lower={lower}, upper={upper}.")

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*state"]:
        z = x if self.lower is None else jnp.maximum(x, self.lower.astype(x.dtype))
        return z if self.upper is None else jnp.minimum(z, self.upper.astype(x.dtype))


class Log(Elementwise):
    """z = log(max(scale · x, floor)), component by component, of a positive quantity x.

    With Gaussian noise of standard deviation s this is x measured with log-normal multiplicative noise,
    scale · x · exp(s η). A member that is not positive, as an analysis of a positive quantity can make it, is
    measured as `floor` with derivative 0 instead of NaN.

    Args:
        scale: positive factor, 1 / (units of x).
        floor: smallest scale · x the sensor tells from nothing, > 0.
    """

    scale: Float[Array, ...]
    floor: Float[Array, ...]

    def __init__(self, scale: ArrayLike = 1.0, floor: ArrayLike = 1e-6):
        self.scale = number("scale inside the logarithm", scale, "(0, inf)")
        self.floor = number("floor of a logarithmic sensor", floor, "(0, inf)")

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*state"]:
        return jnp.log(jnp.maximum(self.scale.astype(x.dtype) * x, self.floor.astype(x.dtype)))
