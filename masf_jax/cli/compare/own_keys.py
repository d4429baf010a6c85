"""Keys that a command has of its own beside those of a run: `filters=[…]`, `seeds=5`, `trials=30`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.compose import parse
from ..errors import InputError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = ["items", "listed", "seeds_of", "split", "whole"]


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


def items(override: Override) -> list[Any]:
    """The values of KEY=[A,B], KEY=A,B, KEY=range(…) or of a single KEY=A."""
    if override.is_sweep_override():
        if override.is_discrete_sweep():
            return list(override.sweep_iterator(lambda value: getattr(value, "text", value)))
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
        raise InputError(
            f"{override.input_line}: {override.key_or_group} must be an integer, at least {least}."
        )
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
