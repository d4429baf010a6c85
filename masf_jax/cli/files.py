"""Writing files so that a full disk or a kill leaves the earlier ones whole."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import WriteError

__all__ = ["check_writable", "remedy", "text_writer", "write_all"]


_ROOM = 2**16
"""Bytes that there must be room for before a run begins: those of its configuration, twice and more."""


def check_writable(folder: Path) -> None:
    """Tries a file in the folder, or where it would be made, so that a run does not end in vain.

    Raises:
        WriteError: naming the folder and the reason.
    """
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(prefix=".masf-", dir=existing, buffering=0) as probe:
            probe.write(bytes(_ROOM))
    except OSError as error:
        raise WriteError(
            f"the output folder {folder} cannot be written: {error.strerror or error}. "
            "Give another one: output_dir=PATH"
        ) from error


def write_all(folder: Path, writers: Mapping[str, Callable[[Path], None]]) -> list[Path]:
    """Writes every file under a temporary name in the same folder, then puts all in place.

    Files already there are replaced only after all new ones are complete and on disk.

    Args:
        writers: file name -> function that writes the file at the path it is given.

    Raises:
        WriteError: naming the file and the reason; nothing has been replaced, unless putting the
            files in place itself failed.
    """
    staged: dict[Path, Path] = {}
    target = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            target = folder / name
            staged[target] = folder / f".masf-{uuid.uuid4().hex}{target.suffix}"
            write(staged[target])
            with staged[target].open("rb+") as file:
                os.fsync(file.fileno())
        for target, temporary in staged.items():
            os.replace(temporary, target)
    except OSError as error:
        raise WriteError(
            f"could not write {target}: {error.strerror or error}. "
            f"Earlier results in {folder} are as they were: {remedy(error)}, and give the same command again."
        ) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return list(staged)


def remedy(error: OSError) -> str:
    """What to do about a file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room" if full else "see that it can be written"


def text_writer(content: str) -> Callable[[Path], None]:
    """What writes this text, for `write_all`."""

    def write(path: Path) -> None:
        path.write_text(content, encoding="utf-8")

    return write
