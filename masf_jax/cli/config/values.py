"""Values of a configuration: from YAML, each checked by pydantic, sections of them."""

from __future__ import annotations

import contextlib
import functools
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from ..errors import InputError, printable, unknown
from ..groups import config_folder

if TYPE_CHECKING:
    from .schema import Key

__all__ = ["MISSING", "checked", "checked_keys", "naming", "plain_keys", "words", "yaml_config"]

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
"""In place of a value that is not there."""

_LARGEST, _DEEPEST = 1_000_000, 40
_SHIPPED = config_folder()
_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}
_ROW, _TABLE = tuple[float, ...], tuple[tuple[float, ...], ...]
_EXAMPLES = {int: "0,2,4", float: "0.1,0.2"}


def words(kind: Any) -> str:
    """A type in words a user of the command line knows."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return "null"
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        distinct = [each for each in arguments if each is not int or float not in arguments]
        return " or ".join(words(each) for each in distinct if each != _TABLE or _ROW not in arguments)
    if origin is tuple:
        example = f", e.g. [{_EXAMPLES[arguments[0]]}]" if arguments[0] in _EXAMPLES else ""
        many = "" if arguments[-1] is ... else f" of {len(arguments)}"
        return f"a list{many}, each item {words(arguments[0])}{example}"
    return _NAMES.get(kind, str(kind))


@contextlib.contextmanager
def naming(what: str, kinds: Any = InputError) -> Iterator[None]:
    """Says in the message of an error of these kinds what it is about."""
    try:
        yield
    except kinds as error:
        raise InputError(f"{what}: {error}") from error


def yaml_config(path: str | Path) -> DictConfig:
    """The keys of a YAML file: plain values only, a file may come from anyone.

    Raises:
        InputError: it cannot be read, holds no keys, or holds what a configuration has no need of: anchors,
            references (${…}, which could put a secret of the environment into the results), more than
            1 MB, or keys below keys below keys without end.
    """
    try:
        text = _plain_text(Path(path))
        config = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the file: {error}") from error
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the file, which is not a valid YAML configuration: {error}") from error
    if not isinstance(config, DictConfig):
        raise InputError("it holds no keys.")
    return config


def _plain_text(path: Path) -> str:
    """The file's text, without anything that could make more of it than there is."""
    if not path.is_file():
        what = "it is not an ordinary file." if path.exists() else "there is no such file."
        raise InputError(f"cannot read the file: {what}")
    if path.stat().st_size > _LARGEST:
        raise InputError(f"it has {path.stat().st_size} bytes; a configuration has at most {_LARGEST}.")
    text, depth = path.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"line {line}: anchors and aliases (&, *) are not read: write the values out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise InputError(f"line {line}: more than {_DEEPEST} levels of keys or lists.")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value and path.parent.parent != _SHIPPED:
            raise InputError(f"line {line}: references {event.value!r} are not read: write the value.")
    return text


def plain_keys(config: Any) -> dict[str, Any]:
    """The configuration with its references resolved, without Hydra's own keys."""
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"cannot resolve the configuration: {error}") from error
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def checked(key: str, value: Any, kind: Any) -> Any:
    """`value` as the type says: whole floats pass as integers (1e3), integers as floats, no more.

    Raises:
        InputError: naming the key, the value that came and what was expected.
    """
    try:
        if isinstance(value, str) and printable(value) != value:
            raise InputError(f"{key} holds characters that are not to be printed: {value!r}.")
        found = _adapter(kind).validate_json(json.dumps(_whole(value)), strict=True)
    except (ValidationError, TypeError, ValueError, RecursionError) as error:
        shown = "null" if value is None else repr(value)
        raise InputError(f"{key} must be {words(kind)}; got {_short(shown)}.") from error
    bits = 32 if key.rpartition(".")[2] == "seed" else 31
    if any(abs(number) >= 2**bits for number in _integers(found)):
        raise InputError(f"{key} must be below 2**{bits}; got {_short(repr(value))}.")
    return found


def _integers(value: Any) -> Iterator[int]:
    """Those in a value that was checked: JAX counts with 32 bits."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _integers(item)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]} … ({len(text)} characters)"


_adapter = functools.cache(TypeAdapter)


def _whole(value: Any) -> Any:
    """Whole floats as integers, which pass for both; mappings are left to their own check."""
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


def checked_keys(
    prefix: str,
    section: Any,
    keys: Mapping[str, Key],
    of: str = "",
    ignored: typing.Callable[[str], bool] = lambda path: False,
    hint: typing.Callable[[str], str] = lambda key: "",
) -> dict[str, Any]:
    """A section with every key known, every value checked and every default filled in.

    Args:
        prefix: of its keys in messages, "" or "filter.".
        keys: by dotted path.
        of: whose keys they are, for the message on an unknown one.
        ignored: whether a path that is none of the keys is left out without a word.
        hint: more to say on an unknown key.

    Raises:
        InputError: an unknown or missing key (all that are missing), or a value of the wrong type.
    """
    missing: list[str] = []

    def within(path: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            name = f"{prefix}{path}".rstrip(".") or "the configuration"
            raise InputError(f"{name} must be a mapping of keys to values; got {given!r}.")
        names = dict.fromkeys(key[len(path) :].split(".")[0] for key in keys if key.startswith(path))
        for name in given:
            if name not in names and not ignored(f"{path}{name}"):
                known = [f"{prefix}{path}{each}" for each in names]
                raise unknown(f"key{of}", f"{prefix}{path}{name}", known, hint(f"{path}{name}"))
        found: dict[str, Any] = {}
        for name in names:
            here, value = f"{path}{name}", given.get(name, MISSING)
            if here not in keys:
                found[name] = within(f"{here}.", {} if value is MISSING else value)
                continue
            value = keys[here].default if value is MISSING else value
            if value is MISSING:
                missing.append(f"{prefix}{here}")
            else:
                found[name] = checked(f"{prefix}{here}", value, keys[here].kind)
        return found

    found = within("", section)
    if missing:
        raise InputError(f"missing: {', '.join(missing)}{of}.")
    return found
