"""Trajectories, ensemble forecasts and climatologies of any model."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .base import Dynamics

__all__ = ["Climatology", "advance", "climatology", "rollout", "spun_up_ensemble"]


def member_keys(key: PRNGKeyArray, n: int) -> PRNGKeyArray:
    """One key per member, folded in by member index: the same whichever way members are sharded."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n, dtype=jnp.uint32))


def advance(
    dynamics: Dynamics,
    ensemble: Float[Array, "N *state"],
    step: Int[Array, ""],
    key: PRNGKeyArray,
    n_steps: int | Int[Array, ""],
) -> Float[Array, "N *state"]:
    """All members `n_steps` model steps ahead of step number `step` (model time step·dt).

    Args:
        ensemble: (N, *state_shape).
        n_steps: a Python int (a scan of fixed length) or a traced integer (a while loop).
    """
    keys = member_keys(key, ensemble.shape[0])

    def one(i: Int[Array, ""] | int, members: Array) -> Array:
        now = step + i
        time = now.astype(dynamics.dt.dtype) * dynamics.dt
        time = time.astype(members.dtype)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, now)
        return jax.vmap(dynamics, (0, None, 0))(members, time, step_keys)

    if isinstance(n_steps, int) and n_steps <= 1:
        return one(0, ensemble) if n_steps == 1 else ensemble
    return jax.lax.fori_loop(0, n_steps, one, ensemble)


def rollout(
    dynamics: Dynamics,
    x: Float[Array, "*state"],
    key: PRNGKeyArray,
    n: int,
    every: int = 1,
    step: int = 0,
) -> Float[Array, "n *state"]:
    """The trajectory of one state: x after every, 2·every, …, n·every steps (x itself left out)."""

    def body(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], Array]:
        members, now = carry
        members = advance(dynamics, members, now, jax.random.fold_in(key, k), every)
        return (members, now + every), members[0]

    start = (x[None], jnp.asarray(step, jnp.int32))
    return jax.lax.scan(body, start, jnp.arange(n))[1]


def spun_up_ensemble(dynamics: Dynamics, key: PRNGKeyArray, n: int) -> Float[Array, "n *state"]:
    """`n` independent draws of the model's climatology."""
    return jax.vmap(dynamics.sample_climatology)(member_keys(key, n))


class Climatology(NamedTuple):
    """Mean and covariance of a model's long-run distribution, over raveled states."""

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]


def climatology(dynamics: Dynamics, key: PRNGKeyArray, n: int = 20_000, every: int = 1) -> Climatology:
    """Sample mean and covariance over `n` states, 16 spun-up trajectories sampled each `every` steps.

    The covariance is accumulated in the loop: memory is O(n_state²), not O(n·n_state).
    """
    n_chains = 16
    key_start, key_run = jax.random.split(key)
    members = spun_up_ensemble(dynamics, key_start, n_chains)
    size = members[0].size
    n_rounds = -(-n // n_chains)
    shift = members.reshape(n_chains, size).mean(0)  # centre first: no cancellation in the second moment

    def body(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        members, total, square = carry
        members = advance(dynamics, members, k * every, jax.random.fold_in(key_run, k), every)
        x = members.reshape(n_chains, size) - shift[None]
        return members, total + x.sum(0), square + x.T @ x

    zeros = jnp.zeros((size,), members.dtype), jnp.zeros((size, size), members.dtype)
    _, total, square = jax.lax.fori_loop(0, n_rounds, body, (members, *zeros))
    count = n_rounds * n_chains
    mean = total / count
    covariance = (square - count * jnp.outer(mean, mean)) / (count - 1)
    return Climatology(mean + shift, covariance)
