"""The Lorenz (1963) convection model."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..numbers import number, positive
from .base import Dynamics
from .integrate import rk4_step

__all__ = ["Lorenz63"]


class Lorenz63(Dynamics):
    """Lorenz-63: dx = sigma (y - x), dy = x (rho - z) - y, dz = x y - beta z; RK4 steps of `dt`.

    Source: Lorenz (1963), J. Atmos. Sci. 20. State shape (3,), dimensionless.
    """

    sigma: Float[Array, ""]
    rho: Float[Array, ""]
    beta: Float[Array, ""]
    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True, default=(3,), init=False)

    def __init__(self, sigma: float = 10.0, rho: float = 28.0, beta: float = 8.0 / 3.0, dt: float = 0.01):
        self.sigma, self.rho, self.beta = (
            number(name, p, "(-inf, inf)", must="be a finite number")
            for name, p in (("sigma", sigma), ("rho", rho), ("beta", beta))
        )
        self.dt = positive("dt", dt)

    def tendency(self, x: Float[Array, 3], time: Scalar | float) -> Float[Array, 3]:
        """Time derivative at state x."""
        sigma, rho, beta = (p.astype(x.dtype) for p in (self.sigma, self.rho, self.beta))
        return jnp.stack([sigma * (x[1] - x[0]), x[0] * (rho - x[2]) - x[1], x[0] * x[1] - beta * x[2]])

    def __call__(self, x: Float[Array, 3], time: Scalar | float, key: PRNGKeyArray | None) -> Float[Array, 3]:
        return rk4_step(self.tendency, x, time, self.dt.astype(x.dtype))

    @property
    def variable_names(self) -> tuple[str, ...]:
        return "x", "y", "z"

    @property
    def spin_up_steps(self) -> int:
        return 2000

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, 3]:
        return jnp.asarray([1.509, -1.531, 25.46]) + jax.random.normal(key, (3,))
