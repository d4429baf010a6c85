"""Models on rings that the package does not have.

Lorenz (2005), doi 10.1175/JAS3430.1; Vissio & Lucarini (2020), doi 10.1140/epjp/s13360-020-00814-w;
two scales: Lorenz (1996); Burgers driven at random: Chekhlov & Yakhot (1995), doi 10.1103/PhysRevE.51.R2739.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Dynamics, Lorenz96
from masf_jax.dynamics.integrate import ETDRK4Coefficients, etdrk4_coefficients, etdrk4_step, rk4_step

__all__ = ["Burgers", "Lorenz2005II", "Lorenz2005III", "TwoScaleLorenz96", "VissioLucarini"]


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


class TwoScaleLorenz96(Lorenz96):
    """Slow X and, of each, J fast Y on a ring of their own, states (1 + J, n), Y_{j,k} in row 1 + j:

    dX_k/dt = X_{k-1} (X_{k+1} - X_{k-2}) - X_k + F - (h c / b) Σ_j Y_{j,k},
    dY_i/dt = -c b Y_{i+1} (Y_{i+2} - Y_{i-1}) - c Y_i + (h c / b) X_k, i = J k + j; `inner` RK4 steps in dt.
    """

    coupling: jax.Array
    ratios: tuple[float, float] = eqx.field(static=True)
    inner: int = eqx.field(static=True)

    def __init__(
        self,
        n: int = 36,
        fast: int = 10,
        forcing: float = 10.0,
        coupling: float = 1.0,
        ratios: tuple[float, float] = (10.0, 10.0),
        dt: float = 0.05,
        inner: int = 10,
    ):
        super().__init__(n, forcing, dt)
        self.coupling, self.ratios, self.inner = jnp.asarray(coupling, dtype=float), ratios, inner
        self.state_shape = (1 + fast, n)

    def tendency(self, x: jax.Array, time: Any) -> jax.Array:
        b, c = self.ratios
        slow, fast = x[0], x[1:].T.reshape(-1)
        load = self.coupling.astype(x.dtype) * (c / b)
        v1, v2, w1 = (jnp.roll(slow, k) for k in (1, 2, -1))
        d_slow = v1 * (w1 - v2) - slow + self.forcing.astype(x.dtype) - load * x[1:].sum(0)
        d_fast = -c * b * jnp.roll(fast, -1) * (jnp.roll(fast, -2) - jnp.roll(fast, 1)) - c * fast
        return jnp.concatenate([d_slow[None], d_fast.reshape(slow.size, -1).T + load * slow[None]])

    def __call__(self, x: jax.Array, time: Any, key: Any) -> jax.Array:
        step = self.dt.astype(x.dtype) / self.inner
        return jax.lax.fori_loop(0, self.inner, lambda _, x: rk4_step(self.tendency, x, time, step), x)

    def initial_state(self, key: jax.Array) -> jax.Array:
        scales = jnp.full(self.state_shape, 0.1).at[0].set(3.0)
        return scales * jax.random.normal(key, self.state_shape)

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.grid(self.state_shape[-1:], (float(self.state_shape[-1]),))


class Burgers(Dynamics):
    """u_t = -u u_x + ν u_xx + f on [0, 2π), f white in time: `power` a unit of time in each of its waves,

    1 to `waves`, cosine and sine of random sign and size. Pseudo-spectral, 2/3 rule, ETDRK4 steps of `dt`;
    the forcing is added after each. It conserves the mean, which is 0.
    """

    dt: jax.Array
    weights: ETDRK4Coefficients
    amplitude: jax.Array
    waves: int = eqx.field(static=True)
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, n: int = 64, viscosity: float = 0.1, power: float = 0.1, waves: int = 3, dt: float = 0.025
    ):
        k = np.arange(n // 2 + 1)
        self.weights = jax.tree.map(jnp.asarray, etdrk4_coefficients(-viscosity * k**2, dt))
        self.dt, self.amplitude = jnp.asarray(dt), jnp.asarray(power * dt) ** 0.5
        self.waves, self.state_shape = waves, (n,)

    def __call__(self, x: jax.Array, time: Any, key: Any) -> jax.Array:
        angles = np.arange(1, self.waves + 1)[:, None] * (2 * np.pi / x.size * np.arange(x.size))[None]
        shapes = jnp.asarray(np.concatenate([np.cos(angles), np.sin(angles)]), x.dtype)
        drawn = jax.random.normal(key, len(shapes), x.dtype)
        return self.mean_step(x, time) + self.amplitude.astype(x.dtype) * (drawn @ shapes)

    def mean_step(self, x: jax.Array, time: Any) -> jax.Array:
        """Without the forcing."""
        spectrum, n = jnp.fft.rfft(x), x.size
        weights = jax.tree.map(lambda w: w.astype(spectrum.dtype), self.weights)
        k = np.arange(n // 2 + 1)
        derivative = jnp.asarray(np.where(k <= n // 3, -0.5j * k, 0), spectrum.dtype)

        def nonlinear(v: jax.Array) -> jax.Array:
            return derivative * jnp.fft.rfft(jnp.fft.irfft(v, n) ** 2)

        return jnp.fft.irfft(etdrk4_step(nonlinear, spectrum, weights, nonlinear(spectrum)), n)

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.grid(self.state_shape, (float(self.state_shape[0]),))

    @property
    def spin_up_steps(self) -> int:
        return 800

    def initial_state(self, key: jax.Array) -> jax.Array:
        x = 2 * np.pi / self.state_shape[0] * np.arange(self.state_shape[0])
        a, b = jax.random.normal(key, (2,))
        return a * jnp.sin(x) + b * jnp.cos(x)


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
