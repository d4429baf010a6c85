"""A function of arrays as a filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from .._lazy import close_names
from ..callables import callable_name, kept, unwrapped
from ..dynamics.function import n_positional
from ..ensemble.inflation import Inflation
from ..numbers import number
from .base import EnsembleFilter, Filter, Info

__all__ = ["Function", "as_filter"]


class Function(EnsembleFilter):
    """An analysis written as `f(key, members, innovations) -> members`.

    members: (N, n) of the forecast, raveled; innovations: (N, m), row i is R^{-1/2}(z - H(x_i)), zero where a
    value is missing; the result: (N, n).

    Args:
        function: pure and traceable. The arrays of a network or of a functools.partial are leaves.
        inflation: see `Inflation`.
        parameters: numbers that the function takes by name; leaves.

    Raises:
        ValueError: arguments of another number.
    """

    _function: Any
    inflation: Inflation
    parameters: dict[str, Float[Array, "..."]]

    def __init__(
        self,
        function: Callable[..., Array],
        inflation: Inflation | None = None,
        parameters: Mapping[str, ArrayLike] | None = None,
    ):
        form = "f(key, members, innovations)"
        given = {} if parameters is None else parameters
        if n_positional(function, 3, form, given) != 3:
            raise ValueError(f"{callable_name(function)} must be {form}.")
        self._function, self.inflation = kept(function), Inflation() if inflation is None else inflation
        self.parameters = {name: number(name, value) for name, value in given.items()}

    @property
    def function(self) -> Callable[..., Array]:
        return unwrapped(self._function)

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        numbers = {name: value.astype(x.dtype) for name, value in self.parameters.items()}
        out = self.function(key, x, innovations, **numbers)
        if getattr(out, "shape", None) != x.shape:
            got = getattr(out, "shape", type(out).__name__)
            raise ValueError(f"the filter's function must return members of shape {x.shape}; got {got}.")
        return out, {}


def meant(name: str) -> str:
    """What to write in place of a filter's name."""
    from masf_jax import filters

    near = close_names(name, [each for each in dir(filters) if each[0].isupper()])
    return f"a filter is an object, filters.{near[0]}(…)" if near else "a filter is an object, filters.ETKF()"


def as_filter(given: Any) -> Filter:
    """A filter as it is, a function f(key, members, innovations) as a `Function`.

    Raises:
        ValueError: something else, with what to write instead.
    """
    if isinstance(given, Filter):
        return given
    if isinstance(given, type) or not callable(given):
        kind = (
            f"the class {given.__name__}: make one, {given.__name__}(…)"
            if isinstance(given, type)
            else (type(given).__name__)
        )
        near = f"{given!r}: {meant(given)}" if isinstance(given, str) else kind
        raise ValueError(
            f"filter must be one of masf_jax.filters, or a function f(key, members, innovations); got {near}."
        )
    function: Any = given
    return Function(function)
