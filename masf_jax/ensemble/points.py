"""Analyses point by point: which measured values each grid point uses, and where points lie on devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from ..dynamics.layout import AXIS, MemberLayout, current
from .localization import Localization

__all__ = ["DENSE_NUMBERS", "DENSE_RATIO", "by_points", "dense_weights", "is_dense", "shares"]

DENSE_RATIO, DENSE_NUMBERS = 16, 2**24
"""Dense weights beat neighbour lists up to this ratio of all to neighbouring values, and this size."""


def is_dense(lists: Localization, m: int) -> bool:
    """Whether weights of all m values at each point are less work than the lists."""
    n_points, k = lists.neighbours.shape
    return m <= DENSE_RATIO * k and n_points * m <= DENSE_NUMBERS


@functools.partial(jax.jit, static_argnames="m")
def dense_weights(lists: Localization, m: int) -> Float[Array, "points m"]:
    """The weights of all m measured values at each point; one program, not one an operation."""
    points = jnp.arange(lists.neighbours.shape[0])[:, None]
    return jnp.zeros((points.size, m)).at[points, lists.neighbours].add(lists.sqrt_weights**2)


def shares(lists: Localization, layout: MemberLayout) -> tuple[Localization, Int[Array, "devices q"] | None]:
    """The lists of each device's points, counting in the values that it needs; and which those are.

    Points lie on the devices in order. Lists that are being traced stay, and all values are needed (None).
    """
    if isinstance(lists.neighbours, Tracer):
        return lists, None
    near, n_devices = np.asarray(lists.neighbours), layout.n_devices
    size = -(-len(near) // n_devices)
    blocks = [near[i * size : (i + 1) * size] for i in range(n_devices)]
    found = [np.unique(block) for block in blocks]
    needed = np.zeros((n_devices, max(map(len, found))), np.int32)
    for row, own in zip(needed, found, strict=True):
        row[: len(own)] = own
    local = np.concatenate([np.searchsorted(own, b) for own, b in zip(found, blocks, strict=True)])
    placed = jax.tree.map(layout.put_rows, Localization(jnp.asarray(local, jnp.int32), lists.sqrt_weights))
    return placed, layout.replicate(jnp.asarray(needed))


def by_points(
    solve: Callable[..., Any],
    columns: Float[Array, "N n"],
    n_points: int,
    near: Any,
    of_members: Any,
    of_all: Any,
    needed: Int[Array, "devices q"] | None,
) -> Any:
    """solve(columns (channels, points, N), near, of_members, of_all) -> arrays (channels, points, …).

    On several devices each has points of its own, and is sent the values that these need, of all members,
    and nothing else.

    Args:
        near: arrays (points, …), what the points use.
        of_members, of_all: arrays (N, m), which come by members, and (…, m), which all devices have.
        needed: the values that each device's points use (`shares`); None: all of them.
    """
    layout, n_members = current(), len(columns)
    shape = n_members, columns.shape[1] // n_points, n_points
    columns = jnp.moveaxis(layout.reshape(columns, shape), 0, -1)
    if layout.devices is None:
        return solve(columns, near, of_members, of_all)
    pad = -n_points % layout.n_devices
    columns = jnp.pad(columns, ((0, 0), (0, pad), (0, 0)))
    near = jax.tree.map(lambda a: jnp.pad(a, ((0, pad), (0, 0))), near)
    points, whole, own = PartitionSpec(None, AXIS), PartitionSpec(), PartitionSpec(AXIS)

    def one(columns: Array, near: Any, of_members: Any, of_all: Any, needed: Array | None) -> Any:
        if needed is not None:  # from members with all values to all members with these
            of_members = jax.tree.map(
                lambda s: jax.lax.all_to_all(s[:, needed], AXIS, 1, 0, tiled=True)[:, 0], of_members
            )
            mine = needed[jax.lax.axis_index(AXIS)]
            of_all = jax.tree.map(lambda d: d[..., mine], of_all)
        return solve(columns, near, of_members, of_all)

    by_member = whole if needed is None else own
    run = layout.local(one, (points, own, by_member, whole, whole), points)
    found = run(columns, near, of_members, of_all, needed)
    return jax.tree.map(lambda a: a[:, :n_points], found)
