"""Models by name."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .... import dynamics as models
from .registry import Registry

__all__ = ["DYNAMICS"]

DYNAMICS = Registry("dynamics")


def _with_error(model: models.Dynamics, std: float) -> models.Dynamics:
    return models.ModelError(model, std) if std != 0 else model


@DYNAMICS.register
def lorenz63(
    *,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8.0 / 3.0,
    dt: float = 0.01,
    model_error: float = 0.0,
) -> models.Dynamics:
    """Lorenz (1963), 3 variables."""
    return _with_error(models.Lorenz63(sigma, rho, beta, dt), model_error)


@DYNAMICS.register
def lorenz96(
    *, n: int = 40, forcing: float = 8.0, dt: float = 0.05, model_error: float = 0.0
) -> models.Dynamics:
    """Lorenz (1996), a ring of n variables."""
    return _with_error(models.Lorenz96(n, forcing, dt), model_error)


@DYNAMICS.register
def kuramoto_sivashinsky(
    *,
    n: int = 128,
    length: float = 32 * math.pi,
    dt: float = 0.5,
    dealias: bool = False,
    model_error: float = 0.0,
) -> models.Dynamics:
    """The Kuramoto-Sivashinsky equation on a periodic line."""
    return _with_error(models.KuramotoSivashinsky(n, length, dt, dealias), model_error)


@DYNAMICS.register
def kolmogorov(
    *,
    shape: tuple[int, ...] = (64, 64),
    reynolds: float = 1000.0,
    dt: float = 0.2,
    length: tuple[float, ...] = (2 * math.pi, 2 * math.pi),
    drag: float = 0.1,
    forcing: float = 1.0,
    forcing_waves: int = 4,
    stepper: Literal["etdrk4", "etdrk2", "cnab2", "rkcn"] = "etdrk4",
    dealias: Literal["two_thirds", "exponential"] = "two_thirds",
    max_speed: float = 5.0,
    n_inner: int | None = None,
    hyperviscosity: float = 0.0,
    hyperviscosity_order: int = 4,
    random_forcing: float = 0.0,
    random_waves: float = 4.0,
    initial_speed: float = 3.0,
    initial_waves: float = 4.0,
    model_error: float = 0.0,
) -> models.Dynamics:
    """Two-dimensional Kolmogorov flow, state (2, ny, nx): velocity."""
    for name, pair in (("shape", shape), ("length", length)):
        if len(pair) != 2:
            raise ValueError(f"{name} must be two numbers, of y and of x; got {list(pair)}.")
    model = models.Kolmogorov(
        (shape[0], shape[1]),
        reynolds,
        dt,
        length=(length[0], length[1]),
        drag=drag,
        forcing=forcing,
        forcing_waves=forcing_waves,
        stepper=stepper,
        dealias=dealias,
        max_speed=max_speed,
        n_inner=n_inner,
        hyperviscosity=hyperviscosity,
        hyperviscosity_order=hyperviscosity_order,
        random_forcing=random_forcing,
        random_waves=random_waves,
        initial_speed=initial_speed,
        initial_waves=initial_waves,
    )
    return _with_error(model, model_error)


@DYNAMICS.register
def linear(
    *,
    n: int = 10,
    factor: float = 0.9,
    matrix: tuple[tuple[float, ...], ...] | None = None,
    dt: float = 1.0,
    initial_mean: float = 0.0,
    initial_std: float = 1.0,
    model_error: float = 1.0,
) -> models.Dynamics:
    """x ← A x with A = matrix, or factor · I of size n where matrix is null."""
    array = factor * np.eye(n) if matrix is None else np.asarray(matrix)
    return _with_error(models.Linear(array, dt, initial_mean, initial_std), model_error)


@DYNAMICS.register
def local_level(
    *,
    n: int = 1,
    dt: float = 1.0,
    initial_mean: float = 0.0,
    initial_std: float = 1.0,
    model_error: float = 1.0,
) -> models.Dynamics:
    """A random walk: the level keeps its value but for the model error."""
    return _with_error(models.Linear(np.eye(n), dt, initial_mean, initial_std), model_error)
