"""What a filter around another one leaves to it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout
from ..measurements.measurement import Measurement
from .base import EnsembleState, MemberFilter, State

__all__ = ["FilterAround"]


class FilterAround(MemberFilter):
    """An ensemble filter that changes the analysis of another, `filter`, and has its state.

    One whose memory holds more than that of `filter` has its own `init`, `take_memory`, `as_used`.
    """

    filter: eqx.AbstractVar[MemberFilter]

    @property
    def uses_noise_of_each_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.filter.uses_noise_of_each_state

    @property
    def localization_radius(self) -> Float[Array, ""] | None:
        return self.filter.localization_radius

    def forecast(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> EnsembleState:
        return self.filter.forecast(key, state, dynamics, step, n_steps, layout)

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        return self.filter.as_used(state, z, mask, measurement)

    def believed(self, state: State, measurement: Measurement) -> Measurement:
        return self.filter.believed(state, measurement)

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        return self.filter.take_memory(memory, index)
