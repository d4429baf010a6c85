"""What a plain function of a user's file lacks as a model: places, states to start from, names."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ....coordinates import Coordinates
from ...errors import InputError
from ..own_files import beside

__all__ = ["MODEL_DOCS", "MODEL_OPTIONS", "model_options"]

MODEL_OPTIONS: dict[str, Any] = {
    "coordinates": str | None,
    "climatology": str | None,
    "variable_names": tuple[str, ...] | None,
    "variable_units": tuple[str, ...] | None,
    "time_units": str | None,
    "length_units": str | None,
}
"""Keys beside state_shape and dt, and what each may be."""
MODEL_DOCS = """state_shape: of one member, [40] or [2,64,64].
    dt: model time of one step.
    coordinates: where the components are, for localisation: ring or line (one apart), or the NAME of a
        masf_jax Coordinates in the same file.
    climatology: NAME of a function in the same file, key -> state, that draws a state near the attractor.
    variable_names: along the state's first axis, or one of all components, for results and figures.
    variable_units: along the state's first axis: [m,m/s]; of results and figures, as the next two.
    time_units: of dt: s, hours, days.
    length_units: of the coordinates: km."""


def model_options(
    given: str,
    state_shape: tuple[int, ...],
    coordinates: str | None = None,
    climatology: str | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Arguments of `dynamics.Function`.

    Args:
        given: FILE.py:NAME of the function.
        about: variable_names and units, which are handed on.

    Raises:
        InputError: names of something else, or a climatology of states of another shape.
    """
    draw = None if climatology is None else beside(given, climatology).found
    if draw is not None:
        _check_climatology(f"dynamics.climatology={climatology}", draw, state_shape)
    places = None if coordinates is None else _places(given, coordinates, state_shape)
    return {"coordinates": places, "climatology": draw, **about}


def _places(given: str, name: str, state_shape: tuple[int, ...]) -> Coordinates:
    if name in ("ring", "line"):
        if len(state_shape) != 1:
            raise InputError(
                f"dynamics.coordinates={name} is of states of shape [n]; these have {list(state_shape)}: "
                "name a masf_jax.coordinates.Coordinates of the file (Coordinates.grid(…))."
            )
        return Coordinates(np.arange(state_shape[0]), (float(state_shape[0]) if name == "ring" else 0.0,))
    found = beside(given, name).found
    if not isinstance(found, Coordinates):
        raise InputError(
            f"dynamics.coordinates={name} must be ring, line, or the name of a masf_jax.coordinates."
            f"Coordinates in the file; it is a {type(found).__name__}."
        )
    return found


def _check_climatology(key: str, draw: Any, state_shape: tuple[int, ...]) -> None:
    if not callable(draw):
        raise InputError(f"{key} must be a function of a random key; it is a {type(draw).__name__}.")
    shape = getattr(jax.eval_shape(draw, jax.random.key(0)), "shape", None)
    if shape != tuple(state_shape):
        raise InputError(f"{key} must return a state of shape {tuple(state_shape)}; it returns {shape}.")
