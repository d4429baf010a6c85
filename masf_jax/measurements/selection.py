"""Linear operators that pick components: identity, index subsets, masks."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from .base import Elementwise, Operator, Structure

__all__ = ["Identity", "Subset", "center_hole", "grid_stride", "moving_window", "random_points"]


class Identity(Elementwise):
    """H(x) = x."""

    structure: ClassVar[Structure] = "identity"

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, "*state"]:
        return x

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        return state

    def lift(self, z: Float[Array, "*z"], state_shape: tuple[int, ...]) -> Float[Array, "*state"]:
        return z


class Subset(Operator):
    """H(x)_j = ravel(x)[indices_j]: picks components of the raveled state; z is a vector (m,).

    Build it from indices, or from a boolean mask of the state's shape with `Subset.from_mask`.

    Args:
        indices: distinct integers in [0, state size).
    """

    structure: ClassVar[Structure] = "mask"
    _indices: bytes = eqx.field(static=True)  # structure must be hashable; the hash of bytes is cached

    def __init__(self, indices: ArrayLike):
        array = np.asarray(indices)
        if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"indices must be a non-empty vector of integers; got shape {array.shape}, {array.dtype}."
            )
        if array.min() < 0 or np.unique(array).size != array.size:
            raise ValueError("indices must be distinct and not negative.")
        self._indices = array.astype(np.int32).tobytes()

    @property
    def indices(self) -> Int[np.ndarray, " m"]:
        """The picked components, read-only."""
        return np.frombuffer(self._indices, np.int32)

    @classmethod
    def from_mask(cls, mask: ArrayLike) -> Subset:
        """The operator that measures the True components of `mask` (state-shaped), in C order."""
        return cls(np.flatnonzero(np.asarray(mask, dtype=bool)))

    def __call__(self, x: Float[Array, "*state"]) -> Float[Array, " m"]:
        if self.indices.max() >= x.size:
            raise ValueError(
                f"index {self.indices.max()} is outside a state of {x.size} components (shape {x.shape})."
            )
        return x.reshape(-1)[self.indices]

    def coordinates(self, state: Coordinates) -> Coordinates:
        return state.at(self.indices)

    def sources(self, state_shape: tuple[int, ...]) -> Int[np.ndarray, " m"]:
        return self.indices

    def periods(
        self, state_shape: tuple[int, ...], state: Float[np.ndarray | Array, " n"] | None = None
    ) -> Float[np.ndarray | Array, " m"] | None:
        return None if state is None else state[self.indices]

    def lift(self, z: Float[Array, " m"], state_shape: tuple[int, ...]) -> Float[Array, "*state"]:
        zero = jnp.zeros(int(np.prod(state_shape)), z.dtype)
        return zero.at[self.indices].set(z).reshape(state_shape)


def grid_stride(state_shape: tuple[int, ...], stride: int, start: int = 0) -> Bool[np.ndarray, "*state"]:
    """Mask of every `stride`-th point in each grid direction.

    A shape (n,) or (channels, ny, nx) is understood; all channels share the mask.

    Raises:
        ValueError: a stride below 1 or a negative start.
    """
    if stride < 1 or start < 0:
        raise ValueError(f"stride must be at least 1 and start at least 0; got {stride}, {start}.")
    spatial = state_shape[-2:] if len(state_shape) > 1 else state_shape
    mask = np.zeros(spatial, bool)
    mask[(slice(start, None, stride),) * len(spatial)] = True
    return np.array(np.broadcast_to(mask, state_shape))


def center_hole(state_shape: tuple[int, ...], fraction: float) -> Bool[np.ndarray, "*state"]:
    """Mask of everything but a centred box whose sides are `fraction` of the domain's.

    Raises:
        ValueError: fraction not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction}.")
    spatial = state_shape[-2:] if len(state_shape) > 1 else state_shape
    mask = np.ones(spatial, bool)
    mask[tuple(slice(round(n * (1 - fraction) / 2), round(n * (1 + fraction) / 2)) for n in spatial)] = False
    return np.array(np.broadcast_to(mask, state_shape))


def random_points(state_shape: tuple[int, ...], fraction: float, seed: int) -> Bool[np.ndarray, "*state"]:
    """Mask of a random `fraction` of all components (at least one), the same for equal seeds.

    Raises:
        ValueError: fraction outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1]; got {fraction}.")
    size = int(np.prod(state_shape))
    chosen = np.random.default_rng(seed).choice(size, max(1, round(fraction * size)), replace=False)
    mask = np.zeros(size, bool)
    mask[chosen] = True
    return mask.reshape(state_shape)


def moving_window(
    state_shape: tuple[int, ...], width: int, shift: int, n_cycles: int
) -> Bool[np.ndarray, "n_cycles *state"]:
    """A window of `width` points along the last axis that moves on by `shift` each cycle, periodically.

    Use it as the mask of `Observations` of an `Identity` operator: a moving network costs no
    recompilation, since only the mask changes.

    Raises:
        ValueError: width outside [1, n].
    """
    n = state_shape[-1]
    if not 0 < width <= n:
        raise ValueError(f"width must lie in [1, {n}]; got {width}.")
    offset = (np.arange(n)[None, :] - shift * np.arange(n_cycles)[:, None]) % n
    lead = (n_cycles,) + (1,) * (len(state_shape) - 1) + (n,)
    return np.array(np.broadcast_to((offset < width).reshape(lead), (n_cycles, *state_shape)))
