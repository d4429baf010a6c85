"""The smoother of a run, over the same observations as the filter."""

from __future__ import annotations

import warnings

import equinox as eqx

from ...filters.faults import FaultPolicy, FaultWarning
from ...quality_control import GrossErrorCheck
from ...twin import Simulation
from ..config.builders.smoothers import SMOOTHERS, Smoothed
from ..config.settings import Settings
from ..errors import InputError
from .problem import Problem

__all__ = ["check_smoother", "smooth"]

_CHECKED = ("enks", "ienks", "rts")
"""Smoothers that leave out what quality control rejects."""


def check_smoother(settings: Settings, problem: Problem) -> None:
    """Raises InputError, before the run, for what a smoother refuses or does not go with."""
    name = settings.smoother["name"]
    if name == "none":
        return
    if isinstance(problem.observations, Simulation):
        raise InputError(
            f"smoother={name} holds all observations at once, and this run is too long for it: take fewer "
            "cycles, or smoother=none."
        )
    if settings.quality_control.threshold is not None and name not in _CHECKED:
        raise InputError(f"smoother={name} has no quality control: take quality_control.threshold=null.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eqx.filter_eval_shape(lambda: _run(settings, problem))  # traced, not run: what it refuses


def smooth(settings: Settings, problem: Problem) -> tuple[Smoothed, list[str]]:
    """What the smoother finds, nothing without one; and its warnings."""
    if settings.smoother["name"] == "none":
        return Smoothed({}, {}), []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FaultWarning)  # the filter's run says so
        found = _run(settings, problem)
    return found, [
        str(each.message) for each in said if issubclass(each.category, UserWarning | RuntimeWarning)
    ]


def _run(settings: Settings, problem: Problem) -> Smoothed:
    run, threshold = SMOOTHERS.build(settings.smoother), settings.quality_control.threshold
    check = {} if threshold is None else {"quality_control": GrossErrorCheck(threshold)}
    try:
        return run(
            problem.key,
            problem.filter,
            problem.dynamics,
            problem.measurement,
            problem.observations,
            problem.ensemble,
            truth=problem.truth,
            save=settings.save,
            scores=settings.scores,
            policy=FaultPolicy(settings.faults.action, settings.faults.innovation),
            **check,
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"smoother={settings.smoother['name']}: {error}") from error
