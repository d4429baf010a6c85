"""A group of choices: names, the constructors behind them, and their keys."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import InputError, unknown
from ..schema import Key, Part, load, read
from ..values import checked_keys, naming
from .roles import ROLES

__all__ = ["Entry", "Group"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a name stands for.

    Args:
        make: "package.module:Name" of a constructor or function, imported when it is needed, or itself.
        hidden: parameters of its parts that are no keys.
        adapt: of a section, before it is looked at: the keys of earlier versions by their present names.
        finish: what is done with the object made, one after the other, where that is another thing than the
            group's.
    """

    make: str | Callable[..., Any]
    hidden: tuple[str, ...] = ()
    adapt: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    finish: tuple[Callable[..., Any], ...] = ()


class Group:
    """Choices by name, each a constructor whose parameters are the keys users may set.

    Args:
        name: of the configuration group, for messages ("filter").
        entries: by name; a path or function stands for an `Entry` without more.
        context: parameters that are given when the object is built ("shape").
        finish: what is done with every object made (its parameter `made`); its other parameters are keys too.
    """

    def __init__(
        self,
        name: str,
        entries: Mapping[str, str | Callable[..., Any] | Entry],
        context: tuple[str, ...] = (),
        finish: Callable[..., Any] | None = None,
    ):
        self.name, self.context, self.finish = name, context, finish
        self.entries = {
            key: each if isinstance(each, Entry) else Entry(each) for key, each in entries.items()
        }

    def keys(self, name: str, section: Mapping[str, Any] | None = None) -> dict[str, Key]:
        """The keys of one choice by dotted path, given what its section chooses; None: with any choice."""
        found: dict[str, Key] = {}
        section = None if section is None else self._adapted(name, section)
        for part in self._parts(name):
            for key in part.keys(section):
                found.setdefault(key.path, key)
        return found

    def check(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration section {name: …, key: value, …} with every key known and every value typed.

        Keys left out take the constructor's defaults, so the result is complete.
        """
        name = section.get("name")
        if not isinstance(name, str):
            known = ", ".join(sorted(self.entries))
            raise InputError(f"{self.name}.name must be one of {known}; got {name!r}.")
        given = self._adapted(name, section)
        found = checked_keys(
            f"{self.name}.",
            given,
            self.keys(name, given),
            f" (of {self.name} {name})",
            ignored=lambda path: any(f"{key}.".startswith(f"{path}.") for key in self.keys(name)),
            hint=self._others,
        )
        return {"name": name, **found}

    def build(self, section: Mapping[str, Any], *context: Any) -> Any:
        """The object of a checked section; `context`: values of what the group's `context` names."""
        made, given = None, dict(zip(self.context, context, strict=True))
        with naming(f"{self.name} {section['name']}", (ValueError, TypeError)):
            for part in self._parts(section["name"]):
                made = part.build(section, {**given, "made": made})
        return made

    def _adapted(self, name: str, section: Mapping[str, Any]) -> dict[str, Any]:
        with naming(f"{self.name} {name}", ValueError):
            return self._entry(name).adapt({key: value for key, value in section.items() if key != "name"})

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise unknown(f"{self.name} name", name, self.entries)
        return self.entries[name]

    @functools.cache  # noqa: B019 - as many groups as there are
    def _parts(self, name: str) -> tuple[Part, ...]:
        """What makes the object, and what finishes it."""
        entry, context = self._entry(name), (*self.context, "made")
        roles = {each: dataclasses.replace(r, hidden=r.hidden + entry.hidden) for each, r in ROLES.items()}
        make = load(entry.make) if isinstance(entry.make, str) else entry.make
        finishers = entry.finish or (() if self.finish is None else (self.finish,))
        return tuple(read(each, roles, context=context) for each in (make, *finishers))

    def _others(self, key: str) -> str:
        """Which other choices have the key."""
        found = sorted(other for other in self.entries if key in self.keys(other))
        return f" It is a key of: {', '.join(found)}." if found else ""
