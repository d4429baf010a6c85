"""Twin experiments: a simulated truth and its simulated observations."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .arrays import check_key, one_state, real_array
from .dynamics.base import Dynamics
from .dynamics.function import as_dynamics
from .dynamics.rollout import rollout
from .measurements.measurement import Measurement, Observations
from .numbers import whole

__all__ = ["Simulation", "Twin", "simulate"]

_TAG = 0x7477696E
"""Folded into the key of every twin, to keep its draws apart from those of other users of that key."""


class Twin(NamedTuple):
    """Truth at the observation steps, and the observations drawn from it."""

    truth: Float[Array, "K *state"]
    observations: Observations


class Simulation(eqx.Module):
    """The twin experiment of `simulate`, made as it is needed: a part of it takes that part's memory.

    How it is cut makes no difference. Values of nonlinear operators may differ by the last digit from those
    of `simulate`, which measures all cycles at once.

    Args:
        key, dynamics, measurement, n_cycles, steps_per_cycle, x0: see `simulate`.
        mask: (K, *z) or (K,) booleans, True where a value is measured; None: everywhere.
    """

    dynamics: Dynamics
    measurement: Measurement
    start: Float[Array, "*state"]
    """The truth at step 0."""
    key_run: PRNGKeyArray
    key_noise: PRNGKeyArray
    mask: Bool[np.ndarray, "K ..."] | None
    n_cycles: int = eqx.field(static=True)
    interval: int = eqx.field(static=True)

    def __init__(
        self,
        key: PRNGKeyArray,
        dynamics: Dynamics,
        measurement: Measurement,
        n_cycles: int,
        steps_per_cycle: int = 1,
        x0: ArrayLike | None = None,
        mask: Bool[np.ndarray, "K ..."] | None = None,
    ):
        check_key(key)
        n_cycles = whole("n_cycles", n_cycles, 1)
        steps_per_cycle = whole("steps_per_cycle", steps_per_cycle, 1)
        x0 = None if x0 is None else real_array("x0", x0)
        dynamics = as_dynamics(dynamics, None if x0 is None else x0.shape, ", or x0: where the truth starts")
        key_start, self.key_run, self.key_noise = jax.random.split(jax.random.fold_in(key, _TAG), 3)
        if x0 is None:
            self.start = dynamics.sample_climatology(key_start)
        else:
            self.start = one_state("x0", x0, dynamics.state_shape)
        if measurement.output_shape(dynamics.state_shape) == ():
            raise ValueError(
                f"a measurement needs an axis, and that of a state of shape {dynamics.state_shape} has none: "
                "give the state one, state_shape=(1,)."
            )
        measurement.check_noise(dynamics.state_shape)
        self.dynamics, self.measurement, self.mask = dynamics, measurement, mask
        self.n_cycles, self.interval = n_cycles, steps_per_cycle

    def read(self, before: Float[Array, "*state"], first: int, n: int) -> Twin:
        """n cycles from number `first` on (0, 1, …).

        Args:
            before: the truth at the cycle before, or `start`.

        Raises:
            ValueError: the truth is not finite.
        """
        mask = None if self.mask is None else self.mask[first : first + n]
        whole = eqx.tree_at(lambda twin: twin.mask, self, None, is_leaf=lambda leaf: leaf is None)
        made = _part(whole, before, jnp.asarray(first, jnp.uint32), n, mask)
        finite = np.isfinite(np.asarray(made.truth)).reshape(n, -1).all(1)
        if not finite.all():
            where = first + int(finite.argmin())
            raise ValueError(f"the simulated truth is not finite from cycle {where} on: is dt too large?")
        return made


def _read(twin: Simulation, before: Array, first: Array, n: int, mask: Any) -> Twin:
    """Measured one by one, two at least: bits may hang on a batch's length, and on whether a loop is one."""
    made = n if twin.n_cycles == 1 else max(n, 2)
    truth, noise_keys = _truth(twin, before, first, made)
    values = jax.lax.map(lambda each: twin.measurement.sample(*each), (noise_keys, truth))
    if made > n:
        truth, values = (each[:n] for each in jax.lax.optimization_barrier((truth, values)))
    return Twin(truth, Observations(values, twin.interval, mask))


def _truth(twin: Simulation, before: Array, first: Array, n: int) -> tuple[Array, Array]:
    """n cycles of it, and the keys of their measurements."""
    step = first.astype(jnp.int32) * twin.interval
    truth = rollout(twin.dynamics, before, twin.key_run, n, twin.interval, step, first.astype(jnp.int32))
    numbers = first + jnp.arange(n, dtype=jnp.uint32)
    return truth, jax.vmap(jax.random.fold_in, (None, 0))(twin.key_noise, numbers)


_part = eqx.filter_jit(_read)


def simulate(
    key: PRNGKeyArray,
    dynamics: Dynamics,
    measurement: Measurement,
    n_cycles: int,
    steps_per_cycle: int = 1,
    x0: ArrayLike | None = None,
) -> Twin:
    """A truth from `x0` (None: a draw of the climatology) observed every `steps_per_cycle` model steps.

    Give the ensemble and the filter keys of their own. On JAX ≥ 0.5 `split(key, n)[i] == fold_in(key, i)`
    for every n, so plain splits of a shared key would make the truth a member; the key is tagged first.
    """
    twin = Simulation(key, dynamics, measurement, n_cycles, steps_per_cycle, x0)
    truth, noise_keys = _truth(twin, twin.start, jnp.zeros((), jnp.uint32), n_cycles)
    values = jax.vmap(measurement.sample)(noise_keys, truth)
    return Twin(truth, Observations(values, steps_per_cycle))
