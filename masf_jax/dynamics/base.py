"""The contract of a model: one member, one step."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Num, PRNGKeyArray, Scalar
from numpy.typing import ArrayLike

from ..arrays import check_key
from ..coordinates import Coordinates
from ..derivatives import differentiated_as
from .layout import ALL_AT_ONCE, MemberLayout

__all__ = ["Dynamics", "advance_model", "member_numbers", "members_in_cache"]

_CACHED = 2**19
"""Values of states that stay in a core's cache together with the model's own: 2 MB in single precision."""


class Dynamics(eqx.Module):
    """A pure map x_{k+1} = M(x_k, t_k) (+ model error) for ONE member; batch with `jax.vmap`.

    A model gives `dt`, `state_shape` and `__call__`; `coordinates` are needed for localisation only,
    `initial_state` for `sample_climatology` only.
    """

    dt: eqx.AbstractVar[Float[Array, ""]]
    """Model time of one step."""
    state_shape: eqx.AbstractVar[tuple[int, ...]]
    """Shape of one member's state."""
    numbers: ClassVar[tuple[str, ...] | None] = None
    """What `with_numbers` takes; None: any leaf. A model may compute with what it made of them."""

    @abc.abstractmethod
    def __call__(
        self, x: Float[Array, "*state"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, "*state"]:
        """The state one step (`dt`) after `x` at model time `time`; `key` feeds random models only."""

    def time_of(self, step: Int[Array, "*steps"]) -> Num[Array, "*steps"]:
        """Model time k·dt after k steps, in the type of `dt`, which may be a plain number."""
        dt = jnp.asarray(self.dt)
        return step.astype(dt.dtype) * dt

    def with_numbers(self, **numbers: ArrayLike) -> Self:
        """The model with other numbers, which may be traced."""
        for name, value in numbers.items():
            new = jnp.asarray(value, jnp.asarray(getattr(self, name)).dtype)
            self = eqx.tree_at(lambda model, n=name: getattr(model, n), self, new)
        return self

    @property
    def coordinates(self) -> Coordinates | None:
        """Where the grid points are, or None for a model without geometry."""
        return None

    @property
    def unit_length(self) -> float:
        """How long a unit of `coordinates` is in the model's own unit of length."""
        return 1.0

    @property
    def variable_names(self) -> tuple[str, ...] | None:
        """Names along the state's first axis, where that counts variables; or one name of all components."""
        return None

    @property
    def variable_units(self) -> tuple[str, ...] | None:
        """Units along the state's first axis ("m", "m/s"), for results and figures."""
        return None

    @property
    def time_units(self) -> str | None:
        """Units of `dt` ("s", "days"), for results and figures."""
        return None

    @property
    def length_units(self) -> str | None:
        """Units of `coordinates` times `unit_length` ("km"), for results and figures."""
        return None

    @property
    def cached_members(self) -> int | None:
        """How many members, at most, a CPU computes fastest together; None: all (`members_in_cache`)."""
        return None

    @property
    def spin_up_steps(self) -> int:
        """Steps after which a draw of `initial_state` has reached the attractor."""
        return 0

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, "*state"]:
        """A random admissible state to spin up from."""
        raise NotImplementedError(
            f"{type(self).__name__} has no initial_state: give the initial ensemble and truth yourself. A "
            "filter that needs states of the model's climatology needs a model with one: initial_state(key), "
            "or dynamics.Function(f, state_shape, dt, climatology=…) (on the command line "
            "dynamics.climatology=NAME), which draws states near the attractor."
        )

    def mean_step(self, x: Float[Array, "*state"], time: Scalar | float) -> Float[Array, "*state"]:
        """The step without model error: E[x_{k+1} | x_k]."""
        return self(x, time, None)

    @property
    def step_noise_variance(self) -> Array | None:
        """Variance of the model error of one step (scalar or state-shaped); None if there is none."""
        return None

    def sample_climatology(self, key: PRNGKeyArray) -> Float[Array, "*state"]:
        """A draw from the model's own long-run distribution: `initial_state`, spun up."""
        check_key(key)
        key_start, key_run = jax.random.split(key)
        x = self.initial_state(key_start)
        return advance_model(self, x[None], jnp.asarray(0, jnp.int32), key_run, self.spin_up_steps)[0]


def members_in_cache(state_shape: tuple[int, ...]) -> int:
    """How many members' states stay in a core's cache from one step to the next; at least 1."""
    return max(1, _CACHED // math.prod(state_shape))


def _batch(n: int, most: int) -> int:
    """Members of a batch, at most so many: an even share of n, but where that is less than half of them."""
    even = max((k for k in range(1, min(n, most) + 1) if n % k == 0), default=1)
    return even if 2 * even >= min(n, most) else most


def advance_model(
    dynamics: Dynamics,
    ensemble: Float[Array, "N *state"],
    step: Int[Array, ""],
    key: PRNGKeyArray,
    n_steps: int | Int[Array, ""],
    layout: MemberLayout = ALL_AT_ONCE,
) -> Float[Array, "N *state"]:
    """All members `n_steps` model steps ahead of step number `step` (model time step·dt).

    Member i draws from `fold_in(key, i)`: the same whichever way members are batched and spread.

    Args:
        ensemble: (N, *state_shape).
        n_steps: a Python int (a scan of fixed length) or a traced integer (a while loop).
        layout: how many members are computed at once (by itself as many as its `cached_members` says,
            in even batches where that may be), and on which devices.
    """

    def member(i: Integer[Array, ""], x: Array) -> Array:
        run = dynamics, x, step, jax.random.fold_in(key, i), n_steps
        if isinstance(n_steps, int) or layout.most_steps is None:
            return _forecast(*run)
        return _forecast_of_traced_length(*run, layout.most_steps)

    if layout.batch_size is None and dynamics.cached_members is not None and layout.platform == "cpu":
        own = ensemble.shape[0] // layout.n_devices
        layout = dataclasses.replace(layout, batch_size=_batch(own, dynamics.cached_members))
    return layout.map(member, member_numbers(ensemble.shape[0]), ensemble)


def _step(dynamics: Dynamics, x: Array, now: Array, key: PRNGKeyArray) -> Array:
    return dynamics(x, dynamics.time_of(now).astype(x.dtype), jax.random.fold_in(key, now))


def _forecast(
    dynamics: Dynamics, x: Array, step: Array, key: PRNGKeyArray, n_steps: int | Array
) -> Float[Array, "*state"]:
    """One member, with its key."""
    if isinstance(n_steps, int) and n_steps <= 1:
        return _step(dynamics, x, step + 0, key) if n_steps == 1 else x
    return jax.lax.fori_loop(0, n_steps, lambda j, x: _step(dynamics, x, step + j, key), x)


def _forecast_by_scan(
    dynamics: Dynamics, x: Array, step: Array, key: PRNGKeyArray, n_steps: Array, most: int
) -> Float[Array, "*state"]:
    """The same by a loop of fixed length, which has a derivative in reverse mode."""

    def one(x: Array, j: Array) -> tuple[Array, None]:
        go = jax.checkpoint(lambda x: _step(dynamics, x, step + j, key))
        return jax.lax.cond(j < n_steps, go, lambda x: x, x), None

    return jax.lax.scan(one, x, jnp.arange(most, dtype=step.dtype))[0]


@differentiated_as(_forecast_by_scan)
def _forecast_of_traced_length(
    dynamics: Dynamics, x: Array, step: Array, key: PRNGKeyArray, n_steps: int | Array, most: int
) -> Float[Array, "*state"]:
    return _forecast(dynamics, x, step, key, n_steps)


def member_numbers(n: int) -> Integer[Array, " n"]:
    """0 … n - 1, as `fold_in` takes them."""
    return jnp.arange(n, dtype=jnp.uint32)
