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
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeAlias, Union

import equinox as eqx
import numpy as np
from jaxtyping import AbstractArray
from numpy.typing import ArrayLike

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


Roles: TypeAlias = Mapping[str, Role]
"""By class name."""


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
    null: Key | None = None

    def keys(self, section: Mapping[str, Any] | None) -> Iterator[Key]:
        """The keys, given what a section chooses; None: those of all choices."""
        for parameter in self.parameters.values():
            if isinstance(parameter, Key):
                yield parameter
            else:
                yield from parameter.keys(section)

    def build(self, section: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
        """The object of a complete section."""
        if self.null is not None and _at(section, self.null.path) is None:
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
        for name in self.options:
            if section is None or name == self._chosen(section):
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
    roles: Roles,
    *,
    section: str = "",
    default: Any = MISSING,
    context: tuple[str, ...] = (),
) -> Part:
    """The keys of a constructor or function.

    Args:
        roles: by class name.
        section: what the keys' paths begin with, "" or "network.".
        default: an object of the class, whose values are the defaults; MISSING: those of the signature.
        context: parameters that the caller gives.

    Raises:
        TypeError: a required parameter that no plain value can stand for.
    """
    role = roles.get(make.__name__, Role())
    signature = _signature(make)
    docs = _documented(make, signature)
    parameters: dict[str, Key | Part | Choice] = {}
    constants: dict[str, Any] = {}
    for name, (hint, own) in signature.items():
        if name in context:
            continue
        value = own if default is MISSING else _of_object(default, name, own)
        key = Key(section + role.renamed.get(name, name), hint, value, docs.get(name, ""))
        found = None
        if name not in role.hidden:
            found = _parameter(key, section, name in role.renamed, roles)
        if found is not None:
            if isinstance(found, Key) and name == role.null:
                found = dataclasses.replace(found, kind=found.kind | None)
            parameters[name] = found
        elif value is MISSING:
            raise TypeError(f"{make.__name__}: no plain value can stand for {name}.")
        elif default is not MISSING:
            constants[name] = value
    null = parameters.get(role.null or "")
    given = tuple(name for name in signature if name in context)
    return Part(make, parameters, constants, given, null if isinstance(null, Key) else None)


def _parameter(key: Key, section: str, nested: bool, roles: Roles) -> Key | Part | Choice | None:
    """What stands for a parameter; `key`: its path, type, default and doc. None: no plain value does."""
    kind = _plain(key.kind)
    if kind is not None:
        return dataclasses.replace(key, kind=kind, default=_scalar(key.default))
    members = (*typing.get_args(key.kind), key.kind)
    optional = type(None) in members
    cls = next((each for each in members if isinstance(each, type) and dataclasses.is_dataclass(each)), None)
    if cls is None:
        return None
    role = roles.get(cls.__name__, Role())
    if role.choices:
        return _choice(key, optional, role.choices, section, roles)
    if inspect.isabstract(cls):
        return None
    section = f"{key.path}." if nested or role.section or not issubclass(cls, eqx.Module) else section
    given = MISSING if key.default is None else key.default
    try:
        part = read(cls, roles, section=section, default=given)
    except TypeError:  # it holds arrays or functions: given in code, or made by `prepare`
        return None
    if not optional or part.null is None:
        return dataclasses.replace(part, null=None)
    if key.default is not None:
        return part
    null = dataclasses.replace(part.null, default=None)
    parameters = {name: null if each is part.null else each for name, each in part.parameters.items()}
    return dataclasses.replace(part, parameters=parameters, null=null)


def _choice(key: Key, optional: bool, choices: Mapping[str, str], section: str, roles: Roles) -> Choice:
    """The default is that of the signature, or the first where that is None: what the class takes itself."""
    given, cls = key.default, type(key.default)
    names = {path: name for name, path in choices.items()}
    default = names.get(f"{cls.__module__}:{cls.__name__}", next(iter(choices)))

    def reader(name: str) -> Callable[[], Part]:
        value = MISSING if given is None or name != default else given
        return functools.cache(lambda: read(load(choices[name]), roles, section=section, default=value))

    kind: Any = Literal[tuple(choices)]
    key = dataclasses.replace(key, kind=kind | None if optional else kind, default=default)
    return Choice(key, {name: reader(name) for name in choices})


def _signature(make: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Type and default of each parameter; a field's own type where its converter hides it."""
    cls = make if isinstance(make, type) else None
    hints = typing.get_type_hints(make) if cls is None else _init_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    found = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        hint, default = hints.get(name, Any), parameter.default
        if hint is Any and name in fields:
            hint = typing.get_type_hints(cls)[name]
        if _plain(hint) is None:
            hint = _of_default(default, hint)
        if repr(default) == "<factory>":
            factory: Any = fields[name].default_factory
            default = factory()
        found[name] = hint, MISSING if default is parameter.empty else default
    return found


def _init_hints(cls: type) -> dict[str, Any]:
    """Types of a constructor's parameters, which may be written with names of a base's module."""
    names: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        names |= vars(sys.modules[each.__module__])
    return typing.get_type_hints(cls.__init__, names)


def _of_object(instance: Any, name: str, own: Any) -> Any:
    """The value a default object was made with: the signature's where they agree."""
    value = getattr(instance, name, own)
    try:
        if _scalar(getattr(type(instance)(), name, own)) == _scalar(value):
            return own
    except TypeError:  # not to be made without arguments
        pass
    return value


def _of_default(default: Any, hint: Any) -> Any:
    """The type that a plain default says where no type of plain values is given; else the hint."""
    kinds = {bool: bool, str: str, float: float, int: int | float}
    if isinstance(default, tuple) and default and {type(each) for each in default} <= {int, float}:
        return tuple[int | float, ...]
    return kinds.get(type(default), hint)


_NUMBERS = float | tuple[float, ...] | tuple[tuple[float, ...], ...]


def _plain(hint: Any) -> Any:
    """The plain values among those of a type; None: there are none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float, bool, str, dict) or origin is Literal:
        return hint
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return float if hint.dims == () else None
    if origin is tuple:
        items = [each if each is ... else _plain(each) for each in arguments]
        return None if None in items else tuple[tuple(items)]
    members = list(_members(hint))
    if members == [hint]:
        return None
    arrays = set(_members(ArrayLike))
    given = arrays <= set(members)
    kinds = [_NUMBERS] if given else []
    kinds += [kind for each in members if not (given and each in arrays) and (kind := _plain(each))]
    none = [each for each in members if each is type(None)]
    return Union[tuple(kinds + none)] if kinds else None  # noqa: UP007


def _members(hint: Any) -> Iterator[Any]:
    """The types of a union; of a named one (`type X = …`, as NumPy's ArrayLike from Python 3.12 on) too."""
    if hasattr(hint, "__value__"):
        yield from _members(hint.__value__)
    elif typing.get_origin(hint) in (Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from _members(each)
    else:
        yield hint


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
    one = "(?:" + "|".join(names) + ")"
    for entry in re.split(r"\n {4}(?! )", "\n" + found[2].rstrip()) if found else ():
        text = re.sub(r"\bNone\b", "null", " ".join(entry.split()))
        for given, line in re.findall(rf"((?:{one}, )*{one}): (.*?)(?=; (?:{one}, )*{one}: |$)", text):
            docs |= dict.fromkeys(given.split(", "), line)
    return docs
