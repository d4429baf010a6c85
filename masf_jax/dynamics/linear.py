"""Linear models: the test bed of exact filters."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar
from numpy.typing import ArrayLike

from ..numbers import positive
from .base import Dynamics

__all__ = ["Linear"]


class Linear(Dynamics):
    """x_{k+1} = A x_k. With A = I and `ModelError` around it: the local-level (random walk) model.

    Args:
        matrix: A, (n, n).
        dt: model time of one step.
        initial_mean, initial_std: the Gaussian that `initial_state` and `sample_climatology` draw from.
    """

    matrix: Float[Array, "n n"]
    dt: Float[Array, ""]
    initial_mean: Float[Array, ""]
    initial_std: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, matrix: ArrayLike, dt: float = 1.0, initial_mean: float = 0.0, initial_std: float = 1.0
    ):
        self.matrix = jnp.asarray(matrix, dtype=float)
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ValueError(f"matrix must be square (n, n); got shape {self.matrix.shape}.")
        self.state_shape = (self.matrix.shape[0],)
        self.dt = positive("dt", dt)
        self.initial_mean = jnp.asarray(initial_mean, dtype=float)
        self.initial_std = positive("initial_std", initial_std)

    def __call__(
        self, x: Float[Array, " n"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, " n"]:
        return self.matrix.astype(x.dtype) @ x

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        return self.initial_mean + self.initial_std * jax.random.normal(key, self.state_shape)
