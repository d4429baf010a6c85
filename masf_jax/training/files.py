"""One file a network: safetensors, its description in the head, a digest of every byte of both."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

__all__ = ["CheckpointError", "absolute", "digest", "plain", "read", "write"]

_FORMAT = 3
_HEAD = "masf_jax"  # the one entry of the head's metadata: several would be written in any order
_BLANK = "0" * 64
_LARGEST = 2**31  # bytes: a file that claims more is not read


class CheckpointError(ValueError):
    """A checkpoint is not one, or not the one that was asked for."""


def write(where: Path, about: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Writes arrays (nested dictionaries) and description; what is there stays whole until all is written.

    The metadata are "DIGEST JSON": the SHA-256 of the file, taken with zeros in the place of the digest, and
    the description. Arrays are named by their path in the tree, as "params/params/Dense_0/kernel".

    Raises:
        CheckpointError: more than a file may hold.
    """
    flat = {name: np.array(leaf, order="C") for name, leaf in flatten_dict(arrays, sep="/").items()}
    head = f"{_BLANK} {json.dumps({'format': _FORMAT, **about})}"
    content = save(flat, {_HEAD: head})
    if len(content) > _LARGEST:
        raise CheckpointError(f"{where} would have {len(content)} bytes; a checkpoint has at most {_LARGEST}")
    content = content.replace(_BLANK.encode(), hashlib.sha256(content).hexdigest().encode(), 1)
    where.parent.mkdir(parents=True, exist_ok=True)
    part = where.with_name(f".{where.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, where)
    finally:
        part.unlink(missing_ok=True)


def read(where: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and arrays (NumPy, as saved) of what `write` wrote.

    Raises:
        FileNotFoundError: nothing is there.
        CheckpointError: what is there is no checkpoint of this package, or of another version, or changed.
    """
    if not where.exists():
        raise FileNotFoundError(f"no checkpoint at {where}")
    if not where.is_file() or where.stat().st_size > _LARGEST:
        raise CheckpointError(f"{where} is no checkpoint of masf_jax: not a file of at most {_LARGEST} bytes")
    try:
        with safe_open(where, framework="numpy") as file:
            head = (file.metadata() or {}).get(_HEAD)
            names = [] if head is None else file.keys()
            flat = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise CheckpointError(
            f"{where} is no checkpoint of masf_jax, or a damaged one ({error}): copy it again, or train again"
        ) from error
    if head is None:
        raise CheckpointError(f"{where} is no checkpoint of masf_jax: its head has no entry {_HEAD!r}")
    stated, _, text = head.partition(" ")
    if hashlib.sha256(where.read_bytes().replace(stated.encode(), _BLANK.encode(), 1)).hexdigest() != stated:
        raise CheckpointError(
            f"{where} was changed since it was written (its SHA-256 digest is another; weights and their "
            "description belong together and are not edited by hand): copy it again, or train again"
        )
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: its description is not JSON ({error}): train again") from error
    check_format(where, about, _FORMAT)
    return about, unflatten_dict(flat, sep="/")


def check_format(where: Path, about: dict[str, Any], expected: int) -> None:
    """Raises CheckpointError for another version's file."""
    found = about.get("format") if isinstance(about, dict) else None
    if found != expected:
        raise CheckpointError(
            f"{where} has format {found}, but this version of masf_jax reads {expected}: train again"
        )


def absolute(path: str | os.PathLike[str]) -> Path:
    """Where that is; `~` is the home directory."""
    return Path(path).expanduser().resolve()


def digest(tree: Any) -> str:
    """Sixteen hexadecimal digits for the shapes, types and values of a tree of arrays."""
    seen = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        seen.update(f"{array.shape}{array.dtype}".encode())
        seen.update(array.tobytes())
    return seen.hexdigest()[:16]


def plain(value: Any) -> Any:
    """As it comes back from JSON: tuples are lists, array scalars numbers."""
    return json.loads(json.dumps(value, default=lambda item: np.asarray(item).tolist()))
