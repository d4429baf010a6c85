"""What a run cannot be made of: shapes that do not fit, names that nobody knows, members without spread."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from .dynamics.base import Dynamics
from .filters.base import EnsembleState, Filter, State
from .filters.faults import largest_usable, smallest_usable
from .measurements.measurement import Measurement, Observations
from .metrics.cycle import SCORES
from .twin import Simulation

__all__ = ["check_members", "check_problem", "fitting", "refuse_on_host", "traced"]

_SAVEABLE = ("mean", "spread", "ensemble")


def traced(*trees: Any) -> bool:
    """Whether any array in these is being traced."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def refuse_on_host(**given: Any) -> None:
    """Raises ValueError for what needs numbers on the host, in a run that is being traced."""
    for name, value in given.items():
        if value:
            raise ValueError(
                f"{name}={value!r} takes results to the host while the run goes on, which a run inside "
                "jax.jit, grad or vmap cannot: leave it out (derivatives in little memory: checkpoint=True)."
            )


def check_problem(
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations | Simulation,
    state_shape: tuple[int, ...],
    truth: Array | None,
    save: tuple[str, ...],
    scores: tuple[str, ...],
) -> None:
    shape = dynamics.state_shape
    if state_shape != shape:
        raise ValueError(
            f"start holds states of shape {state_shape}; those of {type(dynamics).__name__} have {shape}."
        )
    expected = measurement.output_shape(shape)
    if isinstance(observations, Observations) and observations.values.shape[1:] != expected:
        raise ValueError(
            f"observations have shape {observations.values.shape[1:]} per cycle, but the measurement of a "
            f"state of shape {shape} has shape {expected}."
        )
    measurement.check_noise(shape)
    if truth is not None and truth.shape != (observations.n_cycles, *shape):
        every = observations.interval
        rows = "" if every is None else f" (their rows of values, {every} model step(s) apart)"
        raise ValueError(
            f"truth must hold one state per cycle, shape {(observations.n_cycles, *shape)}; "
            f"got {truth.shape}: the observations have {observations.n_cycles} cycles{rows}."
        )
    for argument, given, known in (("save", save, _SAVEABLE), ("scores", scores, tuple(SCORES))):
        unknown = [name for name in given if name not in known]
        if isinstance(given, str) or unknown:
            raise ValueError(f"{argument} must be a tuple of names from {known}; got {given!r}.")


def fitting(filter: Filter, state: State) -> State:
    """A state that `filter` can go on from: one of its own, completed where its memory is not there yet.

    Raises:
        ValueError: another filter's.
    """
    if isinstance(state, EnsembleState):
        members = jax.ShapeDtypeStruct(state.ensemble.shape, state.ensemble.dtype)
    else:
        members = jax.ShapeDtypeStruct((2, *state.mean.shape), state.mean.dtype)
    leaves, structure = jax.tree.flatten(jax.tree.map(_shape, filter))
    own = _first_state(tuple(leaves), structure, members)
    if own is None:
        return filter.completed(state)
    name = type(filter).__name__
    if type(state) is not type(own):
        kinds = ("members", "a mean and a covariance")
        has, needs = kinds if isinstance(state, EnsembleState) else kinds[::-1]
        raise ValueError(_of_another(f"it has {has}, and {name} {needs}"))
    weighted, weights = ((getattr(each, "log_weights", None) is not None) for each in (state, own))
    if weighted != weights:
        raise ValueError(_of_another(f"its members have {'' if weighted else 'no '}weights"))
    state = filter.completed(state)
    if _structure(state.memory) != _structure(own.memory):
        raise ValueError(_of_another(f"what it remembers is not what {name} does, with its settings"))
    return state


@functools.lru_cache(maxsize=64)
def _first_state(leaves: tuple[Any, ...], structure: Any, members: jax.ShapeDtypeStruct) -> Any:
    """Shapes of a filter's state before the first cycle; kept, for runs that go on cycle by cycle.

    None where a filter of the user's own begins on the host, with numbers.
    """
    filter = jax.tree.unflatten(structure, leaves)
    try:
        return eqx.filter_eval_shape(lambda f, x: f.completed(f.init(jax.random.key(0), x)), filter, members)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None


def _shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, Array | np.ndarray) else leaf


def _of_another(difference: str) -> str:
    return (
        f"start holds the state of another filter: {difference}. `start=run.end` goes on with the filter "
        "that made it; another one begins from its members, start=begin(key, filter, dynamics, measurement, "
        "run.members, step=run.end.step)."
    )


def _structure(memory: Any) -> Any:
    leaves, structure = jax.tree.flatten(memory)
    return structure, [leaf.shape for leaf in leaves]


def check_members(ensemble: Array, dynamics: Dynamics) -> None:
    """Raises ValueError for a first ensemble of another shape, without spread, or beyond numbers."""
    shape = dynamics.state_shape
    if ensemble.ndim != len(shape) + 1 or ensemble.shape[1:] != shape:
        raise ValueError(
            f"ensemble must have shape (N, *state_shape) = (N, {', '.join(map(str, shape))}) for "
            f"{type(dynamics).__name__}; got {ensemble.shape}."
        )
    if ensemble.shape[0] < 2:
        raise ValueError(f"an ensemble needs at least 2 members to have a spread; got {ensemble.shape[0]}.")
    if not isinstance(ensemble, Tracer):
        members = np.asarray(ensemble).reshape(ensemble.shape[0], -1)
        bad = np.flatnonzero(~np.isfinite(members).all(1))
        if bad.size:
            raise ValueError(
                f"the first ensemble is not finite: member(s) {bad[:10].tolist()} hold NaN or Inf values. "
                "Check the initial states."
            )
        largest = max(members.max(initial=0.0), -members.min(initial=0.0))
        if (members == members[0]).all():
            warnings.warn(
                "all members of the first ensemble are the same: it has no spread, so that no measurement "
                "moves it before the model parts them. Draw them, e.g. state + std * jax.random.normal(key, "
                "(N, *state_shape)).",
                stacklevel=4,
            )
        widest = float(np.ptp(members, axis=0).max())
        if 0 < widest < smallest_usable(members.dtype):
            raise ValueError(
                f"the members of the first ensemble differ by {widest:g} at most, whose square is too small "
                f"for {members.dtype}: take another unit, or precision=float64."
            )
        if largest > largest_usable(members.dtype):
            raise ValueError(
                f"the first ensemble holds {largest:g}, whose square is beyond {members.dtype}: take another "
                "unit, or precision=float64."
            )
