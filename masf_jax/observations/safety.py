"""What a file may be before it is opened, and how much memory its values may take."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import FileError

__all__ = ["check_kind", "check_memory", "memory_limit"]

_COPIES = 4
"""Copies in double precision that a reading and its run hold at once."""


def check_kind(path: Path) -> None:
    """Refuses what is neither a plain file nor a folder: a pipe, a device, a socket.

    Raises:
        FileError: naming the file.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}.") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileError(f"{path} is no plain file (a pipe, a device or a socket): give a file.")
    if stat.S_ISDIR(mode) and path.suffix.lower() != ".zarr":
        raise FileError(f"{path} is a folder: give a .csv or .nc file, or a folder ending in .zarr.")
    if stat.S_ISREG(mode) and path.suffix.lower() == ".zarr":
        raise FileError(f"{path} is a file: a zarr store must be a folder (unpack it first).")


def memory_limit() -> int:
    """Bytes that the values of a file may take in double precision: their copies fit into half of what is
    free."""
    return _free() // (2 * _COPIES)


def check_memory(path: Path, n_values: int) -> None:
    """Refuses a file whose values would not fit, before memory is taken.

    Raises:
        FileError: naming the file, the size and the limit.
    """
    limit = memory_limit()
    if 8 * n_values > limit:
        raise FileError(
            f"{path} would take {8 * n_values / 1e9:.3g} GB as double-precision values; the limit here is "
            f"{limit / 1e9:.3g} GB (an eighth of the free memory): read a part of it."
        )


def _free() -> int:
    """Free memory in bytes, of the container where it has a limit of its own."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except OSError:  # not Linux
        found.append(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**32
        )
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return max(min(found, default=2**32), 0)
