"""Checks plain configuration values against type annotations."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, unknown

__all__ = ["checked", "checked_section", "describe"]


def describe(annotation: Any) -> str:
    """A type annotation in words a user of the command line knows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin is tuple:
        example = f", e.g. [{_EXAMPLES[arguments[0]]}]" if arguments[0] in _EXAMPLES else ""
        return f"a list, each item {describe(arguments[0])}{example}"
    return _NAMES.get(annotation, str(annotation))


_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}
_EXAMPLES = {int: "0,2,4", float: "0.1,0.2"}


def checked(key: str, value: Any, annotation: Any) -> Any:
    """`value` as the annotated type.

    Whole floats pass as integers (1e3) and integers as floats; nothing else is converted.

    Raises:
        InputError: naming the key, the value that came and what was expected.
    """
    if dataclasses.is_dataclass(annotation):
        is_one = isinstance(annotation, type) and isinstance(value, annotation)
        return value if is_one else checked_section(key, value, annotation)
    result = _convert(value, annotation)
    if result is _WRONG:
        shown = "null" if value is None else repr(value)
        raise InputError(f"{key} must be {describe(annotation)}; got {shown}.")
    return result


_WRONG = object()


def _convert(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if annotation is type(None):
        return None if value is None else _WRONG
    if origin is typing.Literal:
        return (
            value if any(value == choice and type(value) is type(choice) for choice in arguments) else _WRONG
        )
    if origin in (typing.Union, types.UnionType):
        converted = (_convert(value, argument) for argument in arguments)
        return next((result for result in converted if result is not _WRONG), _WRONG)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _WRONG
        items = [_convert(item, arguments[0]) for item in value]
        return _WRONG if any(item is _WRONG for item in items) else tuple(items)
    if annotation is dict:
        return dict(value) if isinstance(value, Mapping) else _WRONG
    if isinstance(value, bool) and annotation is not bool:
        return _WRONG
    if annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if annotation is float and isinstance(value, int):
        return float(value)
    return value if isinstance(value, annotation) else _WRONG


def checked_section(key: str, section: Any, kind: Any) -> Any:
    """The dataclass `kind` from a mapping, with every key known and every value typed."""
    if not isinstance(section, Mapping):
        raise InputError(
            f"{key or 'the configuration'} must be a mapping of keys to values; got {section!r}."
        )
    prefix = f"{key}." if key else ""
    hints = typing.get_type_hints(kind)
    for name in section:
        if name not in hints:
            raise unknown("key", f"{prefix}{name}", [f"{prefix}{known}" for known in hints])
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [f"{prefix}{name}" for name in required if name not in section]
    if missing:
        raise InputError(f"missing: {', '.join(missing)}.")
    return kind(**{name: checked(f"{prefix}{name}", section[name], hints[name]) for name in section})
