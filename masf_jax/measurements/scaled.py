"""Noise of another size."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .noise import Noise, _scale

__all__ = ["Scaled"]


class Scaled(Noise):
    """scale · ε, ε of another law: its covariance is D R D, D = diag(scale).

    Args:
        noise: the law of ε.
        scale: > 0; scalar, or array of z's shape.
    """

    noise: Noise
    scale: Float[Array, ...]

    def __init__(self, noise: Noise, scale: ArrayLike):
        self.noise, self.scale = noise, _scale("scale of the noise", scale)

    def _as(self, like: Array) -> Array:
        return jnp.broadcast_to(self.scale.astype(like.dtype), like.shape)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        drawn = self.noise.sample(key, shape)
        return self._as(drawn) * drawn

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        scale = self._as(residual)
        sizes = jnp.log(scale) if mask is None else jnp.where(mask, jnp.log(scale), 0.0)
        return self.noise.log_prob(residual / scale, mask) - sizes.sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        return self.noise.whiten(residual / self._as(residual), mask)

    @property
    def diagonal(self) -> bool:
        return self.noise.diagonal

    @property
    def condition(self) -> Float[Array, ""] | float:
        return self.noise.condition

    @property
    def depends_on_value(self) -> bool:
        return self.noise.depends_on_value

    def at(self, value: Float[Array, "*z"]) -> Scaled:
        return Scaled(self.noise.at(value), self.scale)

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        return self._as(like) * self.noise.standard_deviation(like)

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        own = jnp.where(mask, jnp.log(self._as(like)), 0.0).sum()
        return self.noise.log_scale(like, mask) - own
