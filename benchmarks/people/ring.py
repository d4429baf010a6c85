"""The forecaster's model: temperature on a ring of 40 points, 10 km apart, carried 7.2 km an hour."""

import jax.numpy as jnp


def step(x):
    """An hour on: upwind in part, the deviation from 14 degrees kept."""
    return x - 0.72 * (x - jnp.roll(x, 1))
