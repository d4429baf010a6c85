"""What is run on shared problems: settings under a label; the filters of a comparison from its command."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from ...dynamics import Dynamics
from ...filters import Filter
from ..config.compose import compose
from ..config.filter_file import FilterFile, is_filter_file, read_filter_file
from ..config.overrides import items
from ..config.own_files import label as of_own
from ..config.settings import Settings
from ..config.values import naming
from ..errors import InputError, unknown
from ..run.problem import build_filter

__all__ = ["Entry", "output_folder", "read_entries"]

_SHARED = tuple(field.name for field in dataclasses.fields(Settings))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A filter with its settings, its label in messages and tables, and the file they come from."""

    label: str
    settings: Settings
    file: FilterFile | None = None

    def build(self, dynamics: Dynamics) -> Filter:
        """The filter, not prepared."""
        with naming(self.label):
            return build_filter(self.settings, dynamics)


def output_folder(command: str, settings: Settings, others: list[Override], end: str = "") -> Path:
    """output_dir where it is given, else outputs/COMMAND-EXPERIMENT."""
    if settings.output_dir and any(override.key_or_group == "output_dir" for override in others):
        return Path(settings.output_dir)
    return Path(f"outputs/{command}-{settings.problem}{end}")


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
            place = key if key == "ensemble_size" else f"filter.{key}"
            own[label].append(f"{place}={override.get_value_string()}")
        else:
            raise unknown("filter or group of keys", label, [*chosen, *_SHARED])
    compose([text for text in common if not text.lstrip("+").startswith("filter.")])
    found = []
    for label, choice in chosen.items():
        file = read_filter_file(choice) if is_filter_file(choice) else None
        with naming(label), _told_of_shared(common, list(chosen)):
            settings = compose([*common, f"filter={_quoted(choice)}", *own[label]])
        found.append(Entry(label, settings, file))
    return found


@contextlib.contextmanager
def _told_of_shared(common: list[str], labels: list[str]) -> Iterator[None]:
    """Says of a key that was given to all filters, and that one of them does not take, how one gets it."""
    try:
        yield
    except InputError as error:
        keys = (text.lstrip("+~").partition("=")[0] for text in common)
        shared = [key for key in keys if key.startswith("filter.") and repr(key) in str(error)]
        if not shared:
            raise
        own = shared[0].removeprefix("filter.")
        one = f"{labels[0]}.{own}=…"
        raise InputError(
            f"{error}\n{shared[0]} is given to all filters here; to one of them: {one}"
        ) from error


def _labelled(given: Override) -> dict[str, str]:
    """label -> choice, from [letkf,./a.yaml] (labels: names, stems of files) or {small:letkf,large:letkf}."""
    value: Any = given.value()
    named = value.items() if isinstance(value, dict) else ((_label(each), each) for each in items(given))
    pairs = [(str(label), choice) for label, choice in named]
    chosen: dict[str, str] = {}
    for label, choice in pairs:
        if not isinstance(choice, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", label) or label in _SHARED:
            raise InputError(
                f"{given.input_line}: expected filters by name or file, filters=[letkf,./tuned.yaml], or "
                f"with names of your own, filters={{a:letkf,b:letkf}}: a letter or _, then letters, digits, "
                f"_ and -, none of {', '.join(_SHARED)}; got {label!r}."
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
    if is_filter_file(text):
        return text.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return of_own(text)


def _quoted(choice: str) -> str:
    return "'" + choice.replace("'", "\\'") + "'" if is_filter_file(choice) else choice
