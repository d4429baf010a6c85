"""Normalisation of states: the centre and scale a score-based filter works around."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

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


class _History(NamedTuple):
    """Moments of the members of `cycles` forecasts together."""

    cycles: Float[Array, ""]
    moments: Moments

    def after(self, now: Moments) -> _History:
        """With those of one more forecast."""
        share = 1 / (self.cycles + 1)
        mean, variance = self.moments
        moved = now.mean - mean
        variance = variance + share * (now.variance - variance) + share * (1 - share) * moved**2
        return _History(self.cycles + 1, Moments(mean + share * moved, variance))


class Normalization(eqx.Module):
    """x ↦ (x - centre)/scale, from this cycle's forecast, from past cycles, fixed, or none.

    Args:
        kind: "cycle": moments of the forecast ensemble; "moving": their running mean over cycles,
            m ← m + rate (m_now - m); "history": the mean of the forecast, and between its standard deviation
            and that of the members of all forecasts so far, σ_now^(1 - share) σ_all^share: a unit that goes
            on when the spread collapses; "fixed": `moments`; "raw": x itself, so what a filter does depends
            on the units of the state.
        affine: subtract the mean; else only divide, by the root mean square.
        uniform: one scale for all grid points of a channel (operators on Fourier modes need it).
        rate: of "moving", in (0, 1].
        share: of "history", in [0, 1].
        moments: of "fixed"; the first of "moving", and those of a first cycle of "history", where given.
    """

    kind: Literal["cycle", "moving", "history", "fixed", "raw"] = eqx.field(static=True, default="cycle")
    affine: bool = eqx.field(static=True, default=True)
    uniform: bool = eqx.field(static=True, default=False)
    rate: Float[Array, ""] = eqx.field(
        converter=within("rate of the moving normalisation", "(0, 1]"), default=0.1
    )
    share: Float[Array, ""] = eqx.field(
        converter=within("share of the history in the normalisation", "[0, 1]"), default=0.65
    )
    moments: Moments | None = None

    def __check_init__(self) -> None:
        if self.kind not in ("cycle", "moving", "history", "fixed", "raw"):
            raise ValueError(
                f'normalisation must be "cycle", "moving", "history", "fixed" or "raw"; got {self.kind!r}.'
            )

    @property
    def plain(self) -> bool:
        """Whether it is by mean and standard deviation of each component of this forecast: the default."""
        return self.kind == "cycle" and self.affine and not self.uniform

    def init(self, ensemble: Float[Array, "N *x"]) -> Any:
        """What is remembered before the first cycle."""
        if self.kind == "history":
            if self.moments is not None:
                return _History(jnp.ones((), ensemble.dtype), self._given(ensemble))
            none = jnp.zeros_like(ensemble[0])
            return _History(jnp.zeros((), ensemble.dtype), Moments(none, none))
        if self.kind != "moving":
            return None
        return self._given(ensemble) if self.moments is not None else _of(ensemble)

    def __call__(
        self, ensemble: Float[Array, "N *x"], memory: Any
    ) -> tuple[Float[Array, "*x"], Float[Array, "..."], Any]:
        """Centre, scale and what to remember, for a forecast ensemble. A scale of zero counts as 1."""
        if self.kind == "raw":
            return jnp.zeros_like(ensemble[0]), jnp.ones_like(ensemble[0]), memory
        if self.kind == "fixed":
            moments = self._given(ensemble)
        else:
            moments = _of(ensemble)
            if isinstance(memory, _History):
                memory, share = memory.after(moments), self.share.astype(ensemble.dtype)
                now, whole = (jnp.where(v > 0, v, 1.0) for v in (moments.variance, memory.moments.variance))
                moments = Moments(moments.mean, now ** (1 - share) * whole**share)
            elif memory is not None:
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
