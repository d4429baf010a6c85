"""A measurement: an operator and its noise; and the observations that come from it."""

from __future__ import annotations

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from ..arrays import booleans, real_array, step_numbers
from ..fill_values import likely_fill
from .base import Operator, output_shape
from .function import as_operator
from .noise import Noise, as_noise

__all__ = ["Measurement", "Observations"]


class Measurement(eqx.Module):
    """z = H(x) + ε.

    Args:
        operator: H, or a function h(x) of one state (`Function`).
        noise: the law of ε.

    Raises:
        ValueError: one of them is something else.
    """

    operator: Operator = eqx.field(converter=as_operator)
    noise: Noise = eqx.field(converter=as_noise)

    def sample(self, key: PRNGKeyArray, x: Float[Array, "*state"]) -> Float[Array, "*z"]:
        """A noisy measurement of x."""
        z = self.operator(x)
        return z + self.noise.at(z).sample(key, z.shape).astype(z.dtype)

    def innovation(self, z: Float[Array, "*z"], x: Float[Array, "*state"]) -> Float[Array, "*z"]:
        """z - H(x); of circular values (see `Operator.periods`) the residue in (-period/2, period/2]."""
        return self.difference(z, self.operator(x), x.shape)

    def difference(
        self, first: Float[Array, "*z"], second: Float[Array, "*z"], state_shape: tuple[int, ...]
    ) -> Float[Array, "*z"]:
        """first - second of two measurements of states of one shape, circular values around the circle."""
        difference = first - second
        period = self._periods(difference, state_shape)
        return difference if period is None else _residue(difference, period)

    def _periods(self, like: Float[Array, "*z"], state_shape: tuple[int, ...]) -> Float[Array, "*z"] | None:
        periods = self.operator.periods(state_shape)
        return None if periods is None else jnp.asarray(periods, like.dtype).reshape(like.shape)

    def middle(
        self,
        values: Float[Array, "N *z"],
        state_shape: tuple[int, ...],
        log_weights: Float[Array, " N"] | None = None,
    ) -> Float[Array, "*z"] | None:
        """The circular mean of each value over N states, arg Σ w exp(2πi z / period); None where no value is
        circular. Differences of these are taken around it. It is no function to be differentiated."""
        period = self._periods(values[0], state_shape)
        if period is None:
            return None
        turns = 2 * math.pi / jnp.where(period > 0, period, 1.0)
        angles = turns[None] * jax.lax.stop_gradient(values)
        weights = jnp.ones(len(values)) if log_weights is None else jnp.exp(log_weights - log_weights.max())
        weights = jax.lax.stop_gradient(weights).astype(values.dtype)
        sines, cosines = (jnp.tensordot(weights, each, 1) for each in (jnp.sin(angles), jnp.cos(angles)))
        return jnp.arctan2(sines, cosines) / turns

    def log_prob(
        self, z: Float[Array, "*z"], x: Float[Array, "*state"], mask: Bool[Array, "*z"] | None = None
    ) -> Float[Array, ""]:
        """log p(z | x) of the values that are True in `mask`."""
        return self._law(x).log_prob(self.innovation(z, x), mask)

    def whitened_innovation(
        self,
        z: Float[Array, "*z"],
        x: Float[Array, "*state"],
        mask: Bool[Array, "*z"] | None = None,
        middle: Float[Array, "*z"] | None = None,
    ) -> Float[Array, " m"]:
        """R^{-1/2}(z - H(x)), raveled; zero where `mask` is False.

        `middle`: of an ensemble that x belongs to. Circular values are then (z - middle) - (H(x) - middle),
        each the residue: differences of members do not depend on z.
        """
        value = self.operator(x)
        innovation = self.difference(z, value, x.shape)
        if middle is not None and (period := self._periods(value, x.shape)) is not None:
            around = _residue(z - middle, period) - _residue(value - middle, period)
            innovation = jnp.where(period > 0, around, innovation)
        return self._law(x).whiten(innovation, mask).reshape(-1)

    def _law(self, x: Float[Array, "*state"]) -> Noise:
        return self.noise.at(self.operator(x)) if self.noise.depends_on_value else self.noise

    def with_noise_at(self, value: Float[Array, "*z"]) -> Measurement:
        """The same measurement with one noise law, that of H(x) = `value`, for all states."""
        return Measurement(self.operator, self.noise.at(value))

    def output_shape(self, state_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of z for a state of `state_shape`."""
        return output_shape(self.operator, state_shape)

    def check_noise(self, state_shape: tuple[int, ...]) -> None:
        """Raises ValueError where the noise has another shape than the measurement of such a state, or values
        are circular and do not say so (`Operator.periods`)."""
        shape = self.output_shape(state_shape)
        self.operator.periods(state_shape)
        fault = None
        try:
            z = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
            mask = jax.ShapeDtypeStruct(shape, bool)
            found = eqx.filter_eval_shape(_whitened, self.noise, z, mask).shape
            if found != shape:
                fault = f"its parameters are those of {found}"
        except (TypeError, ValueError) as error:
            fault = str(error).split("\n")[0]
        if fault is not None:
            raise ValueError(
                f"{type(self.noise).__name__} noise does not fit a measurement of shape {shape}: {fault}"
            )


def _residue(difference: Float[Array, "*z"], period: Float[Array, "*z"]) -> Float[Array, "*z"]:
    """In (-period/2, period/2], of circular values; of others (period 0) the difference."""
    safe = jnp.where(period > 0, period, 1.0)
    return jnp.where(period > 0, difference - safe * jnp.ceil(difference / safe - 0.5), difference)


def _whitened(noise: Noise, z: Float[Array, "*z"], mask: Bool[Array, "*z"]) -> Float[Array, "*z"]:
    return noise.at(z).whiten(z, mask)


class Observations(eqx.Module):
    """Measured values of K cycles; gaps are False in the mask, times are model step numbers.

    Args:
        values: (K, *z), of NumPy, JAX, xarray or pandas; NaN, Inf and what is masked count as missing
            (a warning where nothing is left, or a usual fill value such as -999 is).
        steps: (K,) increasing step numbers ≥ 0 (model time = step · dt, the initial ensemble is at
            step 0), or an int n, the number of steps from row to row, for steps n, 2n, …, Kn.
        mask: (K, *z) or (K,) booleans, True where the value was measured; None: everywhere finite.
    """

    values: Float[Array, "K *z"]
    mask: Bool[Array, "K *z"]
    steps: Int[Array, " K"]
    interval: int | None = eqx.field(static=True)
    """Steps between observations when constant (compiled into a fixed-length scan), else None."""

    def __init__(self, values: ArrayLike, steps: int | ArrayLike, mask: ArrayLike | None = None):
        values = real_array("values", values, cycles_first=True)
        if values.ndim < 2 or values.shape[0] < 1:
            one = ": values[:, None] is one value a cycle, values[None] one cycle" if values.ndim == 1 else ""
            raise ValueError(
                f"values must have shape (cycles, *z), at least one cycle; got {values.shape}{one}."
            )
        n_cycles = values.shape[0]
        found = step_numbers(steps, n_cycles)
        if isinstance(found, int):
            self.interval = found
            self.steps = found * jnp.arange(1, n_cycles + 1, dtype=jnp.int32)
        else:
            self.interval, self.steps = None, jnp.asarray(found)
        finite = jnp.isfinite(values)
        if mask is not None:
            given = booleans("mask", mask)
            if given.shape not in (values.shape, values.shape[:1]):
                raise ValueError(f"mask must have shape {values.shape} or ({n_cycles},); got {given.shape}.")
            given = given.reshape(given.shape + (1,) * (values.ndim - given.ndim))
            finite = finite & jnp.broadcast_to(given, values.shape)
        self.mask = finite
        self.values = jnp.where(finite, values, 0.0)
        _warn_of_missing(values, finite)

    @property
    def n_cycles(self) -> int:
        return self.values.shape[0]


def _warn_of_missing(values: Array, mask: Array) -> None:
    """Where nothing was measured, or a value far beyond all others is one of the usual fill values."""
    if isinstance(values, Tracer) or isinstance(mask, Tracer) or not values.is_fully_addressable:
        return
    there = np.asarray(values)[np.asarray(mask)]
    if not there.size:
        warnings.warn(
            "no value was measured: all observations are NaN, Inf or masked, and a run is a forecast alone.",
            stacklevel=4,
        )
        return
    if (found := likely_fill(there)) is not None:
        fill, said = found
        warnings.warn(f"{said}give NaN in their place, or mask=values != {fill:g}.", stacklevel=4)
