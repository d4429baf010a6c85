"""Where members and state components are computed: all at once, in batches, spread over devices."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ..processes import others_may_end

__all__ = ["ALL_AT_ONCE", "AXIS", "MemberLayout", "Placement", "current"]

AXIS = "devices"
Placement: TypeAlias = Literal["members", "components", "replicated"]
"""How an ensemble (N, *state) lies on several devices: whole members on each; some components of all members;
or all of it on each."""


@dataclasses.dataclass(frozen=True)
class MemberLayout:
    """Which members are computed at the same time, and where. Results do not depend on it, but for round-off.

    A batch makes all its steps before the next one starts, so a forecast needs the ensemble twice (before
    and after) and the model's working memory for one batch. On several devices each one carries its own
    members on (`shard_map`), without communication: left to itself, XLA would gather all members on every
    device for an FFT. Between forecasts each device has some components of all members, as most analyses
    and all scores want them; one all-to-all leads from one placement to the other (docs/devices.md).

    Args:
        batch_size: members computed together on each device; None: all, but on CPUs at most the model's
            `cached_members`. A last batch that is smaller is compiled apart.
        devices: members and components are spread over these evenly and in order, the number of members a
            multiple of theirs; None: arrays stay where they are. Of several processes
            (`jax.distributed`): all of `jax.devices()`.
        most_steps: of forecasts whose length is traced, for reverse mode; `assimilate` fills it in.

    Raises:
        ValueError: batch_size below 1; no devices; a number of members that the devices do not divide.
    """

    batch_size: int | None = None
    devices: tuple[Any, ...] | None = None
    most_steps: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for all; got {self.batch_size}.")
        if self.devices is not None:
            object.__setattr__(self, "devices", tuple(self.devices))
            if not self.devices or len(set(self.devices)) != len(self.devices):
                raise ValueError(f"devices must name different devices, at least one; got {self.devices}.")

    @property
    def n_devices(self) -> int:
        return 1 if self.devices is None else len(self.devices)

    @property
    def platform(self) -> str:
        """ "cpu", "gpu", …"""
        return jax.default_backend() if self.devices is None else self.devices[0].platform

    def check(self, n_members: int) -> None:
        """Refuses a number of members that cannot be spread evenly."""
        if n_members % self.n_devices:
            fits = max(k for k in range(1, self.n_devices) if n_members % k == 0)
            raise ValueError(
                f"{n_members} members cannot be spread evenly over {self.n_devices} devices: use {fits} of "
                f"them, or a multiple of {self.n_devices} members."
            )

    def place(self, members: Array) -> Array:
        """The array with axis 0 spread over the devices (under jit: a constraint)."""
        return self._put(members, PartitionSpec(AXIS))

    def put_rows(self, array: Array) -> Array:
        """`place` of any array with rows; one whose rows the devices do not divide stays where it is."""
        return array if len(array) % self.n_devices else self.place(array)

    def replicate(self, array: Array) -> Array:
        """The array whole on every device (under jit: a constraint)."""
        return self._put(array, PartitionSpec())

    def whole(self, array: Array) -> Array:
        """`replicate` in the order that an FFT takes: XLA's own gathers have others, which CPUs refuse."""
        if self.devices is None or not isinstance(array, Tracer):
            return array
        rows_last = Layout(tuple(range(array.ndim)))
        return with_layout_constraint(self.replicate(array), rows_last)

    def spread(self, array: Array) -> Array:
        """The array (N, …) with all N on every device, and its widest following axis spread over them.

        Of axes that the devices divide the first. Else XLA pads the widest, so that under jit its array stays
        spread; one with fewer values than devices is whole on each.
        """
        axis = self.spread_axis(array.shape)
        return self._put(array, PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, AXIS))

    def spread_axis(self, shape: tuple[int, ...]) -> int | None:
        """The axis that `spread` divides."""
        fits = [i for i in range(1, len(shape)) if shape[i] >= self.n_devices]
        even = [i for i in fits if shape[i] % self.n_devices == 0]
        return even[0] if even else max(fits, key=lambda i: shape[i], default=None)

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """(N, …) spread over components, in another shape: by way of whole members, which need not move."""
        alike = [n for n in array.shape if n > 1] == [n for n in shape if n > 1]
        if self.devices is None or alike or len(array) % self.n_devices:
            return array.reshape(shape)
        return self.spread(self.place(self.place(self.spread(array)).reshape(shape)))

    def settle(
        self, tree: Any, n_members: int | None, placement: Placement | Literal["rest"] = "components"
    ) -> Any:
        """All arrays (n_members, …) in this placement, all others whole on every device.

        "rest": by components where the devices divide them, else by members, as programs take and give them.
        """
        if self.devices is None:
            return tree
        puts = {"members": self.place, "components": self.spread, "replicated": self.replicate}

        def one(leaf: Any) -> Any:
            if n_members is None or leaf.ndim < 2 or len(leaf) != n_members:
                return self.replicate(leaf)
            if placement != "rest":
                return puts[placement](leaf)
            axis = self.spread_axis(leaf.shape)
            even = axis is not None and leaf.shape[axis] % self.n_devices == 0
            return self.spread(leaf) if even else self.place(leaf)

        return jax.tree.map(one, tree)

    def map(self, f: Callable[..., Any], *arrays: Any) -> Any:
        """f(a[i], b[i], …) for each i along axis 0 of the arrays, stacked."""
        if self.devices is None:
            return self._batches(f, *arrays)
        self.check(len(jax.tree.leaves(arrays)[0]))
        spec = PartitionSpec(AXIS)
        local = self.local(lambda *own: self._batches(f, *own), (spec,) * len(arrays), spec)
        return local(*jax.tree.map(self.place, arrays))

    def each(self, f: Callable[..., Any], *arrays: Any) -> Any:
        """`map` of what needs no batches: H(x) of each member, one draw for each."""
        if self.devices is None or len(jax.tree.leaves(arrays)[0]) % self.n_devices:
            return jax.vmap(f)(*arrays)
        return dataclasses.replace(self, batch_size=None).map(f, *arrays)

    def by_components(self, f: Callable[[Array], Array], array: Array) -> Array:
        """f(array), (N, *x) -> (*x), of an f that treats each component alone: each device has its own."""
        axis = self.spread_axis(array.shape)
        if self.devices is None or axis is None or array.shape[axis] % self.n_devices:
            return f(array)
        spec = (None,) * (axis - 1) + (AXIS,)
        return self.local(f, PartitionSpec(None, *spec), PartitionSpec(*spec))(array)

    def local(self, f: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        """f as each device runs it on its own part (`jax.shard_map`); `AXIS` is the name for collectives.

        Inside, `current()` is a layout without devices. Without its check of replication: models are free to
        start a loop from a constant, and members need no communication.
        """

        def own(*args: Any) -> Any:
            with ALL_AT_ONCE.active():
                return f(*args)

        if hasattr(jax, "shard_map"):
            run = jax.shard_map(own, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        else:
            from jax.experimental.shard_map import shard_map  # where it was up to version 0.6.0

            run = shard_map(own, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_rep=False)
        return lambda *args: jax.tree.map(_without_mesh, run(*args))

    def _batches(self, f: Callable[..., Any], *arrays: Any) -> Any:
        if self.batch_size is None or self.batch_size >= len(jax.tree.leaves(arrays)[0]):
            return jax.vmap(f)(*arrays)
        return jax.lax.map(lambda own: f(*own), arrays, batch_size=self.batch_size)

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.asarray(self.devices), (AXIS,))

    def _put(self, array: Array, spec: PartitionSpec) -> Array:
        if self.devices is None:
            return array
        sharding = NamedSharding(self.mesh, spec)
        if isinstance(array, Tracer):
            return _without_mesh(jax.lax.with_sharding_constraint(array, sharding))
        with others_may_end():
            return jax.device_put(array, sharding)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, `current()` is this layout: for programs that are traced and compiled meanwhile."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


ALL_AT_ONCE = MemberLayout()
_current: contextvars.ContextVar[MemberLayout] = contextvars.ContextVar("layout", default=ALL_AT_ONCE)


def current() -> MemberLayout:
    """The layout of the run that is being traced: for analyses that say themselves what lies where."""
    return _current.get()


# JAX writes the mesh into the types of what was constrained or came out of a `shard_map`, and refuses such an
# array where a function for one device closes over it. This primitive, an identity, takes it out again.
_forget = Primitive("without_mesh")
_forget.def_impl(lambda array: array)
_forget.def_abstract_eval(lambda aval: ShapedArray(aval.shape, aval.dtype))
mlir.register_lowering(_forget, lambda context, array: [array])
batching.primitive_batchers[_forget] = lambda arrays, axes: (_forget.bind(arrays[0]), axes[0])
ad.deflinear2(_forget, lambda slope, _: [_forget.bind(slope)])


def _without_mesh(array: Array) -> Array:
    return _forget.bind(array) if isinstance(array, Tracer) else array
