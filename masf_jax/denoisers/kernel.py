"""The kernel denoiser: the forecast ensemble as a Gaussian mixture, closed form, training-free."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..derivatives import without_derivative
from ..ensemble.density import silverman_factor
from ..ensemble.resampling import PICKED
from ..ensemble.statistics import anomalies
from .base import Denoiser

__all__ = ["KernelDenoiser", "ensemble_kernel"]


class KernelDenoiser(Denoiser):
    """x0 ~ Σ_j π_j N(m_j, diag b²): with x = cos φ x0 + sin φ η and q = b² cos² φ + sin² φ,

        w_j ∝ π_j exp(-½ Σ (x - cos φ m_j)²/q),  E[x0 | x, j] = (sin² φ m_j + b² cos φ x)/q,
        Var[x0 | x, j] = b² sin² φ/q.

    `sample` draws a component by its weight, then a point of it, so a bridge with it draws from the kernel
    density's exact posterior, in any number of steps. Distances are matrix products: a batch of members costs
    O(N² n) operations and no N × N × n memory.

    Args:
        members: m_j, (N, *v); bandwidth: b, broadcastable to a member.
        log_prior: log π_j up to a constant; None: all equal.
    """

    members: Float[Array, "N *v"]
    bandwidth: Float[Array, "*v"]
    log_prior: Float[Array, " N"] | None = None

    @property
    def ignores_noise(self) -> bool:
        return True

    def log_weights(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, " N"]:
        """log w_j, normalised."""
        cos, q = jnp.cos(angle).reshape(-1), self._total(angle).reshape(-1)
        centre, flat = anomalies(self.members.reshape(self.members.shape[0], -1))
        away = x.reshape(-1) - cos * centre
        half_squares = 0.5 * (flat**2) @ (cos**2 / q)
        logits = flat @ (cos * away / q) - half_squares
        logits = logits if self.log_prior is None else logits + self.log_prior
        # rounded once: large ones rounded anew where they are used would give weights of sum e^±rounding
        return jax.nn.log_softmax(jax.lax.optimization_barrier(logits))

    def __call__(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, "*v"]:
        mixed = jnp.tensordot(jnp.exp(self.log_weights(x, angle)), self.members, axes=1)
        return self._component_mean(mixed, x, angle)

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*v"], angle: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        key_component, key_point = jax.random.split(key)
        log_weights = without_derivative(PICKED, self.log_weights(x, angle))
        chosen = self.members[jax.random.categorical(key_component, log_weights)]
        std = self.bandwidth * jnp.sin(angle) / jnp.sqrt(self._total(angle))
        noise = jax.random.normal(key_point, x.shape, x.dtype)
        return self._component_mean(chosen, x, angle) + std * noise

    def _total(self, angle: Array) -> Array:
        return (self.bandwidth * jnp.cos(angle)) ** 2 + jnp.sin(angle) ** 2

    def _component_mean(self, member: Array, x: Array, angle: Array) -> Array:
        return (jnp.sin(angle) ** 2 * member + self.bandwidth**2 * jnp.cos(angle) * x) / self._total(angle)


def ensemble_kernel(
    ensemble: Float[Array, "N *v"],
    bandwidth: Float[Array, ""] | float | None = None,
    shrink: bool = True,
) -> KernelDenoiser:
    """The kernel denoiser of an ensemble, with a bandwidth in units of each component's standard deviation.

    Args:
        ensemble: members in the coordinates of a process.
        bandwidth: b over the standard deviation; None: Silverman's for the number of components.
        shrink: draw the kernels' centres together by √(1 - b²) (b ≤ 1), so that the mixture keeps the
            ensemble's variance; else it has 1 + b² times that.
    """
    mean, deviations = anomalies(ensemble)
    n_members = ensemble.shape[0]
    if bandwidth is None:
        bandwidth = silverman_factor(n_members, mean.size)
    b = jnp.asarray(bandwidth, ensemble.dtype)
    std = jnp.sqrt((deviations**2).sum(0) / (n_members - 1))
    factor = jnp.sqrt(jnp.maximum(1 - b**2, 0.0)) if shrink else jnp.ones_like(b)
    return KernelDenoiser(mean[None] + factor * deviations, b * std)
