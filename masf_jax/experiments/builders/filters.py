"""Filters by name."""

from __future__ import annotations

from typing import Literal

from ... import filters as f
from ...ensemble.inflation import Inflation
from .registry import Registry

__all__ = ["FILTERS"]

FILTERS = Registry("filter")


def _inflation(
    inflation: float | None,
    prior_inflation: float | None,
    rtps: float | None,
    rtpp: float | None,
    additive: float | None,
    adaptive: bool,
) -> Inflation:
    return Inflation(inflation, prior_inflation, rtps, rtpp, additive, adaptive)


@FILTERS.register
def enkf(
    *,
    inflation: float | None = None,
    prior_inflation: float | None = None,
    rtps: float | None = None,
    rtpp: float | None = None,
    additive: float | None = None,
    adaptive: bool = False,
) -> f.Filter:
    """Stochastic ensemble Kalman filter (Burgers et al. 1998)."""
    return f.EnKF(_inflation(inflation, prior_inflation, rtps, rtpp, additive, adaptive))


@FILTERS.register
def etkf(
    *,
    inflation: float | None = None,
    prior_inflation: float | None = None,
    rtps: float | None = None,
    rtpp: float | None = None,
    additive: float | None = None,
    adaptive: bool = False,
    rotation: bool = True,
) -> f.Filter:
    """Ensemble transform Kalman filter (Bishop et al. 2001)."""
    return f.ETKF(_inflation(inflation, prior_inflation, rtps, rtpp, additive, adaptive), rotation)


@FILTERS.register
def ensrf(
    *,
    inflation: float | None = None,
    prior_inflation: float | None = None,
    rtps: float | None = None,
    rtpp: float | None = None,
    additive: float | None = None,
    adaptive: bool = False,
    rotation: bool = False,
    radius: float = float("inf"),
) -> f.Filter:
    """Serial ensemble square-root filter (Whitaker & Hamill 2002)."""
    inflations = _inflation(inflation, prior_inflation, rtps, rtpp, additive, adaptive)
    return f.EnSRF(inflations, rotation, radius)


@FILTERS.register
def letkf(
    *,
    radius: float = 7.28,
    inflation: float | None = None,
    prior_inflation: float | None = None,
    rtps: float | None = None,
    rtpp: float | None = None,
    additive: float | None = None,
    adaptive: bool = False,
    rotation: bool = False,
    solver: Literal["cg", "eigh"] = "cg",
    batch_size: int | None = None,
) -> f.Filter:
    """Local ensemble transform Kalman filter (Hunt et al. 2007)."""
    inflations = _inflation(inflation, prior_inflation, rtps, rtpp, additive, adaptive)
    return f.LETKF(radius, inflations, rotation, solver, batch_size)


@FILTERS.register
def enkf_n(
    *,
    rotation: bool = True,
    certainty: float = 1.0,
    inflation: float | None = None,
    prior_inflation: float | None = None,
    rtps: float | None = None,
    rtpp: float | None = None,
    additive: float | None = None,
) -> f.Filter:
    """Finite-size ensemble Kalman filter (Bocquet et al. 2015)."""
    inflations = _inflation(inflation, prior_inflation, rtps, rtpp, additive, False)
    return f.EnKFN(inflations, rotation, certainty)


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
