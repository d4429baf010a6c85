"""canal.py in NumPy, of members (members, 2 N) as DAPPER takes them."""

import numpy as np

N, DX, DT = 50, 2000.0, 60.0


def slope(f):
    return (np.roll(f, -1, -1) - np.roll(f, 1, -1)) / (2 * DX)


def tendency(x):
    level, current = x[..., :N], x[..., N:]
    bend = (np.roll(current, -1, -1) - 2 * current + np.roll(current, 1, -1)) / DX**2
    push = -current * slope(current) - 9.81 * slope(level) + 100.0 * bend
    return np.concatenate([-slope((10.0 + level) * current), push], -1)


def step(x, t, dt):
    a = tendency(x)
    b = tendency(x + dt / 2 * a)
    c = tendency(x + dt / 2 * b)
    return x + dt / 6 * (a + 2 * b + 2 * c + tendency(x + dt * c))


def any_waves(rng, members):
    wave = np.arange(1, 5)[:, None]
    parts = rng.standard_normal((members, 2, 4, 2)) / wave
    angle = 2 * np.pi * wave * np.arange(N) / N
    each = 0.3 * np.einsum("mfwp,pwx->mfx", parts, np.stack([np.cos(angle), np.sin(angle)]))
    return each.reshape(members, 2 * N)
