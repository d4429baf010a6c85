"""Public names that are imported when they are first asked for (PEP 562); what is said of unknown ones."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["close_names", "lazy", "unknown"]

_PLACES = ("filters", "masf", "measurements", "dynamics", "ensemble", "smoothers", "amortised", "metrics")
"""Where users look for names."""
_FORMER = ".former"
"""The module of names of earlier versions, which are there when asked for one by one."""


def lazy(
    package: str, names: Mapping[str, str], modules: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        names: public name -> relative module that has it (".masf.filter").
        modules: sub-packages and modules reached as attributes.
    """

    def __getattr__(name: str) -> Any:
        if name in names:
            value = getattr(importlib.import_module(names[name], package), name)
        elif name == "__all__":  # asked for by `from package import *`
            return [each for each, module in names.items() if module != _FORMER] + list(modules)
        elif name in modules:
            value = importlib.import_module(f".{name}", package)
        else:
            raise _error(package, name, [*names, *modules])
        setattr(importlib.import_module(package), name, value)  # asked for once
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *names, *modules})

    return __getattr__, __dir__


def unknown(package: str) -> Callable[[str], Any]:
    """`__getattr__` of a package that has all of its names: an error that names similar ones."""

    def __getattr__(name: str) -> Any:
        raise _error(package, name, vars(importlib.import_module(package)))

    return __getattr__


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """Which known names may have been meant, the nearest first; upper and lower case are alike."""
    by_lower: dict[str, str] = {each.lower(): each for each in known}
    return [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, 3)]


def _error(package: str, name: str, known: Iterable[str]) -> AttributeError:
    text = f"module {package!r} has no attribute {name!r}"
    if name.startswith("_"):  # asked for by Python, not by a person
        return AttributeError(text)
    home = package.partition(".")[0]
    places = _PLACES if name != name.lower() else ()  # not for what `from . import x` asks
    elsewhere = [
        place
        for place in places
        if f"{home}.{place}" != package and name in dir(importlib.import_module(f"{home}.{place}"))
    ]
    near = [each for each in close_names(name, known) if not each.startswith("_")]
    if elsewhere:
        text += f"; there is {home}.{elsewhere[0]}.{name}"
    elif near:
        text += f"; do you mean {' or '.join(near)}?"
    return AttributeError(text)
