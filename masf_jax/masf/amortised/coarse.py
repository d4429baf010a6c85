"""Blocks of cells: what a network made for larger cells sees of a finer grid, and its answer on that grid."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["block_correlation", "block_mean", "block_sum", "interpolated"]


def block_sum(x: Float[Array, "*x"], c: int, space: int) -> Float[Array, "*blocks"]:
    """Sums over blocks of c cells along each of the last `space` axes.

    Of a gradient by cells, the gradient by a value that all cells of a block share.
    """
    if c == 1:
        return x
    lead, grid = x.shape[: x.ndim - space], x.shape[x.ndim - space :]
    parts = [size for each in grid for size in (each // c, c)]
    return x.reshape(*lead, *parts).sum(tuple(len(lead) + 2 * i + 1 for i in range(space)))


def block_mean(x: Float[Array, "*x"], c: int, space: int) -> Float[Array, "*blocks"]:
    """Means over blocks of c cells along each of the last `space` axes."""
    return x if c == 1 else block_sum(x, c, space) / c**space


def block_correlation(states: Float[Array, "K *x"], c: int, space: int) -> Float[Array, ""]:
    """Correlation of neighbours among a climate's block means: about their mean state, over all axes.

    With y the means over blocks of c cells, less their mean over the K states: Σ y_i y_{i+1} / Σ y_i², the
    sums over states and places, averaged over the `space` axes and over the channels that vary. Near 1 where
    blocks are small beside what moves, 0 or less where they are as large; NaN where nothing varies.
    """
    y = block_mean(states, c, space)
    y = y - y.mean(0, keepdims=True)
    over = (0, *range(y.ndim - space, y.ndim))
    products = jnp.stack([jnp.mean(y * jnp.roll(y, 1, -1 - axis), over) for axis in range(space)]).mean(0)
    variance = jnp.mean(y * y, over)
    return jnp.mean(products / variance, where=variance > 0)


def interpolated(blocks: Float[Array, "*blocks"], c: int, space: int) -> Float[Array, "*x"]:
    """Values at the centres of the cells, linear along each axis between the centres of blocks, periodic."""
    if c == 1:
        return blocks
    x = blocks
    for axis in range(x.ndim - space, x.ndim):
        before, after = jnp.roll(x, 1, axis), jnp.roll(x, -1, axis)
        parts = []
        for i in range(c):
            away = (i + 0.5) / c - 0.5  # of a cell from its block's centre, in blocks
            parts.append((1 - abs(away)) * x + abs(away) * (after if away > 0 else before))
        x = jnp.stack(parts, axis + 1)
        x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return x
