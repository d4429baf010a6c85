"""The grammar of the command line: Hydra's overrides, parsed here for every command.

A command has keys of its own (`filters=[…]`, `seeds=5`) beside those of a run; a key may list several values
(KEY=A,B, range(0,5)) where a command takes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ..errors import InputError, unknown

__all__ = [
    "as_overrides",
    "expand",
    "items",
    "listed",
    "parse",
    "seeds_of",
    "single",
    "split",
    "texts",
    "whole",
]

_LONGEST = 10_000
"""Characters of an override; the grammar takes long over more."""
_OPTIONS = ("--config", "--dry-run", "--help", "--log-file", "--multirun", "--overwrite", "--quiet")
_OPTIONS += ("--traceback", "-m")


def parse(overrides: list[str]) -> list[Override]:
    """Parsed overrides.

    Raises:
        InputError: not of the form KEY=VALUE.
    """
    for text in overrides:
        if text in _OPTIONS:
            remedy = ": write overwrite=true" if text == "--overwrite" else " here"
            raise InputError(f"{text} is no option of this command{remedy}. What it takes: --help")
        if text.startswith("-"):
            raise unknown("option", text, _OPTIONS)
        if len(text) > _LONGEST or text.count("[") + text.count("{") > _LONGEST // 20:
            raise InputError(f"an override of {len(text)} characters: {text[:60]!r} …; put it into a file.")
        if "${" in text:
            raise InputError(f"{text}: references are not read; write the value.")
        if "=" not in text and not text.startswith("~"):
            raise InputError(f"expected KEY=VALUE; got {text!r}. Groups and keys: masf-jax run --help")
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except (HydraException, ValueError, RecursionError) as error:
        raise InputError(_unreadable(overrides, error)) from error


def _unreadable(overrides: list[str], error: Exception) -> str:
    """Which of them cannot be read, and what to write instead."""
    for text in overrides:
        try:
            OverridesParser.create().parse_override(text)
        except (HydraException, ValueError, RecursionError):
            key, _, value = text.partition("=")
            plain = value.strip("'\"")
            quoted = f"{key}='{plain}'"
            return (
                f"cannot read {text!r}. A value with a space, a sign such as = ( ) # or a letter outside "
                f'ASCII stands in quotes of its own, within those of the shell: "{quoted}"'
            )
    return f"cannot read the overrides {overrides}: {error}"


def single(parsed: list[Override]) -> list[Override]:
    """The overrides of one run: no lists, nothing removed, nothing of Hydra's own."""
    for override in parsed:
        if override.is_sweep_override():
            raise InputError(f"{override.input_line} lists several values: sweep them with masf-jax run -m.")
        if override.is_delete() or override.key_or_group.startswith("hydra"):
            raise InputError(f"{override.input_line}: a run takes KEY=VALUE of its own keys only.")
    return parsed


def split(overrides: list[str], own: tuple[str, ...]) -> tuple[dict[str, Override], list[Override]]:
    """The overrides of the command's own keys by key, and the others.

    Raises:
        InputError: an own key given twice, or removed rather than set.
    """
    mine: dict[str, Override] = {}
    others = []
    for override in parse(overrides):
        key = override.key_or_group
        if key not in own:
            others.append(override)
        elif key in mine:
            raise InputError(f"{key} is given twice: {mine[key].input_line} and {override.input_line}.")
        elif override.is_delete():
            raise InputError(f"{override.input_line}: {key} is set, not removed.")
        else:
            mine[key] = override
    return mine, others


def texts(override: Override) -> list[str]:
    """The values of a list (KEY=A,B or range(…)), as a user would write each."""
    return [
        text.lower() if isinstance(value, bool) else text
        for value, text in zip(override.sweep_iterator(), override.sweep_string_iterator(), strict=True)
    ]


def expand(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job of a sweep: every combination of listed values, the last key fastest.

    Raises:
        InputError: an override that is no list of values (Hydra's `interval`, …).
    """
    options = []
    for override in overrides:
        line = override.input_line or ""
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise InputError(f"{line}: a sweep takes lists of values: KEY=A,B,C or range(1,10).")
        listed = override.is_sweep_override()
        options.append([f"{override.key_or_group}={text}" for text in texts(override)] if listed else [line])
    return [list(job) for job in itertools.product(*options)]


def items(override: Override) -> list[Any]:
    """The values of KEY=[A,B], KEY=A,B, KEY=range(…) or of a single KEY=A."""
    if override.is_discrete_sweep():
        return [getattr(value, "text", value) for value in override.sweep_iterator()]
    if override.is_sweep_override():
        raise InputError(f"{override.input_line}: expected a list, such as {override.key_or_group}=[0,1,2].")
    value = override.value()
    return value if isinstance(value, list) else [value]


def listed(seeds: Sequence[int]) -> str:
    """Seeds in words: "0 … 4", "3, 7"."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} … {seeds[-1]}"
    return ", ".join(map(str, seeds))


def whole(override: Override | None, least: int, default: int) -> int:
    """The value of KEY=NUMBER."""
    if override is None:
        return default
    value = override.value()
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        key = override.key_or_group
        raise InputError(f"{override.input_line}: {key} must be an integer, at least {least}.")
    return value


def seeds_of(override: Override | None, first: int, number: int) -> tuple[int, ...]:
    """Seeds from KEY=5 (so many, from `first` on), KEY=[3,4] or KEY=range(10,15); None: `number` of them.

    Raises:
        InputError: not seeds, or one of them twice.
    """
    if override is None or isinstance(override.value(), int):
        return tuple(range(first, first + whole(override, 0, number)))
    seeds = items(override)
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32 for seed in seeds):
        raise InputError(
            f"{override.input_line}: give a number of seeds, {override.key_or_group}=5, or the seeds, "
            f"{override.key_or_group}=[0,1,2], integers from 0 to 2**32 - 1."
        )
    if len(set(seeds)) != len(seeds):
        raise InputError(f"{override.input_line}: a seed stands there twice.")
    return tuple(seeds)


def as_overrides(config: Mapping[str, Any], before: str = "") -> list[str]:
    """The keys of a file as one would write them on the command line."""
    found = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found += as_overrides(value, f"{before}{key}.")
        else:
            found.append(f"{before}{key}={_written(value)}")
    return found


def _written(value: Any) -> str:
    """A plain value in the grammar of overrides."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
