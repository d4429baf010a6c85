"""Nonlinear operators: functions applied to every component, and flow speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..callables import kept, unwrapped
from ..coordinates import Coordinates
from ..numbers import within
from .base import Coupling, Elementwise, Operator

__all__ = ["Pointwise", "Speed", "absolute", "arctan", "sigmoid", "square", "tanh"]


class Pointwise(Elementwise):
    """z = f(scale · x), component by component. Compose with `Subset` to measure some components only.

    Args:
        function: elementwise JAX function f; the arrays of a network or of a functools.partial are leaves.
        scale: number inside f.
    """

    _function: Any
    scale: Float[Array, ""]

    def __init__(self, function: Callable[[Array], Array], scale: float = 1.0):
        self._function, self.scale = kept(function), jnp.asarray(scale, dtype=float)

    @property
    def function(self) -> Callable[[Array], Array]:
        return unwrapped(self._function)

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*state"]:
        return self.function(self.scale.astype(x.dtype) * x)


def arctan(scale: float = 1.0) -> Pointwise:
    """z = arctan(scale · x)."""
    return Pointwise(jnp.arctan, scale)


def sigmoid(scale: float = 1.0) -> Pointwise:
    """z = 1 / (1 + exp(-scale · x))."""
    return Pointwise(jax.nn.sigmoid, scale)


def tanh(scale: float = 1.0) -> Pointwise:
    """z = tanh(scale · x)."""
    return Pointwise(jnp.tanh, scale)


def absolute(scale: float = 1.0) -> Pointwise:
    """z = |scale · x|."""
    return Pointwise(jnp.abs, scale)


def square(scale: float = 1.0) -> Pointwise:
    """z = (scale · x)²."""
    return Pointwise(jnp.square, scale)


class Speed(Operator):
    """Flow speed |u| = √(Σ_c u_c²) of a velocity state (channels, *grid); z has the grid's shape.

    A saturating speed sensor is `sigmoid() @ Speed(squared=True)`.

    Args:
        squared: measure Σ_c u_c² + offset instead of the speed.
        offset: added to the squared speed.
    """

    squared: bool = eqx.field(static=True, default=False)
    offset: Float[Array, ""] = eqx.field(converter=within("offset", "(-inf, inf)"), default=0.0)

    def __call__(self, x: Float[Array, "channels *grid"]) -> Float[Array, "*grid"]:
        square = jnp.sum(x**2, axis=0)
        if self.squared:
            return square + self.offset.astype(x.dtype)
        # Zero speed has no gradient; the safe branch keeps it finite (zero) instead of NaN.
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

    def coupling(self, state_shape: tuple[int, ...]) -> Coupling:
        return "cell"

    def coordinates(self, state: Coordinates) -> Coordinates:
        return state
