"""Measured values written as a state: what a process needs that turns a state into its measurement."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..measurements.base import Operator, output_shape

__all__ = ["has_lift", "lift"]


def has_lift(operator: Operator, state_shape: tuple[int, ...]) -> bool:
    """Whether measured values have a place in the state: see `lift`."""
    return _places(operator, state_shape) is not None or _copied(operator, state_shape)


def lift(
    operator: Operator, values: Float[Array, "*z"], state_shape: tuple[int, ...]
) -> Float[Array, "*state"]:
    """Each value at the one component it depends on, zeros elsewhere; one value a cell in all its channels.

    Raises:
        ValueError: values that depend on several components in another way, or several on one component.
    """
    places = _places(operator, state_shape)
    if places is not None:
        zeros = jnp.zeros(int(np.prod(state_shape)), values.dtype)
        return zeros.at[places].set(values.reshape(-1)).reshape(state_shape)
    if _copied(operator, state_shape):
        return jnp.broadcast_to(values[None], state_shape)
    raise ValueError(
        f"{type(operator).__name__} of a state of shape {state_shape} cannot be written as a state: that "
        "needs values of one component each, at most one a component, or one value for each grid cell."
    )


def _places(operator: Operator, state_shape: tuple[int, ...]) -> np.ndarray | None:
    places = operator.sources(state_shape)
    return None if places is None or np.unique(places).size != places.size else places


def _copied(operator: Operator, state_shape: tuple[int, ...]) -> bool:
    return output_shape(operator, state_shape) == state_shape[1:]
