"""A density from an ensemble: kernels of the ensemble's own shape around the members."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..numbers import number
from .statistics import anomalies

__all__ = ["KernelDensity", "check_bandwidth", "silverman_factor"]


def silverman_factor(n_members: int, n: int) -> float:
    """(4/((n + 2) N))^{1/(n + 4)}: the bandwidth in standard deviations that suits a Gaussian best.

    Source: Silverman (1986), eq. 4.14.
    """
    return (4 / ((n + 2) * n_members)) ** (1 / (n + 4))


def check_bandwidth(bandwidth: float | Array | None) -> Float[Array, ""] | None:
    """The bandwidth as an array; raises ValueError where it is not positive."""
    return None if bandwidth is None else number("bandwidth", bandwidth, "(0, inf]")


class KernelDensity(eqx.Module):
    """(1/N) Σ_j N(m + √(1 - b²) (x_j - m), b² P): mean m and covariance P are the ensemble's, for b ≤ 1.

    Kernels along P keep what the components have to do with each other. With fewer members than
    components all draws stay in the members' span.

    Args:
        mean: m; deviations: x_j - m.
        bandwidth: b, in standard deviations; Silverman's is 1 for many components and few members, where
            the density is about N(m, P).
    """

    mean: Float[Array, "*x"]
    deviations: Float[Array, "N *x"]
    bandwidth: Float[Array, ""]

    @classmethod
    def of(cls, ensemble: Float[Array, "N *x"], bandwidth: Float[Array, ""] | None = None) -> KernelDensity:
        """The density of an ensemble; the bandwidth by Silverman's rule if None, and at most 1."""
        mean, deviations = anomalies(ensemble)
        if bandwidth is None:
            bandwidth = jnp.asarray(silverman_factor(ensemble.shape[0], mean.size))
        return cls(mean, deviations, jnp.minimum(bandwidth.astype(mean.dtype), 1.0))

    def draw(self, key: PRNGKeyArray, member: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """A draw of the kernel around one member."""
        n = self.deviations.shape[0]
        weights = jax.random.normal(key, (n,), self.mean.dtype) / math.sqrt(n - 1)
        noise = self.bandwidth * jnp.tensordot(weights, self.deviations, axes=1)
        return self.mean + jnp.sqrt(1 - self.bandwidth**2) * (member - self.mean) + noise
