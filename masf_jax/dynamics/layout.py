"""How the member axis is computed: all members at once, in batches, spread over devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

__all__ = ["ALL_AT_ONCE", "MemberLayout"]


@dataclasses.dataclass(frozen=True)
class MemberLayout:
    """Which members are computed at the same time, and where. Results do not depend on it, but for round-off.

    A batch makes all its steps before the next one starts, so a forecast needs the ensemble twice (before
    and after) and the model's working memory for one batch. On several devices each one computes its own
    members (`shard_map`), without communication: left to itself, XLA would gather all members on every
    device for an FFT.

    Args:
        batch_size: members computed together on each device; None: all. A last batch that is smaller is
            compiled apart.
        devices: the members are spread over these evenly and in order, a multiple of their number; None:
            members stay where they are.

    Raises:
        ValueError: batch_size below 1; no devices; a number of members that the devices do not divide.
    """

    batch_size: int | None = None
    devices: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for all; got {self.batch_size}.")
        if self.devices is not None:
            object.__setattr__(self, "devices", tuple(self.devices))
            if not self.devices or len(set(self.devices)) != len(self.devices):
                raise ValueError(f"devices must name different devices, at least one; got {self.devices}.")

    def check(self, n_members: int) -> None:
        """Refuses a number of members that cannot be spread evenly."""
        n_devices = 1 if self.devices is None else len(self.devices)
        if n_members % n_devices:
            fits = max(k for k in range(1, n_devices) if n_members % k == 0)
            raise ValueError(
                f"{n_members} members cannot be spread evenly over {n_devices} devices: use {fits} of them, "
                f"or a multiple of {n_devices} members."
            )

    def place(self, members: Array) -> Array:
        """The array with axis 0 spread over the devices (under jit: a constraint)."""
        return self._put(members, PartitionSpec("members"))

    def replicate(self, array: Array) -> Array:
        """The array whole on every device (under jit: a constraint)."""
        return self._put(array, PartitionSpec())

    def map(self, f: Callable[..., Array], *arrays: Array) -> Array:
        """f(a[i], b[i], …) for each i along axis 0 of the arrays, stacked."""
        if self.devices is None:
            return self._batches(f, *arrays)
        self.check(arrays[0].shape[0])
        spec = PartitionSpec("members")
        local = _shard_map(lambda *own: self._batches(f, *own), self._mesh(), (spec,) * len(arrays), spec)
        return local(*map(self.place, arrays))

    def _batches(self, f: Callable[..., Array], *arrays: Array) -> Array:
        if self.batch_size is None or self.batch_size >= arrays[0].shape[0]:
            return jax.vmap(f)(*arrays)
        return jax.lax.map(lambda own: f(*own), arrays, batch_size=self.batch_size)

    def _mesh(self) -> Mesh:
        return Mesh(np.asarray(self.devices), ("members",))

    def _put(self, array: Array, spec: PartitionSpec) -> Array:
        if self.devices is None:
            return array
        sharding = NamedSharding(self._mesh(), spec)
        if isinstance(array, Tracer):
            return jax.lax.with_sharding_constraint(array, sharding)
        return jax.device_put(array, sharding)


ALL_AT_ONCE = MemberLayout()


def _shard_map(f: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`jax.shard_map`, which was jax.experimental's up to version 0.6.0.

    Without its check of replication: models are free to start a loop from a constant, and members need
    no communication.
    """
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    from jax.experimental.shard_map import shard_map

    return shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_rep=False)
