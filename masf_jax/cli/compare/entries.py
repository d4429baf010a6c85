"""Which filters a comparison has, and each one's settings, from the command line."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from ..config.compose import compose
from ..config.filter_file import FilterFile, is_filter_file, read_filter_file
from ..config.settings import Settings
from ..errors import InputError, unknown
from .own_keys import items

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = ["Entry", "read_entries"]

_SHARED = tuple(field.name for field in dataclasses.fields(Settings))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A filter of the comparison: its name there, the settings of its runs, the file they come from."""

    label: str
    settings: Settings
    file: FilterFile | None


def read_entries(given: Override | None, others: list[Override]) -> list[Entry]:
    """The filters of `filters=…` with the other overrides: LABEL.KEY=VALUE for one of them, the rest for all.

    Everything but the filter and its ensemble size is the same for all.

    Raises:
        InputError: no filters, a label that is no name, a key or value that the filter does not take.
    """
    if given is None:
        raise InputError("which filters? For example: masf-jax compare filters=[etkf,letkf,masf] …")
    chosen = _labelled(given)
    common: list[str] = []
    own: dict[str, list[str]] = {label: [] for label in chosen}
    for override in others:
        text, (label, _, key) = override.input_line or "", override.key_or_group.partition(".")
        if override.is_sweep_override():
            raise InputError(f"{text} lists several values; the filters of a comparison have one each.")
        if label == "filter" and not key:
            raise InputError(f"{text}: a comparison has its filters in one list, filters=[etkf,letkf].")
        if not key or label in _SHARED:
            common.append(text)
        elif label in chosen:
            own[label].append(_run_key(label, key, override))
        else:
            raise unknown("filter or group of keys", label, [*chosen, *_SHARED])
    compose([text for text in common if not text.lstrip("+").startswith("filter.")])
    found = []
    for label, choice in chosen.items():
        file = read_filter_file(choice) if is_filter_file(choice) else None
        try:
            settings = compose([*common, f"filter={_quoted(choice)}", *own[label]])
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        found.append(Entry(label, settings, file))
    return found


def _labelled(given: Override) -> dict[str, str]:
    """label -> choice, from [letkf,./a.yaml] (labels: names, stems of files) or {small:letkf,large:letkf}."""
    value = given.value()
    if isinstance(value, dict):
        pairs = [(str(label), choice) for label, choice in value.items()]
    else:
        pairs = [(_label(choice), choice) for choice in items(given)]
    chosen: dict[str, str] = {}
    for label, choice in pairs:
        if not isinstance(choice, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", label) or label in _SHARED:
            raise InputError(
                f"{given.input_line}: expected filters by name or file, filters=[letkf,./tuned.yaml], or "
                "with names of your own, filters={a:letkf,b:letkf}: letters, digits, _ and -, none of "
                f"{', '.join(_SHARED)}."
            )
        if label in chosen:
            raise InputError(
                f"{given.input_line}: two filters are called {label}. Name them: "
                f"filters={{{label}_1:{chosen[label]},{label}_2:{choice}}}"
            )
        chosen[label] = choice
    if not chosen:
        raise InputError(f"{given.input_line}: a comparison needs at least one filter.")
    return chosen


def _label(choice: Any) -> str:
    text = str(choice)
    return text.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0] if is_filter_file(text) else text


def _run_key(label: str, key: str, override: Override) -> str:
    """`letkf.radius=5` as the override of a run, `filter.radius=5`."""
    place = key if key == "ensemble_size" else f"filter.{key}"
    return f"{place}={override.get_value_string()}"


def _quoted(choice: str) -> str:
    return "'" + choice.replace("'", "\\'") + "'" if is_filter_file(choice) else choice
