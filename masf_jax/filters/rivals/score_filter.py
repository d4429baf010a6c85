"""The score filter: a score network trained in every cycle, and a guided reverse diffusion."""

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

__all__ = ["ExplodingSampler", "ScoreFilter"]

_FIRST = 1e-3  # diffusion time where the reverse process ends, as std(0) = 0


class ExplodingSampler(eqx.Module):
    """Reverse of x_t = x0 + s_t η, s_t² = (σ^{2t} - 1)/(2 log σ), with guidance w_t ∇log p(z | x).

    dx = σ^t dw forward; Euler-Maruyama from N(0, s_1² I) at t = 1 to t = .001. w_t = max(1 - 2t, 0), and the
    guidance of a member is not longer than `cap` (Euclidean norm). As in EnSF the likelihood is read at the
    noisy x: biased even where all is Gaussian.

    Args:
        sigma: σ > 1; n_steps: equal in t; cap: see above.
    """

    sigma: Float[Array, ""] = eqx.field(converter=within("sigma", "(1, inf]"), default=25.0)
    n_steps: int = eqx.field(static=True, default=100)
    cap: Float[Array, ""] = eqx.field(converter=within("cap of the guidance", "(0, inf]"), default=100.0)

    def __check_init__(self) -> None:
        whole("n_steps", self.n_steps, 1)

    def std(self, t: Scalar) -> Scalar:
        """s_t."""
        rate = jnp.log(self.sigma).astype(t.dtype)
        return jnp.sqrt(jnp.expm1(2 * rate * t) / (2 * rate))

    def angles(self, key: PRNGKeyArray) -> Float[Array, ""]:
        """The noise level of a time uniform in [.001, 1], as an angle: arctan s_t."""
        return jnp.arctan(self.std(jax.random.uniform(key, minval=_FIRST)))

    def __call__(
        self,
        key: PRNGKeyArray,
        denoiser: Denoiser,
        like: Float[Array, "N *x"],
        scores: Callable[[Array, Scalar], Array],
    ) -> Float[Array, "N *x"]:
        """As many draws as `like` has rows; scores(x, step): see `Likelihood.scores`."""
        dtype = like.dtype
        rate, cap = jnp.log(self.sigma).astype(dtype), self.cap.astype(dtype)
        dt = jnp.asarray((1 - _FIRST) / self.n_steps, dtype)
        key_start, key_steps = jax.random.split(key)

        def step(k: Array, x: Array) -> Array:
            t = 1 - k.astype(dtype) * dt
            weight, g2 = jnp.maximum(1 - 2 * t, 0.0), jnp.exp(2 * rate * t)
            guidance = weight * scores(x, dt * g2 * weight)
            flat = guidance.reshape(x.shape[0], -1)
            length = jnp.sqrt((flat**2).sum(1, keepdims=True))
            flat = flat * jnp.minimum(1.0, cap / jnp.maximum(length, jnp.finfo(dtype).tiny))
            total = smoothed_score(denoiser, x, self.std(t)) + flat.reshape(x.shape)
            noise = jax.random.normal(jax.random.fold_in(key_steps, k), x.shape, dtype)
            return x + dt * g2 * total + jnp.sqrt(dt * g2) * noise

        start = self.std(jnp.ones((), dtype)) * jax.random.normal(key_start, like.shape, dtype)
        return counted(self.n_steps, step, start)


class ScoreFilter(LearnedFilter):
    """Trains a score network on each forecast ensemble, then draws with it (see `ExplodingSampler`).

    Source: Bao, Zhang & Zhang (2024), doi 10.1016/j.jcp.2024.113207. The network is the library's, which
    gives E[x0 | x], the score by another name; it sees states normalised by each forecast.

    Args:
        inflation, normalization: see `EnSF`.
        network: see `ScoreNetwork`.
        sampler: see `ExplodingSampler`.
    """

    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=Normalization)
    network: ScoreNetwork = eqx.field(default_factory=ScoreNetwork)
    sampler: ExplodingSampler = eqx.field(default_factory=ExplodingSampler)
