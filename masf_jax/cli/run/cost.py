"""What long work will take, said before it begins."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...dynamics import Dynamics
from ...filters import Filter
from ...measurements import Measurement
from .operations import Count, counted

__all__ = ["Work", "cost_of_cycle", "tell"]

_LARGE_OPERATIONS, _LARGE_BYTES = 1e12, 1e9
"""From where on it is said."""
_WORTH_COUNTING = 1e8
"""Numbers that are computed, at the least, before anything is traced."""
_RATE = 1e10
"""Operations a second of a core: 6e9 to 2e11 in single precision, by filter (docs/terminal.md)."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Runs of one filter: what `cost_of_cycle` takes, and of how many cycles and seeds they are.

    kept: bytes of truth and observations, which are held all the time.
    """

    label: str
    filter: Filter
    dynamics: Dynamics
    measurement: Measurement
    members: int
    steps: int
    cycles: int
    kept: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.dynamics.state_shape)

    @property
    def measured(self) -> int:
        return math.prod(self.measurement.output_shape(self.dynamics.state_shape))

    @property
    def may_be_long(self) -> bool:
        numbers = self.members * self.size * self.steps * self.cycles
        return max(numbers, self.size * self.measured, self.kept / 4) > _WORTH_COUNTING


def cost_of_cycle(work: Work) -> Count:
    """One forecast and one analysis, and the arrays they begin with."""
    prepared = work.filter.prepare(work.dynamics, work.measurement)
    kind = jnp.result_type(float)
    members = jax.ShapeDtypeStruct((work.members, *work.dynamics.state_shape), kind)
    z = jax.ShapeDtypeStruct(work.measurement.output_shape(work.dynamics.state_shape), kind)
    state = eqx.filter_eval_shape(prepared.init, jax.random.key(0), members)
    models = (prepared, work.dynamics, work.measurement)
    arrays, rest = eqx.partition(models, eqx.is_array)

    def cycle(arrays: Any, state: Any, z: Array) -> Any:
        filter, dynamics, measurement = eqx.combine(arrays, rest)
        key = jax.random.key(0)
        state = filter.forecast(key, state, dynamics, jnp.asarray(0, jnp.int32), work.steps)
        return filter.analysis(key, state, z, measurement)

    count = counted(jax.make_jaxpr(cycle)(arrays, state, z))
    begin = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) + members.size * np.dtype(kind).itemsize
    return Count(count.operations, begin + 2 * count.largest)


def tell(works: list[Work]) -> None:
    """Says on stderr what all of them take together, where that is much."""
    works = [work for work in works if work.may_be_long]
    costs = [cost_of_cycle(work) for work in works]
    operations = sum(cost.operations * work.cycles for work, cost in zip(works, costs, strict=True))
    memory = max((cost.largest + work.kept for work, cost in zip(works, costs, strict=True)), default=0)
    if operations < _LARGE_OPERATIONS and memory < _LARGE_BYTES:
        return
    for work, cost in zip(works, costs, strict=True):
        print(
            f"masf-jax: {work.label}: {work.members} members of {work.size} numbers, {work.measured} "
            f"measured, {work.cycles} cycles of {cost.operations:.0e} operations",
            file=sys.stderr,
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(
        f"masf-jax: at least {memory / 1e9:.1g} GB of memory (masf-jax run … --dry-run: by part); "
        f"{_in_words(operations / _RATE / cores)} on {cores} core{'s' * (cores > 1)}, to an order of "
        "magnitude.",
        file=sys.stderr,
    )


def _in_words(seconds: float) -> str:
    for name, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"some {float(f'{seconds / length:.1g}'):.0f} {name}"
    return "a minute or two" if seconds > 60 else "less than a minute"
