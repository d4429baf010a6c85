"""Measurements by name: an operator, a noise law, and where the network moves a mask per cycle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from ... import measurements as m
from ..errors import InputError
from .registry import Registry

__all__ = ["MEASUREMENTS", "Network", "NoiseSettings"]

MEASUREMENTS = Registry("measurement")


class Network(NamedTuple):
    """What is measured: H and its noise; `mask(n_cycles)` where the network changes with time."""

    measurement: m.Measurement
    mask: Callable[[int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class NoiseSettings:
    """Keys of `measurement.noise`. `std` is the standard deviation whatever the law."""

    law: Literal["gaussian", "laplace", "student_t"] = "gaussian"
    std: float | None = 1.0
    scale: float | None = None
    df: float = 5.0


_UNIT = NoiseSettings()


def _law(noise: NoiseSettings) -> m.Noise:
    """The noise law: by its scale where given, else by its standard deviation."""
    if noise.std is None and noise.scale is None:
        raise InputError("measurement.noise needs std (standard deviation) or scale; both are null.")
    factor = 1.0
    if noise.law == "laplace":
        factor = math.sqrt(2.0)
    elif noise.law == "student_t" and noise.df > 2:  # StudentT itself refuses a smaller df
        factor = math.sqrt(noise.df / (noise.df - 2.0))
    scale = noise.scale if noise.scale is not None else (noise.std or 0.0) / factor
    if noise.law == "gaussian":
        return m.Gaussian(scale)
    return m.Laplace(scale) if noise.law == "laplace" else m.StudentT(noise.df, scale)


def _network(operator: m.Operator, noise: NoiseSettings) -> Network:
    return Network(m.Measurement(operator, _law(noise)))


def _every(shape: tuple[int, ...], stride: int, start: int) -> m.Operator:
    if stride == 1 and start == 0:
        return m.Identity()
    mask = m.grid_stride(shape, stride, start)
    if not mask.any():
        raise ValueError(f"no component is measured: start {start} lies outside the grid {shape}.")
    return m.Subset.from_mask(mask)


@MEASUREMENTS.register
def identity(shape: tuple[int, ...], *, noise: NoiseSettings = _UNIT) -> Network:
    """Every component."""
    return _network(m.Identity(), noise)


@MEASUREMENTS.register
def grid_mask(
    shape: tuple[int, ...], *, stride: int = 2, start: int = 0, noise: NoiseSettings = _UNIT
) -> Network:
    """Every stride-th point of each grid direction."""
    return _network(_every(shape, stride, start), noise)


@MEASUREMENTS.register
def subset(shape: tuple[int, ...], *, indices: tuple[int, ...], noise: NoiseSettings = _UNIT) -> Network:
    """The listed components."""
    size = math.prod(shape)
    if any(index >= size for index in indices):
        raise ValueError(f"index {max(indices)} is outside a state of {size} components (0 … {size - 1}).")
    return _network(m.Subset(indices), noise)


@MEASUREMENTS.register
def center_hole(shape: tuple[int, ...], *, fraction: float = 0.5, noise: NoiseSettings = _UNIT) -> Network:
    """Everything but a centred box."""
    return _network(m.Subset.from_mask(m.center_hole(shape, fraction)), noise)


@MEASUREMENTS.register
def random_mask(
    shape: tuple[int, ...], *, fraction: float = 0.5, seed: int = 0, noise: NoiseSettings = _UNIT
) -> Network:
    """A fixed random set of components."""
    return _network(m.Subset.from_mask(m.random_points(shape, fraction, seed)), noise)


@MEASUREMENTS.register
def moving(
    shape: tuple[int, ...], *, width: int = 10, shift: int = 1, noise: NoiseSettings = _UNIT
) -> Network:
    """A window that moves on each cycle."""
    m.moving_window(shape, width, shift, 1)  # refuses a bad width now

    def mask(n_cycles: int) -> np.ndarray:
        return m.moving_window(shape, width, shift, n_cycles)

    return Network(m.Measurement(m.Identity(), _law(noise)), mask)


@MEASUREMENTS.register
def blur(shape: tuple[int, ...], *, width: float = 2.0, noise: NoiseSettings = _UNIT) -> Network:
    """A Gaussian blur of the whole state."""
    return _network(m.Blur.gaussian(shape, width), noise)


@MEASUREMENTS.register
def low_pass(shape: tuple[int, ...], *, cutoff: float = 8.0, noise: NoiseSettings = _UNIT) -> Network:
    """The state without its short waves."""
    return _network(m.Blur.low_pass(shape, cutoff), noise)


@MEASUREMENTS.register
def coarsen(shape: tuple[int, ...], *, factor: int = 2, noise: NoiseSettings = _UNIT) -> Network:
    """Block averages."""
    return _network(m.Coarsen(factor, shape), noise)


def _pointwise(function: Callable[[float], m.Pointwise], summary: str) -> None:
    """Registers an elementwise operator on every stride-th component."""

    def builder(
        shape: tuple[int, ...],
        *,
        scale: float = 1.0,
        stride: int = 1,
        start: int = 0,
        noise: NoiseSettings = _UNIT,
    ) -> Network:
        picked = _every(shape, stride, start)
        operator = function(scale) if isinstance(picked, m.Identity) else function(scale) @ picked
        return _network(operator, noise)

    builder.__name__, builder.__doc__ = function.__name__, summary
    MEASUREMENTS.register(builder)


_pointwise(m.arctan, "arctan(scale · x).")
_pointwise(m.sigmoid, "1 / (1 + exp(-scale · x)).")
_pointwise(m.tanh, "tanh(scale · x).")
_pointwise(m.absolute, "|scale · x|.")
_pointwise(m.square, "(scale · x)².")


@MEASUREMENTS.register
def speed(
    shape: tuple[int, ...],
    *,
    squared: bool = False,
    offset: float = 0.0,
    sigmoid: bool = False,
    noise: NoiseSettings = _UNIT,
) -> Network:
    """Flow speed of a velocity state (channels, *grid), or a sigmoid of it."""
    if len(shape) < 2:
        raise ValueError(f"speed needs a velocity state (channels, *grid); this state has shape {shape}.")
    operator = m.Speed(squared, offset)
    return _network(m.sigmoid() @ operator if sigmoid else operator, noise)
