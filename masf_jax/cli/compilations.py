"""XLA's compilations kept in the user's cache folder: a second run of the same shapes compiles nothing.

Only the command line does this; `import masf_jax` leaves JAX's settings alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path

__all__ = ["LIMIT", "cache_folder", "keep_compilations"]

LIMIT = 2**30
"""Bytes; beyond them the entries used longest ago go, until half is left."""
_OWN = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
"""Environment variables by which users decide themselves."""


def keep_compilations(setting: bool | str | None) -> Path | None:
    """Tells JAX where to keep compiled programs; returns the folder, or None where nothing is kept.

    None, and no word, where the user has set JAX's own cache, or the folder cannot be written or belongs to
    somebody else (what lies in it is run).

    Args:
        setting: true: `cache_folder()`; a path: that folder; false or null: none.
    """
    import jax

    own = getattr(jax.config, "jax_compilation_cache_dir", None) or any(name in os.environ for name in _OWN)
    if own or not setting:
        return None
    folder = cache_folder() if setting is True else Path(setting).expanduser()
    if folder is None or not _is_own(folder):
        return None
    _shrink(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    warnings.filterwarnings(
        "ignore", "Error (reading|writing) persistent compilation cache"
    )  # then it compiles
    return folder


def cache_folder() -> Path | None:
    """masf_jax/xla/MACHINE in the user's cache folder; None if there is no such folder.

    MACHINE stands for the processor's instructions: a home folder may be shared by several kinds of machines.
    """
    base, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    if not os.path.isabs(base):
        base = os.environ.get("LOCALAPPDATA", "") if sys.platform == "win32" else ""
        if home and sys.platform != "win32":
            base = os.path.join(home, "Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(base, "masf_jax", "xla", _machine()) if os.path.isabs(base) else None


def _machine() -> str:
    instructions = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            instructions = next(line for line in lines if line.lower().startswith(("flags", "features")))
    except (OSError, StopIteration):  # not Linux, or a processor that lists none
        pass
    return f"{platform.machine()}-{hashlib.sha256(instructions.encode()).hexdigest()[:8]}"


def _is_own(folder: Path) -> bool:
    """Whether the folder is there, or can be made, is the user's own, and can be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:
        return False
    return mine and os.access(folder, os.W_OK | os.X_OK)


def _shrink(folder: Path) -> None:
    """Deletes what was used longest ago where the folder is larger than `LIMIT`."""
    found = []
    for path in folder.glob("*-cache"):
        try:
            about = path.stat()
        except FileNotFoundError:  # another process was quicker
            continue
        found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    size = sum(entry[1] for entry in found)
    if size <= LIMIT:
        return
    for _, bytes_, path in sorted(found):
        path.unlink(missing_ok=True)
        size -= bytes_
        if size <= LIMIT // 2:
            return
