"""Time steppers: classical Runge-Kutta and exponential Runge-Kutta of fourth order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Scalar

__all__ = ["ETDRK4Coefficients", "etdrk4_coefficients", "etdrk4_step", "rk4_step"]


def rk4_step(
    tendency: Callable[[Array, Scalar], Array], x: Float[Array, "*state"], time: Scalar, dt: Scalar
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


def etdrk4_coefficients(linear: np.ndarray, dt: float, n_roots: int = 64) -> ETDRK4Coefficients:
    """Weights for du/dt = L u + N(u) with diagonal L, by contour integrals (no cancellation at L = 0).

    With c = dt·L and phi-type functions evaluated as means over a circle of radius 1 around c:
    half = dt·(e^{c/2}-1)/c,  first = dt·(-4-c+e^c(4-3c+c²))/c³,
    middle = 2dt·(2+c+e^c(c-2))/c³,  last = dt·(-4-3c-c²+e^c(4-c))/c³.

    Source: Cox & Matthews (2002), Kassam & Trefethen (2005, doi 10.1137/S1064827502410633).

    Args:
        linear: eigenvalues L, any shape (real or complex), NumPy.
        dt: step.
        n_roots: points on the circle.
    """
    c = dt * np.asarray(linear, dtype=np.result_type(linear, np.float64))
    roots = np.exp(2j * np.pi * (np.arange(n_roots) + 0.5) / n_roots)
    z = c[..., None] + roots
    ez = np.exp(z)

    def mean(values: np.ndarray) -> np.ndarray:
        average = dt * values.mean(-1)
        return average if np.iscomplexobj(c) else average.real

    return ETDRK4Coefficients(
        exp=np.exp(c),
        exp_half=np.exp(c / 2),
        half=mean((np.exp(z / 2) - 1) / z),
        first=mean((-4 - z + ez * (4 - 3 * z + z**2)) / z**3),
        middle=2 * mean((2 + z + ez * (z - 2)) / z**3),
        last=mean((-4 - 3 * z - z**2 + ez * (4 - z)) / z**3),
    )


def etdrk4_step(nonlinear: Callable[[Array], Array], v: Array, weights: ETDRK4Coefficients) -> Array:
    """One ETDRK4 step of dv/dt = L v + nonlinear(v), in the basis where L is diagonal."""
    n_v = nonlinear(v)
    a = weights.exp_half * v + weights.half * n_v
    n_a = nonlinear(a)
    b = weights.exp_half * v + weights.half * n_a
    n_b = nonlinear(b)
    c = weights.exp_half * a + weights.half * (2.0 * n_b - n_v)
    n_c = nonlinear(c)
    return weights.exp * v + weights.first * n_v + weights.middle * (n_a + n_b) + weights.last * n_c
