"""What an estimate is, and the contract of what finds one."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ..driver import Assimilation
from ..measurements.measurement import Observations
from ..printed import estimate_text
from .unknown import Problem, Unknowns

__all__ = ["Engine", "Estimate"]


class Estimate(eqx.Module):
    """What was found, by name of the unknown.

    mean, std: the estimate and its standard deviation, in the unknown's own units.
    course_mean, course_std: the same along the way, entries along axis 0: after each cycle (augmented state),
        or each step of an optimisation (which knows no std).
    log_likelihood: of each cycle where `likelihood` is given (augmented state), or of all after each step.
    problem: model, measurement and filter with the estimate in its place.
    u, covariance: in coordinates whose prior is N(0, I); see `Unknowns`.
    run: the run over all cycles that it comes from, of the augmented state; None of an optimisation.
    """

    mean: dict[str, Array]
    std: dict[str, Array]
    course_mean: dict[str, Array]
    course_std: dict[str, Array] | None
    log_likelihood: Array | None
    problem: Problem
    u: Float[Array, " p"]
    covariance: Float[Array, "p p"]
    run: Assimilation | None = None

    def __repr__(self) -> str:
        return estimate_text(self)


class Engine(eqx.Module):
    """A way to find unknowns: one method."""

    @abc.abstractmethod
    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        unknowns: Unknowns,
        observations: Observations,
        ensemble: Float[Array, "N *state"] | None,
        **options: Any,
    ) -> Estimate:
        """The estimate from all cycles of `observations`, the members being at step 0.

        `options`: of `assimilate`.
        """
