"""Several instruments at once: their operators one after the other, and their own noise laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..coordinates import Coordinates
from .base import Operator, Structure, output_shape, places
from .measurement import Measurement
from .noise import Noise

__all__ = ["Concatenate", "JointNoise", "join"]

Shapes = tuple[tuple[int, ...], ...]


def join(measurements: Sequence[Measurement], state_shape: tuple[int, ...]) -> Measurement:
    """One measurement of several instruments whose errors are independent of each other.

    z is a vector: the raveled values of the first instrument, then of the second, …

    Args:
        measurements: one per instrument.
        state_shape: shape of the state they all measure.

    Raises:
        ValueError: none, an operator that does not apply to such a state, noise that does not fit.
    """
    operator = Concatenate([measurement.operator for measurement in measurements], state_shape)
    for measurement in measurements:
        measurement.check_noise(tuple(state_shape))
    return Measurement(operator, JointNoise([m.noise for m in measurements], operator.shapes))


class Concatenate(Operator):
    """z = (ravel H_1(x), ravel H_2(x), …), a vector.

    Its structure is "mask" where all operators pick components (two may pick the same one), None where one is
    nonlinear, else "dense". Values sit where each operator says, and are localised there; if one does not
    say, localised filters refuse the whole. Circular values stay so.

    Args:
        operators: at least one.
        state_shape: shape of the states.
    """

    operators: tuple[Operator, ...]
    state_shape: tuple[int, ...] = eqx.field(static=True)
    shapes: Shapes = eqx.field(static=True)
    """Shape of each operator's values."""

    def __init__(self, operators: Sequence[Operator], state_shape: tuple[int, ...]):
        if not operators:
            raise ValueError("several instruments need at least one; got none.")
        self.operators, self.state_shape = tuple(operators), tuple(int(n) for n in state_shape)
        self.shapes = tuple(output_shape(operator, self.state_shape) for operator in operators)

    @property
    def structure(self) -> Structure:  # pyright: ignore[reportIncompatibleVariableOverride]
        kinds = {operator.structure for operator in self.operators}
        if None in kinds:
            return None
        return "mask" if kinds <= {"identity", "mask"} else "dense"

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, " m"]:
        if x.shape != self.state_shape:
            raise ValueError(
                f"these instruments were joined for states of shape {self.state_shape}; got {x.shape}."
            )
        return jnp.concatenate([operator(x).reshape(-1) for operator in self.operators])

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        positions = []
        for operator, shape in zip(self.operators, self.shapes, strict=True):
            place = places(operator, self.state_shape, state)
            if place is None:
                return None
            positions.append(np.tile(place.positions, (math.prod(shape) // place.n_points, 1)))
        return Coordinates(np.concatenate(positions), state.period)

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"] | None:
        each = [operator.sources(state_shape) for operator in self.operators]
        known = [sources for sources in each if sources is not None]
        return np.concatenate(known) if len(known) == len(each) else None

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        each = [operator.periods(state_shape, state) for operator in self.operators]
        if all(periods is None for periods in each):
            return None
        sizes = [math.prod(shape) for shape in self.shapes]
        xp: Any = jnp if any(isinstance(periods, Tracer) for periods in each) else np
        return xp.concatenate(
            [np.zeros(n) if periods is None else periods for n, periods in zip(sizes, each, strict=True)]
        )


class JointNoise(Noise):
    """Independent noise laws of several instruments, over their concatenated values.

    Args:
        parts: one law per instrument.
        shapes: shape of each instrument's values.
    """

    parts: tuple[Noise, ...]
    shapes: Shapes = eqx.field(static=True)

    def __init__(self, parts: Sequence[Noise], shapes: Sequence[tuple[int, ...]]):
        if len(parts) != len(shapes) or not parts:
            raise ValueError(f"there must be one shape per noise law; got {len(shapes)} for {len(parts)}.")
        self.parts, self.shapes = tuple(parts), tuple(tuple(int(n) for n in shape) for shape in shapes)

    def _split(self, values: Array) -> list[Array]:
        sizes = [math.prod(shape) for shape in self.shapes]
        if values.shape != (sum(sizes),):
            raise ValueError(
                f"these instruments measure {sum(sizes)} values in all; got shape {values.shape}."
            )
        pieces = jnp.split(values, np.cumsum(sizes)[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def _split_mask(self, mask: Array | None) -> list[Array] | list[None]:
        return [None] * len(self.parts) if mask is None else self._split(mask)

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*z"]:
        drawn = [
            part.sample(jax.random.fold_in(key, i), own).reshape(-1)
            for i, (part, own) in enumerate(zip(self.parts, self.shapes, strict=True))
        ]
        dtype = jnp.result_type(*drawn)
        return jnp.concatenate([values.astype(dtype) for values in drawn])

    def log_prob(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        pieces = zip(self.parts, self._split(residual), self._split_mask(mask), strict=True)
        return jnp.stack([part.log_prob(own, valid) for part, own, valid in pieces]).sum()

    def whiten(
        self, residual: Float[Array, "*z"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, "*z"]:
        pieces = zip(self.parts, self._split(residual), self._split_mask(mask), strict=True)
        return jnp.concatenate([part.whiten(own, valid).reshape(-1) for part, own, valid in pieces])

    @property
    def diagonal(self) -> bool:
        return all(part.diagonal for part in self.parts)

    @property
    def condition(self) -> Float[Array, ""]:
        return jnp.stack([jnp.asarray(part.condition, float) for part in self.parts]).max()

    @property
    def depends_on_value(self) -> bool:
        return any(part.depends_on_value for part in self.parts)

    def at(self, value: Float[Array, "*z"]) -> JointNoise:
        pairs = zip(self.parts, self._split(value), strict=True)
        return JointNoise([part.at(own) for part, own in pairs], self.shapes)

    def widened(self, like: Float[Array, "*z"], variance: Float[Array, "*z"]) -> JointNoise:
        pieces = zip(self.parts, self._split(like), self._split(variance), strict=True)
        return JointNoise([part.widened(own, added) for part, own, added in pieces], self.shapes)

    def standard_deviation(self, like: Float[Array, "*z"]) -> Float[Array, "*z"]:
        pairs = zip(self.parts, self._split(like), strict=True)
        return jnp.concatenate([part.standard_deviation(own).reshape(-1) for part, own in pairs])

    def log_scale(self, like: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, ""]:
        pieces = zip(self.parts, self._split(like), self._split(mask), strict=True)
        return jnp.stack([part.log_scale(own, valid) for part, own, valid in pieces]).sum()
