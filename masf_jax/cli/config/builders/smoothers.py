"""Smoothers by name: each is run over the observations of the filter's run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .registry import Group

if TYPE_CHECKING:
    from ....smoothers import FourDVar

__all__ = ["SMOOTHERS", "Smoothed", "Smoother"]


class Smoothed(NamedTuple):
    """Arrays and scores by name, an entry a cycle."""

    arrays: dict[str, Any]
    scores: dict[str, Any]


Smoother: TypeAlias = Callable[..., Smoothed]
"""(key, filter, dynamics, measurement, observations, ensemble, truth=, save=, scores=, policy=)."""


def none() -> None:
    """No smoother."""


def enks(lag: int | None = None) -> Smoother:
    """The ensemble Kalman smoother.

    Args:
        lag: cycles of later observations that a state sees; None: all.
    """

    def run(*problem: Any, **options: Any) -> Smoothed:
        from ....smoothers import enks

        return _of(enks(*problem, lag=lag, **options))

    return run


def ienks(lag: int | None = None) -> Smoother:
    """The iterative ensemble Kalman smoother.

    Args:
        lag: cycles of later observations that a state sees, at least 1; None: all.
    """

    def run(*problem: Any, **options: Any) -> Smoothed:
        from ....smoothers import ienks

        return _of(ienks(*problem, lag=lag, **options))

    return run


def rts() -> Smoother:
    """The Rauch-Tung-Striebel smoother."""

    def run(key: Any, *problem: Any, **options: Any) -> Smoothed:
        from ....smoothers import rts

        return _of(rts(*problem, **options))

    return run


def four_d_var(
    std: float | None = None, iterations: int = 100, tolerance: float = 1e-3, stages: int = 1
) -> Smoother:
    """Strong-constraint 4D-Var.

    Args:
        std: of the background's error; None: the first ensemble's.
        iterations: at most so many.
        tolerance: ends when the gradient is below this.
        stages: searches of windows that grow to all cycles.
    """
    return _variational("FourDVar", std, iterations=iterations, tolerance=tolerance, stages=stages)


def weak_four_d_var(
    q: float | None = None,
    std: float | None = None,
    iterations: int = 30,
    tolerance: float = 1e-3,
    stages: int = 1,
) -> Smoother:
    """Weak-constraint 4D-Var.

    Args:
        q: variance of the model's error in a step; None: the model's own.
        std: of the background's error; None: the first ensemble's.
        iterations: Gauss-Newton steps, at most so many.
        tolerance: ends when the gradient is below this.
        stages: searches of windows that grow to all cycles.
    """
    return _variational("WeakFourDVar", std, q=q, iterations=iterations, tolerance=tolerance, stages=stages)


SMOOTHERS = Group(
    "smoother",
    {
        "none": none,
        "enks": enks,
        "ienks": ienks,
        "rts": rts,
        "four_d_var": four_d_var,
        "weak_four_d_var": weak_four_d_var,
    },
)


def _of(run: Any) -> Smoothed:
    return Smoothed(run.smoothed, run.smoothed_scores)


def _variational(kind: str, std: float | None, **keys: Any) -> Smoother:
    """From the mean of the first ensemble; its standard deviations are the background's where std is None."""
    from .... import smoothers

    make: Callable[..., FourDVar] = functools.partial(getattr(smoothers, kind), **keys)
    make(std=1.0 if std is None else std)  # refuses keys before the run

    def run(
        key: Any,
        filter: Any,
        dynamics: Any,
        measurement: Any,
        observations: Any,
        ensemble: Any,
        *,
        truth: Any,
        save: tuple[str, ...],
        scores: tuple[str, ...],
        **options: Any,
    ) -> Smoothed:
        background = ensemble.mean(0)
        deviations = ensemble.std(0, ddof=1) if std is None else std
        found = make(std=deviations)(background, dynamics, measurement, observations).smoothing(truth)
        states, errors = found.smoothed, found.smoothed_scores
        return Smoothed(states if "mean" in save else {}, errors if "rmse" in scores else {})

    return run
