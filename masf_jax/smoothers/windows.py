"""A denoiser of trajectories made of denoisers of short windows."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..denoisers.base import Denoiser

__all__ = ["Reshaped", "TrajectoryDenoiser"]


class Reshaped(Denoiser):
    """A denoiser of arrays of shape `shape`, for arrays of another shape and as many components.

    A window (W, *state) is a vector (W n,), or the channels (W C, *space) of a ring or field, to a network.
    """

    denoiser: Denoiser
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*x"], angle: Float[Array, "*x"]) -> Float[Array, "*x"]:
        if x.size != math.prod(self.shape):
            raise ValueError(
                f"the denoiser takes {math.prod(self.shape)} components, shape {self.shape}; got {x.shape}."
            )
        return self.denoiser(x.reshape(self.shape), angle.reshape(self.shape)).reshape(x.shape)


class TrajectoryDenoiser(Denoiser):
    """D(x, φ) of a trajectory (L, *state) from windows of W = 2k + 1 states that follow each other.

    Each state's estimate is that of a window: of the one it is the centre of, of the first window for the
    first k states, of the last window for the last k. That takes states more than k steps off as no news (a
    pseudo-blanket), which is exact for L = W, for φ → 0 of a Markov chain, and at φ = π/2. The score is
    (cos φ · D - x)/sin² φ, so scores compose alike.

    Memory with `batch_size`: so many windows at a time, in derivatives too (there each is computed again).

    Source: Rozet & Louppe (2023), arXiv 2306.10574, algorithm 2.

    Args:
        window: a denoiser of windows (W, *state).
        k: states on either side of a window's centre.
        batch_size: windows computed together; None: all.
    """

    window: Denoiser
    k: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"k must be 0 or more states on either side; got {self.k}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for all; got {self.batch_size}.")

    def __call__(
        self, x: Float[Array, "L *state"], angle: Float[Array, "L *state"]
    ) -> Float[Array, "L *state"]:
        length, k = 2 * self.k + 1, self.k
        last = x.shape[0] - length
        if last < 0:
            raise ValueError(
                f"a trajectory must have at least {length} states, one window; got {x.shape[0]}."
            )

        def denoised(first: Array | int) -> Array:
            own = (jax.lax.dynamic_slice_in_dim(array, first, length) for array in (x, angle))
            return self.window(*own)

        if last == 0:
            return denoised(0)
        ends = jax.vmap(denoised)(jnp.asarray([0, last], jnp.int32))
        inner = jnp.arange(1, last, dtype=jnp.int32)  # windows of which only the centre is needed

        def centre(first: Array) -> Array:
            return denoised(first)[k]

        if self.batch_size is None or last - 1 <= self.batch_size:
            centres = jax.vmap(centre)(inner)
        else:
            centres = jax.lax.map(jax.checkpoint(centre), inner, batch_size=self.batch_size)
        return jnp.concatenate([ends[0, : k + 1], centres, ends[1, k:]])
