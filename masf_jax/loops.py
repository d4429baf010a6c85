"""Loops that have derivatives in reverse mode, and what they keep for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

__all__ = ["ReverseMode", "counted", "kept_seldom"]

Carry = TypeVar("Carry")


def counted(n: int, step: Callable[[UInt32[Array, ""], Carry], Carry], start: Carry) -> Carry:
    """start ← step(k, start) for k = 0, …, n - 1; reverse mode keeps the n carries, not what made them."""
    body = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(lambda x, k: (body(k, x), None), start, jnp.arange(n, dtype=jnp.uint32))[0]


def kept_seldom(
    body: Callable[[Carry, Any], tuple[Carry, Any]], start: Carry, xs: Any, n: int
) -> tuple[Carry, Any]:
    """`jax.lax.scan(body, start, xs)` over n steps, of which reverse mode keeps O(√n) carries.

    Blocks of about √n steps: their first carries are kept, then those within one block at a time, and what
    one step is made of. So every step is made three times. Where no number near √n divides n the last block
    is filled up with steps that are left out.

    Source: Griewank & Walther (2008), Evaluating Derivatives, chapter 12.
    """
    root = math.sqrt(n)
    near = [k for k in range(1, n + 1) if n % k == 0 and root / 2 <= k <= 2 * root]
    size = min(near, key=lambda k: abs(k - root)) if near else math.ceil(root)
    pad = -n % size
    one = jax.checkpoint(body, prevent_cse=False)

    def step(carry: Carry, x: tuple[Any, Array | None]) -> tuple[Carry, Any]:
        x, there = x
        if there is None:
            return one(carry, x)
        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(body, carry, x)[1])
        return jax.lax.cond(there, one, lambda carry, x: (carry, empty), carry, x)

    def block(carry: Carry, xs: Any) -> tuple[Carry, Any]:
        return jax.lax.scan(step, carry, xs)

    def blocks(x: Array) -> Array:
        x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (pad, *x.shape[1:]))]) if pad else x
        return x.reshape(-1, size, *x.shape[1:])

    there = jnp.asarray(np.arange(n + pad) < n).reshape(-1, size) if pad else None
    carry, out = jax.lax.scan(
        jax.checkpoint(block, prevent_cse=False), start, (jax.tree.map(blocks, xs), there)
    )
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], out)


@dataclasses.dataclass(frozen=True)
class ReverseMode:
    """What reverse mode keeps of a run's cycles, and through how many of them derivatives go.

    Args:
        checkpoint: O(√K) carries; see `kept_seldom`. Results are the same.
        truncate: none goes through what is carried from one block of so many cycles, 0 … truncate - 1, …, to
            another; None: through all.

    Raises:
        ValueError: truncate below 1.
    """

    checkpoint: bool = False
    truncate: int | None = None

    def __post_init__(self) -> None:
        if self.truncate is not None and self.truncate < 1:
            raise ValueError(f"truncate must be at least 1; got {self.truncate}.")

    def scan(
        self,
        body: Callable[[Carry, Any], tuple[Carry, Any]],
        start: Carry,
        xs: dict[str, Any],
        backwards: bool = False,
    ) -> tuple[Carry, Any]:
        """`jax.lax.scan(body, start, xs, reverse=backwards)` over cycles numbered by xs["cycle"]."""
        size = self.truncate

        def step(carry: Carry, x: dict[str, Any]) -> tuple[Carry, Any]:
            if size is not None:
                number = x["cycle"] + (1 if backwards else 0)
                carry = _constant_where(carry, (number % size == 0) & (number > 0))
            return body(carry, x)

        if not self.checkpoint:
            return jax.lax.scan(step, start, xs, reverse=backwards)

        def turned(tree: Any) -> Any:
            return jax.tree.map(lambda a: a[::-1], tree) if backwards else tree

        carry, out = kept_seldom(step, start, turned(xs), len(xs["cycle"]))
        return carry, turned(out)


def _constant_where(tree: Carry, where: Bool[Array, ""]) -> Carry:
    """The tree, through which no derivative goes `where`."""

    def one(leaf: Any) -> Any:
        return jnp.where(where, jax.lax.stop_gradient(leaf), leaf) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(one, tree)
