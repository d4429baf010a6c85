"""Names of a state's and of a measurement's dimensions, and where their points are."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..callables import callable_name
from ..dynamics.base import Dynamics
from ..dynamics.blackbox import BlackBox
from ..dynamics.function import Function
from ..measurements.base import places
from ..measurements.measurement import Measurement

__all__ = [
    "NOISE",
    "Axis",
    "axis_names",
    "measured_axes",
    "measured_components",
    "model_name",
    "noise_axis",
    "space",
    "space_axes",
    "state_units",
    "variable_labels",
    "variable_name",
]

NOISE = "observation_noise_std"
_PLAIN = ("step", "model", "forward", "dynamics")
_DEGREES = {
    name: {
        f"degree{s}{join}{side}" for s in ("", "s") for join, side in (("_", way), ("_", short), ("", short))
    }
    for name, way, short in (("longitude", "east", "E"), ("latitude", "north", "N"))
}
"""As CF spells units of longitude and latitude: degrees_east, degree_E, degreesE, …"""
_AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}


class Axis(NamedTuple):
    """A coordinate along one dimension."""

    name: str
    dim: str
    values: np.ndarray
    about: dict[str, str]


def space(dynamics: Dynamics) -> tuple[str, ...]:
    """The names of a state's dimensions.

    Those of its grid are x, (y, x) or (z, y, x), those before it channels; points that are no grid are
    `point`; the one dimension of a model without coordinates is `variable` where it has names, else
    `component`. Of more dimensions, the first of a model with names is `channel`.
    """
    shape, points, names = dynamics.state_shape, dynamics.coordinates, axis_names(dynamics)
    if points is None:
        if len(shape) == 1:
            return ("component" if names is None else "variable",)
        grid = _AXES.get(min(len(shape) - (names is not None), 2), ())
    elif _grid(dynamics) is not None:
        grid = _AXES[points.positions.shape[1]]
    else:
        grid = ("point",)
    n = len(shape) - len(grid)
    return (*(("channel",) if n == 1 else tuple(f"channel_{i}" for i in range(n))), *grid)


def space_axes(dynamics: Dynamics) -> list[Axis]:
    """Coordinates of the state: positions in the model's unit of length, and names of variables."""
    dims, points = space(dynamics), dynamics.coordinates
    shape = list(dynamics.state_shape)
    length = _length(dynamics)
    axes: list[Axis] = []
    axes_of_grid = _grid(dynamics)
    if axes_of_grid is not None:
        for name, values in axes_of_grid.items():
            axes.append(Axis(name, name, values, _position(name) | length))
    elif points is not None:
        for name, values in zip(_AXES[points.positions.shape[1]], points.positions.T, strict=True):
            axes.append(Axis(name, "point", values * dynamics.unit_length, _position(name) | length))
    elif axis_names(dynamics) is None or len(shape) > 1:
        last = dims[-1]
        about = _position(last) if last == "x" else {"long_name": "component of the state"}
        axes.append(Axis(last, last, np.arange(shape[-1], dtype=float), about))
    if dims[0] in ("variable", "channel"):
        names = axis_names(dynamics)
        labels = np.arange(shape[0]) if names is None else np.asarray(names)
        axes.append(Axis(dims[0], dims[0], labels, {"long_name": "component of the state"}))
        if dynamics.variable_units is not None:
            units = np.asarray(dynamics.variable_units)
            axes.append(Axis("variable_units", dims[0], units, {"long_name": "units of the component"}))
    return axes


def measured_axes(dynamics: Dynamics, measurement: Measurement) -> tuple[tuple[str, ...], list[Axis]]:
    """Names of the dimensions of what is measured, and where its values are, if that can be said.

    What has the state's shape has the state's dimensions. No variable has the name of a dimension, which
    xarray would take for a coordinate.
    """
    shape = measurement.output_shape(dynamics.state_shape)
    if shape == dynamics.state_shape:
        return space(dynamics), []
    dims = ("measured", *(f"measured_{i}" for i in range(1, len(shape))))
    points = dynamics.coordinates
    place = None if points is None else places(measurement.operator, dynamics.state_shape, points)
    if place is None or len(shape) != 1:
        return dims, []
    names = (f"observation_{name}" for name in _AXES[place.positions.shape[1]])
    about = {"long_name": "position of the observed value"} | _length(dynamics)
    about.pop("axis", None)
    return dims, [
        Axis(name, dims[0], positions * dynamics.unit_length, about)
        for name, positions in zip(names, place.wrapped().T, strict=True)
    ]


def measured_components(dynamics: Dynamics, measurement: Measurement) -> list[Axis]:
    """Which component of the raveled state each value is, of a list of components measured as they are."""
    shape = measurement.output_shape(dynamics.state_shape)
    exact = measurement.operator.structure in ("identity", "mask")
    if not exact or len(shape) != 1 or shape == dynamics.state_shape:
        return []
    sources = measurement.operator.sources(dynamics.state_shape)
    about = {"long_name": "component of the raveled state that is measured"}
    found = [] if sources is None else [np.asarray(sources, np.int64)]
    return [Axis("observation_component", "measured", values, about) for values in found]


def noise_axis(dynamics: Dynamics, measurement: Measurement) -> list[Axis]:
    """Standard deviation of each value's noise, of a list of values whose noise does not depend on them."""
    shape, noise = measurement.output_shape(dynamics.state_shape), measurement.noise
    if len(shape) != 1 or noise.depends_on_value:
        return []
    std = np.asarray(noise.standard_deviation(jnp.zeros(shape)))
    dims, _ = measured_axes(dynamics, measurement)
    return [Axis(NOISE, dims[0], std, {"long_name": "standard deviation of the value's noise"})]


def axis_names(dynamics: Dynamics) -> tuple[str, ...] | None:
    """Names of the entries of the state's first axis; None where that counts places of one variable."""
    names = dynamics.variable_names
    return names if names is not None and len(names) == (dynamics.state_shape or (1,))[0] else None


def variable_name(dynamics: Dynamics) -> str | None:
    """The name of the one variable that all components are of, where the model says it."""
    names = dynamics.variable_names
    return names[0] if names is not None and len(names) == 1 else None


def variable_labels(dynamics: Dynamics) -> list[str]:
    """Names along the state's first axis, or its numbers."""
    names = axis_names(dynamics)
    return list(map(str, range(dynamics.state_shape[0]) if names is None else names))


def model_name(dynamics: Dynamics) -> str:
    """What a model is called: its class, or the function that a `Function` or `BlackBox` is made of; of a
    function with a name that says nothing (step, model), with its module's."""
    while isinstance(inner := getattr(dynamics, "dynamics", None), Dynamics):
        dynamics = inner  # that another wraps
    function = dynamics.function if isinstance(dynamics, (Function, BlackBox)) else None
    name = "<" if function is None else callable_name(function)
    module = str(getattr(function, "__module__", "__main__")).rpartition(".")[2]
    if name in _PLAIN and module != "__main__":
        name = f"{module}.{name}"
    return type(dynamics).__name__ if name.startswith("<") else name


def state_units(dynamics: Dynamics) -> str | None:
    """The one unit of all variables; None where they have several, "1" where the model says none."""
    units = set(dynamics.variable_units or ("1",))
    return units.pop() if len(units) == 1 else None


def _length(dynamics: Dynamics) -> dict[str, str]:
    """Units of positions; along one line in degrees east or north they are longitudes or latitudes (CF)."""
    units, points = dynamics.length_units, dynamics.coordinates
    if units is None:
        return {}
    along = [name for name, known in _DEGREES.items() if units in known]
    if not along or points is None or points.positions.shape[1] != 1:
        return {"units": units}
    return {"units": units, "standard_name": along[0], "axis": "X" if along[0] == "longitude" else "Y"}


def _position(name: str) -> dict[str, str]:
    about = {"long_name": "position of the grid point"}
    return about | ({"axis": name.upper()} if name in "xyz" else {})


def _grid(dynamics: Dynamics) -> dict[str, np.ndarray] | None:
    """Positions along each direction where the points are a grid of the state's last dimensions."""
    points, shape = dynamics.coordinates, dynamics.state_shape
    if points is None or (d := points.positions.shape[1]) > min(3, len(shape)):
        return None
    grid = shape[len(shape) - d :]
    if math.prod(grid) != points.n_points:
        return None
    mesh = points.positions.reshape(*grid, d)
    axes = [np.moveaxis(mesh[..., i], i, 0).reshape(grid[i], -1)[:, 0] for i in range(d)]
    if not np.allclose(mesh, np.stack(np.meshgrid(*axes, indexing="ij"), -1), rtol=1e-12, atol=1e-12):
        return None
    return {name: axis * dynamics.unit_length for name, axis in zip(_AXES[d], axes, strict=True)}
