"""What a run cannot be made of: shapes that do not fit, names that nobody knows, members without spread."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from .dynamics.base import Dynamics
from .filters.faults import largest_usable
from .measurements.measurement import Measurement, Observations
from .metrics.cycle import SCORES
from .twin import Simulation

__all__ = ["check_members", "check_problem", "refuse_on_host", "traced"]

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
        if largest > largest_usable(members.dtype):
            raise ValueError(
                f"the first ensemble holds {largest:g}, whose square is beyond {members.dtype}: take another "
                "unit, or precision=float64."
            )
