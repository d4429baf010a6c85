"""Flags of XLA that this jaxlib has: it ends the process for one that it does not know."""

from __future__ import annotations

import importlib.util
import mmap
from collections.abc import Iterable
from pathlib import Path

__all__ = ["known_flags"]


def known_flags(names: Iterable[str]) -> list[str]:
    """Those of the names that are flags of the jaxlib installed; JAX is not started, nor imported.

    Looked up in its library as whole strings: one that was taken out is still named among those reserved.
    """
    found = importlib.util.find_spec("jaxlib")
    if found is None or found.origin is None:
        return []
    library = max(Path(found.origin).parent.glob("*.so"), key=lambda path: path.stat().st_size, default=None)
    if library is None:
        return []
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return [name for name in names if content.find(b"\0%b\0" % name.encode()) >= 0]
