"""Draws of p(x | z) for any operator and any noise: what knows z takes the place of a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...diffusion.process import ProcessFamily
from ...diffusion.samplers import Bridge, Sampler
from ...dynamics.base import Dynamics
from ...dynamics.layout import current
from ...ensemble.density import KernelDensity, check_bandwidth
from ...ensemble.double import round_off
from ...ensemble.keys import member_keys
from ...ensemble.resampling import systematic
from ...ensemble.statistics import effective_sample_size
from ...measurements.measurement import Measurement
from ..climate import Climate
from ..priors.base import Prior
from .base import Inputs, Route

__all__ = ["Conditional", "ConditionalKernel"]


class Conditional(Route):
    """A route without a prior: exact for the forecast's density, whatever H and the noise.

    Noise that depends on H(x) is that of each state by itself. Analysis members are drawn afresh from
    p(x | z), not moved from forecast members of their own, and never centred: with several modes a shift of
    all members is an error of each.
    """

    name: ClassVar[str] = "conditional"
    uses_noise_of_each_state: ClassVar[bool] = True
    draws_itself: ClassVar[bool] = True

    def init(self, prior: Prior) -> Any:
        return None

    def check(
        self,
        prior: Prior,
        process: ProcessFamily,
        sampler: Sampler,
        measurement: Measurement,
        state_shape: tuple[int, ...],
        scale_shape: tuple[int, ...],
    ) -> None:
        if not isinstance(sampler, Bridge):
            raise ValueError(
                f"the route 'conditional' has no guided sampler: Bridge; got {type(sampler).__name__}."
            )

    def prepare(
        self,
        prior: Prior,
        dynamics: Dynamics,
        measurement: Measurement,
        climate: Callable[[], Climate] | None = None,
    ) -> tuple[Route, Prior]:
        return self, prior


class ConditionalKernel(Conditional):
    """The forecast as a kernel density: N of N · `draws` draws of it, picked by p(z | x). Training-free.

    With x0 one of the draws x_j, weighted by w_j ∝ p(z | x_j), a denoiser that sees z has the closed form

        E[x0 | X_t, z] = Σ_j w_j(X_t) x_j,   w_j(X_t) ∝ p(z | x_j) p(X_t | x_j, z),

    and the reverse process that draws x0 by these weights ends in x_j with probability w_j after any number
    of steps: so x_j are picked by w_j at once, which makes this a regularised particle filter. It takes
    p(z | x) in closed form, and for few components only: the effective sample size as a share of the draws
    is reported as `proposals_used`. In 2 and 3 components it is right for every operator and noise of the
    library, several modes included (docs/masf.md).

    Args:
        bandwidth: in standard deviations of the forecast; None: Silverman's rule (see `KernelDensity`).
        draws: for each member.
    """

    bandwidth: Float[Array, ""] | None = eqx.field(converter=check_bandwidth, default=None)
    draws: int = eqx.field(static=True, default=20)

    def __check_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws of the kernel density must be at least 1 a member; got {self.draws}.")

    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        members = inputs.members
        n = members.shape[0]
        key_draws, key_pick = jax.random.split(keys[1])
        density = KernelDensity.of(members, self.bandwidth)

        def around(key: PRNGKeyArray, member: Array) -> Array:
            return jax.vmap(density.draw, (0, None))(jax.random.split(key, self.draws), member)

        draws = current().each(around, member_keys(key_draws, n), members)
        draws = draws.reshape(n * self.draws, *members.shape[1:])
        law, z, mask = inputs.measurement, inputs.z, inputs.mask
        likelihood = current().each(lambda x: law.log_prob(z, x, mask), draws)
        weights = jax.nn.log_softmax(likelihood)
        picked = systematic(key_pick, jnp.exp(weights), n)
        used = effective_sample_size(weights) / (n * self.draws)
        lost = _round_off(likelihood, draws, inputs)
        return draws[picked], memory, {"proposals_used": used, "rounding": lost}


def _round_off(
    likelihood: Float[Array, " k"], draws: Float[Array, "k *x"], inputs: Inputs
) -> Float[Array, ""]:
    """Estimated error of log w_j: u (|log p| + Σ |d z|/std²) of the heaviest draw, d = z - H(x)."""
    z, mask, best = inputs.z, inputs.mask, jnp.argmax(likelihood)
    law = inputs.measurement
    law = law.with_noise_at(law.operator(draws[best]))
    std = law.noise.standard_deviation(z)
    away = jnp.where(mask, law.innovation(z, draws[best]) / std, 0.0)
    seen = jnp.abs(jnp.where(mask, z / std, 0.0)) * jnp.abs(away)
    return round_off(z.dtype) * (jnp.abs(likelihood[best]) + seen.sum())
