"""A group of choices: names, the constructors behind them, and their keys."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import InputError, unknown
from ..own_files import is_own, load_own
from ..schema import Key, Part, load, read
from ..values import checked_keys, naming
from .roles import ROLES

__all__ = ["SHA256", "Entry", "Group"]

SHA256 = "sha256"
"""The key, of an object of a user's file, that says which content of the file it is from."""


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
        own: what an object of a user's file is taken for ("FILE.py:NAME"); None: such files are not taken.
    """

    def __init__(
        self,
        name: str,
        entries: Mapping[str, str | Callable[..., Any] | Entry],
        context: tuple[str, ...] = (),
        finish: Callable[..., Any] | None = None,
        own: Callable[[str, Any], Entry] | None = None,
    ):
        self.name, self.context, self.finish, self.own = name, context, finish, own
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
        sha256 = load_own(name, section.get(SHA256)).sha256 if self._takes(name) else None
        given = self._adapted(name, section)
        found = checked_keys(
            f"{self.name}.",
            given,
            self.keys(name, given),
            f" (of {self.name} {name})",
            ignored=lambda path: any(f"{key}.".startswith(f"{path}.") for key in self.keys(name)),
            hint=self._others,
        )
        return {"name": name, **found} | ({} if sha256 is None else {SHA256: sha256})

    def build(self, section: Mapping[str, Any], *context: Any) -> Any:
        """The object of a checked section; `context`: values of what the group's `context` names."""
        made, given = None, dict(zip(self.context, context, strict=True))
        with naming(f"{self.name} {section['name']}", (ValueError, TypeError)):
            for part in self._parts(section["name"], section.get(SHA256)):
                made = part.build(section, {**given, "made": made})
        return made

    def _adapted(self, name: str, section: Mapping[str, Any]) -> dict[str, Any]:
        with naming(f"{self.name} {name}", ValueError):
            given = {key: value for key, value in section.items() if key != "name"}
            if self._takes(name):
                given.pop(SHA256, None)
            return self._entry(name).adapt(given)

    def _takes(self, name: str) -> bool:
        """Whether the name is that of an object in a user's file."""
        return self.own is not None and is_own(name)

    def _entry(self, name: str, sha256: str | None = None) -> Entry:
        if self.own is not None and is_own(name):
            return self.own(name, load_own(name, sha256).found)
        if name not in self.entries:
            raise unknown(f"{self.name} name", name, self.entries)
        return self.entries[name]

    def _parts(self, name: str, sha256: str | None = None) -> tuple[Part, ...]:
        """What makes the object, and what finishes it."""
        if not self._takes(name):
            return self._named_parts(name)
        with naming(name, TypeError):
            return self._read(self._entry(name, sha256))

    @functools.cache  # noqa: B019 - as many groups as there are
    def _named_parts(self, name: str) -> tuple[Part, ...]:
        return self._read(self._entry(name))

    def _read(self, entry: Entry) -> tuple[Part, ...]:
        context = (*self.context, "made")
        roles = {each: dataclasses.replace(r, hidden=r.hidden + entry.hidden) for each, r in ROLES.items()}
        make = load(entry.make) if isinstance(entry.make, str) else entry.make
        finishers = entry.finish or (() if self.finish is None else (self.finish,))
        return tuple(read(each, roles, context=context) for each in (make, *finishers))

    def _others(self, key: str) -> str:
        """Which other choices have the key."""
        found = sorted(other for other in self.entries if key in self.keys(other))
        return f" It is a key of: {', '.join(found)}." if found else ""
