"""What programs of an estimation are made of, so that another estimate of the same kind compiles nothing."""

from __future__ import annotations

import hashlib
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..arrays import real_array
from ..checks import check_members
from ..measurements.measurement import Observations
from .unknown import Problem

__all__ = ["Fixed", "Given", "parted"]

T = TypeVar("T")


class Fixed(Generic[T]):
    """A tree whose numbers are constants of a program; two of the same content are equal, and find it again.

    Constants, not arguments: filters prepare lists of neighbours and the like from numbers that are known.
    """

    def __init__(self, tree: T):
        leaves, structure = jax.tree.flatten(tree)
        self.tree, self._content = tree, (structure, *map(_content, leaves))
        self._hash = hash(self._content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Fixed) and self._content == other._content


def _content(leaf: Any) -> Any:
    if not eqx.is_array(leaf):
        return leaf
    array = np.asarray(
        jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )
    return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).digest()


class Given(eqx.Module):
    """What may differ from one estimate to the next: arguments of a program."""

    key: PRNGKeyArray
    values: Float[Array, "K *z"]
    mask: Bool[Array, "K *z"]
    ensemble: Float[Array, "N *state"] | None

    def observations(self, fixed: Observations) -> Observations:
        """With these values, at the steps of `fixed`."""
        return eqx.tree_at(lambda o: (o.values, o.mask), fixed, (self.values, self.mask), is_leaf=_is_none)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def parted(
    key: PRNGKeyArray, problem: Problem, observations: Observations, ensemble: Any
) -> tuple[Given, Observations]:
    """What is given, and the observations' steps alone.

    Raises:
        ValueError: members that are not finite, or fewer than two.
    """
    members = None if ensemble is None else real_array("ensemble", ensemble)
    if members is not None:
        check_members(members, problem.dynamics)
    steps = eqx.tree_at(lambda o: (o.values, o.mask), observations, (None, None))
    return Given(key, observations.values, observations.mask, members), steps
