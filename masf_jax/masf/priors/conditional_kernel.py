"""Draws of p(x | z) for any operator and any noise: what knows z takes the place of a likelihood."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...ensemble.density import KernelDensity, check_bandwidth
from ...ensemble.resampling import systematic
from ...ensemble.statistics import effective_sample_size
from ...measurements.measurement import Measurement
from .base import DrawingFit, Sampling, member_keys

__all__ = ["ConditionalFit", "ConditionalKernel"]


class ConditionalFit(DrawingFit):
    """A fit for the route "conditional": exact for the forecast's density, whatever H and the noise.

    Noise that depends on H(x) is that of each state by itself. Analysis members are drawn afresh from
    p(x | z), not moved from forecast members of their own, and never centred: with several modes a shift of
    all members is an error of each.
    """

    routes: ClassVar[tuple[str, ...]] = ("conditional",)


class ConditionalKernel(ConditionalFit):
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
        self,
        key: PRNGKeyArray,
        members: Float[Array, "N *x"],
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        units: tuple[Float[Array, "*x"], Float[Array, "..."]],
        sampling: Sampling,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        n = members.shape[0]
        key_draws, key_pick = jax.random.split(key)
        density = KernelDensity.of(members, self.bandwidth)
        keys = member_keys(key_draws, n)

        def around(key: PRNGKeyArray, member: Array) -> Array:
            return jax.vmap(density.draw, (0, None))(jax.random.split(key, self.draws), member)

        draws = jax.vmap(around)(keys, members).reshape(n * self.draws, *members.shape[1:])
        weights = jax.nn.log_softmax(jax.vmap(measurement.log_prob, (None, 0, None))(z, draws, mask))
        picked = systematic(key_pick, jnp.exp(weights), n)
        used = effective_sample_size(weights) / (n * self.draws)
        return draws[picked], memory, {"proposals_used": used}
