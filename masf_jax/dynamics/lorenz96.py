"""The Lorenz (1996) ring of coupled variables."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..coordinates import Coordinates
from ..numbers import number, positive, whole
from .base import Dynamics, members_in_cache
from .integrate import rk4_step

__all__ = ["Lorenz96"]


class Lorenz96(Dynamics):
    """Lorenz-96: dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F on a ring; RK4 steps of `dt`.

    Source: Lorenz (1996), ECMWF seminar on predictability. State shape (n,), dimensionless;
    point i sits at coordinate i on a circle of length n.
    """

    forcing: Float[Array, ""]
    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, n: int = 40, forcing: float = 8.0, dt: float = 0.05):
        if n < 4:
            raise ValueError(f"n must be at least 4 (neighbours i-2 to i+1 must differ); got {n}.")
        self.state_shape = (whole("n", n),)
        self.forcing = number("forcing", forcing, "(-inf, inf)", must="be a finite number")
        if self.forcing.shape != ():
            raise ValueError(f"forcing must be one number; got shape {self.forcing.shape}.")
        self.dt = positive("dt", dt)

    def tendency(self, x: Float[Array, " n"], time: Scalar | float) -> Float[Array, " n"]:
        """Time derivative at state x."""
        return self._slope(_ring(x, 2, 1))

    def _slope(self, ring: Float[Array, " k"]) -> Float[Array, " k-3"]:
        """Time derivative of the points from 2 to k - 2: those whose neighbours are all there."""
        return (ring[3:] - ring[:-3]) * ring[1:-2] - ring[2:-1] + self.forcing.astype(ring.dtype)

    def __call__(
        self, x: Float[Array, " n"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, " n"]:
        dt = self.dt.astype(x.dtype)
        if type(self).tendency is not Lorenz96.tendency:  # a subclass of another right-hand side
            return rk4_step(self.tendency, x, time, dt)
        ring = _ring(x, 8, 4)  # what four stages see: the ring is closed once, each stage loses 2 + 1 points
        k1 = self._slope(ring)
        k2 = self._slope(ring[2:-1] + 0.5 * dt * k1)
        k3 = self._slope(ring[4:-2] + 0.5 * dt * k2)
        k4 = self._slope(ring[6:-3] + dt * k3)
        return x + dt / 6.0 * (k1[6:-3] + 2.0 * (k2[4:-2] + k3[2:-1]) + k4)

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.grid(self.state_shape, (float(self.state_shape[0]),))

    @property
    def cached_members(self) -> int:
        return members_in_cache(self.state_shape)

    @property
    def spin_up_steps(self) -> int:
        return 1000

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        return self.forcing + jax.random.normal(key, self.state_shape)


def _ring(x: Float[Array, " n"], before: int, after: int) -> Float[Array, " k"]:
    """x between its last `before` and first `after` points, going round again where those are more than n."""
    n = len(x)
    if before <= n:
        return jnp.concatenate([x[n - before :], x, x[:after]])
    return x[np.arange(-before, n + after) % n]
