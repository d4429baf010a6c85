"""A canal that closes on itself, by the student: shallow water, RK4 steps of a minute."""

import jax
import jax.numpy as jnp

N, DX, DT = 50, 2000.0, 60.0  # points, m, s


def slope(f):
    return (jnp.roll(f, -1) - jnp.roll(f, 1)) / (2 * DX)


def tendency(x):
    level, current = x
    bend = (jnp.roll(current, -1) - 2 * current + jnp.roll(current, 1)) / DX**2
    push = -current * slope(current) - 9.81 * slope(level) + 100.0 * bend
    return jnp.stack([-slope((10.0 + level) * current), push])


def step(x):
    a = tendency(x)
    b = tendency(x + DT / 2 * a)
    c = tendency(x + DT / 2 * b)
    return x + DT / 6 * (a + 2 * b + 2 * c + tendency(x + DT * c))


def any_waves(key):
    """A first state, (2, N): four waves of random size and phase in level and current."""
    wave = jnp.arange(1, 5)[:, None]
    parts = jax.random.normal(key, (2, 4, 2)) / wave
    angle = 2 * jnp.pi * wave * jnp.arange(N) / N
    return 0.3 * jnp.einsum("fwp,pwx->fx", parts, jnp.stack([jnp.cos(angle), jnp.sin(angle)]))
