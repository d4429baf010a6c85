"""Runs of several processes (`jax.distributed`): their arrays on the host, and the loss of one of them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

__all__ = [
    "ProcessLostError",
    "all_alike",
    "alone",
    "first_tells",
    "is_first",
    "largest",
    "on_host",
    "others_may_end",
]

_LOST = ("closed by peer", "connection reset", "heartbeat", "gloo", "nccl", "unhealthy")


class ProcessLostError(RuntimeError):
    """Another process of the run has ended, so that this one cannot go on."""


def on_host(tree: Any) -> Any:
    """The arrays as NumPy's, whole in every process; of arrays spread over processes, all must call it."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        from jax.experimental.multihost_utils import process_allgather

        with others_may_end():
            return np.asarray(process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)


def is_first() -> bool:
    """Whether this process is the only one, or the one that writes files."""
    return jax.process_index() == 0


def first_tells(find: Callable[[], int]) -> int:
    """What the first process finds, 0 or more, told to all of them, which call this together.

    Raises:
        ProcessLostError: `find` raised in the first process; there its own error is raised.
    """
    if not jax.distributed.is_initialized():  # starts no devices
        return find()
    failed = -1
    if is_first():
        try:
            found = find()
        except BaseException:
            _told(failed)
            raise
        return _told(found)
    found = _told(0)
    if found == failed:
        raise ProcessLostError(f"{_this()} cannot go on: process 0 has ended (its own output says why).")
    return found


def _told(number: int) -> int:
    from jax.experimental.multihost_utils import broadcast_one_to_all

    with others_may_end():
        return int(broadcast_one_to_all(np.int32(number)))


def alone() -> bool:
    """Lets the others go, which all call this together; whether this process is the first, to go on alone."""
    if not jax.distributed.is_initialized():
        return True
    jax.distributed.shutdown()
    return is_first()


def largest(number: int) -> int:
    """The largest number of those that the processes call this with, all together."""
    return int(_of_all(np.int32(number)).max())


def all_alike(text: str) -> bool:
    """Whether all processes call this with the same text."""
    digests = _of_all(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8))
    return bool((digests == digests[0]).all())


def _of_all(numbers: Any) -> np.ndarray:
    """(processes, …)."""
    if jax.process_count() == 1:
        return np.asarray(numbers)[None]
    from jax.experimental.multihost_utils import process_allgather

    with others_may_end():
        return np.asarray(process_allgather(numbers))


def _this() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


@contextlib.contextmanager
def others_may_end() -> Iterator[None]:
    """Raises `ProcessLostError` in place of what XLA says when a process it waits for has ended."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX makes ValueErrors of some
        text = str(error).lower()
        if not any(word in text for word in _LOST) or jax.process_count() == 1:
            raise
        raise ProcessLostError(
            f"{_this()} cannot go on: another one has ended (its own output says why). Start all of them "
            "again; a run that saved its state goes on from there."
        ) from error
