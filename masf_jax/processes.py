"""Runs of several processes (`jax.distributed`): their arrays on the host, and the loss of one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

__all__ = ["ProcessLostError", "is_first", "on_host", "others_may_end"]

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


@contextlib.contextmanager
def others_may_end() -> Iterator[None]:
    """Raises `ProcessLostError` in place of what XLA says when a process it waits for has ended."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX makes ValueErrors of some
        text = str(error).lower()
        if not any(word in text for word in _LOST) or jax.process_count() == 1:
            raise
        who = f"process {jax.process_index()} of {jax.process_count()}"
        raise ProcessLostError(
            f"{who} cannot go on: another one has ended (its own output says why). Start all of them again; "
            "a run that saved its state goes on from there."
        ) from error
