"""Keys of a configuration read from a constructor: its parameters, their types, defaults and docstring.

A parameter that takes an object (`Inflation`, a sampler, a schedule) stands for that object's own parameters:
at the same level for a module, in a section for plain dataclasses. One that no plain value can stand for (a
trained network, what `prepare` fills in) is no key.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, Union

import numpy as np

from ...numbers import as_float
from .values import MISSING

__all__ = ["Choice", "Key", "Part", "Role", "load", "read"]


@dataclasses.dataclass(frozen=True)
class Key:
    """A key at a dotted path, what it may hold, its default (MISSING: none), and a line on it."""

    path: str
    kind: Any
    default: Any
    doc: str


@dataclasses.dataclass(frozen=True)
class Role:
    """How a class' parameters are called as keys.

    renamed: parameter -> path beside the others' ("multiplicative" -> "inflation"); of one that takes an
    object, the section its keys stand in. hidden: parameters that are no keys. null: the parameter whose key,
    where it is null, stands for no object at all. choices: for an abstract class, name -> path of a class.
    """

    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    null: str | None = None
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    section: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """A callable and what is behind each of its parameters.

    constants: values of parameters that are no keys. context: parameters that the builder gives.
    null: the key that, where it is null, stands for no object.
    """

    make: Callable[..., Any]
    parameters: Mapping[str, Key | Part | Choice]
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    context: tuple[str, ...] = ()
    null: str | None = None

    def keys(self, section: Mapping[str, Any] | None) -> Iterator[Key]:
        """The keys, given what a section chooses; None: those of all choices."""
        for parameter in self.parameters.values():
            if isinstance(parameter, Key):
                yield parameter
            else:
                yield from parameter.keys(section)

    def build(self, section: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
        """The object of a complete section."""
        if self.null is not None and _at(section, self.null) is None:
            return None
        arguments = {
            name: _at(section, each.path) if isinstance(each, Key) else each.build(section, context)
            for name, each in self.parameters.items()
        }
        return self.make(**self.constants, **arguments, **{name: context[name] for name in self.context})


@dataclasses.dataclass(frozen=True)
class Choice:
    """A parameter that takes one of several classes: a key of their names, and the keys of the chosen one.

    options: what reads each; only the chosen one is imported.
    """

    key: Key
    options: Mapping[str, Callable[[], Part]]

    def keys(self, section: Mapping[str, Any] | None) -> Iterator[Key]:
        yield self.key
        chosen = self.options if section is None else (self._chosen(section),)
        for name in chosen:
            if name in self.options:
                yield from self.options[name]().keys(section)

    def build(self, section: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
        name = self._chosen(section)
        return None if name is None else self.options[name]().build(section, context)

    def _chosen(self, section: Mapping[str, Any]) -> Any:
        given = _at(section, self.key.path)
        return self.key.default if given is MISSING else given


def _at(section: Any, path: str) -> Any:
    for part in path.split("."):
        section = section.get(part, MISSING) if isinstance(section, Mapping) else MISSING
    return section


def load(path: str) -> Callable[..., Any]:
    """The callable at "package.module:Name", or ":Name.method"."""
    module, _, name = path.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def read(
    make: Callable[..., Any],
    roles: Mapping[str, Role],
    *,
    section: str = "",
    default: Any = MISSING,
    context: tuple[str, ...] = (),
    hidden: tuple[str, ...] = (),
) -> Part:
    """The keys of a constructor or function.

    Args:
        roles: by class name.
        section: what the keys' paths begin with, "" or "network.".
        default: an object of the class, whose values are the defaults; MISSING: those of the signature.
        context: parameters that the caller gives.
        hidden: further parameters that are no keys.

    Raises:
        TypeError: a required parameter that no plain value can stand for.
    """
    role = roles.get(make.__name__, Role())
    signature = _signature(make)
    docs = _documented(make, signature)
    parameters: dict[str, Key | Part | Choice] = {}
    constants: dict[str, Any] = {}
    given = []
    for name, (hint, own) in signature.items():
        if name in context:
            given.append(name)
            continue
        value = own if default is MISSING else _of_object(default, name, own)
        path = section + role.renamed.get(name, name)
        found = None
        if name not in role.hidden and name not in hidden:
            nested = name in role.renamed
            found = _parameter(hint, value, path, section, nested, docs.get(name, ""), roles, hidden)
        if found is not None:
            if isinstance(found, Key) and name == role.null:
                found = dataclasses.replace(found, kind=found.kind | None)
            parameters[name] = found
        elif value is MISSING:
            raise TypeError(f"{make.__name__}: no plain value can stand for {name}.")
        elif default is not MISSING:
            constants[name] = value
    null = parameters.get(role.null or "")
    null = null.path if isinstance(null, Key) else None
    return Part(make, parameters, constants, tuple(given), null)


def _parameter(
    hint: Any,
    value: Any,
    path: str,
    section: str,
    nested: bool,
    doc: str,
    roles: Mapping[str, Role],
    hidden: tuple[str, ...],
) -> Key | Part | Choice | None:
    kind = _plain(hint)
    if kind is not None:
        return Key(path, kind, _scalar(value), doc)
    optional = type(None) in typing.get_args(hint)
    cls = next((each for each in (*typing.get_args(hint), hint) if _is_object(each)), None)
    if cls is None:
        return None
    role = roles.get(cls.__name__, Role())
    if role.choices:
        return _choice(role.choices, value, optional, path, section, doc, roles, hidden)
    if inspect.isabstract(cls):
        return None
    section = f"{path}." if nested or role.section or _is_plain_dataclass(cls) else section
    given = MISSING if value is None else value
    try:
        part = read(cls, roles, section=section, default=given, hidden=hidden)
    except TypeError:  # it holds arrays or functions: given in code, or made by `prepare`
        return None
    if not optional or part.null is None:
        return dataclasses.replace(part, null=None)
    if value is not None:
        return part
    keys = {
        name: dataclasses.replace(each, default=None)
        if isinstance(each, Key) and each.path == part.null
        else each
        for name, each in part.parameters.items()
    }
    return dataclasses.replace(part, parameters=keys)


def _choice(
    choices: Mapping[str, str],
    value: Any,
    optional: bool,
    path: str,
    section: str,
    doc: str,
    roles: Mapping[str, Role],
    hidden: tuple[str, ...],
) -> Choice:
    """The default is that of the signature, or the first where that is None: what the class takes itself."""
    first, *_ = choices
    default = next((name for name, where in choices.items() if _path_of(value) == where), first)

    def reader(name: str) -> Callable[[], Part]:
        given = MISSING if value is None or name != default else value
        return functools.cache(
            lambda: read(load(choices[name]), roles, section=section, default=given, hidden=hidden)
        )

    kind: Any = Literal[tuple(choices)]
    key = Key(path, kind | None if optional else kind, default, doc)
    return Choice(key, {name: reader(name) for name in choices})


def _path_of(instance: Any) -> str:
    return f"{type(instance).__module__}:{type(instance).__name__}"


def _signature(make: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Type and default of each parameter; a field's own type where its converter hides it."""
    cls = make if isinstance(make, type) else None
    hints = typing.get_type_hints(make.__init__ if cls else make)
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    found = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        hint, default = hints.get(name, Any), parameter.default
        if hint is Any and name in fields:
            hint = typing.get_type_hints(cls)[name]
        if default is parameter.empty:
            default = MISSING
        elif repr(default) == "<factory>":
            factory: Any = fields[name].default_factory
            default = factory()
        found[name] = hint, default
    return found


def _of_object(instance: Any, name: str, own: Any) -> Any:
    """The value a default object was made with: the signature's where they agree."""
    value = getattr(instance, name, own)
    try:
        if _scalar(getattr(type(instance)(), name, own)) == _scalar(value):
            return own
    except TypeError:  # not to be made without arguments
        pass
    return value


def _is_object(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _is_plain_dataclass(cls: type) -> bool:
    import equinox as eqx

    return not issubclass(cls, eqx.Module)


_NUMBERS = float | tuple[float, ...] | tuple[tuple[float, ...], ...]


def _plain(hint: Any) -> Any:
    """The plain values among those of a type; None: there are none."""
    from jaxtyping import AbstractArray
    from numpy.typing import ArrayLike

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float, bool, str, dict) or origin is Literal:
        return hint
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return float if hint.dims == () else None
    if origin in (Union, types.UnionType):
        arrays = set(typing.get_args(ArrayLike))
        members = [_NUMBERS] if arrays <= set(arguments) else []
        rest = arguments if not members else [each for each in arguments if each not in arrays]
        members += [kind for each in rest if (kind := _plain(each)) is not None]
        if not members:
            return None
        return Union[tuple(members + [each for each in rest if each is type(None)])]  # noqa: UP007
    if origin is tuple:
        items = [each if each is ... else _plain(each) for each in arguments]
        return None if None in items else tuple[tuple(items)]
    return None


def _scalar(value: Any) -> Any:
    """A default as plain values; a single-precision number by its shortest decimal."""
    if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        return as_float(value) if np.issubdtype(value.dtype, np.floating) else value.item()
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("a default must not be NaN.")
    return value


def _documented(make: Callable[..., Any], names: Collection[str]) -> dict[str, str]:
    """What the docstring's Args (or Attributes) say of each parameter, in one line."""
    found = re.search(r"\n( *)(?:Args|Attributes):\n(.*?)(?:\n\n|\Z)", inspect.getdoc(make) or "", re.DOTALL)
    docs: dict[str, str] = {}
    if found is None:
        return docs
    one = "(?:" + "|".join(names) + ")"
    for entry in re.split(r"\n {4}(?! )", "\n" + found[2].rstrip()):
        text = re.sub(r"\bNone\b", "null", " ".join(entry.split()))
        for given, line in re.findall(rf"((?:{one}, )*{one}): (.*?)(?=; (?:{one}, )*{one}: |$)", text):
            docs |= dict.fromkeys(given.split(", "), line)
    return docs
