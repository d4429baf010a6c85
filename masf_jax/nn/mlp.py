"""A residual network for vectors, conditioned on the diffusion time."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from .embedding import TimeEmbedding, scale_and_shift

__all__ = ["MLP"]

_ATTENTION = 4  # weighted means over the members


class MLP(nn.Module):
    """h ← h + W₂ silu(film(W₁ h, t)), `depth` times, between two linear maps, the last of them zero at first.

    `net.init(key, x, t)` makes parameters, `net.apply(params, x, t)` evaluates; leading axes are a batch.

    With `member_width` it also sees a set of members u_i, in any order and number: e_i ← silu(A u_i), then
    e_i + silu(B e_i); h begins with the mean of e_i and four means weighted by softmax(C e_i) besides x; and
    a third result, for each member, is read from silu(E e_i + G h), zero at first.

    Attributes:
        out_features: Length of the result.
        width: Length of h.
        depth: Number of residual blocks.
        second_head: Length of a second result read from the same h; with it, a pair is returned.
        member_width: Length of e_i; 0: no members.
        embedding: Length of the time embedding.
        dtype: What is computed in (`jnp.bfloat16`, say); None follows x. The result has the type of x.
        param_dtype: What parameters are kept in.
    """

    out_features: int
    width: int = 128
    depth: int = 3
    second_head: int | None = None
    member_width: int = 0
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
            each, of_all = self._of_members(members.astype(dtype), kinds)
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
        if each is not None:
            seen = nn.Dense(self.member_width, name="member_context", use_bias=False, **kinds)(h)
            each = nn.Dense(self.member_width, name="member_last", **kinds)(each)
            each = nn.silu(each + seen[..., None, :])
            results.append(nn.Dense(self.out_features, name="member_head", **zero)(each).astype(x.dtype))
        return results[0] if len(results) == 1 else tuple(results)

    def _of_members(self, members: Array, kinds: dict[str, Any]) -> tuple[Array, Array]:
        """e_i, and its means over the members."""
        each = nn.silu(nn.Dense(self.member_width, name="member_first", **kinds)(members))
        each = each + nn.silu(nn.Dense(self.member_width, name="member_second", **kinds)(each))
        weights = nn.softmax(nn.Dense(_ATTENTION, name="member_weights", **kinds)(each), axis=-2)
        weighted = jnp.swapaxes(weights, -1, -2) @ each
        of_all = jnp.concatenate([jnp.mean(each, -2, keepdims=True), weighted], -2)
        return each, of_all.reshape(*of_all.shape[:-2], -1)
