"""What the cycles of a run are given: their numbers, steps, values, masks and truths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from .dynamics.base import Dynamics
from .measurements.measurement import Measurement, Observations
from .record import Record
from .run_state import RunState
from .twin import Simulation

__all__ = [
    "Cycles",
    "cycle_arrays",
    "given_arrays",
    "given_cycles",
    "numbers_given",
    "observed_components",
    "simulated_cycles",
    "steps_from",
]

Cycles = Callable[[int, int], dict[str, Any]]
"""By name, what the cycles of a call from one number to another are given: entries along axis 0."""


def observed_components(dynamics: Dynamics, measurement: Measurement) -> Bool[Array, "*state"] | None:
    """Which components scores tell apart; None where all are observed, or none, or it cannot be said."""
    observed = measurement.operator.observed(dynamics.state_shape)
    if observed is None or observed.all() or not observed.any():
        return None
    return jnp.asarray(observed)


def cycle_arrays(observations: Observations, truth: Array | None, dtype: Any) -> dict[str, Array]:
    """By name, what each cycle of a run is given: arrays with K entries along axis 0."""
    xs = {
        "cycle": jax.device_put(np.arange(observations.n_cycles, dtype=np.uint32)),  # compiles nothing
        "step": observations.steps,
        "z": observations.values.astype(dtype),
        "mask": observations.mask,
    }
    return xs if truth is None else xs | {"truth": truth}


def given_cycles(observations: Observations, truth: Array | None, start: RunState) -> Cycles:
    """Slices of arrays."""
    xs = cycle_arrays(observations, truth, start.dtype)
    xs["step"] = steps_from(start.step, observations)
    if not _is_zero(start.cycle):
        xs["cycle"] = xs["cycle"] + start.cycle
    n_cycles = observations.n_cycles
    # slices on the host: on a device each would be a program of its own
    return lambda i, j: xs if j - i == n_cycles else {name: np.asarray(x)[i:j] for name, x in xs.items()}


def simulated_cycles(twin: Simulation, start: RunState, record: Record | None) -> Cycles:
    """Truth and observations made when they are asked for, one chunk after the other."""
    if not _is_zero(start.step):
        raise ValueError("a Simulation starts at step 0: it does not go on from a run (give observations).")
    last: tuple[int, Array] | None = None

    def cycles(i: int, j: int) -> dict[str, Array]:
        nonlocal last
        if last is None or last[0] != i:
            before = None if record is None or i == 0 else record.last("cycles/truth", "truth")
            last = (i, twin.start if before is None else jnp.asarray(before))
        made = twin.read(last[1], i, j - i)
        last = (j, made.truth[-1])
        xs = cycle_arrays(made.observations, made.truth.astype(start.dtype), start.dtype)
        return xs | {"cycle": xs["cycle"] + np.uint32(i), "step": xs["step"] + np.int32(i * twin.interval)}

    return cycles


def numbers_given(xs: dict[str, Array], n: int) -> dict[str, np.ndarray]:
    """What a record has of the input: observations (NaN where there is none) and the truth."""
    values, mask = (np.asarray(xs[name][:n]) for name in ("z", "mask"))
    found = {"observation": np.where(mask, values, np.nan).astype(values.dtype), "observation_mask": mask}
    return found | ({"truth": np.asarray(xs["truth"][:n])} if "truth" in xs else {})


def given_arrays(observations: Observations, truth: Array | None, n_cycles: int) -> dict[str, Any]:
    """The same of the first cycles of arrays, which are not copied."""
    found = {"observation": observations.values, "observation_mask": observations.mask, "truth": truth}
    if n_cycles < observations.n_cycles:
        found = {name: None if x is None else x[:n_cycles] for name, x in found.items()}
    return found


def steps_from(start: Int[Array, ""], observations: Observations) -> Int[Array, " K"]:
    """The step numbers of the cycles of a run that has done `start` steps.

    Raises:
        ValueError: one that is over.
    """
    if observations.interval is not None:
        return observations.steps if _is_zero(start) else observations.steps + start
    steps = observations.steps
    if not isinstance(steps, Tracer) and not isinstance(start, Tracer) and np.asarray(steps)[0] < int(start):
        raise ValueError(
            f"the run has done {int(start)} steps, and the first observation is of step {int(steps[0])}: "
            "step numbers are those of the whole run (or give the steps between observations as one number)."
        )
    return steps


def _is_zero(number: Array) -> bool:
    return not isinstance(number, Tracer) and int(number) == 0
