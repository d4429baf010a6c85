"""Where a run stands between two cycles: kept in memory or in a file, and gone on from."""

from __future__ import annotations

import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from .filters.base import EnsembleState, State
from .processes import is_first, on_host
from .training.files import CheckpointError, absolute, read, write

__all__ = ["RunState"]


class RunState(eqx.Module):
    """All that the next cycle depends on, besides model, filter, measurement and observations.

    key: of the whole run; state: members or moments, and what the filter remembers.
    step: model steps done, model time = step · dt; cycle: cycles done.
    """

    key: PRNGKeyArray
    state: State
    step: Int[Array, ""]
    cycle: UInt32[Array, ""]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the model's state."""
        state = self.state
        return state.ensemble.shape[1:] if isinstance(state, EnsembleState) else state.mean.shape

    @property
    def dtype(self) -> jnp.dtype:
        """Of the model's state."""
        state = self.state
        return state.ensemble.dtype if isinstance(state, EnsembleState) else state.mean.dtype

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to one file (safetensors, with a digest); an earlier one stays whole until it is done.

        Of several processes all call it, and the first one writes.
        """
        leaves = {f"{i}": _numbers(leaf) for i, leaf in enumerate(jax.tree.leaves(self))}
        if is_first():
            write(absolute(path), {"kind": "run state", "tree": _form(self)}, {"leaves": leaves})

    @staticmethod
    def load(path: str | os.PathLike[str], like: RunState) -> RunState:
        """Reads what `save` wrote.

        Args:
            like: a run state of the same filter, model and number of members, as `begin` makes it.

        Raises:
            FileNotFoundError: nothing is there.
            CheckpointError: no run state, a damaged one, or one of another filter, model or ensemble.
        """
        where = absolute(path)
        about, arrays = read(where)
        if about.get("kind") != "run state":
            raise CheckpointError(f"{where} is no run state (RunState.save writes one).")
        stored, wanted = about.get("tree"), _form(like)
        if stored != wanted:
            apart = next(
                (
                    f"has {a}, where {b} is expected"
                    for a, b in zip(stored or [], wanted, strict=False)
                    if a != b
                ),
                f"has {len(stored or [])} arrays, where {len(wanted)} are expected",
            )
            raise CheckpointError(f"{where} is of another filter, model, ensemble or precision: it {apart}.")
        leaves = [arrays["leaves"][f"{i}"] for i in range(len(wanted))]
        old, structure = jax.tree.flatten(like)
        return jax.tree.unflatten(structure, map(_restored, leaves, old))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> np.ndarray:
    return np.asarray(on_host(jax.random.key_data(leaf) if _is_key(leaf) else leaf))


def _restored(numbers: np.ndarray, like: Any) -> Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(numbers), impl=jax.random.key_impl(like))
    return jnp.asarray(numbers)


def _form(run: RunState) -> list[str]:
    """Path, type and shape of each array."""
    leaves = jax.tree_util.tree_leaves_with_path(run)
    return [f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}" for path, leaf in leaves]
