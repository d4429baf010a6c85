"""What can be chosen, read from the configuration files themselves."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from .errors import unknown
from .exit_codes import ExitCode
from .groups import GROUPS, OWN_GROUPS, choices, config_folder

__all__ = ["group_lines", "key_lines", "print_choices"]


def print_choices(arguments: list[str]) -> ExitCode:
    """Prints every choice of all groups, or of the groups named, one line each; or one choice's keys; or the
    keys of a section of config.yaml that is no group (observations)."""
    if len(arguments) == 2 and arguments[0] in GROUPS and arguments[1] not in GROUPS:
        print_keys(*arguments)
        return ExitCode.DONE
    sections = _sections()
    for name in arguments:
        if name not in GROUPS and name not in sections:
            raise unknown("group or section", name, {*GROUPS, *sections})
    for group in arguments or GROUPS:
        if group not in GROUPS:
            print(sections[group])
            continue
        print(f"{group}=")
        for choice in choices(group):
            path = config_folder() / group / f"{choice}.yaml"
            lines = _preset(path) if group == "experiment" else [_summary(path)]
            for head, line in zip([choice, *[""] * len(lines)], lines, strict=False):
                print(f"  {head:<24}{line}")
    return ExitCode.DONE


def print_keys(group: str, choice: str) -> None:
    """Prints the keys of one choice: the value each has, what it may be, and what it is."""
    from .config.compose import key_rows
    from .config.own_files import is_own

    own = group in OWN_GROUPS and is_own(choice)
    if choice not in choices(group) and not own:
        raise unknown(group, choice, choices(group))
    said = "" if own else _summary(config_folder() / group / f"{choice}.yaml")
    print(f"{group}={choice}  {said}".rstrip())
    for path, value, kind, doc in key_rows(group, choice):
        print(f"  {group}.{path}={value}  ({kind})")
        if doc:
            print(textwrap.fill(doc, 100, initial_indent=" " * 6, subsequent_indent=" " * 6))


def _summary(path: Path) -> str:
    """The comment on a configuration file's first line."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()


def _preset(path: Path) -> list[str]:
    """Description, reference and expected RMSE by filter of a preset."""
    import yaml

    about = yaml.safe_load(path.read_text(encoding="utf-8"))["experiment"]
    tuned = about.get("tuned", {}).items()
    expected = [f"{name} {_range(values)}" for name, values in tuned if "expected" in values]
    lines = [about["description"], about["reference"]]
    return [*lines, "expected RMSE: " + ", ".join(expected)] if expected else lines


def _range(values: dict[str, Any]) -> str:
    """The RMSE to expect ± its standard deviation over seeds, where that was measured."""
    std = values.get("expected_std")
    return f"{values['expected']:g}" + ("" if std is None else f" ± {std:g}")


def group_lines() -> str:
    """One line per group with its choices, wrapped."""
    return "\n".join(
        textwrap.fill(
            ", ".join(choices(group)), 100, initial_indent=f"  {group:<13}", subsequent_indent=" " * 15
        )
        for group in GROUPS
    )


def key_lines() -> str:
    """The root keys with their comments, as they stand in config.yaml."""
    return textwrap.indent(_root_keys(), "  ")


def _root_keys() -> str:
    text = (config_folder() / "config.yaml").read_text(encoding="utf-8")
    start, end = text.index("\nseed:"), text.index("\nexperiment:")
    return text[start:end].strip()


def _sections() -> dict[str, str]:
    """By name, the root keys that have keys of their own, with these and their comments."""
    found: dict[str, list[str]] = {}
    for line in _root_keys().splitlines():
        if line.startswith("  "):
            found[name].append(line)
        elif line:
            name = line.partition(":")[0]
            found[name] = [line]
    return {name: "\n".join(lines) for name, lines in found.items() if len(lines) > 1}
