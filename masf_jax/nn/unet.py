"""A U-Net on a ring or a doubly periodic grid."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from .attention import dot_product_attention
from .convolution import CircularConv
from .embedding import TimeEmbedding
from .members import member_moves, seen_of_members
from .norm import GroupNorm
from .resampling import even, resampled

__all__ = ["UNet"]


class ResidualBlock(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x)))), t))), the second convolution zero at first."""

    channels: int
    kinds: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_space C"], time: Float[Array, "*batch E"]) -> Array:
        space = x.ndim - time.ndim
        h = CircularConv(self.channels, space, **self.kinds)(GroupNorm(space, activate=True, **self.kinds)(x))
        film = nn.Dense(2 * self.channels, **self.kinds)(time)
        h = GroupNorm(space, activate=True, **self.kinds)(h, film)
        h = CircularConv(self.channels, space, kernel_init=nn.initializers.zeros, **self.kinds)(h)
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, **self.kinds)(x)
        return x + h


class Attention(nn.Module):
    """x + self-attention of norm(x) over all places; it knows no positions, so shifts pass through it."""

    heads: int
    kinds: Any

    @nn.compact
    def __call__(self, x: Float[Array, "*batch_and_space C"], space: int) -> Array:
        channels = x.shape[-1]
        batch = x.shape[: x.ndim - 1 - space]
        h = GroupNorm(space, **self.kinds)(x).reshape((*batch, -1, channels))
        qkv = nn.Dense(3 * channels, **self.kinds)(h)
        qkv = qkv.reshape((*qkv.shape[:-1], 3, self.heads, channels // self.heads))
        h = dot_product_attention(*jnp.moveaxis(qkv, (-3, -2), (0, -3)))
        h = jnp.moveaxis(h, -3, -2)
        h = nn.Dense(channels, kernel_init=nn.initializers.zeros, **self.kinds)(
            h.reshape((*batch, -1, channels))
        )
        return x + h.reshape(x.shape)


class UNet(nn.Module):
    """Residual blocks at ever coarser resolution and back, with skips; circular in every direction.

    One class for rings, x of shape (*batch, n, C), and for periodic grids, (*batch, ny, nx, C): channels come
    last. Shifting x by a multiple of 2^(levels-1) cells shifts the result, where sizes are multiples of it
    too; an odd size, at any level, is interpolated to the next even one before it is halved, and back
    (`resampled`). `net.init(key, x, t)` makes parameters, `net.apply(params, x, t)` evaluates; t has the
    batch axes of x. With `member_width` it also sees a set of members, and has a third result, for each of
    them (`members.py`).

    Attributes:
        out_channels: Channels of the result.
        channels: Channels at full resolution, before the multipliers.
        multipliers: Channels of each level over `channels`; level l has sizes divided by 2^l, rounded up.
        blocks: Residual blocks a level on the way down; one more on the way up.
        attention: Levels with self-attention after each block (0 is full resolution); the coarsest level
            always has one in the middle if this is not empty.
        heads: Attention heads; must divide the channels there.
        embedding: Length of the time embedding; 4·`channels` by default.
        second_head: Channels of a second result read from the same trunk; with it, a pair is returned.
        member_width: Channels of what is kept of each member; 0: no members.
        memory: Channels of a further result, after the second head's, for the next call to see.
        space: Number of spatial axes, 1 or 2.
        dtype: What is computed in (`jnp.bfloat16`, say); None follows x. The result has the type of x.
        param_dtype: What parameters are kept in.

    Source: Ronneberger, Fischer & Brox (2015), arXiv 1505.04597; blocks as in Dhariwal & Nichol (2021),
    arXiv 2105.05233.
    """

    out_channels: int
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    heads: int = 4
    embedding: int | None = None
    second_head: int | None = None
    member_width: int = 0
    memory: int = 0
    space: int = 2
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @classmethod
    def paper(cls, out_channels: int, **changes: Any) -> UNet:
        """The size of Yoon et al. (arXiv 2604.02889): 17.0 million parameters for two channels in 2-d."""
        size = {
            "channels": 32,
            "multipliers": (1, 2, 4, 8),
            "blocks": 2,
            "attention": (2, 3),
            "embedding": 256,
        }
        return cls(out_channels, **{**size, **changes})

    @classmethod
    def small(cls, out_channels: int, **changes: Any) -> UNet:
        """A smaller one: 2.8 million parameters for two channels in 2-d."""
        size = {"channels": 16, "multipliers": (1, 2, 4, 8), "blocks": 1, "attention": (2, 3)}
        return cls(out_channels, **{**size, **changes})

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "*batch_and_space C"],
        t: Float[Array, "*times"],
        members: Float[Array, "*batch_members_and_space u"] | None = None,
    ) -> Any:
        """One result, or a tuple with the second head's and, with members, (*batch, N, *space, D)."""
        self._check(x)
        dtype = x.dtype if self.dtype is None else self.dtype
        kinds = {"dtype": dtype, "param_dtype": self.param_dtype}
        batch = x.shape[: x.ndim - 1 - self.space]
        time = TimeEmbedding(self.embedding or 4 * self.channels, **kinds)(jnp.broadcast_to(t, batch))
        last = len(self.multipliers) - 1

        def block(h: Array, level: int) -> Array:
            h = ResidualBlock(self.channels * self.multipliers[level], kinds)(h, time)
            return Attention(self.heads, kinds)(h, self.space) if level in self.attention else h

        x, each, seen = x.astype(dtype), None, x.dtype
        if self.member_width:
            assert members is not None, "a network with member_width sees members"
            each, of_all = seen_of_members(members.astype(dtype), self.member_width, self.space, kinds)
            x = jnp.concatenate([x, of_all], -1)
        h = CircularConv(self.channels, self.space, **kinds)(x)
        skips, sizes = [h], []
        for level in range(last + 1):
            for _ in range(self.blocks):
                h = block(h, level)
                skips.append(h)
            if level < last:
                sizes.append(h.shape[-1 - self.space : -1])
                h = CircularConv(h.shape[-1], self.space, stride=2, **kinds)(even(h, self.space))
                skips.append(h)

        middle = self.channels * self.multipliers[last]
        h = ResidualBlock(middle, kinds)(h, time)
        if self.attention:
            h = Attention(self.heads, kinds)(h, self.space)
        h = ResidualBlock(middle, kinds)(h, time)

        for level in range(last, -1, -1):
            for _ in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level)
            if level > 0:
                h = resampled(CircularConv(h.shape[-1], self.space, upsample=True, **kinds)(h), sizes.pop())

        h = GroupNorm(self.space, activate=True, **kinds)(h)
        zero = {**kinds, "kernel_init": nn.initializers.zeros}
        results = [CircularConv(self.out_channels, self.space, name="head", **zero)(h).astype(seen)]
        if self.second_head is not None:
            second = CircularConv(self.second_head, self.space, name="second_head", **zero)(h)
            results.append(second.astype(seen))
        if self.memory:
            kept = CircularConv(self.memory, self.space, name="memory_head", **zero)(h)
            results.append(kept.astype(seen))
        if each is not None:
            moves = member_moves(each, h, self.out_channels, self.member_width, self.space, kinds)
            results.append(moves.astype(seen))
        return results[0] if len(results) == 1 else tuple(results)

    def _check(self, x: Array) -> None:
        """Refuses what the levels cannot take, with a message that says which."""
        if self.space not in (1, 2):
            raise ValueError(f"a U-Net works in 1 or 2 spatial dimensions, got space={self.space}")
        if x.ndim < self.space + 1:
            raise ValueError(
                f"a U-Net with space={self.space} needs {self.space} spatial axes and channels last, "
                f"got an array of shape {x.shape}"
            )
        factor = 2 ** (len(self.multipliers) - 1)
        sizes = x.shape[-1 - self.space : -1]
        levels = range(len(self.multipliers))
        if any(level not in levels for level in self.attention):
            raise ValueError(f"attention names levels {self.attention}, but there are only {list(levels)}")
        used = {self.channels * self.multipliers[level] for level in (*self.attention, -1) if self.attention}
        if any(width % self.heads for width in used):
            raise ValueError(
                f"heads={self.heads} must divide the channels where attention is, {sorted(used)}"
            )
        if any(size <= factor for size in sizes):
            raise ValueError(
                f"{len(self.multipliers)} levels halve the grid {len(self.multipliers) - 1} times and need 2 "
                f"cells at least at the last, but the sizes are {sizes}; use fewer multipliers or, where one "
                "of these counts variables, another layout"
            )
