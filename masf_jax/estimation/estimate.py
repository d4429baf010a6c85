"""Unknown numbers of a model, a sensor or a filter, found from what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import PRNGKeyArray
from numpy.typing import ArrayLike

from ..arrays import check_key, real_array
from ..dynamics.base import Dynamics
from ..dynamics.function import as_dynamics
from ..filters.base import Filter
from ..filters.function import as_filter
from ..measurements.measurement import Measurement
from ..measurements.rows import ObservationsLike, as_observations
from .engine import Engine, Estimate
from .state import AugmentedState
from .unknown import Prior, Problem, Unknown, Unknowns

__all__ = ["estimate"]


def estimate(
    key: PRNGKeyArray,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike,
    ensemble: ArrayLike | None = None,
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
    check_key(key)
    filter, shape = as_filter(filter), None
    if ensemble is not None:
        ensemble = real_array("ensemble", ensemble)
        shape = ensemble.shape[1:]
    problem = Problem(as_dynamics(dynamics, shape), measurement, filter)
    unknowns = Unknowns.of(problem, unknown)
    chosen = AugmentedState() if engine is None else engine
    if not isinstance(chosen, Engine):
        raise TypeError(f"engine must be an Engine, AugmentedState() say; got {type(chosen).__name__}.")
    return chosen(key, problem, unknowns, as_observations(observations), ensemble, **options)
