"""The configuration groups: where their files lie, and what there is to choose."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError, unknown

__all__ = ["GROUPS", "OWN_GROUPS", "choices", "config_folder", "shipped_file"]

GROUPS = ("dynamics", "measurement", "filter", "smoother", "experiment")
OWN_GROUPS = ("dynamics", "measurement", "filter")
"""Those that take an object of a Python file, GROUP=FILE.py:NAME."""


def config_folder() -> Path:
    """The folder of the configuration groups: in the installed package, or in the source checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(f"the configuration groups of masf_jax are missing (looked beside and in {package}).")


def choices(group: str) -> list[str]:
    """Names of the choices of a group."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def shipped_file(path: str) -> str:
    """The path of "shipped:NAME", a file of observations that comes with masf_jax; any other as it is.

    Raises:
        InputError: no such file.
    """
    if not path.startswith("shipped:"):
        return path
    folder, name = config_folder() / "data", path.removeprefix("shipped:")
    held = [file.name for file in folder.glob("*.*")]
    if name not in held:
        raise unknown("shipped observation file", name, held)
    return str(folder / name)
