"""The ensemble score filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ...denoisers.kernel import KernelDenoiser
from ...diffusion.linear_schedule import LinearSchedule, reverse_euler
from ...dynamics.layout import Placement
from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization
from ...ensemble.statistics import anomalies, member_variance
from ...numbers import whole, within
from ..base import Info
from .sampled import Likelihood, SampledFilter

__all__ = ["EnSF", "EnSFSampler"]

Start = Literal["standardised", "noise", "forecast"]


class EnSFSampler(eqx.Module):
    """Draws by the reverse process with the score ∇log p_t(x) + (1 - t) ∇log p(z | x).

    The prior score is that of the forecast members, noised: -Σ_j w_j (x - α x_j)/β², w_j ∝ N(x; α x_j, β² I)
    over a batch of members. With a batch of one the member itself is all there is of the prior.

    (1 - t) p(z | x), read at the noisy x, stands for p(z | x_t). It is not that: the analysis is biased even
    where everything is Gaussian and the ensemble is large (docs/rivals.md has numbers).

    Args:
        schedule: see `LinearSchedule`.
        n_steps: reverse steps of Euler and Maruyama, equal in t.
        batch_size: members J in the prior score of each analysis member: its own, and J - 1 others drawn in
            each cycle; None: all.
        start: x_1 is N(0, I) noise ("noise"), that brought to mean 0 and variance 1 over the members
            ("standardised", as in the released code), or drawn from p_1 ("forecast": α_1 x_j + β_1 η).
        limit: largest absolute value of a component of the score; None: none.
    """

    schedule: LinearSchedule = eqx.field(default_factory=LinearSchedule)
    n_steps: int = eqx.field(static=True, default=500)
    batch_size: int | None = eqx.field(static=True, default=1)
    start: Start = eqx.field(static=True, default="standardised")
    limit: Float[Array, ""] | None = eqx.field(
        converter=within("limit of the score", "(0, inf]"), default=1000.0
    )

    def __check_init__(self) -> None:
        whole("n_steps", self.n_steps, 1)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or None for all; got {self.batch_size}.")
        if self.start not in get_args(Start):
            raise ValueError(f"start must be one of {', '.join(get_args(Start))}; got {self.start!r}.")

    def __call__(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], scores: Callable[[Array, Scalar], Array]
    ) -> Float[Array, "N *x"]:
        """One draw for each forecast member; scores(x, step): see `Likelihood.scores`.

        Raises:
            ValueError: fewer members than the batch has.
        """
        key_batch, key_start, key_steps = jax.random.split(key, 3)
        denoised = self._denoised(key_batch, members)

        def score(x: Array, t: Scalar) -> Array:
            step = (1 - t) * self.schedule.rates(t)[1] / self.n_steps
            weight = jnp.maximum(1 - t, jnp.finfo(x.dtype).tiny)  # not 0, as scores may be infinite
            total = self.schedule.score(x, denoised(x, t), t) + weight * scores(x, step)
            if self.limit is None:
                return total
            limit = self.limit.astype(x.dtype)
            return jnp.clip(total, -limit, limit)

        return reverse_euler(key_steps, self.schedule, self._start(key_start, members), score, self.n_steps)

    def _start(self, key: PRNGKeyArray, members: Array) -> Array:
        if self.start == "forecast":
            return self.schedule.noised(key, members, jnp.ones((), members.dtype))
        noise = jax.random.normal(key, members.shape, members.dtype)
        if self.start == "noise":
            return noise
        return anomalies(noise)[1] / jnp.sqrt(member_variance(noise))[None]

    def _denoised(self, key: PRNGKeyArray, members: Array) -> Callable[[Array, Scalar], Array]:
        """E[x0 | x_t] of each row of x."""
        n = members.shape[0]
        size = n if self.batch_size is None else self.batch_size
        if size > n:
            raise ValueError(f"batch_size {size} is larger than the ensemble, {n} members; None: all.")
        if size == 1:
            return lambda x, t: members
        bandwidth = jnp.zeros_like(members[0])
        if size == n:
            whole = KernelDenoiser(members, bandwidth)
            return lambda x, t: jax.vmap(lambda row: self.schedule.denoised(whole, row, t))(x)
        order = jnp.argsort(jax.random.uniform(key, (n, n)) - 2 * jnp.eye(n), axis=1)  # its own comes first
        rows = jnp.arange(n)[:, None]
        log_prior = jnp.full((n, n), -jnp.inf, members.dtype).at[rows, order[:, :size]].set(0.0)

        def denoised(x: Array, t: Scalar) -> Array:
            def one(row: Array, log_prior: Array) -> Array:
                return self.schedule.denoised(KernelDenoiser(members, bandwidth, log_prior), row, t)

            return jax.vmap(one)(x, log_prior)

        return denoised


class EnSF(SampledFilter):
    """Ensemble score filter: each analysis member by a training-free reverse diffusion (see `EnSFSampler`).

    O(N n) memory; O(N n) operations a step with batches of one, else O(N² n).

    Source: Bao, Zhang & Zhang (2024), doi 10.1016/j.cma.2024.117447; the defaults are those of its released
    code for Lorenz-96. Relaxation to the prior spread, which other released codes apply, is
    `Inflation(rtps=1)`.

    Args:
        inflation: see `Inflation`.
        normalization: coordinates to draw in (see `Normalization`): between the forecast's spread and that of
            all forecasts so far by default, so that a sampler's own noise brings back a spread that is too
            small; "raw": the state's own, as in the released code.
        sampler: see `EnSFSampler`.
    """

    placement: ClassVar[Placement] = "members"
    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=lambda: Normalization("history"))
    sampler: EnSFSampler = eqx.field(default_factory=EnSFSampler)

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        return self.sampler(key, members, likelihood.guiding(members).scores), memory, {}
