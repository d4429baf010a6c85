"""What can be chosen, read from the configuration files themselves."""

from __future__ import annotations

from pathlib import Path

from .config.compose import GROUPS, choices, config_folder
from .errors import unknown

__all__ = ["group_lines", "key_lines", "print_choices"]


def print_choices(arguments: list[str]) -> None:
    """Prints every choice of all groups, or of the groups named, one line each."""
    for name in arguments:
        if name not in GROUPS:
            raise unknown("group", name, GROUPS)
    for group in arguments or GROUPS:
        print(f"{group}=")
        for choice in choices(group):
            path = config_folder() / group / f"{choice}.yaml"
            lines = _preset(path) if group == "experiment" else [_summary(path)]
            print(f"  {choice:<24}{lines[0]}")
            for line in lines[1:]:
                print(f"  {'':<24}{line}")


def _summary(path: Path) -> str:
    """The comment on a configuration file's first line."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("#").strip()


def _preset(path: Path) -> list[str]:
    """Description, reference and expected RMSE by filter of a preset."""
    from omegaconf import OmegaConf

    about = OmegaConf.create(OmegaConf.load(path)).experiment
    lines = [str(about["description"]), str(about["reference"])]
    expected = {
        name: tuned["expected"] for name, tuned in about.get("tuned", {}).items() if "expected" in tuned
    }
    if expected:
        lines.append("expected RMSE: " + ", ".join(f"{name} {value:g}" for name, value in expected.items()))
    return lines


def group_lines() -> str:
    """One line per group with its choices, wrapped."""
    import textwrap

    wrapped = (
        textwrap.fill(
            ", ".join(choices(group)), 100, initial_indent=f"  {group:<13}", subsequent_indent=" " * 15
        )
        for group in GROUPS
    )
    return "\n".join(wrapped) + "\n"


def key_lines() -> str:
    """The root keys with their comments, as they stand in config.yaml."""
    text = (config_folder() / "config.yaml").read_text(encoding="utf-8")
    start, end = text.index("\nseed:"), text.index("\nexperiment:")
    return "".join(f"  {line}\n" for line in text[start:end].strip().splitlines())
