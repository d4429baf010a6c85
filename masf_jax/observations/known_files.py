"""Files that this process wrote or has read through: not to be read in a process of their own again."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_known", "remember"]

_known: set[tuple[int, ...]] = set()


def remember(path: Path) -> None:
    """The file as it is now is whole."""
    _known.add(_state(path))


def is_known(path: Path) -> bool:
    """Whether it is one of these, and has not changed since."""
    return path.is_file() and _state(path) in _known


def _state(path: Path) -> tuple[int, ...]:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
