"""A residual network for vectors, conditioned on the diffusion time."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from .embedding import TimeEmbedding, scale_and_shift
from .members import member_moves, seen_of_members

__all__ = ["MLP"]


class MLP(nn.Module):
    """h ← h + W₂ silu(film(W₁ h, t)), `depth` times, between two linear maps, the last of them zero at first.

    `net.init(key, x, t)` makes parameters, `net.apply(params, x, t)` evaluates; leading axes are a batch.

    With `member_width` it also sees a set of members, and has a third result, for each (`members.py`).

    Attributes:
        out_features: Length of the result.
        width: Length of h.
        depth: Number of residual blocks.
        second_head: Length of a second result read from the same h; with it, a pair is returned.
        member_width: Length of what is kept of each member; 0: no members.
        memory: Length of a further result, after the second head's, for the next call to see.
        embedding: Length of the time embedding.
        dtype: What is computed in (`jnp.bfloat16`, say); None follows x. The result has the type of x.
        param_dtype: What parameters are kept in.
    """

    out_features: int
    width: int = 128
    depth: int = 3
    second_head: int | None = None
    member_width: int = 0
    memory: int = 0
    embedding: int = 64
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch n"],
        t: Float[Array, "*times"],
        members: Float[Array, "*batch N u"] | None = None,
    ) -> Any:
        """One result, or a tuple with the second head's and, of a network with members, (*batch, N, m)."""
        dtype = x.dtype if self.dtype is None else self.dtype
        kinds = {"dtype": dtype, "param_dtype": self.param_dtype}
        time = TimeEmbedding(self.embedding, **kinds)(jnp.broadcast_to(t, x.shape[:-1]))
        h = nn.Dense(self.width, **kinds)(x.astype(dtype))
        each = None
        if self.member_width:
            assert members is not None, "a network with member_width sees members"
            each, of_all = seen_of_members(members.astype(dtype), self.member_width, 0, kinds)
            h = h + nn.Dense(self.width, name="members", use_bias=False, **kinds)(of_all)
        for _ in range(self.depth):
            film = nn.Dense(2 * self.width, **kinds)(time)
            update = nn.silu(scale_and_shift(nn.Dense(self.width, **kinds)(h), film))
            h = h + nn.Dense(self.width, **kinds)(update)
        zero = {**kinds, "kernel_init": nn.initializers.zeros}
        first = nn.Dense(self.out_features, name="head", **zero)(h).astype(x.dtype)
        results = [first]
        if self.second_head is not None:
            results.append(nn.Dense(self.second_head, name="second_head", **zero)(h).astype(x.dtype))
        if self.memory:
            results.append(nn.Dense(self.memory, name="memory_head", **zero)(h).astype(x.dtype))
        if each is not None:
            moves = member_moves(each, h, self.out_features, self.member_width, 0, kinds)
            results.append(moves.astype(x.dtype))
        return results[0] if len(results) == 1 else tuple(results)
