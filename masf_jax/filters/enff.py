"""The ensemble flow filter."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, Scalar

from ..denoisers.kernel import KernelDenoiser
from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout
from ..ensemble.inflation import Inflation
from ..ensemble.normalization import Normalization
from .base import EnsembleState, Info
from .sampled import Likelihood, SampledFilter

__all__ = ["EnFF"]

Path = Literal["ot", "f2p"]


class _Mixture(NamedTuple):
    """N(m_j, σ² I) at one time, and the time derivatives of m_j and σ."""

    mean: Float[Array, "N *x"]
    rate: Float[Array, "N *x"]
    std: Scalar
    std_rate: Scalar


class EnFF(SampledFilter):
    """Draws along dx/dt = u(x, t) + λ ∇log p(z | x̂), x̂ = x + (1 - t) u, from t = 0 to 1 (Euler).

    u = Σ_j w_j [(σ̇/σ)(x - m_j) + ṁ_j], w_j ∝ N(x; m_j, σ² I), carries the path of mixtures of N(m_j, σ² I),
    which ends at the forecast members x_j:

        "ot":  m_j = t x_j, σ = 1 - (1 - σ_min) t: from noise;
        "f2p": m_j = t x_j + (1 - t) x_j^a, σ = σ_min: from the last analysis, member by member.

    The flow without guidance is exact for the mixture. The guidance is a heuristic: the analysis depends on
    λ, which must be tuned (docs/rivals.md has the bias for a Gaussian forecast), and steps need
    λ |H'|²/(n_steps R) well below 2. Where the ensemble collapses its spread is that of σ_min.

    O(N n) memory, O(N² n) operations a step.

    Source: Transue et al. (2025), arXiv 2508.13313.

    Args:
        inflation, normalization: see `EnSF`.
        path: see above.
        n_steps: Euler steps, equal in t.
        guidance: λ ≥ 0.
        sigma_min: σ_min > 0, in the coordinates' unit.
    """

    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization | None = None
    path: Path = eqx.field(static=True, default="ot")
    n_steps: int = eqx.field(static=True, default=100)
    guidance: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.2)
    sigma_min: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.1)

    def __check_init__(self) -> None:
        if self.path not in get_args(Path):
            raise ValueError(f"path must be one of {', '.join(get_args(Path))}; got {self.path!r}.")
        if self.n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {self.n_steps}.")
        if not isinstance(self.guidance, Tracer) and not float(self.guidance) >= 0:
            raise ValueError(f"guidance must not be negative; got {self.guidance}.")
        if not isinstance(self.sigma_min, Tracer) and not 0 < float(self.sigma_min) <= 1:
            raise ValueError(f"sigma_min must lie in (0, 1]; got {self.sigma_min}.")

    def remember(self, ensemble: Float[Array, "N *state"]) -> Any:
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
        memory = (*state.memory[:2], self.remember(state.ensemble))
        return dataclasses.replace(forecast, memory=memory)

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        dtype = members.dtype
        dt = jnp.asarray(1.0 / self.n_steps, dtype)
        noise = jax.random.normal(key, members.shape, dtype)
        before = None if memory is None else likelihood.encode(memory)
        start = noise if before is None else before + self.sigma_min.astype(dtype) * noise

        def step(k: Array, x: Array) -> Array:
            t = k.astype(dtype) * dt
            u = _velocity(x, self._mixture(members, before, t))
            return x + dt * (u + self.guidance.astype(dtype) * likelihood.scores(x + (1 - t) * u))

        drawn = jax.lax.fori_loop(jnp.uint32(0), jnp.uint32(self.n_steps), step, start)
        return drawn, memory, {}

    def _mixture(self, members: Array, before: Array | None, t: Scalar) -> _Mixture:
        sigma = self.sigma_min.astype(t.dtype)
        if before is None:
            return _Mixture(t * members, members, 1 - (1 - sigma) * t, sigma - 1)
        rate = members - before
        return _Mixture(before + t * rate, rate, sigma, jnp.zeros_like(t))


def _velocity(x: Float[Array, "N *x"], mixture: _Mixture) -> Float[Array, "N *x"]:
    """u at the rows of x."""
    shape = x.shape[1:]
    kernels = KernelDenoiser(mixture.mean, jnp.full(shape, mixture.std))
    weights = jnp.exp(jax.vmap(kernels.log_weights, (0, None))(x, jnp.zeros(shape, x.dtype)))
    mean, rate = (jnp.tensordot(weights, values, axes=1) for values in (mixture.mean, mixture.rate))
    return mixture.std_rate / mixture.std * (x - mean) + rate
