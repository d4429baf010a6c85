"""Trajectories, ensemble forecasts and climatologies of any model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from ..arrays import check_key, model_step, one_state, real_array
from ..numbers import whole
from .base import Dynamics, advance_model, member_numbers
from .function import as_dynamics
from .layout import ALL_AT_ONCE, MemberLayout

__all__ = [
    "SAMPLED",
    "Climatology",
    "advance",
    "at_once",
    "climatological_states",
    "climatology",
    "rollout",
    "spun_up_ensemble",
]

_CHAINS = 64
SAMPLED = (
    "a climatology that is sampled from the model has no derivative by the model's parameters that is of "
    "use: along a long chaotic run it grows without bound. Prepare the filter with a known model, outside of "
    "what is differentiated, filter = filter.prepare(dynamics, measurement), or give it moments."
)


def at_once(dynamics: Dynamics) -> contextlib.AbstractContextManager[None]:
    """Within: what is made of a known model is computed at once, also inside `jit`."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(dynamics)):
        return contextlib.nullcontext()
    return jax.ensure_compile_time_eval()


def advance(
    dynamics: Dynamics | Callable[..., Array],
    ensemble: ArrayLike,
    step: int | Int[Array, ""],
    key: PRNGKeyArray,
    n_steps: int | Int[Array, ""],
    layout: MemberLayout = ALL_AT_ONCE,
) -> Float[Array, "N *state"]:
    """All members `n_steps` model steps ahead of step number `step` (model time step·dt).

    Member i draws from `fold_in(key, i)`: the same whichever way members are batched and spread.

    Args:
        dynamics: a model, or a function of one member and one step, of dt = 1.
        ensemble: (N, *state_shape).
        n_steps: a Python int (a scan of fixed length) or a traced integer (a while loop).
        layout: how many members are computed at once, and on which devices.

    Raises:
        ValueError: neither a model nor a function; members of another shape; a step or a number of steps that
            is no whole number, or negative.
    """
    ensemble = real_array("ensemble", ensemble)
    dynamics = as_dynamics(dynamics, ensemble.shape[1:])
    if ensemble.shape[1:] != dynamics.state_shape:
        raise ValueError(
            f"ensemble must have shape (N, *state_shape), states of shape {dynamics.state_shape}; got "
            f"{ensemble.shape}: one state x is a member as x[None]."
        )
    return advance_model(dynamics, ensemble, model_step(step), key, whole("n_steps", n_steps), layout)


def rollout(
    dynamics: Dynamics | Callable[..., Array],
    x: ArrayLike,
    key: PRNGKeyArray,
    n: int,
    every: int = 1,
    step: int | Int[Array, ""] = 0,
    first: int | Int[Array, ""] = 0,
) -> Float[Array, "n *state"]:
    """The trajectory of one state: x after every, 2·every, …, n·every steps (x itself left out).

    A model, or a function of one member and one step, of dt = 1.
    `first` numbers the draws of the noise: a trajectory of n + m, cut after n, goes on with first = n.

    Raises:
        ValueError: see `advance`.
    """
    n, every = whole("n", n), whole("every", every)

    def body(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], Array]:
        members, now = carry
        members = advance(dynamics, members, now, jax.random.fold_in(key, k), every)
        return (members, now + every), members[0]

    x = real_array("x", x)
    dynamics = as_dynamics(dynamics, x.shape)
    start = (one_state("x", x, dynamics.state_shape)[None], model_step(step))
    return jax.lax.scan(body, start, jnp.asarray(first, jnp.int32) + jnp.arange(n, dtype=jnp.int32))[1]


def spun_up_ensemble(
    dynamics: Dynamics, key: PRNGKeyArray, n: int, layout: MemberLayout = ALL_AT_ONCE
) -> Float[Array, "n *state"]:
    """`n` independent draws of the model's climatology."""
    check_key(key)
    n = whole("n", n)
    return layout.map(lambda i: dynamics.sample_climatology(jax.random.fold_in(key, i)), member_numbers(n))


def climatological_states(
    dynamics: Dynamics, key: PRNGKeyArray, n: int, held_back: int = 0, every: int | None = None
) -> tuple[Float[Array, "n *state"], Float[Array, "held_back *state"]]:
    """`n` states of the model's long run, and `held_back` more from other trajectories, for validation.

    At most 64 spun-up trajectories, sampled each `every` steps (None: a tenth of the spin-up); neighbours
    in the result belong to different trajectories as far as possible.

    Raises:
        ValueError: n below 1 or held_back below 0.
    """
    check_key(key)
    n, held_back = whole("n", n, 1), whole("held_back", held_back)
    every = max(1, dynamics.spin_up_steps // 10) if every is None else every
    spare = -(-min(_CHAINS, n + held_back) * held_back // (n + held_back))
    chains = max(1, min(_CHAINS, n + held_back) - spare)
    rounds = max(-(-n // chains), -(-held_back // spare) if spare else 0)
    key_start, key_run = jax.random.split(key)
    start = spun_up_ensemble(dynamics, key_start, chains + spare)

    def body(members: Array, k: Array) -> tuple[Array, Array]:
        members = advance(dynamics, members, k * every, jax.random.fold_in(key_run, k), every)
        return members, members

    later = jax.lax.scan(body, start, jnp.arange(rounds - 1, dtype=jnp.int32))[1]
    states = jnp.concatenate([start[None], later])
    shape = (-1, *dynamics.state_shape)
    return states[:, :chains].reshape(shape)[:n], states[:, chains:].reshape(shape)[:held_back]


class Climatology(NamedTuple):
    """Mean and covariance of a model's long-run distribution, over raveled states."""

    mean: Float[Array, " n"]
    covariance: Float[Array, "n n"]


def climatology(dynamics: Dynamics, key: PRNGKeyArray, n: int = 20_000, every: int = 1) -> Climatology:
    """Sample mean and covariance over `n` states, 16 spun-up trajectories sampled each `every` steps.

    The covariance is accumulated in the loop: memory is O(n_state²), not O(n·n_state).

    Raises:
        ValueError: n or every below 1, or no whole numbers.
    """
    n, every = whole("n", n, 1), whole("every", every, 1)
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
