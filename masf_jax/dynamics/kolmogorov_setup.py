"""What a Kolmogorov flow fixes at construction: scheme, filter, inner steps, NumPy arrays in wavenumbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..numbers import positive
from . import integrate, spectral

__all__ = [
    "FILTERS",
    "SCHEMES",
    "courant_limits",
    "force_spectrum",
    "inner_steps",
    "noise_spectrum",
    "nonlinear_weights",
]


class Scheme(NamedTuple):
    """Weights and step of a scheme, evaluations of N per step, largest stable h·k_max·(|u| + |v|).

    `stability` is what coarse grids bear, `linear` what a lasting velocity does.
    """

    coefficients: Callable[..., Any]
    step: Callable[..., Any]
    stages: int
    stability: float
    linear: float


SCHEMES = {
    "etdrk4": Scheme(integrate.etdrk4_coefficients, integrate.etdrk4_step, 4, 4.2, 2.83),
    "etdrk2": Scheme(integrate.etdrk2_coefficients, integrate.etdrk2_step, 2, 1.05, 1.05),
    "rkcn": Scheme(integrate.crank_nicolson_coefficients, integrate.rkcn_step, 5, 4.8, 3.35),
    "cnab2": Scheme(integrate.crank_nicolson_coefficients, integrate.cnab2_step, 1, 0.85, 0.85),
}
"""`stability` is measured at 64², Re = 1000 (docs/kolmogorov.md): on a coarse grid the fastest spot of a flow
moves on within few steps, before one over the linear limit does harm; on a fine grid it lasts for many.
`linear` is where the amplification along the imaginary axis passes 1. ETDRK2 and CNAB2 amplify there at
any step, which viscosity holds."""

_COARSE = 128
"""Up to this many points a side a grid counts as coarse; 512² blew up where 64² did not."""

FILTERS = {
    "two_thirds": (spectral.two_thirds_filter, 2 / 3),
    "exponential": (spectral.exponential_filter, 1.0),
}
"""Filters, and the largest wavenumber each lets through as a fraction of π / spacing."""


def nonlinear_weights(grid: spectral.SpectralGrid, retain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, ny, modes) each: of u and v from ω (times i), and of F[uv] and F[u² - v²] in dω/dt."""
    ky, kx = grid.derivative
    over_k2 = grid.inverse_k_squared * (retain > 0)
    velocity = np.stack([ky * over_k2, -kx * over_k2])
    return velocity, np.stack([(kx**2 - ky**2) * retain, -kx * ky * retain])


def force_spectrum(
    grid: spectral.SpectralGrid, retain: np.ndarray, forcing: float, waves: int | float
) -> np.ndarray:
    """-κA F[cos κy], κ = 2π·waves / Ly; (ny, modes), real."""
    (my, mx), (ny, nx) = grid.waves, grid.shape
    forced = (np.abs(my) == waves) & (mx == 0) & (retain > 0)
    if forced.sum() != 2:
        most = int(np.abs(my)[retain[:, 0] > 0].max())
        raise ValueError(
            f"forcing_waves must be a whole number of resolved waves across Ly, 1 to {most} with "
            f"{ny} points; got {waves}."
        )
    kappa = 2 * np.pi * waves / grid.length[0]
    return np.where(forced, -kappa * forcing * (ny * nx) / 2, 0.0)


def noise_spectrum(
    grid: spectral.SpectralGrid, retain: np.ndarray, energy: float, waves: float
) -> np.ndarray:
    """Factors (ny, modes) of the transform of white noise in ω that put in `energy` per unit area."""
    ring = np.abs(np.sqrt(grid.k_squared) * grid.length[0] / (2 * np.pi) - waves) <= 0.5
    ring = ring & (retain > 0) & (grid.k_squared > 0)
    if not ring.any():
        raise ValueError(f"random_waves must name resolved waves across Ly; got {waves}.")
    per_unit = (grid.multiplicity * ring * grid.inverse_k_squared).sum() / (2 * np.prod(grid.shape))
    return np.sqrt(energy / per_unit) * ring


def courant_limits(scheme: str, dealias: str, shape: tuple[int, int]) -> tuple[float, float]:
    """The largest safe Courant number, and the one that the default inner step has at the largest speed."""
    highest = np.pi * FILTERS[dealias][1]
    if max(shape) <= _COARSE:
        limit = SCHEMES[scheme].stability / highest
        return limit, 0.75 * limit
    limit = SCHEMES[scheme].linear / highest
    return limit, (0.9 if SCHEMES[scheme].linear < SCHEMES[scheme].stability else 0.75) * limit


def inner_steps(dt: float, spacing: tuple[float, float], max_speed: float, courant: float) -> int:
    """Steps per `dt` whose Courant number is `courant` at most at `max_speed`, 45° to the grid."""
    rate = float(positive("max_speed", max_speed)) * np.sqrt(sum(1 / step**2 for step in spacing))
    return int(np.ceil(dt * rate / courant - 1e-9))
