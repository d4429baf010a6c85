"""The researcher's model: an Equinox network that moves a ring of 8 variables one step on; measurements."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class RingNet(eqx.Module):
    net: eqx.nn.MLP

    def __init__(self, key):
        self.net = eqx.nn.MLP(8, 8, 32, 1, activation=jnp.tanh, key=key)

    def __call__(self, x):
        return 0.9 * x + 0.1 * self.net(x)


def measured(cycles):
    """Waves that go round, with errors of .1: (cycles, 8)."""
    place, time = np.arange(8)[None], np.arange(cycles)[:, None]
    waves = np.sin(2 * np.pi * (place / 8 - 0.05 * time))
    return jnp.asarray(waves + 0.1 * np.random.default_rng(0).standard_normal((cycles, 8)), jnp.float32)


def first(key):
    return 0.5 * jax.random.normal(key, (8,))
