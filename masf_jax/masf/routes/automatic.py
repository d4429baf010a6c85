"""The route by the operator's structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ...diffusion.samplers import Sampler
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ..climate import Climate
from ..priors.base import Prior
from .base import Inputs, Route
from .linear import Linear
from .linearized import Linearized

__all__ = ["Automatic"]


class Automatic(Route):
    """`Linear` for a linear operator, `nonlinear` for another.

    Args:
        nonlinear: `Linearized()` by default.
    """

    name: ClassVar[str] = "auto"
    nonlinear: Route = eqx.field(default_factory=Linearized)

    def __check_init__(self) -> None:
        if not isinstance(self.nonlinear, Route):
            raise TypeError(f"nonlinear must be a Route; got {self.nonlinear!r}.")
        if self.nonlinear.uses_noise_of_each_state:
            name = type(self.nonlinear).__name__
            raise ValueError(
                f"{name} takes linear operators too: give it as the route itself, route={name}()."
            )

    def of(self, measurement: Measurement) -> Route:
        return self.nonlinear if measurement.operator.structure is None else Linear()

    def sampler(self) -> Sampler:
        return self.nonlinear.sampler()

    def prepare(
        self,
        prior: Prior,
        dynamics: Dynamics,
        measurement: Measurement,
        climate: Callable[[], Climate] | None = None,
    ) -> tuple[Route, Prior]:
        route, prior = self.of(measurement).prepare(prior, dynamics, measurement, climate)
        if measurement.operator.structure is None:
            return dataclasses.replace(self, nonlinear=route), prior
        return self, prior

    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        return self.of(inputs.measurement).draw(keys, inputs, memory)
