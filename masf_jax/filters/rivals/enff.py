"""The ensemble flow filter."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, MemberLayout, Placement, current
from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization
from ...ensemble.statistics import anomalies
from ...loops import counted
from ...numbers import whole, within
from ..base import EnsembleState, Info
from .sampled import Likelihood, SampledFilter

__all__ = ["EnFF"]

Path = Literal["ot", "f2p"]


class _Paths(NamedTuple):
    """m_j(t) = Σ_k c_k(t) (mean_k + basis_kj), c = (t) or (1, t), so that the last k is dm_j/dt.

    half_squares: ½ Σ basis_kj basis_lj over components, once for all times.
    """

    mean: Float[Array, "K *x"]
    basis: Float[Array, "K N *x"]
    half_squares: Float[Array, "K K N"]

    @classmethod
    def between(cls, ends: Float[Array, "N *x"], starts: Float[Array, "N *x"] | None) -> _Paths:
        """Straight from `starts` (None: 0) to `ends`."""
        parts = (ends,) if starts is None else (starts, ends - starts)
        pairs = [anomalies(current().spread(part)) for part in parts]
        mean, basis = (jnp.stack(list(values)) for values in zip(*pairs, strict=True))
        axes = tuple(range(1, ends.ndim))
        half = jnp.stack([jnp.stack([0.5 * (a * b).sum(axes) for a in basis]) for b in basis])
        return cls(mean, basis, half)

    def rate(self, x: Float[Array, "N *x"], t: Scalar, std: Scalar) -> Float[Array, "N *x"]:
        """Σ_j w_j dm_j/dt, w_j ∝ N(x; m_j, std² I), at the rows of x."""
        c = jnp.stack([t] if len(self.mean) == 1 else [jnp.ones_like(t), t])
        spread = current().spread
        away, basis = spread(x - jnp.tensordot(c, self.mean, axes=1)[None]), [spread(b) for b in self.basis]
        space = tuple(range(1, x.ndim))
        products = jnp.stack([jnp.tensordot(away, b, axes=(space, space)) for b in basis], axis=1)
        half_squares = jnp.einsum("k,l,klj->j", c, c, self.half_squares)
        logits = (jnp.tensordot(products, c, axes=(1, 0)) - half_squares[None]) / std**2
        weights = jax.nn.softmax(jax.lax.optimization_barrier(logits))  # rounded once (see KernelDenoiser)
        return self.mean[-1][None] + spread(jnp.tensordot(weights, basis[-1], axes=1))


class EnFF(SampledFilter):
    """Draws along dx/dt = u(x, t) + λ ∇log p(z | x̂), x̂ = x + (1 - t) u, from t = 0 to 1 (Euler).

    u = Σ_j w_j [(σ̇/σ)(x - m_j) + ṁ_j], w_j ∝ N(x; m_j, σ² I), carries the path of mixtures of N(m_j, σ² I),
    which ends at the forecast members x_j:

        "ot":  m_j = t x_j, σ = 1 - (1 - σ_min) t: from noise;
        "f2p": m_j = t x_j + (1 - t) x_j^a, σ = σ_min: from the last analysis, member by member.

    The flow without guidance is exact for the mixture. The guidance is a heuristic: the analysis depends on
    λ, which must be tuned (docs/rivals.md has the bias for a Gaussian forecast). Where the ensemble collapses
    its spread is that of σ_min.

    O(N n) memory, O(N² n) operations a step.

    Source: Transue et al. (2025), arXiv 2508.13313.

    Args:
        inflation, normalization: see `EnSF`. With raw coordinates steps need λ |H'|²/(n_steps R) well below 2
            to be stable; with others they are shortened where it exceeds 1 (see `Likelihood.scores`).
        path: see above.
        n_steps: Euler steps, equal in t.
        guidance: λ ≥ 0.
        sigma_min: σ_min > 0, in the coordinates' unit.
    """

    placement: ClassVar[Placement] = "components"
    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=lambda: Normalization("history"))
    path: Path = eqx.field(static=True, default="ot")
    n_steps: int = eqx.field(static=True, default=100)
    guidance: Float[Array, ""] = eqx.field(converter=within("guidance", "[0, inf]"), default=0.2)
    sigma_min: Float[Array, ""] = eqx.field(converter=within("sigma_min", "(0, 1]"), default=0.1)

    def __check_init__(self) -> None:
        if self.path not in get_args(Path):
            raise ValueError(f"path must be one of {', '.join(get_args(Path))}; got {self.path!r}.")
        whole("n_steps", self.n_steps, 1)

    def first_memory(self, ensemble: Float[Array, "N *state"]) -> Any:
        return ensemble if self.path == "f2p" else None

    def forecast(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> EnsembleState:
        forecast = super().forecast(key, state, dynamics, step, n_steps, layout)
        inflation, (units, _) = state.memory
        memory = inflation, (units, self.first_memory(state.ensemble))
        return dataclasses.replace(forecast, memory=memory)

    def take_memory(self, memory: Any, index: Int[Array, " N"]) -> Any:
        inflation, (units, before) = memory
        return inflation, (units, None if before is None else before[index])

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        dtype, likelihood = members.dtype, likelihood.guiding(members)
        dt = jnp.asarray(1.0 / self.n_steps, dtype)
        sigma, guidance = self.sigma_min.astype(dtype), self.guidance.astype(dtype)
        noise = jax.random.normal(key, members.shape, dtype)
        before = None if memory is None else likelihood.encode(memory)
        start = noise if before is None else before + sigma * noise
        paths = _Paths.between(members, before)

        spread = current().spread

        def step(k: Array, x: Array) -> Array:
            t = k.astype(dtype) * dt
            if before is not None:
                u = paths.rate(x, t, sigma)
            else:  # m_j = t dm_j/dt
                std = 1 - (1 - sigma) * t
                rate = paths.rate(x, t, std)
                u = (sigma - 1) / std * (x - t * rate) + rate
            scores = likelihood.scores(x + (1 - t) * u, dt * guidance, bounded=True)
            return spread(x + dt * (u + guidance * spread(scores)))

        drawn = counted(self.n_steps, step, start)
        return drawn, memory, {}
