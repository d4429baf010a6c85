"""Normalisation of states: the centre and scale a score-based filter works around."""

from __future__ import annotations

from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import within
from .statistics import member_mean, member_variance

__all__ = ["Moments", "Normalization"]


class Moments(NamedTuple):
    """Mean and variance of each state component."""

    mean: Float[Array, "*x"]
    variance: Float[Array, "*x"]


class Normalization(eqx.Module):
    """x ↦ (x - centre)/scale, from this cycle's forecast, from past cycles, fixed, or none.

    Args:
        kind: "cycle": moments of the forecast ensemble; "moving": their running mean over cycles,
            m ← m + rate (m_now - m); "fixed": `moments`; "raw": x itself, so what a filter does depends on
            the units of the state.
        affine: subtract the mean; else only divide, by the root mean square.
        uniform: one scale for all grid points of a channel (operators on Fourier modes need it).
        rate: of "moving", in (0, 1].
        moments: of "fixed"; the first of "moving" where given.
    """

    kind: Literal["cycle", "moving", "fixed", "raw"] = eqx.field(static=True, default="cycle")
    affine: bool = eqx.field(static=True, default=True)
    uniform: bool = eqx.field(static=True, default=False)
    rate: Float[Array, ""] = eqx.field(
        converter=within("rate of the moving normalisation", "(0, 1]"), default=0.1
    )
    moments: Moments | None = None

    def __check_init__(self) -> None:
        if self.kind not in ("cycle", "moving", "fixed", "raw"):
            raise ValueError(f'normalisation must be "cycle", "moving", "fixed" or "raw"; got {self.kind!r}.')

    def init(self, ensemble: Float[Array, "N *x"]) -> Moments | None:
        """What is remembered before the first cycle."""
        if self.kind != "moving":
            return None
        return self._given(ensemble) if self.moments is not None else _of(ensemble)

    def __call__(
        self, ensemble: Float[Array, "N *x"], memory: Moments | None
    ) -> tuple[Float[Array, "*x"], Float[Array, "..."], Moments | None]:
        """Centre, scale and what to remember, for a forecast ensemble. A scale of zero counts as 1."""
        if self.kind == "raw":
            return jnp.zeros_like(ensemble[0]), jnp.ones_like(ensemble[0]), memory
        if self.kind == "fixed":
            moments = self._given(ensemble)
        else:
            moments = _of(ensemble)
            if memory is not None:
                rate = self.rate.astype(ensemble.dtype)
                mean, variance = (old + rate * (now - old) for old, now in zip(memory, moments, strict=True))
                memory = moments = Moments(mean, variance)
        mean, variance = moments
        square = variance if self.affine else variance + mean**2
        if self.uniform:
            grid = tuple(range(max(0, square.ndim - 2), square.ndim))
            square = square.mean(grid, keepdims=True)
        scale = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        return (mean if self.affine else jnp.zeros_like(mean)), scale, memory

    def _given(self, ensemble: Array) -> Moments:
        if self.moments is None:
            raise ValueError("a fixed normalisation needs moments: give them, or call filter.prepare.")
        mean, variance = (value.astype(ensemble.dtype) for value in self.moments)
        return Moments(mean, variance)


def _of(ensemble: Array) -> Moments:
    return Moments(member_mean(ensemble), member_variance(ensemble))
