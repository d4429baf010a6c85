"""What a filter around another one leaves to it."""

from __future__ import annotations

import abc
from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout
from ..measurements.measurement import Measurement
from .base import EnsembleState, MemberFilter, State

__all__ = ["FilterAround"]


class FilterAround(MemberFilter):
    """An ensemble filter that changes the analysis of another, `inner`, and has its state.

    One whose memory holds more than that of `inner` has its own `init`, `forecast`, `take_memory`, `as_used`.
    """

    @property
    @abc.abstractmethod
    def inner(self) -> MemberFilter:
        """The filter within."""

    @property
    def uses_noise_of_each_state(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.uses_noise_of_each_state

    @property
    def localization_radius(self) -> Float[Array, ""] | None:
        return self.inner.localization_radius

    def forecast(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> EnsembleState:
        return self.inner.forecast(key, state, dynamics, step, n_steps, layout)

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        return self.inner.as_used(state, z, mask, measurement)

    def believed(self, state: State, measurement: Measurement) -> Measurement:
        return self.inner.believed(state, measurement)

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        return self.inner.take_memory(memory, index)
