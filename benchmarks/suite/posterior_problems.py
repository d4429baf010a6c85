"""Filtering problems whose posteriors are not Gaussian, and filters for them (`whole_posteriors.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp

from masf_jax import dynamics as d, filters as f, masf, measurements as m
from masf_jax.dynamics import spun_up_ensemble
from masf_jax.ensemble import Inflation


class Window(d.Dynamics):
    """`n` steps of a model without model error as one: with `ModelError` around it, noise once a window."""

    model: d.Dynamics
    n: int = eqx.field(static=True)

    def __init__(self, model: d.Dynamics, n: int):
        self.model, self.n = model, n

    @property
    def dt(self) -> jax.Array:
        return self.model.dt * self.n

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.model.state_shape

    @property
    def spin_up_steps(self) -> int:
        return self.model.spin_up_steps // self.n

    def initial_state(self, key: jax.Array) -> jax.Array:
        return self.model.initial_state(key)

    def __call__(self, x: jax.Array, time: jax.Array | float, key: jax.Array | None) -> jax.Array:
        return jax.lax.fori_loop(0, self.n, lambda _, x: self.model(x, time, None), x)


class DoubleWell(d.Dynamics):
    """dx = 4x(1 - x²) dt + κ dW by 20 steps of Euler and Maruyama of .05 each; state shape (1,)."""

    kappa: jax.Array
    dt: jax.Array
    state_shape: tuple[int, ...] = eqx.field(static=True, default=(1,), init=False)

    def __init__(self, kappa: float):
        self.kappa, self.dt = jnp.asarray(kappa), jnp.asarray(1.0)

    @property
    def spin_up_steps(self) -> int:
        return 10

    def initial_state(self, key: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)[None]

    def __call__(self, x: jax.Array, time: jax.Array | float, key: jax.Array | None) -> jax.Array:
        step = self.dt / 20
        noise = jnp.zeros((20, 1), x.dtype) if key is None else jax.random.normal(key, (20, 1), x.dtype)

        def one(i: int, x: jax.Array) -> jax.Array:
            return x + step * 4 * x * (1 - x**2) + self.kappa * jnp.sqrt(step) * noise[i]

        return jax.lax.fori_loop(0, 20, one, x)


class Doubling(d.Dynamics):
    """θ → 2θ + 2π · noise · ξ on the circle; the state is (cos θ, sin θ), others are first put on it."""

    noise: jax.Array
    dt: jax.Array
    state_shape: tuple[int, ...] = eqx.field(static=True, default=(2,), init=False)

    def __init__(self, noise: float):
        self.noise, self.dt = jnp.asarray(noise), jnp.asarray(1.0)

    @property
    def spin_up_steps(self) -> int:
        return 1

    def initial_state(self, key: jax.Array) -> jax.Array:
        return _on_circle(2 * math.pi * jax.random.uniform(key))

    def __call__(self, x: jax.Array, time: jax.Array | float, key: jax.Array | None) -> jax.Array:
        turned = 0.0 if key is None else 2 * math.pi * self.noise * jax.random.normal(key, (), x.dtype)
        return _on_circle(2 * jnp.arctan2(x[1], x[0]) + turned)


def _on_circle(angle: jax.Array) -> jax.Array:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


class Problem(eqx.Module):
    """A model, measured after each of its steps.

    Truth and members begin as draws of one law: the climatology, or (`spread`) N(c, spread²) around a common
    c. `side` is a coordinate with a mode on each side of ±gap.
    """

    dynamics: d.Dynamics
    measurement: m.Measurement
    side: Callable[[jax.Array], jax.Array] = eqx.field(static=True)
    gap: float = eqx.field(static=True)
    spread: float | None = eqx.field(static=True, default=None)

    def start(self, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        """Truth and n members."""
        key_truth, key_centre, key_members = jax.random.split(key, 3)
        truth = self.dynamics.sample_climatology(key_truth)
        if self.spread is None:
            return truth, spun_up_ensemble(self.dynamics, key_members, n)
        centre = truth + self.spread * jax.random.normal(key_centre, truth.shape)
        return truth, centre[None] + self.spread * jax.random.normal(key_members, (n, *truth.shape))


def _first(x: jax.Array) -> jax.Array:
    return x[..., 0]


def _second(x: jax.Array) -> jax.Array:
    return x[..., 1]


def lorenz63(std: float) -> Problem:
    model = d.ModelError(Window(d.Lorenz63(dt=0.01), 25), 0.5)
    sensor = m.Measurement(m.Subset([0]), m.Gaussian(std))
    return Problem(model, sensor, _first, 1.0, 1.0)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "lorenz63_1": lambda: lorenz63(1.0),
    "lorenz63_2": lambda: lorenz63(2.0),
    "well_noise": lambda: Problem(
        DoubleWell(0.7), m.Measurement(m.Identity(), m.Gaussian(3.0)), _first, 0.4,
    ),
    "well_square": lambda: Problem(
        DoubleWell(0.5), m.Measurement(m.square(), m.Gaussian(0.3)), _first, 0.4,
    ),
    "doubling": lambda: Problem(
        Doubling(0.01), m.Measurement(m.Subset([0]), m.Gaussian(0.2)), _second, 0.3,
    ),
}  # fmt: skip


TITLES = {
    "doubling": "Doubling map, noise .01, cos θ measured, σ = .2",
    "well_noise": "Double well, κ = .7, x measured, σ = 3",
    "well_square": "Double well, κ = .5, x² measured, σ = .3",
    "lorenz63_2": "Lorenz-63, x measured, σ = 2",
    "lorenz63_1": "Lorenz-63, x measured, σ = 1",
}


AXES = {
    "doubling": "sin θ",
    "well_noise": "x",
    "well_square": "x",
    "lorenz63_2": "x",
    "lorenz63_1": "x",
}
"""What `Problem.side` is."""


def rivals() -> dict[str, dict[str, f.MemberFilter]]:
    """Filters without training, with up to four trials each."""
    inflations, widths, free = (1.01, 1.03, 1.06, 1.1), (0.1, 0.2, 0.3, 0.45), masf.Bridge(centred=False)
    return {
        "ETKF": {
            f"inflation {i:g}{', rotated' if turn else ''}": f.ETKF(Inflation(i), rotation=turn)
            for i, turn in product((1.01, 1.05), (False, True))
        },
        "EnKF": {f"inflation {i:g}": f.EnKF(Inflation(i)) for i in inflations},
        "IEnKF": {f"inflation {i:g}": f.IEnKF(Inflation(i)) for i in inflations},
        "particle filter": {f"jitter {h:g}": f.ParticleFilter(1.0, h) for h in (0.0, 0.25, 0.5, 1.0)},
        "EnSF": {
            "as released": f.EnSF(sampler=f.EnSFSampler(n_steps=100)),
            "all members": f.EnSF(sampler=f.EnSFSampler(n_steps=100, batch_size=None, start="forecast")),
        },
        "MASF kernel prior": {f"bandwidth {h}": f.MASF(masf.KernelPrior(h), sampler=free) for h in widths},
        "MASF conditional kernel": {
            f"bandwidth {h}": f.MASF(route=masf.ConditionalKernel(h)) for h in widths
        },
    }
