"""Models on rings that no network of the package was trained on.

Lorenz (2005), doi 10.1175/JAS3430.1; Vissio & Lucarini (2020), doi 10.1140/epjp/s13360-020-00814-w.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Lorenz96

__all__ = ["Lorenz2005II", "Lorenz2005III", "VissioLucarini"]


class Lorenz2005II(Lorenz96):
    """dX/dt = [X, X]_K - X + F: waves over K points, smooth on the grid."""

    k: int = eqx.field(static=True)

    def __init__(self, n: int = 240, k: int = 8, forcing: float = 15.0, dt: float = 0.025):
        super().__init__(n, forcing, dt)
        self.k = k

    def tendency(self, x: jax.Array, time: Any) -> jax.Array:
        return _bracket(x, self.k) - x + self.forcing.astype(x.dtype)


class Lorenz2005III(Lorenz2005II):
    """Z = X + Y, X an average of Z over 2·half points;

    dZ/dt = [X, X]_K + b² [Y, Y]_1 + c [Y, X]_1 - X - b Y + F, b = 10, c = 2.5.
    """

    half: int = eqx.field(static=True)

    def __init__(self, n: int = 960, k: int = 32, half: int = 12, forcing: float = 15.0, dt: float = 0.0025):
        super().__init__(n, k, forcing, dt)
        self.half = half

    def tendency(self, x: jax.Array, time: Any) -> jax.Array:
        large = _averaged(x, _filter(self.half))
        small = x - large
        mixed = jnp.roll(small, 1) * jnp.roll(large, -1) - jnp.roll(small, 2) * jnp.roll(large, 1)
        waves = _bracket(large, self.k) + 100.0 * _bracket(small, 1) + 2.5 * mixed  # b = 10, c = 2.5
        return waves - large - 10.0 * small + self.forcing.astype(x.dtype)


class VissioLucarini(Lorenz96):
    """Winds X and temperatures θ on one ring, states (2, n):

    dX_i/dt = X_{i-1} (X_{i+1} - X_{i-2}) - α θ_i - γ X_i + F,
    dθ_i/dt = X_{i+1} θ_{i+2} - X_{i-1} θ_{i-2} + α X_i - γ θ_i + G, α = γ = 1.
    """

    heating: jax.Array

    def __init__(self, n: int = 36, forcing: float = 10.0, heating: float = 10.0, dt: float = 0.025):
        super().__init__(n, forcing, dt)
        self.heating = jnp.asarray(heating, dtype=float)
        self.state_shape = (2, n)

    def tendency(self, x: jax.Array, time: Any) -> jax.Array:
        wind, warmth = x
        w1, v1, v2 = (jnp.roll(wind, k) for k in (-1, 1, 2))
        t2, s2 = (jnp.roll(warmth, k) for k in (-2, 2))
        force, heat = self.forcing.astype(x.dtype), self.heating.astype(x.dtype)
        moving = v1 * (w1 - v2) - warmth - wind + force
        return jnp.stack([moving, w1 * t2 - v1 * s2 + wind - warmth + heat])

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.grid(self.state_shape[-1:], (float(self.state_shape[-1]),))


def _filter(half: int) -> np.ndarray:
    """Lorenz's weights α - β|i|, which leave quadratic functions as they are."""
    alpha = (3 * half**2 + 3) / (2 * half**3 + 4 * half)
    beta = (2 * half**2 + 1) / (half**4 + 2 * half**2)
    return _ends_halved(alpha - beta * np.abs(np.arange(-half, half + 1)))


def _bracket(x: jax.Array, k: int) -> jax.Array:
    """[X, X]_K = Σ'_j W(n-K+j) X(n+K+j) / K - W(n-2K) W(n-K), W the average of K points."""
    weights = np.ones(2 * (k // 2) + 1) / k
    if k % 2 == 0:
        weights = _ends_halved(weights)
    w = _averaged(x, weights)
    return _averaged(jnp.roll(w, k) * jnp.roll(x, -k), weights) - jnp.roll(w, 2 * k) * jnp.roll(w, k)


def _ends_halved(weights: np.ndarray) -> np.ndarray:
    out = weights.copy()
    out[[0, -1]] *= 0.5
    return out


def _averaged(x: jax.Array, weights: np.ndarray) -> jax.Array:
    """Σ_i weights_i x(n+i), i about 0."""
    half = len(weights) // 2
    around = jnp.concatenate([x[len(x) - half :], x, x[:half]])
    return jnp.convolve(around, jnp.asarray(weights, x.dtype), mode="valid")
