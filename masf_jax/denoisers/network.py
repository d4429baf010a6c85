"""A neural network as denoiser."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .base import Denoiser

__all__ = ["NetworkDenoiser", "in_type"]

Tree = TypeVar("Tree")
Preconditioning: TypeAlias = Literal["edm", "x0", "bounded"]

_SPACE = {"vector": 0, "ring": 1, "field": 2}
_LARGEST_LOG = 5.0  # the learned spread stays within e^±5 of sin φ
_BOUNDED_F, _BOUNDED_LOG = 3.0, 1.5  # the same for "bounded", and of its F


class NetworkDenoiser(Denoiser):
    """D(x, φ) = cos φ · x + sin φ · F(x, φ) with a network F ("edm"), D = F ("x0"), or bounded ("bounded").

    x = cos φ · x0 + sin φ · η is EDM's noisy state x0 + σ η, σ = tan φ, times cos φ = 1/√(1 + σ²), which is
    EDM's c_in for data of unit variance. Its c_skip = 1/(1 + σ²) acts on x0 + σ η and so is cos φ on x; its
    c_out = σ/√(1 + σ²) = sin φ. F then fits (x0 - cos φ · x)/sin φ = sin φ · x0 - cos φ · η, of unit variance
    at every φ, and D is exact at φ = 0 and, with F = 0 (a fresh network), for x0 ~ N(0, I). So states should
    be normalised to about zero mean and unit variance.

    "bounded" is "edm" for a state that is about N(0, I) already, its features known: F is 3 tanh(F/3), the
    log-factor below within ±1.5, and F sees cos φ · x, which is nothing at φ = π/2: there D is a function of
    the features alone, the same for every draw of the noise. A network with a `member_width` has `moves`
    besides: what is added to each member of an ensemble; one with a `memory` what is `remembered`.

    F sees x, the map sin φ (with `noise_map`), the features, and t = mean(φ)/(π/2) ∈ [0, 1].

    With a variance head, a second output L of the network, x0 given x has standard deviation
    sin φ · exp(5 tanh(L/5)) per component, which for L = 0 (a fresh network) is exact for x0 ~ N(0, I);
    `sample` adds that much independent noise to the mean. Without it `sample` returns the mean.

    How the state is laid out for the network, channels last:
        "vector": (n,) as it is, other shapes flattened; features appended.
        "ring": (n,) → (n, 1), or (C, n) → (n, C); features (f, n).
        "field": (ny, nx) → (ny, nx, 1), or (C, ny, nx) → (ny, nx, C); features (f, ny, nx).
    With features of each channel, (C, f, n) or (C, f, ny, nx), a network of one channel sees them one by one.

    Attributes:
        net: A network with `init(key, x, t)` and `apply(params, x, t)`, such as those of `masf_jax.nn`; with
            `second_head` set to the number of its outputs, if there is to be a variance head.
        params: Its parameters.
        features: What else the network sees, the same for every noise level; None for nothing.
        layout: See above.
        noise_map: Whether the network sees sin φ per component; without, only the mean of φ.
        preconditioning: "edm", "x0" or "bounded".
        variance_head: Whether the network has a second output for the spread.
        members: What a network with a `member_width` sees of each of an ensemble's members, (N, u, *space).

    Source: Karras et al. (2022), arXiv 2206.00364, table 1 ("x0": Yoon et al., arXiv 2604.02889).
    """

    net: Any = eqx.field(static=True)
    params: Any
    features: Float[Array, "..."] | None = None
    layout: Literal["vector", "ring", "field"] = eqx.field(static=True, default="vector")
    noise_map: bool = eqx.field(static=True, default=True)
    preconditioning: Preconditioning = eqx.field(static=True, default="edm")
    variance_head: bool = eqx.field(static=True, default=False)
    members: Float[Array, "..."] | None = None

    def __check_init__(self) -> None:
        if self.layout not in ("vector", "ring", "field"):
            raise ValueError(f"layout must be 'vector', 'ring' or 'field', got {self.layout!r}")
        if self.preconditioning not in get_args(Preconditioning):
            raise ValueError(
                f"preconditioning must be one of {', '.join(get_args(Preconditioning))}, "
                f"got {self.preconditioning!r}"
            )
        for name in ("member_width", "memory"):
            if (given := getattr(self.net, name, 0)) and self.preconditioning != "bounded":
                raise ValueError(
                    f"a network with {name} ({given}) is of AmortisedMASF alone, whose preconditioning is "
                    f"'bounded': leave {name} 0."
                )

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        net: Any,
        state_shape: tuple[int, ...],
        *,
        features: Float[Array, "..."] | None = None,
        layout: Literal["vector", "ring", "field"] = "vector",
        noise_map: bool = True,
        preconditioning: Preconditioning = "edm",
        variance_head: bool = False,
        members: Float[Array, "..."] | None = None,
    ) -> NetworkDenoiser:
        """With fresh parameters for states of this shape.

        Raises:
            ValueError: The shape does not suit the layout, or the network's outputs do not suit the shape.
        """
        empty = cls(net, None, features, layout, noise_map, preconditioning, variance_head, members)
        if empty.has_members and members is None:
            raise ValueError(f"a network of member_width={net.member_width} needs members to begin with.")
        x = jnp.zeros(state_shape)
        seen = empty._inputs(x, x)
        params = jax.jit(lambda key: net.init(key, *seen))(key)  # one program, without the outputs
        denoiser = empty.with_params(params)
        outputs = jax.eval_shape(net.apply, denoiser.params, *seen)
        outputs = empty._first_two(outputs)
        wanted = empty._channels_last(x).shape
        if isinstance(outputs, tuple) != variance_head:
            raise ValueError(
                f"variance_head={variance_head}, but the network returns "
                f"{'a pair' if isinstance(outputs, tuple) else 'one array'}: a variance head needs "
                f"second_head={wanted[-1]} in the network, and without one second_head=None"
            )
        for out in jax.tree.leaves(outputs):
            if out.shape != wanted:
                raise ValueError(
                    f"the network returns shape {out.shape} for a state of shape {state_shape}, which needs "
                    f"{wanted}: give it {wanted[-1]} outputs"
                )
        return denoiser

    def with_params(self, params: Any) -> NetworkDenoiser:
        """The same with other parameters."""
        return dataclasses.replace(self, params=params)

    def in_type(self, dtype: Any) -> NetworkDenoiser:
        """The same with parameters kept, and the network computed, in this type: `jnp.bfloat16`, say.

        What goes in and comes out keeps its type, and so does all that is made of it.

        Raises:
            TypeError: a network without the fields `dtype` and `param_dtype`.
        """
        if not all(hasattr(self.net, name) for name in ("dtype", "param_dtype")):
            raise TypeError(
                f"a network must have the fields dtype and param_dtype to change its type, as those of "
                f"masf_jax.nn; {type(self.net).__name__} has not."
            )
        net = dataclasses.replace(self.net, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), self.params)
        return dataclasses.replace(self, net=net, params=params)

    def with_features(
        self, features: Float[Array, "..."] | None, members: Float[Array, "..."] | None = None
    ) -> NetworkDenoiser:
        """The same with other features, and other members to see."""
        return dataclasses.replace(self, features=features, members=members)

    def mean_and_log_factor(
        self, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> tuple[Float[Array, "*x"], Float[Array, "*x"] | None]:
        """Mean of x0 given x and log((standard deviation)/sin φ); None for that without a variance head."""
        first, log = self.outputs(x, angle)
        if self.preconditioning == "x0":
            return first, log
        return jnp.cos(angle) * x + jnp.sin(angle) * first, log

    def outputs(
        self, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> tuple[Float[Array, "*x"], Float[Array, "*x"] | None]:
        """F, and the log-factor of the variance head, within their bounds."""
        first, second = self.heads(x, angle)
        bounded = self.preconditioning == "bounded"
        if bounded:
            first = _within(_BOUNDED_F, first)
        if second is None:
            return first, None
        return first, _within(_BOUNDED_LOG if bounded else _LARGEST_LOG, second)

    def heads(
        self, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> tuple[Float[Array, "*x"], Float[Array, "*x"] | None]:
        """What the network gives, in the state's layout: its first and its second output."""
        outputs = self._first_two(self.net.apply(self.params, *self._inputs(x, angle)))
        first, second = outputs if self.variance_head else (outputs, None)
        return self._state_order(first, x.shape), (
            None if second is None else self._state_order(second, x.shape)
        )

    def moments(
        self, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> tuple[Float[Array, "*x"], Float[Array, "*x"] | None]:
        """Mean and standard deviation of x0 given x; None for the latter without a variance head."""
        mean, log = self.mean_and_log_factor(x, angle)
        return mean, None if log is None else jnp.sin(angle) * jnp.exp(log)

    def __call__(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "*x"]:
        return self.moments(x, angle)[0]

    @property
    def has_members(self) -> bool:
        """Whether the network sees members (its `member_width`)."""
        return getattr(self.net, "member_width", 0) > 0

    def moves(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "N *x"]:
        """What the network adds to each of its members, within ±3; 0 if it is fresh.

        Raises:
            ValueError: a network that sees no members.
        """
        if not self.has_members:
            raise ValueError("the network sees no members: give its architecture a member_width above 0.")
        moved = self.net.apply(self.params, *self._inputs(x, angle))[-1]
        space = _SPACE[self.layout]
        if space and moved.ndim > space + 2:  # channels one by one
            moved = jnp.moveaxis(moved[..., 0], 0, 1)
        elif space and moved.ndim > x.ndim + 1:
            moved = moved[..., 0]
        elif space:
            moved = jnp.moveaxis(moved, -1, 1)
        return _within(_BOUNDED_F, moved.reshape(len(moved), *x.shape))

    @property
    def memory(self) -> int:
        """Number of channels that the network gives for the next cycle."""
        return getattr(self.net, "memory", 0)

    def remembered(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "..."]:
        """What the network gives for the next cycle, within ±1, laid out as features; 0 if it is fresh."""
        kept = self.net.apply(self.params, *self._inputs(x, angle))[1 + self.variance_head]
        return jnp.tanh(jnp.moveaxis(kept, -1, kept.ndim - 1 - _SPACE[self.layout]))

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*x"], angle: Float[Array, "*x"]
    ) -> Float[Array, "*x"]:
        mean, deviation = self.moments(x, angle)
        if deviation is None:
            return mean
        return mean + deviation * jax.random.normal(key, x.shape, x.dtype)

    def _first_two(self, outputs: Any) -> Any:
        """Of the network's results the first, or the first and the second head's."""
        if not isinstance(outputs, tuple) or not (self.memory or self.has_members):
            return outputs
        return outputs[:2] if self.variance_head else outputs[0]

    def _inputs(self, x: Array, angle: Array) -> tuple[Array, ...]:
        """What the network sees: states and maps channels last, the scalar t, and members."""
        seen = jnp.cos(angle) * x if self.preconditioning == "bounded" else x
        space, members = _SPACE[self.layout], ()
        if self.has_members:
            assert self.members is not None
            members = (self.members if space == 0 else jnp.moveaxis(self.members, -1 - space, -1),)
        if space > 0 and self.features is not None and self.features.ndim == space + 2:
            maps = [jnp.sin(angle)[..., None]] if self.noise_map else []
            features = jnp.moveaxis(self.features.astype(x.dtype), 1, -1)
            time = jnp.mean(angle, tuple(range(1, angle.ndim))) / (math.pi / 2)
            return jnp.concatenate([seen[..., None], *maps, features], axis=-1), time, *members
        parts = [self._channels_last(seen)]
        if self.noise_map:
            parts.append(self._channels_last(jnp.sin(angle)))
        if self.features is not None:
            features = self.features.astype(x.dtype)
            parts.append(features.ravel() if self.layout == "vector" else jnp.moveaxis(features, 0, -1))
        return jnp.concatenate(parts, axis=-1), jnp.mean(angle) / (math.pi / 2), *members

    def _channels_last(self, x: Array) -> Array:
        if self.layout == "vector":
            return x.ravel()
        space = _SPACE[self.layout]
        if x.ndim == space + 1:
            return jnp.moveaxis(x, 0, -1)
        if x.ndim == space:
            return x[..., None]
        shapes = {"ring": "(n,) or (C, n)", "field": "(ny, nx) or (C, ny, nx)"}
        raise ValueError(
            f"layout '{self.layout}' takes states of shape {shapes[self.layout]}, got {x.shape}; "
            "choose another layout"
        )

    def _state_order(self, out: Array, shape: tuple[int, ...]) -> Array:
        if self.layout == "vector":
            return out.reshape(shape)
        return out[..., 0] if out.ndim > len(shape) else jnp.moveaxis(out, -1, 0)


def in_type(tree: Tree, dtype: Any) -> Tree:
    """A filter, or any tree, with all its networks in this type (see `NetworkDenoiser.in_type`)."""

    def network(node: Any) -> bool:
        return isinstance(node, NetworkDenoiser)

    return jax.tree.map(lambda node: node.in_type(dtype) if network(node) else node, tree, is_leaf=network)


def _within(bound: float, x: Array) -> Array:
    """x where it is small, and nowhere beyond ±bound."""
    return bound * jnp.tanh(x / bound)
