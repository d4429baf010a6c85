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
    """An ensemble filter that changes the analysis of another, `inner`.

    Its state is that of `inner`; one whose memory holds more has its own `init`, `completed`, `within`,
    `around`, `take_memory`.
    """

    @property
    @abc.abstractmethod
    def inner(self) -> MemberFilter:
        """The filter within."""

    def within(self, state: EnsembleState) -> EnsembleState:
        """The state of `inner`."""
        return state

    def around(self, state: EnsembleState, within: EnsembleState) -> EnsembleState:
        """`state` with what `inner` made of its own."""
        return within

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
        after = self.inner.forecast(key, self.within(state), dynamics, step, n_steps, layout)
        return self.around(state, after)

    def as_used(
        self, state: State, z: Float[Array, "*z"], mask: Bool[Array, "*z"], measurement: Measurement
    ) -> State:
        assert isinstance(state, EnsembleState)
        used = self.inner.as_used(self.within(state), z, mask, measurement)
        assert isinstance(used, EnsembleState)
        return self.around(state, used)

    def completed(self, state: State) -> State:
        """Also a state of `inner`'s own, with what this filter remembers before its first cycle."""
        return self.inner.completed(state)

    def believed(self, state: State, measurement: Measurement) -> Measurement:
        return self.inner.believed(state, measurement)

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        return self.inner.take_memory(memory, index)
