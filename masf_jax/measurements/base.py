"""The contract of a measurement operator: one state in, one measured array out."""

from __future__ import annotations

import abc
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from ..coordinates import Coordinates

__all__ = ["Compose", "Elementwise", "Operator", "output_shape", "places"]

Structure = Literal["identity", "mask", "fourier", "block", "dense"] | None
Coupling = Literal["component", "cell"] | None


class Operator(eqx.Module):
    """z = H(x) for ONE state; a pytree, so numbers in it may change without recompiling.

    `second @ first` composes: (second @ first)(x) = second(first(x)).
    """

    structure: ClassVar[Structure] = None
    """How H is linear: "identity", "mask" (picks components), "fourier" (HᵀH is diagonal in Fourier space),
    "block" (averages disjoint blocks), "dense" (a matrix), None (nonlinear)."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*z"]:
        """The noise-free measurement of x."""

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        """Where each measured value sits, given where the state's points are; None if unknown."""
        return None

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"] | None:
        """For each measured value (raveled), the one raveled state component it depends on.

        None where values mix components.
        """
        return None

    def coupling(self, state_shape: tuple[int, ...]) -> Coupling:
        """What each measured value depends on: one "component", the channels of one grid "cell" (of a state
        (channels, *grid), at most one value a cell), or more (None)."""
        return None if self.sources(state_shape) is None else "component"

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        """For each measured value (raveled), the period it is known up to: 2π of an angle, 0 of a number.

        None where no value is circular. `state` holds the periods of the raveled state's components.
        """
        return None

    def observed(self, state_shape: tuple[int, ...]) -> Bool[np.ndarray, "*state"] | None:
        """Which state components are measured one by one; None where that has no meaning."""
        sources = self.sources(state_shape)
        if sources is None:
            return None
        mask = np.zeros(math.prod(state_shape), bool)
        mask[sources] = True
        return mask.reshape(state_shape)

    def lift(self, z: Float[Array, "*z"], state_shape: tuple[int, ...]) -> Float[Array, "*state"]:
        """A measurement written as a state (zero where nothing is measured)."""
        raise NotImplementedError(f"{type(self).__name__} has no lift to state space.")

    def __matmul__(self, inner: Operator) -> Compose:
        return Compose(self, inner)


class Compose(Operator):
    """x ↦ outer(inner(x)); written `outer @ inner`."""

    outer: Operator
    inner: Operator

    @property
    def structure(self) -> Structure:  # pyright: ignore[reportIncompatibleVariableOverride]
        """An identity changes nothing, masks of masks are masks, other products are "dense"."""
        outer, inner = self.outer.structure, self.inner.structure
        if outer is None or inner is None:
            return None
        if inner == "identity":
            return outer
        if outer == "identity":
            return inner
        return "mask" if outer == inner == "mask" else "dense"

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*z"]:
        return self.outer(self.inner(x))

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        middle = self.inner.coordinates(state)
        return None if middle is None else self.outer.coordinates(middle)

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"] | None:
        first = self.inner.sources(state_shape)
        second = self.outer.sources(output_shape(self.inner, state_shape))
        return None if first is None or second is None else first[second]

    def coupling(self, state_shape: tuple[int, ...]) -> Coupling:
        if self.outer.sources(output_shape(self.inner, state_shape)) is not None:
            return self.inner.coupling(state_shape)
        return self.outer.coupling(state_shape) if self.inner.structure == "identity" else None

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        middle, shape = self.inner.periods(state_shape, state), output_shape(self.inner, state_shape)
        found = self.outer.periods(shape, middle)
        if found is None and middle is not None:
            _check_not_circular(self.outer, shape, middle)
        return found


def _check_not_circular(
    operator: Operator, state_shape: tuple[int, ...], periods: np.ndarray | Array
) -> None:
    """Raises ValueError where values of circular ones (degrees of an angle) are circular and do not say so:
    where turns of these, one to three of each, change a value by as much at all of four random states.
    Inside `jit` it cannot look at numbers of the operator that are traced."""
    if any(isinstance(x, Tracer) for x in (periods, *jax.tree.leaves(operator))):
        return
    random, turns = np.random.default_rng(0), np.asarray(periods)
    x = random.standard_normal((4, math.prod(state_shape)))

    def values(x: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.ravel(operator(jnp.asarray(each.reshape(state_shape), float))) for each in x]
        ).astype(float)

    with jax.ensure_compile_time_eval():
        before = values(x)

        def change(shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """By how much each value changes, and whether it does by as much everywhere, and at all."""
            found = values(x + shift) - before
            size = np.abs(found.mean(0))
            same = np.ptp(found, axis=0) < 1e-3 * size
            return size, same & (size > 1e-4 * np.abs(before).max(0))

        circular = change(random.integers(1, 4, turns.shape) * turns)[1]
        if not circular.any():
            return
        number = int(np.argmax(circular))
        each = (change(np.where(np.arange(len(turns)) == j, turns, 0.0)) for j in np.flatnonzero(turns))
        turn = next((size[number] for size, found in each if found[number]), np.nan)
    raise ValueError(
        f"value {number} of {type(operator).__name__} is circular: a turn of the angle that it is made of "
        f"changes it by {turn:g}. Say so, measurements.Function(f, periods={turn:g}) (an array for each "
        "value, 0 of a number), or use measurements.Linear."
    )


class Elementwise(Operator):
    """Operators that act on every component by itself: z has the state's shape and sits where it sits."""

    def coordinates(self, state: Coordinates) -> Coordinates:
        return state

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"]:
        return np.arange(math.prod(state_shape))


def places(operator: Operator, state_shape: tuple[int, ...], state: Coordinates) -> Coordinates | None:
    """Where each measured value sits: by the operator, or where the one component sits that it depends on."""
    found = operator.coordinates(state)
    sources = operator.sources(state_shape) if found is None else None
    return found if sources is None else state.at(sources)


def output_shape(operator: Operator, state_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of H(x) for a state of `state_shape`, with a readable error when they do not fit."""
    try:
        out = eqx.filter_eval_shape(operator, jax.ShapeDtypeStruct(state_shape, jnp.result_type(float)))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{type(operator).__name__} does not apply to a state of shape {state_shape}: {error}"
        ) from error
    return tuple(out.shape)
