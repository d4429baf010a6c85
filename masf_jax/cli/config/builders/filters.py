"""Filters by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from .... import filters as f
from ....ensemble.inflation import Inflation
from .amortised import masf_amortised
from .masf import masf, masf_gaussian, masf_kernel, masf_paper
from .registry import Registry
from .rivals import conditional_diffusion, enff, ensf, ensf_lr, iensf, score_filter, ssls

__all__ = ["FILTERS"]

FILTERS = Registry("filter")


def _inflation(
    *,
    inflation: float | None = None,
    prior_inflation: float | None = None,
    rtps: float | None = None,
    rtpp: float | None = None,
    additive: float | None = None,
    adaptive: bool = False,
) -> Inflation:
    return Inflation(inflation, prior_inflation, rtps, rtpp, additive, adaptive)


def _register_inflated(builder: Callable[..., f.Filter], left_out: tuple[str, ...] = ()) -> None:
    """Registers a builder whose first argument is an `Inflation`, made from keys all such filters share."""
    inflation_keys = inspect.signature(_inflation).parameters.values()
    shared = [parameter for parameter in inflation_keys if parameter.name not in left_out]
    own = [
        p for p in inspect.signature(builder, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]

    def build(**arguments: Any) -> f.Filter:
        chosen = {p.name: arguments.pop(p.name) for p in shared if p.name in arguments}
        return builder(_inflation(**chosen), **arguments)

    build.__name__, build.__doc__ = builder.__name__, builder.__doc__
    build.__annotations__ = {p.name: p.annotation for p in [*shared, *own]}
    build.__signature__ = inspect.Signature([*shared, *own])  # pyright: ignore[reportFunctionMemberAccess]
    FILTERS.register(build)


def enkf(inflation: Inflation) -> f.Filter:
    """Stochastic ensemble Kalman filter (Burgers et al. 1998)."""
    return f.EnKF(inflation)


def etkf(inflation: Inflation, *, rotation: bool = True) -> f.Filter:
    """Ensemble transform Kalman filter (Bishop et al. 2001)."""
    return f.ETKF(inflation, rotation)


def ensrf(inflation: Inflation, *, rotation: bool = False, radius: float = float("inf")) -> f.Filter:
    """Serial ensemble square-root filter (Whitaker & Hamill 2002)."""
    return f.EnSRF(inflation, rotation, radius)


def letkf(
    inflation: Inflation,
    *,
    radius: float = 7.28,
    rotation: bool = False,
    solver: Literal["cg", "eigh"] = "cg",
    batch_size: int | None = None,
) -> f.Filter:
    """Local ensemble transform Kalman filter (Hunt et al. 2007)."""
    return f.LETKF(radius, inflation, rotation, solver, batch_size)


def enkf_n(inflation: Inflation, *, rotation: bool = True, certainty: float = 1.0) -> f.Filter:
    """Finite-size ensemble Kalman filter (Bocquet et al. 2015)."""
    return f.EnKFN(inflation, rotation, certainty)


def ienkf(
    inflation: Inflation, *, rotation: bool = True, iterations: int = 10, tolerance: float = 1e-5
) -> f.Filter:
    """Iterative ensemble Kalman filter: IEnKS with lag 1 (Sakov et al. 2012)."""
    return f.IEnKF(inflation, rotation, iterations, tolerance)


for _builder in (enkf, etkf, ensrf, letkf, masf, masf_gaussian, masf_kernel, masf_paper, masf_amortised):
    _register_inflated(_builder)
for _builder in (ensf, ensf_lr, iensf, enff, conditional_diffusion, score_filter, ssls):
    _register_inflated(_builder)
_register_inflated(enkf_n, left_out=("adaptive",))  # it infers its inflation itself
_register_inflated(ienkf, left_out=("adaptive", "prior_inflation"))  # it forecasts again and again


@FILTERS.register
def particle(*, threshold: float = 0.5, regularization: float = 1.0) -> f.Filter:
    """Bootstrap particle filter, regularised (Gordon et al. 1993)."""
    return f.ParticleFilter(threshold, regularization)


@FILTERS.register
def climatology(*, seed: int = 1) -> f.Filter:
    """The model's climatological mean and covariance."""
    return f.Climatology(seed=seed)


@FILTERS.register
def optimal_interpolation(*, seed: int = 1) -> f.Filter:
    """Analysis with the climatological covariance and mean."""
    return f.OptimalInterpolation(seed=seed)


@FILTERS.register
def three_d_var(*, scale: float = 0.02, iterations: int = 1, seed: int = 1) -> f.Filter:
    """3D-Var with a static covariance."""
    return f.ThreeDVar(scale, iterations, seed=seed)


@FILTERS.register
def kalman(*, inflation: float = 1.0) -> f.Filter:
    """Exact (extended) Kalman filter."""
    return f.KalmanFilter(inflation=inflation)
