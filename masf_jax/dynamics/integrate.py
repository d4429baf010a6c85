"""Time steppers: classical Runge-Kutta, exponential Runge-Kutta, and implicit-explicit schemes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

__all__ = [
    "CrankNicolsonCoefficients",
    "ETDRK2Coefficients",
    "ETDRK4Coefficients",
    "cnab2_start",
    "cnab2_step",
    "crank_nicolson_coefficients",
    "etdrk2_coefficients",
    "etdrk2_step",
    "etdrk4_coefficients",
    "etdrk4_step",
    "rk4_step",
    "rkcn_step",
]


def rk4_step(
    tendency: Callable[[Array, Any], Array],
    x: Float[Array, "*state"],
    time: Scalar | float,
    dt: Scalar,
) -> Float[Array, "*state"]:
    """One classical fourth-order Runge-Kutta step of dx/dt = tendency(x, time)."""
    k1 = tendency(x, time)
    k2 = tendency(x + 0.5 * dt * k1, time + 0.5 * dt)
    k3 = tendency(x + 0.5 * dt * k2, time + 0.5 * dt)
    k4 = tendency(x + dt * k3, time + dt)
    return x + dt / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)


class ETDRK4Coefficients(NamedTuple):
    """Per-mode weights of one exponential step of size dt, NumPy or JAX arrays: see `etdrk4_coefficients`."""

    exp: Any
    exp_half: Any
    half: Any
    first: Any
    middle: Any
    last: Any


def _contour(linear: Any, dt: Any, n_roots: int) -> tuple[ModuleType, Any, Any, Callable[[Any], Any]]:
    """NumPy or JAX's, c = dt·L, points z on unit circles around it, and values at z -> dt · their mean."""
    xp, c = _times_dt(linear, dt)
    kind = np.result_type(c.dtype, np.complex64)
    roots = xp.asarray(np.exp(2j * np.pi * (np.arange(n_roots) + 0.5) / n_roots), kind).reshape(
        (1,) * c.ndim + (-1,)
    )

    def mean(values: Any) -> Any:
        average = values.mean(-1) if np.iscomplexobj(c) else values.mean(-1).real
        return xp.asarray(dt, average.dtype) * average

    return xp, c, c[..., None].astype(kind) + roots, mean


def _times_dt(linear: Any, dt: Any) -> tuple[ModuleType, Any]:
    """What computes weights, and dt·L: NumPy in double precision, or JAX in the type of traced numbers."""
    if isinstance(linear, jax.Array):
        return jnp, jnp.asarray(dt, linear.dtype) * linear
    return np, dt * np.asarray(linear, dtype=np.result_type(linear, np.float64))


def etdrk4_coefficients(linear: Any, dt: Any, n_roots: int = 64) -> ETDRK4Coefficients:
    """Weights for du/dt = L u + N(u) with diagonal L, by contour integrals (no cancellation at L = 0).

    With c = dt·L and phi-type functions evaluated as means over a circle of radius 1 around c:
    half = dt·(e^{c/2}-1)/c,  first = dt·(-4-c+e^c(4-3c+c²))/c³,
    middle = 2dt·(2+c+e^c(c-2))/c³,  last = dt·(-4-3c-c²+e^c(4-c))/c³.

    Source: Cox & Matthews (2002), Kassam & Trefethen (2005, doi 10.1137/S1064827502410633).

    Args:
        linear: eigenvalues L, any shape (real or complex); NumPy, or a JAX array (traced, say).
        dt: step.
        n_roots: points on the circle.
    """
    xp, c, z, mean = _contour(linear, dt, n_roots)
    ez = xp.exp(z)
    return ETDRK4Coefficients(
        exp=xp.exp(c),
        exp_half=xp.exp(c / 2),
        half=mean((xp.exp(z / 2) - 1) / z),
        first=mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3),
        middle=2 * mean((2 + z + ez * (z - 2)) / z**3),
        last=mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3),
    )


def etdrk4_step(
    nonlinear: Callable[[Array], Array], v: Array, weights: ETDRK4Coefficients, n_v: Array | None = None
) -> Array:
    """One ETDRK4 step of dv/dt = L v + nonlinear(v), in the basis where L is diagonal.

    Args:
        n_v: nonlinear(v), where it is known.
    """
    n_v = nonlinear(v) if n_v is None else n_v
    a = weights.exp_half * v + weights.half * n_v
    n_a = nonlinear(a)
    b = weights.exp_half * v + weights.half * n_a
    n_b = nonlinear(b)
    c = weights.exp_half * a + weights.half * (2.0 * n_b - n_v)
    n_c = nonlinear(c)
    return weights.exp * v + weights.first * n_v + weights.middle * (n_a + n_b) + weights.last * n_c


class ETDRK2Coefficients(NamedTuple):
    """Per-mode weights of one step of size dt: e^c, dt·φ1(c) and dt·φ2(c) with c = dt·L."""

    exp: Any
    first: Any
    second: Any


def etdrk2_coefficients(linear: Any, dt: Any, n_roots: int = 64) -> ETDRK2Coefficients:
    """Weights of `etdrk2_step`, φ1 = (e^c-1)/c and φ2 = (e^c-1-c)/c², by contour integrals.

    Source: Cox & Matthews (2002, doi 10.1006/jcph.2002.6995), equation 22.
    """
    xp, c, z, mean = _contour(linear, dt, n_roots)
    ez = xp.exp(z)
    return ETDRK2Coefficients(xp.exp(c), mean((ez - 1) / z), mean((ez - 1 - z) / z**2))


def etdrk2_step(nonlinear: Callable[[Array], Array], v: Array, weights: ETDRK2Coefficients) -> Array:
    """One second-order exponential Runge-Kutta step of dv/dt = L v + nonlinear(v)."""
    n_v = nonlinear(v)
    a = weights.exp * v + weights.first * n_v
    return a + weights.second * (nonlinear(a) - n_v)


class CrankNicolsonCoefficients(NamedTuple):
    """Per-mode weights of one step: (1 + c/2)/(1 - c/2), dt/(1 - c/2), and c = dt·L with dt itself."""

    ratio: Any
    gain: Any
    linear: Any
    dt: Any


def crank_nicolson_coefficients(linear: Any, dt: Any) -> CrankNicolsonCoefficients:
    """Weights of `cnab2_step` and `rkcn_step` for diagonal L of any shape."""
    xp, c = _times_dt(linear, dt)
    return CrankNicolsonCoefficients((1 + c / 2) / (1 - c / 2), dt / (1 - c / 2), c, xp.asarray(dt))


def cnab2_start(
    nonlinear: Callable[[Array], Array], v: Array, weights: CrankNicolsonCoefficients
) -> tuple[Array, Array]:
    """The first step of `cnab2_step`, Heun in N and Crank-Nicolson in L; returns (v, N) to go on from."""
    n_v = nonlinear(v)
    a = weights.ratio * v + weights.gain * n_v
    return a + weights.gain * (0.5 * (nonlinear(a) - n_v)), n_v


def cnab2_step(
    nonlinear: Callable[[Array], Array], carry: tuple[Array, Array], weights: CrankNicolsonCoefficients
) -> tuple[Array, Array]:
    """One step of Crank-Nicolson in L, second-order Adams-Bashforth in N: one evaluation of N.

    Args:
        carry: the state, and N at the state before it.
    """
    v, before = carry
    n_v = nonlinear(v)
    return weights.ratio * v + weights.gain * (1.5 * n_v - 0.5 * before), n_v


_RKCN_TIMES = (0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0)
_RKCN_KEEP = (0.0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257)
_RKCN_GAIN = (0.1496590219993, 0.3792103129999, 0.8229550293869, 0.6994504559488, 0.1530572479681)


def rkcn_step(nonlinear: Callable[[Array], Array], v: Array, weights: CrankNicolsonCoefficients) -> Array:
    """One step of five-stage low-storage RK4 in N and Crank-Nicolson in L: second order, fourth for L = 0.

    Source: Carpenter & Kennedy (1994), NASA TM 109112; with Crank-Nicolson as in Canuto et al. (2007), D.3.
    """
    h = 0.0 * v
    for keep, gain, start, stop in zip(
        _RKCN_KEEP, _RKCN_GAIN, _RKCN_TIMES[:-1], _RKCN_TIMES[1:], strict=True
    ):
        h = nonlinear(v) + keep * h
        half = (0.5 * (stop - start)) * weights.linear
        v = (v + half * v + gain * weights.dt * h) / (1.0 - half)
    return v
