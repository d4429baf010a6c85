"""Checkpoints of the time before one file each: folders of Orbax, read, and written anew as a file.

python -m masf_jax.training.orbax_folder FOLDER FILE.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .files import CheckpointError, absolute, check_format, digest, write

__all__ = ["convert", "read_folder"]


def read_folder(where: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays of a folder.

    Raises:
        CheckpointError: no checkpoint, of another version, or with arrays that were not saved with it.
    """
    if not (where / "about").is_dir() or not (where / "arrays").is_dir():
        raise CheckpointError(f"{where} is no checkpoint of masf_jax (a folder without 'about' and 'arrays')")
    import orbax.checkpoint as ocp  # here, not above: it takes long to import

    items = {"about": ocp.args.JsonRestore(), "arrays": ocp.args.StandardRestore()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        found = reader.restore(where, ocp.args.Composite(**items))
    check_format(where, found.about, 2)
    if digest(found.arrays) != found.about["arrays"]:
        raise CheckpointError(f"{where}: its arrays are not those that were saved with its description")
    return {
        name: found.about[name] for name in ("net", "denoiser", "state_shape", "fingerprint")
    }, found.arrays


def convert(folder: str, file: str) -> None:
    """Writes what a folder holds as one file, the arrays bit for bit.

    Raises:
        FileExistsError: the file is there. CheckpointError: see `read_folder`.
    """
    target = absolute(file)
    if target.exists():
        raise FileExistsError(f"{target} exists: choose another path")
    write(target, *read_folder(absolute(folder)))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(*sys.argv[1:])
