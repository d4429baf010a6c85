"""Where a run stands between two cycles: kept in memory or in a file, and gone on from."""

from __future__ import annotations

import os

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt32

from .filters.base import EnsembleState, State
from .training.files import absolute
from .training.trees import read_tree, write_tree

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
        """Writes it to one file (safetensors, with a digest); an earlier one stays whole until it is done."""
        write_tree(absolute(path), "run state", self)

    @staticmethod
    def load(path: str | os.PathLike[str], like: RunState) -> RunState:
        """Reads what `save` wrote.

        Args:
            like: a run state of the same filter, model and number of members, as `begin` makes it.

        Raises:
            FileNotFoundError: nothing is there.
            CheckpointError: no run state, a damaged one, or one of another filter, model or ensemble.
        """
        return read_tree(absolute(path), "run state", like, "another filter, model, ensemble or precision")[0]
