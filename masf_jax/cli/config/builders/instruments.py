"""Builders of instruments: vorticity, averages, sensors with limits, tracking, several at once."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from .... import measurements as m
from ...errors import InputError
from .noise import UNIT_NOISE, Network, NoiseSettings, network, noise_law
from .registry import Registry

__all__ = ["every", "register_instruments"]

Points = tuple[tuple[float, ...], ...]


def every(shape: tuple[int, ...], stride: int, start: int) -> m.Operator:
    """Every stride-th point of each grid direction, from `start` on."""
    if stride == 1 and start == 0:
        return m.Identity()
    mask = m.grid_stride(shape, stride, start)
    if not mask.any():
        raise ValueError(f"no component is measured: start {start} lies outside the grid {shape}.")
    return m.Subset.from_mask(mask)


def register_instruments(registry: Registry) -> None:
    """Adds the builders of this file, and `several`, whose parts are any of the registry's."""
    for builder in (vorticity, line_average, area_average, log, quantised, censored, range_bearing):
        registry.register(builder)

    def several(shape: tuple[int, ...], *, parts: tuple[dict, ...]) -> Network:
        """Several instruments at once, each a measurement section of its own."""
        each = [_part(registry, i, part, shape) for i, part in enumerate(parts)]
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

    registry.register(several)


def _part(registry: Registry, i: int, part: dict[str, Any], shape: tuple[int, ...]) -> Network:
    try:
        return registry.build(registry.check(part), shape)
    except InputError as error:
        raise InputError(f"measurement.parts[{i}]: {error}") from error


def vorticity(
    shape: tuple[int, ...],
    *,
    length: float | tuple[float, ...] = 2 * math.pi,
    stride: int = 1,
    start: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """Vorticity of a velocity state (2, ny, nx) at every stride-th point of each grid direction."""
    sides = length if isinstance(length, tuple) else (length, length)
    if len(sides) != 2:
        raise ValueError(f"length must be one number, or the two sides [Ly, Lx]; got {list(sides)}.")
    operator = m.Vorticity((sides[0], sides[1]))
    picked = every(m.Measurement(operator, m.Gaussian(1.0)).output_shape(shape), stride, start)
    return network(operator if isinstance(picked, m.Identity) else picked @ operator, noise)


def line_average(
    shape: tuple[int, ...],
    *,
    starts: Points,
    ends: Points,
    channel: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """Means along straight segments between grid positions."""
    return network(m.LineAverage(shape, _array("starts", starts), _array("ends", ends), channel), noise)


def area_average(
    shape: tuple[int, ...],
    *,
    centres: Points,
    width: float | None = None,
    radius: float | None = None,
    channel: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """Means over boxes of the given width, or discs of the given radius."""
    points = _array("centres", centres)
    if width is not None and radius is None:
        return network(m.AreaAverage.boxes(shape, points, width, channel), noise)
    if radius is not None and width is None:
        return network(m.AreaAverage.discs(shape, points, radius, channel), noise)
    raise ValueError(f"give a width (boxes) or a radius (discs), one of the two; got {width} and {radius}.")


def _array(name: str, points: Points) -> np.ndarray:
    if len({len(point) for point in points}) != 1:
        raise ValueError(f"{name} must hold positions of equally many numbers, e.g. [[0,1],[2,3]].")
    return np.asarray(points)


def log(
    shape: tuple[int, ...],
    *,
    scale: float = 1.0,
    floor: float = 1e-6,
    stride: int = 1,
    start: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """log(scale · x) of a positive quantity."""
    return network(m.Log(scale, floor) @ every(shape, stride, start), noise)


def quantised(
    shape: tuple[int, ...],
    *,
    step: float = 1.0,
    stride: int = 1,
    start: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """x rounded to multiples of step."""
    return network(m.Quantised(step) @ every(shape, stride, start), noise)


def censored(
    shape: tuple[int, ...],
    *,
    lower: float | None = None,
    upper: float | None = None,
    stride: int = 1,
    start: int = 0,
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """x clipped at the limits of a saturating sensor."""
    return network(m.Censored(lower, upper) @ every(shape, stride, start), noise)


def range_bearing(
    shape: tuple[int, ...],
    *,
    sensors: Points = ((0.0, 0.0),),
    components: tuple[int, ...] = (0, 1),
    quantity: Literal["both", "range", "bearing"] = "both",
    noise: NoiseSettings = UNIT_NOISE,
    bearing_noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """Distances (with noise) and directions (with bearing_noise) of a tracked point from sensors."""
    if len(components) != 2:
        raise ValueError(f"components must be two indices, of x and y of the point; got {list(components)}.")
    operator = m.RangeBearing(_array("sensors", sensors), (components[0], components[1]), quantity)
    if quantity != "both":
        return network(operator, noise if quantity == "range" else bearing_noise)
    laws = m.JointNoise([noise_law(noise), noise_law(bearing_noise)], [(len(sensors),)] * 2)
    return Network(m.Measurement(operator, laws))
