"""A registry: names and the builder functions behind them, with their scalars checked by signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import InputError, unknown
from ..typed import checked

__all__ = ["Registry"]


class Registry:
    """Builder functions by name. A builder's keyword-only parameters are the keys users may set.

    Args:
        group: the configuration group it serves, for messages ("filter").
    """

    def __init__(self, group: str):
        self.group = group
        self.builders: dict[str, Callable[..., Any]] = {}

    def register(self, builder: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: adds the function under its own name."""
        self.builders[builder.__name__] = builder
        return builder

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """The keys of one choice."""
        if name not in self.builders:
            raise unknown(f"{self.group} name", name, self.builders)
        signature = inspect.signature(self.builders[name])
        return {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}

    def check(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration section {name: …, key: value, …} with every key known and every value typed.

        Keys left out take the builder's defaults, so the result is complete.
        """
        name = section.get("name")
        if not isinstance(name, str):
            raise InputError(
                f"{self.group}.name must be one of {', '.join(sorted(self.builders))}; got {name!r}."
            )
        parameters = self.parameters(name)
        hints = typing.get_type_hints(self.builders[name])
        for key in section:
            if key != "name" and key not in parameters:
                known = [f"{self.group}.{p}" for p in parameters]
                others = [other for other in self.builders if key in self.parameters(other)]
                more = f" It is a key of: {', '.join(sorted(others))}." if others else ""
                raise unknown(f"key (of {self.group} {name})", f"{self.group}.{key}", known, more)
        out: dict[str, Any] = {"name": name}
        for key, parameter in parameters.items():
            if key not in section and parameter.default is inspect.Parameter.empty:
                raise InputError(f"{self.group}.{key} is missing: the {self.group} {name!r} needs it.")
            value = section.get(key, parameter.default)
            out[key] = checked(f"{self.group}.{key}", value, hints[key])
        return out

    def build(self, section: Mapping[str, Any], *context: Any) -> Any:
        """The object of a checked section; `context` are the builder's positional arguments."""
        arguments = {key: value for key, value in section.items() if key != "name"}
        try:
            return self.builders[section["name"]](*context, **arguments)
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.group} {section['name']}: {error}") from error
