"""Where a run stands between two cycles: kept in memory or in a file, and gone on from."""

from __future__ import annotations

import os

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from .filters.base import EnsembleState, State
from .training.files import absolute
from .training.trees import read_tree, write_tree

__all__ = ["RunState", "equal_members"]


_EQUAL = 1e-6
"""Logarithms of weights may differ by so much: round-off."""


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


def equal_members(state: State) -> Float[Array, "N *state"]:
    """The members of a state, each of which counts as much as another.

    Raises:
        ValueError: there are none, or they have unequal weights (traced weights are not looked at).
    """
    if not isinstance(state, EnsembleState):
        raise ValueError(
            "this filter has a mean and a covariance, and no members: they are run.final.mean and "
            "run.final.covariance; members are draws, jax.random.multivariate_normal(key, mean.ravel(), "
            "covariance, (N,)), in the shape of the state."
        )
    weights = state.log_weights
    if weights is not None and not isinstance(weights, Tracer) and np.ptp(np.asarray(weights)) > _EQUAL:
        raise ValueError(
            "the members have unequal weights: they are run.final.ensemble, with run.final.log_weights; "
            "N draws of them have the numbers jax.random.categorical(key, run.final.log_weights, shape=(N,))."
        )
    return state.ensemble
