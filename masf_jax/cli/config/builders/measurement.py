"""Measurements by name: an operator, a noise law, and where the network moves a mask per cycle.

A constructor's or function's `shape` is the state's, its `coordinates` are the model's; its other parameters
are keys.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np

from .... import measurements as m
from ....coordinates import Coordinates
from ....measurements.base import Elementwise
from ..values import naming
from .noise import UNIT_NOISE, Network, NoiseSettings, network, noise_law
from .own import own_measurement
from .registry import Entry, Group

__all__ = ["MEASUREMENTS", "Network", "NoiseSettings"]

Points = tuple[tuple[float, ...], ...]


def _measured(made: m.Operator, noise: NoiseSettings = UNIT_NOISE) -> Network:
    return network(made, noise)


def _strided(
    made: m.Operator,
    shape: tuple[int, ...],
    stride: int = 1,
    start: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """Of every stride-th value only.

    Args:
        stride: of the points of each grid direction that are measured.
        start: the first of them.
    """
    pointwise = isinstance(made, Elementwise)
    full = shape if pointwise else m.Measurement(made, m.Gaussian(1.0)).output_shape(shape)
    picked = grid_mask(full, stride, start)
    if isinstance(picked, m.Identity):
        return network(made, noise)
    return network(made @ picked if pointwise else picked @ made, noise)


def _of_velocity(
    made: m.Speed, shape: tuple[int, ...], sigmoid: bool = False, noise: NoiseSettings = UNIT_NOISE
) -> Network:
    """Of a velocity state (channels, *grid).

    Args:
        sigmoid: pass the result through 1 / (1 + exp(-·)): a sensor that saturates.
    """
    if len(shape) < 2:
        raise ValueError(f"speed needs a velocity state (channels, *grid); this state has shape {shape}.")
    return network(m.sigmoid() @ made if sigmoid else made, noise)


def grid_mask(shape: tuple[int, ...], stride: int = 2, start: int = 0) -> m.Operator:
    """Every stride-th point of each grid direction, from `start` on."""
    if stride == 1 and start == 0:
        return m.Identity()
    mask = m.grid_stride(shape, stride, start)
    if not mask.any():
        raise ValueError(f"no component is measured: start {start} lies outside the grid {shape}.")
    return m.Subset.from_mask(mask)


def subset(shape: tuple[int, ...], indices: tuple[int, ...]) -> m.Operator:
    """The listed components."""
    size = math.prod(shape)
    if any(index >= size for index in indices):
        raise ValueError(f"index {max(indices)} is outside a state of {size} components (0 … {size - 1}).")
    return m.Subset(indices)


def center_hole(shape: tuple[int, ...], fraction: float = 0.5) -> m.Operator:
    """Everything but a centred box.

    Args:
        fraction: of each side, that the box has.
    """
    return m.Subset.from_mask(m.center_hole(shape, fraction))


def random_mask(shape: tuple[int, ...], fraction: float = 0.5, seed: int = 0) -> m.Operator:
    """A fixed random set of components."""
    return m.Subset.from_mask(m.random_points(shape, fraction, seed))


def moving(
    shape: tuple[int, ...], width: int = 10, shift: int = 1, noise: NoiseSettings = UNIT_NOISE
) -> Network:
    """A window that moves on each cycle.

    Args:
        width: in grid points.
        shift: grid points a cycle.
    """
    m.moving_window(shape, width, shift, 1)  # refuses a bad width now
    mask = functools.partial(m.moving_window, shape, width, shift)
    return Network(m.Measurement(m.Identity(), noise_law(noise)), mask)


def line_average(shape: tuple[int, ...], starts: Points, ends: Points, channel: int = 0) -> m.Operator:
    """Means along straight segments between grid positions.

    Args:
        starts, ends: positions in grid spacings, a number per grid axis: [[y, x], …] on a plane.
        channel: of a state (channels, ny, nx).
    """
    return m.LineAverage(shape, _array("starts", starts), _array("ends", ends), channel)


def stations(
    shape: tuple[int, ...], coordinates: Coordinates | None, positions: Points, channel: int = 0
) -> m.Operator:
    """The state at points between those of the grid.

    Args:
        positions: in the units of the model's coordinates, a number per grid axis: [[y, x], …] on a plane.
        channel: of a state (channels, ny, nx).
    """
    if coordinates is None:
        raise ValueError(
            "the model says no coordinates of its grid: give them (dynamics.Function(…, coordinates=…)), or "
            "take line_average, whose positions are in grid spacings."
        )
    return m.Stations(shape, _array("positions", positions), coordinates, channel)


def area_average(
    shape: tuple[int, ...],
    centres: Points,
    width: float | None = None,
    radius: float | None = None,
    channel: int = 0,
) -> m.Operator:
    """Means over boxes or discs.

    Args:
        centres: positions in grid spacings, a number per grid axis: [[y, x], …] on a plane.
        width: side of the boxes in grid spacings.
        radius: of discs instead, with width null.
        channel: of a state (channels, ny, nx).
    """
    points = _array("centres", centres)
    if width is not None and radius is None:
        return m.AreaAverage.boxes(shape, points, width, channel)
    if radius is not None and width is None:
        return m.AreaAverage.discs(shape, points, radius, channel)
    raise ValueError(f"give a width (boxes) or a radius (discs), one of the two; got {width} and {radius}.")


def _array(name: str, points: Points) -> np.ndarray:
    if len({len(point) for point in points}) != 1:
        raise ValueError(f"{name} must hold positions of equally many numbers, e.g. [[0,1],[2,3]].")
    return np.asarray(points)


def range_bearing(
    sensors: Points = ((0.0, 0.0),),
    components: tuple[int, ...] = (0, 1),
    quantity: Literal["both", "range", "bearing"] = "both",
    noise: NoiseSettings = UNIT_NOISE,
    bearing_noise: NoiseSettings = NoiseSettings(std=0.1),
) -> Network:
    """Distances (with noise) and directions (with bearing_noise, in radians) of a tracked point from sensors.

    Args:
        sensors: their positions [x, y].
        components: which components of the state are x and y of the point.
        quantity: both, or one of them.
    """
    if len(components) != 2:
        raise ValueError(f"components must be two indices, of x and y of the point; got {list(components)}.")
    operator = m.RangeBearing(_array("sensors", sensors), (components[0], components[1]), quantity)
    if quantity != "both":
        return network(operator, noise if quantity == "range" else bearing_noise)
    laws = m.JointNoise([noise_law(noise), noise_law(bearing_noise)], [(len(sensors),)] * 2)
    return Network(m.Measurement(operator, laws))


def several(shape: tuple[int, ...], coordinates: Coordinates | None, parts: tuple[dict, ...]) -> Network:
    """Several instruments at once.

    Args:
        parts: each a measurement section with its own noise.
    """
    each = [_part(i, part, shape, coordinates) for i, part in enumerate(parts)]
    joined = m.join([instrument.measurement for instrument in each], shape)
    if all(instrument.mask is None for instrument in each):
        return Network(joined)

    def mask(n_cycles: int) -> np.ndarray:
        pieces = []
        for instrument in each:
            own = (n_cycles, *instrument.measurement.output_shape(shape))
            piece = np.ones(own, bool) if instrument.mask is None else instrument.mask(n_cycles)
            pieces.append(piece.reshape(n_cycles, -1))
        return np.concatenate(pieces, axis=1)

    return Network(joined, mask)


def _part(i: int, part: dict[str, Any], shape: tuple[int, ...], coordinates: Coordinates | None) -> Network:
    with naming(f"measurement.parts[{i}]"):
        return MEASUREMENTS.build(MEASUREMENTS.check(part), shape, coordinates)


def _whole(made: Network) -> Network:
    return made


_H = "masf_jax.measurements"
_STRIDED = ("arctan", "sigmoid", "tanh", "absolute", "square", "Log", "Quantised", "Censored", "Vorticity")

MEASUREMENTS = Group(
    "measurement",
    {
        "identity": f"{_H}:Identity",
        "grid_mask": grid_mask,
        "subset": subset,
        "center_hole": center_hole,
        "random_mask": random_mask,
        "moving": Entry(moving, finish=(_whole,)),
        "blur": f"{_H}:Blur.gaussian",
        "low_pass": f"{_H}:Blur.low_pass",
        "coarsen": f"{_H}:Coarsen",
        "speed": Entry(f"{_H}:Speed", finish=(_of_velocity,)),
        "line_average": line_average,
        "stations": stations,
        "area_average": area_average,
        "range_bearing": Entry(range_bearing, finish=(_whole,)),
        "several": Entry(several, finish=(_whole,)),
        **{name.lower(): Entry(f"{_H}:{name}", finish=(_strided,)) for name in _STRIDED},
    },
    context=("shape", "coordinates"),
    finish=_measured,
    own=own_measurement,
)
