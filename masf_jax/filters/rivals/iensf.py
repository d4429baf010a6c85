"""The iterative ensemble score filter: a likelihood score that is right where all is Gaussian."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ...denoisers.base import Denoiser
from ...denoisers.covariance import DiagonalCovariance
from ...denoisers.gaussian import GaussianDenoiser, ensemble_gaussian
from ...denoisers.kernel import KernelDenoiser
from ...diffusion.linear_schedule import LinearSchedule, reverse_euler
from ...dynamics.layout import Placement
from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization
from ...ensemble.statistics import member_mean, member_variance
from ...numbers import whole, within
from ..base import Info
from .sampled import Likelihood, SampledFilter

__all__ = ["IEnSF"]

Prior = Literal["diagonal", "ensemble", "mixture"]

_LEAST_NOISE = 1 / 25
"""Least variance of the noise over that of the forecast seen; of less the iteration diverges."""


class IEnSF(SampledFilter):
    """Reverse diffusion with ∇log p(z | x_t) = Jᵀ E[∇log p(z | x0) | x_t, z], J = ∂E[x0 | x_t]/∂x_t.

    That identity holds for a Gaussian forecast, any likelihood. The expectation is replaced by
    ∇log p(z | x̂), x̂ = E[x0 | x_t, z], which is the same for a linear measurement with Gaussian noise. x̂ needs
    the posterior: it is that of the last iteration's draws, those of the forecast at first. J is that of the
    forecast. So a fixed point of the iteration is exact for a Gaussian forecast and a linear measurement, and
    no damping is there. What remains is the error of the steps: about 1/n_steps in the variance, in the
    coordinates' unit.

    By itself the iteration overshoots, and diverges where the measurement is sure (forecast variance ten
    times that of the noise): of every step but the first a third is taken, member by member, and all
    iterations use the same random numbers. Beyond 25 times that diverges too: surer values count as
    that sure (unless `normalization` is raw).

    Source: Zhang, Bao & Zhang (2025), arXiv 2510.20159 (the relaxation in place of its line search).

    Args:
        inflation: see `Inflation`.
        normalization: see `EnSF`.
        prior: law of the forecast and of the posterior estimate: Gaussian with independent components
            ("diagonal": works like a localisation to the component itself), with the ensemble's
            covariance ("ensemble"), or the members as a mixture ("mixture": for few components).
        schedule, n_steps, limit: see `EnSFSampler`.
        iterations: reverse processes one after the other.
    """

    placement: ClassVar[Placement] = "members"
    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=Normalization)
    prior: Prior = eqx.field(static=True, default="diagonal")
    schedule: LinearSchedule = eqx.field(default_factory=lambda: LinearSchedule(0.05, 0.0))
    n_steps: int = eqx.field(static=True, default=500)
    iterations: int = eqx.field(static=True, default=5)
    limit: Float[Array, ""] | None = eqx.field(
        converter=within("limit of the score", "(0, inf]"), default=1000.0
    )

    def __check_init__(self) -> None:
        if self.prior not in get_args(Prior):
            raise ValueError(f"prior must be one of {', '.join(get_args(Prior))}; got {self.prior!r}.")
        for name, value in (("n_steps", self.n_steps), ("iterations", self.iterations)):
            whole(name, value, 1)

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        prior, likelihood = self._law(members), likelihood.guiding(members)
        shares = jnp.full((self.iterations,), 1 / 3, members.dtype).at[0].set(1.0)

        def iterate(estimate: Array, share: Array) -> tuple[Array, Array]:
            drawn = self._reversed(key, prior, estimate, likelihood)
            new = estimate + share * (drawn - estimate)
            step = member_mean(new) - member_mean(estimate)
            spread = jnp.mean(member_variance(new))
            return new, jnp.sqrt(jnp.mean(step**2) / jnp.where(spread > 0, spread, 1.0))

        drawn, steps = jax.lax.scan(iterate, members, shares)
        return drawn, memory, {"last_step": steps[-1]}

    def _law(self, ensemble: Array) -> Denoiser:
        if self.prior == "mixture":
            return KernelDenoiser(ensemble, jnp.zeros_like(ensemble[0]))
        if self.prior == "ensemble":
            return ensemble_gaussian(ensemble)
        return GaussianDenoiser(member_mean(ensemble), DiagonalCovariance(member_variance(ensemble)))

    def _reversed(self, key: PRNGKeyArray, prior: Denoiser, estimate: Array, likelihood: Likelihood) -> Array:
        """One draw for each member, given draws of the posterior so far."""
        key_start, key_steps = jax.random.split(key)
        posterior, least = self._law(estimate), jnp.asarray(_LEAST_NOISE, estimate.dtype)

        def denoised(law: Denoiser, x: Array, t: Scalar) -> Array:
            return jax.vmap(lambda row: self.schedule.denoised(law, row, t))(x)

        def score(x: Array, t: Scalar) -> Array:
            mean, pull = jax.vjp(lambda x: denoised(prior, x, t), x)
            (guidance,) = pull(likelihood.scores(denoised(posterior, x, t), least))
            total = self.schedule.score(x, mean, t) + guidance
            if self.limit is None:
                return total
            limit = self.limit.astype(x.dtype)
            return jnp.clip(total, -limit, limit)

        start = self.schedule.noised(key_start, estimate, jnp.ones((), estimate.dtype))
        return reverse_euler(key_steps, self.schedule, start, score, self.n_steps)
