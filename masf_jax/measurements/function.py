"""A function of one state as a measurement operator, and what its derivatives say of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..callables import callable_name, kept, unwrapped
from ..coordinates import Coordinates
from ..dynamics.function import check_traceable, n_positional
from ..numbers import number
from .base import Operator, Structure, output_shape
from .dependence import SEVERAL, read_sources

__all__ = ["Function", "as_operator"]

_POINTS = 8
"""States at which derivatives are looked at."""
_SIZE = 2**22
"""Values of a state up to which they are."""


class Function(Operator):
    """z = h(x), h a JAX function of one state.

    Which component each value depends on, if on one alone, is found from derivatives at 8 random states and
    from the function's program, which knows of dependences that they do not show (a threshold far away); so
    are the places of the values, where the model has coordinates. `positions` says otherwise.

    Args:
        function: pure and traceable; x (*state_shape,) -> z. The arrays of a network or of a
            functools.partial are leaves.
        positions: (m, d) or (m,) positions of the measured values, for localisation only.
        linear: whether h(x) = A x + b: filters may then use it so; checked at the first use.
        periods: what circular values are known up to: 360 of angles in degrees, 0 of a number; one for all,
            or (m,).
        parameters: numbers that the function takes by name; leaves, which may be estimated.

    Raises:
        ValueError: arguments of another number; a period below 0.
    """

    _function: Any
    positions: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)
    linear: bool = eqx.field(static=True)
    _periods: tuple[float, ...] | None = eqx.field(static=True)
    parameters: dict[str, Float[Array, "..."]]

    def __init__(
        self,
        function: Callable[..., Array],
        positions: ArrayLike | None = None,
        linear: bool = False,
        parameters: Mapping[str, ArrayLike] | None = None,
        periods: ArrayLike | None = None,
    ):
        given = {} if parameters is None else parameters
        n_positional(function, 1, "h(x)", given)
        self._function, self.linear = kept(function), linear
        self.parameters = {name: number(name, value) for name, value in given.items()}
        self._periods = None
        if periods is not None:
            found = np.atleast_1d(np.asarray(periods, dtype=np.float64))
            if found.ndim != 1 or not (np.isfinite(found) & (found >= 0)).all():
                raise ValueError(f"periods must be numbers from 0 up, one or (m,); got {periods}.")
            self._periods = tuple(found.tolist())
        self.positions = None
        if positions is not None:
            points = np.asarray(positions, dtype=np.float64)
            points = points[:, None] if points.ndim == 1 else points
            if points.ndim != 2:
                raise ValueError(f"positions must be an array (m, dimensions); got shape {points.shape}.")
            self.positions = tuple(map(tuple, points.tolist()))

    @property
    def function(self) -> Callable[..., Array]:
        return unwrapped(self._function)

    @property
    def structure(self) -> Structure:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What `linear` says: derivatives at some states cannot."""
        return "dense" if self.linear else None

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*z"]:
        numbers = {name: value.astype(x.dtype) for name, value in self.parameters.items()}
        name = callable_name(self.function)
        instead = "compute what is measured in the model, as part of its state."
        z = check_traceable(name, lambda: self.function(x, **numbers), instead)
        if not hasattr(z, "shape") or not jnp.issubdtype(z.dtype, jnp.floating):
            got = str(z.dtype) if hasattr(z, "dtype") else type(z).__name__
            if isinstance(z, Operator):
                got += f", which is an operator itself: give {name}()"
            raise ValueError(f"{name} must return one array of real numbers, what is measured; got {got}.")
        return jnp.atleast_1d(z)

    def coordinates(self, state: Coordinates) -> Coordinates | None:
        if self.positions is not None:
            return Coordinates(np.asarray(self.positions), state.period)
        return None  # `places` finds them where the sources are known

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        """As given.

        Raises:
            ValueError: another number of them than of values.
        """
        if self._periods is None:
            return None
        m = math.prod(output_shape(self, state_shape))
        if len(self._periods) not in (1, m):
            raise ValueError(
                f"{callable_name(self.function)} measures {m} values, and {len(self._periods)} periods are "
                "given: give one for all, or one for each (0 of a number)."
            )
        return np.broadcast_to(np.asarray(self._periods), (m,))

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"] | None:
        if math.prod(state_shape) > _SIZE or any(isinstance(x, Tracer) for x in jax.tree.leaves(self)):
            return None
        numbers = tuple((name, float(value)) for name, value in self.parameters.items() if value.ndim == 0)
        try:
            found, affine = _looked_at(self.function, numbers, tuple(state_shape))
        except (TypeError, ValueError, IndexError):  # not of such a state: `output_shape` tells
            return None
        if self.linear and not affine:
            name = callable_name(self.function)
            raise ValueError(f"{name} was declared linear, but its derivatives differ from state to state.")
        return found


@functools.lru_cache(maxsize=32)
def _looked_at(
    function: Callable[..., Array], numbers: tuple[tuple[str, float], ...], state_shape: tuple[int, ...]
) -> tuple[np.ndarray | None, bool]:
    """The one component that each value depends on (None: on several), and whether derivatives are constant.

    Of a value that depends on component s alone with slope a, J 1 = a, J (1, 2, …, n) = a (s + 1), and
    J r = a r_s for random r. Where a derivative is not finite (√x at x < 0), the state is another one: of its
    absolute values, smaller, or larger.
    """
    n, random = math.prod(state_shape), np.random.default_rng(0)
    ones, index = np.ones(n), np.arange(1.0, n + 1)
    probes = [p.reshape(state_shape) for p in (ones, index // 1024, index % 1024, random.standard_normal(n))]
    found, slopes = [], []
    with jax.ensure_compile_time_eval():
        kind = jnp.result_type(float)
        for _ in range(_POINTS):
            x = random.standard_normal(state_shape)
            for state in (x, np.abs(x), 0.1 * x, 10 + np.abs(x)):  # a root, a logarithm, an arcsine
                linearized: Any = jax.linearize(
                    lambda x: jnp.ravel(function(x, **dict(numbers))), jnp.asarray(state, kind)
                )[1]
                a, high, low, r = (np.asarray(linearized(jnp.asarray(p, kind)), float) for p in probes)
                if np.isfinite(r).all():
                    break
            with np.errstate(divide="ignore", invalid="ignore"):
                s = 1024 * np.round(high / a) + np.round(low / a) - 1
            s = np.where(np.isfinite(s) & (s >= 0) & (s < n), s, 0).astype(int)
            expected = a * probes[3].reshape(-1)[s]
            close = np.abs(r - expected) <= 1e-4 * np.abs(expected) + 1e-6 * np.abs(a)  # in each value's unit
            fits = np.isfinite(r) & (a != 0) & close
            found.append(s if fits.all() else None)
            slopes.append(r)
    same = found[0] is not None and all(s is not None and np.array_equal(s, found[0]) for s in found)
    if same:
        read = read_sources(lambda x: function(x, **dict(numbers)), state_shape, kind)
        same = not ((read == SEVERAL) | ((read >= 0) & (read != found[0]))).any()
    if not np.isfinite(slopes).all():
        return (found[0] if same else None), False
    affine = bool((np.ptp(slopes, axis=0) <= 1e-3 * np.abs(slopes).max(0)).all())
    return (found[0] if same else None), affine


def as_operator(given: Any) -> Operator:
    """An operator as it is, a function of one state as a `Function`.

    Raises:
        ValueError: something else, with what to write instead.
    """
    if isinstance(given, Operator):
        return given
    if isinstance(given, type):
        raise ValueError(
            f"an operator was expected; got the class {given.__name__}: make one, {given.__name__}(…)."
        )
    if isinstance(given, np.ndarray | list | tuple) or (isinstance(given, jax.Array) and given.ndim):
        raise ValueError("an operator was expected; got an array: a matrix A is measurements.Linear(A).")
    if not callable(given):
        raise ValueError(
            f"an operator was expected: one of masf_jax.measurements, or a function h(x) of one state; got "
            f"{type(given).__name__}."
        )
    function: Any = given
    return Function(function)
