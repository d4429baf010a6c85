"""The Lorenz (1996) ring of coupled variables."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..coordinates import Coordinates
from ..numbers import positive
from .base import Dynamics
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
        self.state_shape = (int(n),)
        self.forcing = jnp.asarray(forcing, dtype=float)
        self.dt = positive("dt", dt)

    def tendency(self, x: Float[Array, " n"], time: Scalar | float) -> Float[Array, " n"]:
        """Time derivative at state x."""
        ring = jnp.concatenate([x[-2:], x, x[:1]])  # ring[i + 2] = x[i]
        return (ring[3:] - ring[:-3]) * ring[1:-2] - x + self.forcing.astype(x.dtype)

    def __call__(
        self, x: Float[Array, " n"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, " n"]:
        return rk4_step(self.tendency, x, time, self.dt.astype(x.dtype))

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.grid(self.state_shape, (float(self.state_shape[0]),))

    @property
    def spin_up_steps(self) -> int:
        return 1000

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        return self.forcing + jax.random.normal(key, self.state_shape)
