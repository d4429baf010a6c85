"""What a network sees of a set of members, in any order and number; called within a network's `__call__`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from .convolution import CircularConv

__all__ = ["member_moves", "seen_of_members"]

_MEANS = 4  # weighted means over the members


def seen_of_members(
    members: Float[Array, "*batch N *space u"], width: int, space: int, kinds: dict[str, Any]
) -> tuple[Float[Array, "*batch N *space e"], Float[Array, "*batch *space five_e"]]:
    """e_i = silu(A u_i), then e_i + silu(B e_i); the mean of e_i, and four weighted by softmax_i(C e_i).

    A is a convolution of width 3 where there are space axes, B and C act place by place.
    """
    first = CircularConv(width, space, name="member_first", **kinds) if space else None
    first = nn.Dense(width, name="member_first", **kinds) if first is None else first
    each = nn.silu(first(members))
    each = each + nn.silu(nn.Dense(width, name="member_second", **kinds)(each))
    last = jnp.moveaxis(each, -2 - space, -2)
    weights = nn.softmax(nn.Dense(_MEANS, name="member_weights", **kinds)(last), axis=-2)
    weighted = jnp.swapaxes(weights, -1, -2) @ last
    means = jnp.concatenate([jnp.mean(last, -2, keepdims=True), weighted], -2)
    return each, means.reshape(*means.shape[:-2], -1)


def member_moves(
    each: Float[Array, "*batch N *space e"],
    h: Float[Array, "*batch *space c"],
    features: int,
    width: int,
    space: int,
    kinds: dict[str, Any],
) -> Float[Array, "*batch N *space features"]:
    """W silu(E e_i + G h), with h what the network makes of all; 0 at first."""
    context = nn.Dense(width, name="member_context", use_bias=False, **kinds)(h)
    each = nn.Dense(width, name="member_last", **kinds)(each)
    each = nn.silu(each + jnp.expand_dims(context, -2 - space))
    zero = {**kinds, "kernel_init": nn.initializers.zeros}
    return nn.Dense(features, name="member_head", **zero)(each)
