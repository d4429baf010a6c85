"""Noise laws by name, and what every measurement builder returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from .... import measurements as m
from ...errors import InputError

__all__ = ["UNIT_NOISE", "Network", "NoiseSettings", "network", "noise_law"]


class Network(NamedTuple):
    """What is measured: H and its noise; `mask(n_cycles)` where the network changes with time."""

    measurement: m.Measurement
    mask: Callable[[int], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class NoiseSettings:
    """Keys of `measurement.noise`.

    Args:
        law: of the noise.
        std: standard deviation, whatever the law, or a list with one for each value; of the multiplicative
            law that where H(x) = 0.
        scale: the law's own scale, in place of std.
        df: degrees of freedom, of student_t only.
        fraction: relative standard deviation, of the multiplicative law only.
    """

    law: Literal["gaussian", "laplace", "student_t", "multiplicative"] = "gaussian"
    std: float | tuple[float, ...] | None = 1.0
    scale: float | None = None
    df: float = 5.0
    fraction: float | None = None


UNIT_NOISE = NoiseSettings()


def noise_law(noise: NoiseSettings) -> m.Noise:
    """The noise law: by its scale where given, else by its standard deviation."""
    if noise.std is None and noise.scale is None:
        raise InputError("measurement.noise needs std (standard deviation) or scale; both are null.")
    if (noise.fraction is None) == (noise.law == "multiplicative"):
        raise InputError(
            "measurement.noise.fraction goes with measurement.noise.law=multiplicative, which needs it; got "
            f"fraction {noise.fraction} and law {noise.law}."
        )
    factor = 1.0
    if noise.law == "laplace":
        factor = math.sqrt(2.0)
    elif noise.law == "student_t" and noise.df > 2:  # StudentT itself refuses a smaller df
        factor = math.sqrt(noise.df / (noise.df - 2.0))
    scale = noise.scale if noise.scale is not None else np.asarray(noise.std) / factor
    if noise.fraction is not None:
        return m.Multiplicative(noise.fraction, scale)
    if noise.law == "gaussian":
        return m.Gaussian(scale)
    return m.Laplace(scale) if noise.law == "laplace" else m.StudentT(noise.df, scale)


def network(operator: m.Operator, noise: NoiseSettings) -> Network:
    """A network that does not change with time."""
    return Network(m.Measurement(operator, noise_law(noise)))
