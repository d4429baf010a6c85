"""Models by name."""

from __future__ import annotations

import numpy as np

from .... import dynamics as models
from .own import own_dynamics
from .registry import Group

__all__ = ["DYNAMICS"]


def _with_error(made: models.Dynamics, model_error: float = 0.0) -> models.Dynamics:
    """The model, random.

    Args:
        model_error: std of additive noise per √time.
    """
    return models.ModelError(made, model_error) if model_error != 0 else made


def linear(
    n: int = 10,
    factor: float = 0.9,
    matrix: tuple[tuple[float, ...], ...] | None = None,
    dt: float = 1.0,
    initial_mean: float = 0.0,
    initial_std: float = 1.0,
) -> models.Dynamics:
    """x ← A x.

    Args:
        n, factor: A = factor · I of this size, where there is no matrix.
        matrix: A itself, a list of rows.
        dt: model time of one step.
        initial_mean, initial_std: the Gaussian that starts are drawn from.
    """
    array = factor * np.eye(n) if matrix is None else np.asarray(matrix)
    return models.Linear(array, dt, initial_mean, initial_std)


def local_level(
    n: int = 1, dt: float = 1.0, initial_mean: float = 0.0, initial_std: float = 1.0
) -> models.Dynamics:
    """A random walk: the level keeps its value but for the model error.

    Args:
        n: components.
        dt: model time of one step.
        initial_mean, initial_std: the Gaussian that starts are drawn from.
    """
    return models.Linear(np.eye(n), dt, initial_mean, initial_std)


DYNAMICS = Group(
    "dynamics",
    {
        "lorenz63": "masf_jax.dynamics:Lorenz63",
        "lorenz96": "masf_jax.dynamics:Lorenz96",
        "kuramoto_sivashinsky": "masf_jax.dynamics:KuramotoSivashinsky",
        "kolmogorov": "masf_jax.dynamics:Kolmogorov",
        "linear": linear,
        "local_level": local_level,
    },
    finish=_with_error,
    own=own_dynamics,
)
