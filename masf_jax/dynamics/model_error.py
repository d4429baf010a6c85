"""Additive stochastic model error around any model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from ..numbers import number
from .base import Dynamics

__all__ = ["ModelError"]


class ModelError(Dynamics):
    """x_{k+1} = M(x_k) + std √dt ξ_k,  ξ_k ~ N(0, I): variance grows by std² per unit of model time.

    Args:
        dynamics: the model M.
        std: scalar or array of the state's shape, non-negative, in state units per √time.
    """

    dynamics: Dynamics
    std: Float[Array, ...]

    def __init__(self, dynamics: Dynamics, std: ArrayLike):
        self.dynamics, self.std = dynamics, number("std of the model error", std, "[0, inf]")
        if self.std.shape not in ((), dynamics.state_shape):
            raise ValueError(
                f"std must be a scalar or of the state's shape {dynamics.state_shape}; got {self.std.shape}."
            )

    @property
    def dt(self) -> Float[Array, ""]:
        return self.dynamics.dt

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.dynamics.state_shape

    def __call__(
        self, x: Float[Array, "*state"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, "*state"]:
        if key is None:
            raise ValueError("ModelError is random: call it with a key, or use mean_step.")
        key_model, key_noise = jax.random.split(key)
        scale = (self.std * jnp.sqrt(self.dt)).astype(x.dtype)
        return self.dynamics(x, time, key_model) + scale * jax.random.normal(key_noise, x.shape, x.dtype)

    def mean_step(self, x: Float[Array, "*state"], time: Scalar | float) -> Float[Array, "*state"]:
        return self.dynamics.mean_step(x, time)

    @property
    def step_noise_variance(self) -> Array:
        inner = self.dynamics.step_noise_variance
        own = self.std**2 * self.dt
        return own if inner is None else own + inner

    @property
    def coordinates(self) -> Coordinates | None:
        return self.dynamics.coordinates

    @property
    def unit_length(self) -> float:
        return self.dynamics.unit_length

    @property
    def variable_names(self) -> tuple[str, ...] | None:
        return self.dynamics.variable_names

    @property
    def variable_units(self) -> tuple[str, ...] | None:
        return self.dynamics.variable_units

    @property
    def time_units(self) -> str | None:
        return self.dynamics.time_units

    @property
    def length_units(self) -> str | None:
        return self.dynamics.length_units

    @property
    def cached_members(self) -> int | None:
        return self.dynamics.cached_members

    @property
    def spin_up_steps(self) -> int:
        return self.dynamics.spin_up_steps

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, "*state"]:
        return self.dynamics.initial_state(key)
