"""How far the members of whole runs are from a large particle filter's (`whole_posteriors.py`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.metrics import energy_score

from .posterior_problems import Problem

BURN_IN, KEPT = 10, 1000
"""Cycles that are not scored, and particles that are compared with."""


class Reference(NamedTuple):
    """(seeds, K, …): particles to compare with, and independent draws of all of them."""

    truth: np.ndarray
    particles: np.ndarray
    draws: np.ndarray
    effective: np.ndarray


@jax.jit
def energy_scores(members: jax.Array, truth: jax.Array) -> jax.Array:
    flat = members.reshape(-1, *members.shape[2:]), truth.reshape(-1, truth.shape[-1])
    return jax.lax.map(lambda pair: energy_score(*pair), flat).reshape(members.shape[:2])


class Scores(NamedTuple):
    """(seeds, K), after the first cycles."""

    energy: np.ndarray
    distance: np.ndarray
    sliced: np.ndarray
    beyond: np.ndarray
    below: np.ndarray


class Compared:
    """What every filter is compared with, computed once."""

    def __init__(self, problem: Problem, known: Reference):
        n = known.truth.shape[-1]
        i = np.arange(24)
        turn = np.pi * ((i * (math.sqrt(5) - 1)) % 2 if n == 3 else i / 24)
        up = (i + 0.5) / 24 if n == 3 else np.zeros(24)  # half a sphere by a spiral, or half a circle
        flat = np.sqrt(1 - up**2)
        self.directions = np.stack([flat * np.cos(turn), flat * np.sin(turn), up], 1)[:, :n]
        self.directions = self.directions[:1] if n == 1 else self.directions
        self.side, self.gap = problem.side, problem.gap
        self.truth, self.particles = known.truth[:, BURN_IN:], known.particles[:, BURN_IN:]
        self.spread = np.sqrt(self.particles.var(2).mean(-1))
        self.within = _apart(self.particles, self.particles)
        self.sorted = self._projected(self.particles)
        self.beyond, self.below = self._sides(self.particles)
        self.two = (self.beyond > 0.1) & (self.below > 0.1) & (self.beyond + self.below > 0.9)

    def _projected(self, x: np.ndarray) -> np.ndarray:
        return np.sort(x @ self.directions.T.astype(x.dtype), axis=2)

    def _sides(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        side = np.asarray(self.side(jnp.asarray(x)))
        return (side > self.gap).mean(2), (side < -self.gap).mean(2)

    def __call__(self, members: np.ndarray) -> Scores:
        """Of members (seeds, K, N, n)."""
        members = members[:, BURN_IN:]
        distance = 2 * _apart(members, self.particles) - _apart(members, members) - self.within
        quantiles = np.repeat(self._projected(members), KEPT // members.shape[2], axis=2)
        sliced = np.sqrt(((quantiles - self.sorted) ** 2).mean((2, 3)))
        energy = np.asarray(energy_scores(jnp.asarray(members), jnp.asarray(self.truth)))
        return Scores(energy, distance / self.spread, sliced / self.spread, *self._sides(members))


@jax.jit
def _apart(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean distance of (…, N, n) and (…, M, n)."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        squares = sum((pair[0][:, None, i] - pair[1][None, :, i]) ** 2 for i in range(x.shape[-1]))
        return jnp.sqrt(squares).mean()

    flat = tuple(part.reshape(-1, *part.shape[2:]) for part in (x, y))
    return jax.lax.map(one, flat).reshape(x.shape[:2])
