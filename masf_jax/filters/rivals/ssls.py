"""Score-based sequential Langevin sampling."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ...denoisers.base import Denoiser
from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization
from ...loops import counted
from ...numbers import whole, within
from .score_network import LearnedFilter, ScoreNetwork, smoothed_score

__all__ = ["SSLS", "LangevinSampler"]


class LangevinSampler(eqx.Module):
    """x ← x + ε (s(x) + b_k ∇log p(z | x)) + √(2ε) ξ from the forecast members, s(x) = (E[x0 | x] - x)/σ².

    s is the score of the forecast noised with standard deviation σ, and b_k rises from 0 to 1 over the
    first half of the steps. So it aims at the posterior of a forecast with σ² more variance, and for
    n_steps · ε short against that posterior's variance remembers where it began.
    Steps are stable for ε (1/σ² + |H'|²/R) < 2; those of the likelihood are shortened where needed (see
    `Likelihood.scores`).

    Args:
        sigma: σ, in the coordinates' unit; step: ε; n_steps: all.
    """

    sigma: Float[Array, ""] = eqx.field(converter=within("sigma", "(0, inf]"), default=0.2)
    step: Float[Array, ""] = eqx.field(converter=within("step", "(0, inf]"), default=5e-3)
    n_steps: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        whole("n_steps", self.n_steps, 1)

    def angles(self, key: PRNGKeyArray) -> Float[Array, ""]:
        """The noise level σ as an angle, the same for all keys."""
        return jnp.arctan(self.sigma)

    def __call__(
        self,
        key: PRNGKeyArray,
        denoiser: Denoiser,
        members: Float[Array, "N *x"],
        scores: Callable[[Array, Scalar], Array],
    ) -> Float[Array, "N *x"]:
        """One draw from each forecast member; scores(x, step): see `Likelihood.scores`."""
        dtype = members.dtype
        sigma, step_size = self.sigma.astype(dtype), self.step.astype(dtype)
        rising = max(1, self.n_steps // 2)

        def step(k: Array, x: Array) -> Array:
            weight = jnp.minimum((k.astype(dtype) + 1) / rising, 1.0)
            total = smoothed_score(denoiser, x, sigma) + weight * scores(x, step_size * weight)
            noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, dtype)
            return x + step_size * total + jnp.sqrt(2 * step_size) * noise

        return counted(self.n_steps, step, members)


class SSLS(LearnedFilter):
    """Trains the score of the slightly noised forecast in each cycle; then annealed Langevin steps from it.

    Source: Ding et al., arXiv 2411.13443. The network is the library's (see `ScoreFilter`).

    Args:
        inflation, normalization: see `EnSF`.
        network: see `ScoreNetwork`.
        sampler: see `LangevinSampler`.
    """

    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=Normalization)
    network: ScoreNetwork = eqx.field(default_factory=ScoreNetwork)
    sampler: LangevinSampler = eqx.field(default_factory=LangevinSampler)
