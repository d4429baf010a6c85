"""Unknown numbers of a model, a sensor or a filter, found from what is measured."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ..driver import Assimilation
from ..dynamics.base import Dynamics
from ..filters.base import Filter
from ..measurements.measurement import Measurement, Observations
from .unknown import Prior, Problem, Unknown, Unknowns

__all__ = ["Engine", "Estimate", "estimate"]


class Estimate(eqx.Module):
    """What was found, by name of the unknown.

    mean, std: the estimate and its standard deviation, in the unknown's own units.
    course_mean, course_std: the same along the way, entries along axis 0: after each cycle (augmented state),
        or each step of an optimisation (which knows no std).
    log_likelihood: of each cycle (augmented state), or of all after each step.
    problem: model, measurement and filter with the estimate in its place.
    u, covariance: in coordinates whose prior is N(0, I); see `Unknowns`.
    run: the run over all cycles that it comes from, of the augmented state; None of an optimisation.
    """

    mean: dict[str, Array]
    std: dict[str, Array]
    course_mean: dict[str, Array]
    course_std: dict[str, Array] | None
    log_likelihood: Array
    problem: Problem
    u: Float[Array, " p"]
    covariance: Float[Array, "p p"]
    run: Assimilation | None = None


class Engine(eqx.Module):
    """A way to find unknowns: one method."""

    @abc.abstractmethod
    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        unknowns: Unknowns,
        observations: Observations,
        ensemble: Float[Array, "N *state"],
        **options: Any,
    ) -> Estimate:
        """The estimate from all cycles of `observations`, the members being at step 0.

        `options`: of `assimilate`.
        """


def estimate(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: Observations,
    ensemble: Shaped[Array, "N *state"],
    *,
    unknown: Mapping[str, Prior | Unknown],
    engine: Engine | None = None,
    **options: Any,
) -> Estimate:
    """Finds unknown numbers of a model, a measurement or a filter from the observations.

        estimate(key, ETKF(), Lorenz96(40), sensor, observations, members,
                 unknown={"dynamics.forcing": Normal(6, 2)})

    Args:
        unknown: by path, such as "dynamics.forcing", "measurement.noise.std", "filter.radius" (numbers that
            the objects have), the prior: `Normal`, `LogNormal` (positive), `LogitNormal` (in an
            interval). Or by any name an `Unknown`, which says how a value gets into the problem.
        engine: `AugmentedState()` (while assimilating, with the state), `Gradient()` (the likelihood's
            maximum), `EM()` (noise levels); None: `AugmentedState()`.
        options: of `assimilate`: truth, scores, save, layout, policy, …
        Others: see `assimilate`.

    Raises:
        ValueError: an unknown that is not there, is no number, or that the engine cannot find; what
            `assimilate` refuses.
    """
    from .state import AugmentedState

    problem = Problem(dynamics, measurement, filter)
    unknowns = Unknowns.of(problem, unknown)
    chosen = AugmentedState() if engine is None else engine
    if not isinstance(chosen, Engine):
        raise TypeError(f"engine must be an Engine, AugmentedState() say; got {type(chosen).__name__}.")
    return chosen(key, problem, unknowns, observations, ensemble, **options)
