"""Measurements by name: an operator, a noise law, and where the network moves a mask per cycle."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .... import measurements as m
from .instruments import every, register_instruments
from .noise import UNIT_NOISE, Network, NoiseSettings, network, noise_law
from .registry import Registry

__all__ = ["MEASUREMENTS", "Network", "NoiseSettings"]

MEASUREMENTS = Registry("measurement")
register_instruments(MEASUREMENTS)


@MEASUREMENTS.register
def identity(shape: tuple[int, ...], *, noise: NoiseSettings = UNIT_NOISE) -> Network:
    """Every component."""
    return network(m.Identity(), noise)


@MEASUREMENTS.register
def grid_mask(
    shape: tuple[int, ...], *, stride: int = 2, start: int = 0, noise: NoiseSettings = UNIT_NOISE
) -> Network:
    """Every stride-th point of each grid direction."""
    return network(every(shape, stride, start), noise)


@MEASUREMENTS.register
def subset(shape: tuple[int, ...], *, indices: tuple[int, ...], noise: NoiseSettings = UNIT_NOISE) -> Network:
    """The listed components."""
    size = math.prod(shape)
    if any(index >= size for index in indices):
        raise ValueError(f"index {max(indices)} is outside a state of {size} components (0 … {size - 1}).")
    return network(m.Subset(indices), noise)


@MEASUREMENTS.register
def center_hole(
    shape: tuple[int, ...], *, fraction: float = 0.5, noise: NoiseSettings = UNIT_NOISE
) -> Network:
    """Everything but a centred box."""
    return network(m.Subset.from_mask(m.center_hole(shape, fraction)), noise)


@MEASUREMENTS.register
def random_mask(
    shape: tuple[int, ...], *, fraction: float = 0.5, seed: int = 0, noise: NoiseSettings = UNIT_NOISE
) -> Network:
    """A fixed random set of components."""
    return network(m.Subset.from_mask(m.random_points(shape, fraction, seed)), noise)


@MEASUREMENTS.register
def moving(
    shape: tuple[int, ...], *, width: int = 10, shift: int = 1, noise: NoiseSettings = UNIT_NOISE
) -> Network:
    """A window that moves on each cycle."""
    m.moving_window(shape, width, shift, 1)  # refuses a bad width now

    def mask(n_cycles: int) -> np.ndarray:
        return m.moving_window(shape, width, shift, n_cycles)

    return Network(m.Measurement(m.Identity(), noise_law(noise)), mask)


@MEASUREMENTS.register
def blur(shape: tuple[int, ...], *, width: float = 2.0, noise: NoiseSettings = UNIT_NOISE) -> Network:
    """A Gaussian blur of the whole state."""
    return network(m.Blur.gaussian(shape, width), noise)


@MEASUREMENTS.register
def low_pass(shape: tuple[int, ...], *, cutoff: float = 8.0, noise: NoiseSettings = UNIT_NOISE) -> Network:
    """The state without its short waves."""
    return network(m.Blur.low_pass(shape, cutoff), noise)


@MEASUREMENTS.register
def coarsen(shape: tuple[int, ...], *, factor: int = 2, noise: NoiseSettings = UNIT_NOISE) -> Network:
    """Block averages."""
    return network(m.Coarsen(factor, shape), noise)


def _pointwise(function: Callable[[float], m.Pointwise], summary: str) -> None:
    """Registers an elementwise operator on every stride-th component."""

    def builder(
        shape: tuple[int, ...],
        *,
        scale: float = 1.0,
        stride: int = 1,
        start: int = 0,
        noise: NoiseSettings = UNIT_NOISE,
    ) -> Network:
        picked = every(shape, stride, start)
        operator = function(scale) if isinstance(picked, m.Identity) else function(scale) @ picked
        return network(operator, noise)

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
    noise: NoiseSettings = UNIT_NOISE,
) -> Network:
    """Flow speed of a velocity state (channels, *grid), or a sigmoid of it."""
    if len(shape) < 2:
        raise ValueError(f"speed needs a velocity state (channels, *grid); this state has shape {shape}.")
    operator = m.Speed(squared, offset)
    return network(m.sigmoid() @ operator if sigmoid else operator, noise)
