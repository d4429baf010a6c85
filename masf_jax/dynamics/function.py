"""A JAX function as a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar
from numpy.typing import ArrayLike

from ..callables import callable_name, kept, unwrapped
from ..coordinates import Coordinates
from ..numbers import number, positive
from .base import Dynamics

__all__ = [
    "Function",
    "Units",
    "as_dynamics",
    "check_traceable",
    "n_positional",
    "names_of",
    "units_of",
    "with_parameters",
]

T = TypeVar("T")
M = TypeVar("M", bound="HasParameters")


class HasParameters(Protocol):
    """A model with numbers by name."""

    parameters: dict[str, Float[Array, "..."]]


class Units(NamedTuple):
    """Of a model: of each entry of the state's first axis, of dt, and of coordinates."""

    variables: tuple[str, ...] | None
    time: str | None
    length: str | None


class Function(Dynamics):
    """Any JAX function of one member and one step as a model: `f(x)`, `f(x, time)` or `f(x, time, key)`.

    Args:
        function: pure and traceable; x (*state_shape,), model time (a scalar), random key -> x one step on.
            The arrays of a network (an Equinox module, a bound Flax module) or of a functools.partial are
            leaves of the model: derivatives by them are `model.function`'s (docs/models.md).
        state_shape: shape of one member.
        dt: model time of one step.
        coordinates: needed for localisation only.
        climatology: `key -> state`, needed only by `sample_climatology`.
        random: whether `function` takes a key as its third argument; None: by its signature.
        parameters: numbers that the function takes by name (`f(x, time, *, forcing)`); leaves, which may
            change without a new compilation and be estimated.
        variable_names: of the entries of the state's first axis, or one name of all components
            ("temperature"), for results and figures.
        variable_units: of the state ("m"), or one for each entry of its first axis ("m", "m/s"); of results
            and figures, as `time_units` (of dt) and `length_units` (of the coordinates). Nothing is
            converted.

    Raises:
        ValueError: arguments of another number, a result that is no state, or a function that computes with
            NumPy: that is a `BlackBox`.
    """

    _function: Any
    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)
    _coordinates: Coordinates | None = eqx.field(static=True)
    _variable_names: tuple[str, ...] | None = eqx.field(static=True)
    _units: Units = eqx.field(static=True)
    _climatology: Any
    parameters: dict[str, Float[Array, "..."]]
    n_arguments: int = eqx.field(static=True)
    """How many of x, time and key the function takes."""

    def __init__(
        self,
        function: Callable[..., Array],
        state_shape: tuple[int, ...],
        dt: float = 1.0,
        coordinates: Coordinates | None = None,
        climatology: Callable[[PRNGKeyArray], Array] | None = None,
        random: bool | None = None,
        parameters: Mapping[str, ArrayLike] | None = None,
        variable_names: str | Sequence[str] | None = None,
        variable_units: str | Sequence[str] | None = None,
        time_units: str | None = None,
        length_units: str | None = None,
    ):
        self._function, self.state_shape, self.dt = kept(function), tuple(state_shape), positive("dt", dt)
        self._coordinates, self._climatology = coordinates, kept(climatology)
        self._variable_names = names_of(variable_names, self.state_shape)
        self._units = units_of(
            variable_units, time_units, length_units, self.state_shape, self._variable_names
        )
        given = {} if parameters is None else parameters
        self.parameters = {name: number(name, value) for name, value in given.items()}
        if random is None:
            self.n_arguments = n_positional(function, 3, "f(x), f(x, time) or f(x, time, key)", given)
        else:
            self.n_arguments = 3 if random else 2
        _check_step(self)

    @property
    def function(self) -> Callable[..., Array]:
        return unwrapped(self._function)

    @property
    def climatology(self) -> Callable[[PRNGKeyArray], Array] | None:
        return unwrapped(self._climatology)

    def __call__(
        self, x: Float[Array, "*state"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, "*state"]:
        return self.applied(x, time, key)

    def applied(self, x: Any, time: Any, key: Any) -> Any:
        """What the function returns, whatever that is."""
        numbers = {name: value.astype(x.dtype) for name, value in self.parameters.items()}
        return self.function(*(x, time, key)[: self.n_arguments], **numbers)

    def with_numbers(self, **numbers: ArrayLike) -> Self:
        """The model with other `parameters` (or another dt), which may be traced."""
        self, rest = with_parameters(self, numbers)
        return super().with_numbers(**rest)

    @property
    def coordinates(self) -> Coordinates | None:
        return self._coordinates

    @property
    def variable_names(self) -> tuple[str, ...] | None:
        return self._variable_names

    @property
    def variable_units(self) -> tuple[str, ...] | None:
        return self._units.variables

    @property
    def time_units(self) -> str | None:
        return self._units.time

    @property
    def length_units(self) -> str | None:
        return self._units.length

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, "*state"]:
        if self.climatology is None:
            return super().initial_state(key)
        return self.climatology(key)


def with_parameters(model: M, numbers: Mapping[str, ArrayLike]) -> tuple[M, dict[str, ArrayLike]]:
    """The model with those of the numbers that are its `parameters`, and the others."""
    rest, old = dict(numbers), model.parameters
    for name in rest.keys() & old.keys():
        value = jnp.asarray(rest.pop(name), old[name].dtype)
        model = eqx.tree_at(lambda model, n=name: model.parameters[n], model, value)
    return model, rest


def names_of(names: str | Sequence[str] | None, state_shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Names as a model has them: of each entry of the state's first axis, or one of all components.

    Raises:
        ValueError: another number of them, or no texts.
    """
    if names is None:
        return None
    each = (names,) if isinstance(names, str) else tuple(names)
    if len(each) not in (1, (state_shape or (1,))[0]) or not all(isinstance(name, str) for name in each):
        raise ValueError(
            "variable_names must name each entry of the state's first axis, or be one name of all components "
            f"(the state: {state_shape}); got {names}."
        )
    return each


def units_of(
    variables: str | Sequence[str] | None,
    time: str | None,
    length: str | None,
    state_shape: tuple[int, ...],
    names: Sequence[str] | None = None,
) -> Units:
    """Units as a model has them; one text for the state, or that of its one name, is that of every entry of
    its first axis.

    Raises:
        ValueError: not one for each entry, or no texts.
    """
    n = (state_shape or (1,))[0]
    each = (variables,) * n if isinstance(variables, str) else variables
    if each is not None and names is not None and len(names) == len(each) == 1:
        each = tuple(each) * n
    if each is not None and (len(each) != n or not all(isinstance(unit, str) for unit in each)):
        raise ValueError(
            f"variable_units must be one text, or one for each entry of the state's first axis "
            f"({state_shape}); got {variables}."
        )
    for name, unit in (("time_units", time), ("length_units", length)):
        if unit is not None and not isinstance(unit, str):
            raise ValueError(f'{name} must be a text such as "s" or "km"; got {unit!r}.')
    return Units(None if each is None else tuple(each), time, length)


def n_positional(function: Callable[..., Any], most: int, form: str, named: Collection[str] = ()) -> int:
    """How many arguments without a default a function takes by position, 1 to `most`, but for `named` ones.

    Raises:
        ValueError: it is no function, or takes another number of them.
    """
    if not callable(function) or isinstance(function, type):
        kind = f"the class {function.__name__}" if isinstance(function, type) else type(function).__name__
        raise ValueError(f"a function {form} was expected; got {kind}.")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of a built-in that has none
        return 1
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    places = [p for p in places if p.name not in named]
    n = sum(p.default is p.empty for p in places)
    if n == 0 and places:
        n = 1
    if not 1 <= n <= most:
        name = callable_name(function)
        raise ValueError(f"{name} takes {n} arguments; write it as {form}.")
    return n


def check_traceable(name: str, call: Callable[[], T], instead: str) -> T:
    """What a call under `jax.eval_shape` returns.

    Raises:
        ValueError: it computes with NumPy or Python numbers of its arguments, which JAX cannot trace.
    """
    untraceable = (
        jax.errors.TracerArrayConversionError,
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerIntegerConversionError,
    )
    try:
        return call()
    except untraceable as error:
        raise ValueError(
            f"{name} cannot be traced by JAX: it computes with NumPy, or looks at values (if, float()). "
            f"Write it with jax.numpy, or {instead}"
        ) from error


def _check_step(model: Function) -> None:
    """Raises ValueError where a step of the model is no state."""
    name = callable_name(model.function)
    x = jax.ShapeDtypeStruct(model.state_shape, jnp.result_type(float))
    time, key = jax.ShapeDtypeStruct((), x.dtype), jax.eval_shape(lambda: jax.random.key(0))
    instead = "give dynamics.BlackBox(f, state_shape), f of all members at once, (N, *state_shape)."
    out = check_traceable(name, lambda: eqx.filter_eval_shape(model.applied, x, time, key), instead)
    if getattr(out, "shape", None) != x.shape or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"{out.dtype} {out.shape}" if hasattr(out, "shape") else type(out).__name__
        raise ValueError(
            f"{name} must return the state one step on, real numbers of shape {x.shape}; got {got}."
        )


def as_dynamics(
    given: Dynamics | Callable[..., Array], state_shape: tuple[int, ...] | None, more: str = ""
) -> Dynamics:
    """A model as it is; a function `f(x)`, `f(x, time)`, `f(x, time, key)` as a `Function` of dt = 1.

    Raises:
        ValueError: something else, or a function where the shape of a state is not known.
    """
    if isinstance(given, Dynamics):
        return given
    if isinstance(given, type) or not callable(given):
        kind = f"the class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__}"
        made = f" Make one: {given.__name__}(…)." if isinstance(given, type) else ""
        raise ValueError(
            f"dynamics must be a model (masf_jax.dynamics) or a function f(x, time) of one member and one "
            f"step; got {kind}.{made}"
        )
    if state_shape is None:
        raise ValueError(
            f"the function's states have no shape here: give dynamics.Function(f, state_shape, dt){more}."
        )
    return Function(given, state_shape)
