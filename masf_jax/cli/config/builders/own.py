"""Objects of users' files as entries of a group: an object, a function of the model's form, or a factory."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from .... import filters, measurements
from ....dynamics import Dynamics, Function
from ....ensemble.inflation import Inflation
from ....filters import Filter
from ....measurements import Measurement, Operator
from ...errors import InputError
from .model_options import MODEL_DOCS, MODEL_OPTIONS, model_options
from .noise import UNIT_NOISE, Network, NoiseSettings, network
from .registry import Entry

__all__ = ["own_dynamics", "own_filter", "own_measurement"]

_PLAIN = (int, float, bool, str, tuple, list)
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def own_dynamics(given: str, found: Any) -> Entry:
    """A `Dynamics`; a function f(x), f(x, time) or f(x, time, key), or what makes a `Dynamics` of keys.

    A function's parameters with defaults are keys, beside state_shape, dt and `MODEL_OPTIONS`; its numbers
    may be estimated.
    """
    if isinstance(found, Dynamics):
        return Entry(lambda: found)
    if _is_function(found):
        return Entry(_model_of(given, found))
    return Entry(_factory(given, found, (Dynamics,), "model (a masf_jax Dynamics, or a function f(x, time))"))


def own_filter(given: str, found: Any) -> Entry:
    """A `Filter`; a function f(key, members, innovations), or what makes a `Filter` of keys."""
    if isinstance(found, Filter):
        return Entry(lambda: found)
    if _is_function(found):
        return Entry(_filter_of(found))
    what = "filter (a masf_jax Filter, or a function f(key, members, innovations))"
    return Entry(_factory(given, found, (Filter,), what))


def own_measurement(given: str, found: Any) -> Entry:
    """An operator, a `Measurement` with its noise, a function h(x), or what makes one of these of keys."""
    if isinstance(found, Measurement):
        return Entry(lambda: found, finish=(_whole,))
    if isinstance(found, Operator):
        return Entry(lambda: found)
    if _is_function(found):
        return Entry(_operator_of(found))
    what = "measurement (a masf_jax Operator or Measurement, or a function h(x))"
    return Entry(_factory(given, found, (Operator, Measurement), what), finish=(_with_noise,))


def _whole(made: Measurement) -> Network:
    return Network(made)


def _with_noise(made: Operator | Measurement, noise: NoiseSettings = UNIT_NOISE) -> Network:
    """A measurement has its own noise, an operator that of the keys."""
    if not isinstance(made, Measurement):
        return network(made, noise)
    if noise != UNIT_NOISE:
        raise ValueError("it makes a Measurement, which has its noise already: leave measurement.noise out.")
    return Network(made)


def _is_function(found: Any) -> bool:
    """Whether it takes arrays: its first parameter has no default and no type of plain values."""
    if isinstance(found, type) or not callable(found):
        return False
    parameters = list(inspect.signature(found).parameters.values())
    if not parameters or parameters[0].default is not inspect.Parameter.empty:
        return False
    hint = _hints(found).get(parameters[0].name)
    return (
        parameters[0].name not in ("shape", "coordinates") and (typing.get_origin(hint) or hint) not in _PLAIN
    )


def _hints(found: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(found)
    except (NameError, TypeError):  # names for type checkers only
        return {}


def _options(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """A function's parameters with defaults, which are its keys."""
    parameters = inspect.signature(function).parameters.values()
    return [each for each in parameters if each.default is not inspect.Parameter.empty]


def _split(function: Callable[..., Any], keys: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function with its other keys fixed, and its numbers (keys whose default is a float), which may
    change and be estimated."""
    numbers = {each.name for each in _options(function) if type(each.default) is float and each.name != "dt"}
    fixed = {name: value for name, value in keys.items() if name not in numbers}
    if fixed:
        function = functools.update_wrapper(functools.partial(function, **fixed), function, updated=())
    return function, {name: value for name, value in keys.items() if name in numbers}


def _model_of(given: str, function: Callable[..., Any]) -> Callable[..., Dynamics]:
    """Of a function with a parameter dt, that is the model's time step."""
    own = {each.name: each.default for each in _options(function)}

    def make(state_shape: tuple[int, ...], dt: float, **keys: Any) -> Dynamics:
        more = {name: keys.pop(name) for name in beside if name not in own}
        alone, numbers = _split(function, keys | ({"dt": dt} if "dt" in own else {}))
        options = model_options(given, state_shape, **more)
        return Function(alone, state_shape, dt, parameters=numbers, **options)

    shape = inspect.Parameter("state_shape", _KEYWORD, annotation=tuple[int, ...])
    step = inspect.Parameter("dt", _KEYWORD, default=float(own.get("dt", 1.0)), annotation=float)
    beside = {
        name: inspect.Parameter(name, _KEYWORD, default=None, annotation=kind)
        for name, kind in MODEL_OPTIONS.items()
    }
    first = [shape, step, *(each for name, each in beside.items() if name not in own)]
    return _signed(make, function, first, MODEL_DOCS)


def _operator_of(function: Callable[..., Any]) -> Callable[..., Operator]:
    def make(**keys: Any) -> Operator:
        alone, numbers = _split(function, keys)
        return measurements.Function(alone, parameters=numbers)

    return _signed(make, function, [])


def _filter_of(function: Callable[..., Any]) -> Callable[..., Filter]:
    def make(inflation: Any, **keys: Any) -> Filter:
        alone, numbers = _split(function, keys)
        return filters.Function(alone, inflation, numbers)

    inflation = inspect.Parameter("inflation", _KEYWORD, default=Inflation(), annotation=Inflation)
    return _signed(make, function, [inflation])


def _signed(
    make: Callable[..., Any], function: Callable[..., Any], first: list[inspect.Parameter], docs: str = ""
) -> Callable[..., Any]:
    """`make` with the parameters and docstring that keys are read from: `first`, then the function's own."""
    hints = _hints(function)
    taken = {each.name for each in first}
    own = [
        each.replace(kind=_KEYWORD, annotation=hints.get(each.name, Any))
        for each in _options(function)
        if each.name not in taken
    ]
    made: Any = make
    made.__signature__ = inspect.Signature([*first, *own])
    made.__annotations__ = {each.name: each.annotation for each in (*first, *own)}
    said = inspect.getdoc(function) or ""
    said = said if "\nArgs:\n" in said else f"{said}\n\nArgs:\n"
    made.__doc__ = said.replace("\nArgs:\n", f"\nArgs:\n    {docs}\n", 1) if docs else said
    return make


def _a(kind: type) -> str:
    return f"a{'n' if kind.__name__[0] in 'aeiou' else ''} {kind.__name__}"


def _factory(given: str, found: Any, kinds: tuple[type, ...], what: str) -> Callable[..., Any]:
    """A class or function of keys, what it makes looked at."""
    if not callable(found):
        raise InputError(f"{given} must be a {what} or what makes one; it is {_a(type(found))}.")
    if isinstance(found, type) and not issubclass(found, kinds):
        raise InputError(f"{given} must be a {what} or what makes one; it is the class {found.__name__}.")
    if isinstance(found, type) and inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{given}: the class lacks {lacking}.")
    if isinstance(found, type):
        return found

    @functools.wraps(found)
    def make(**keys: Any) -> Any:
        made = found(**keys)
        if not isinstance(made, kinds):
            raise InputError(f"{given} must make a {what}; it made {_a(type(made))}.")
        return made

    return make
