"""Any tree of arrays in one file, for a loop to go on from: a run, a training."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..processes import is_first, on_host
from .files import CheckpointError, absolute, digest, read, write

__all__ = ["Kept", "identity", "read_tree", "write_tree"]

T = TypeVar("T")


def write_tree(where: Path, kind: str, tree: Any, about: str = "") -> None:
    """Writes all arrays of a tree; what is there stays whole until all is written.

    Of several processes all call it, and the first one writes.
    """
    leaves = {f"{i}": _numbers(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
    if is_first():
        write(where, {"kind": kind, "tree": _form(tree), "about": about}, {"leaves": leaves})


def read_tree(where: Path, kind: str, like: T, of: str) -> tuple[T, str]:
    """What `write_tree` wrote, and what it said about it.

    Args:
        like: a tree with arrays of the same shapes and types.
        of: what trees of another form are of, in words.

    Raises:
        FileNotFoundError: nothing is there.
        CheckpointError: something else, a damaged file, or a tree of another form.
    """
    about, arrays = read(where)
    if about.get("kind") != kind:
        raise CheckpointError(f"{where} is no {kind}.")
    stored, wanted = about.get("tree"), _form(like)
    if stored != wanted:
        apart = next(
            (f"has {a}, where {b} is expected" for a, b in zip(stored or [], wanted, strict=False) if a != b),
            f"has {len(stored or [])} arrays, where {len(wanted)} are expected",
        )
        raise CheckpointError(f"{where} is of {of}: it {apart}.")
    leaves = [arrays["leaves"][f"{i}"] for i in range(len(wanted))]
    old, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, map(_restored, leaves, old)), str(about.get("about", ""))


def identity(tree: Any, *names: str) -> str:
    """Digests of a tree's arrays and numbers and of its structure (types, static values), and names."""
    leaves, structure = jax.tree.flatten(tree)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(structure))  # of functions: where this process has them
    of_structure = hashlib.sha256(text.encode()).hexdigest()[:16]
    numbers = [_numbers(leaf) for leaf in leaves if eqx.is_array_like(leaf)]
    return " ".join((digest(numbers), of_structure, *names))


class Kept:
    """A training's state in a file, written at most every so many seconds, for the training to go on from.

    Args:
        path: a file; made where nothing is.
        seconds: None: `every`.
    """

    every = 30.0

    def __init__(self, path: Path, seconds: float | None = None):
        self.path, self.seconds = absolute(path), self.every if seconds is None else seconds
        self._since = time.monotonic()

    def read(self, like: T, about: str) -> T | None:
        """The state that was kept; None where there is none, or one of another training."""
        if not self.path.exists():
            return None
        try:
            tree, found = read_tree(self.path, "training", like, "another network")
        except CheckpointError:
            return None
        return tree if found == about else None

    def write(self, tree: Any, about: str, last: bool = False) -> None:
        """Keeps this state, if it is time, or the last one."""
        if last or time.monotonic() - self._since >= self.seconds:
            write_tree(self.path, "training", tree, about)
            self._since = time.monotonic()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> np.ndarray:
    return np.asarray(on_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf))


def _restored(numbers: np.ndarray, like: Any) -> Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(numbers), impl=jax.random.key_impl(like))
    return jnp.asarray(numbers)


def _form(tree: Any) -> list[str]:
    """Path, type and shape of each array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}" for path, leaf in leaves]
