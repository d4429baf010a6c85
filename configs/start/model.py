"""The model: one step of one member. Put yours in place of this one (Lorenz-96, by Runge-Kutta)."""

import jax
import jax.numpy as jnp


def tendency(x, forcing):
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + forcing


def step(x, time, *, forcing=8.0, dt=0.05):
    """The state one step after x, an array of shape [40], at model time `time`.

    Args:
        forcing: F.
        dt: model time of one step.
    """
    k1 = tendency(x, forcing)
    k2 = tendency(x + dt / 2 * k1, forcing)
    k3 = tendency(x + dt / 2 * k2, forcing)
    k4 = tendency(x + dt * k3, forcing)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def start(key):
    """A state near those that the model comes back to: the truth and the first members begin there."""
    x = 8.0 + jax.random.normal(key, (40,))
    return jax.lax.fori_loop(0, 400, lambda i, x: step(x, 0.0), x)
