"""A Gaussian denoiser with a learned correction."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..bases import Basis
from .base import Denoiser
from .gaussian import GaussianDenoiser
from .network import NetworkDenoiser

__all__ = ["HybridDenoiser"]


class HybridDenoiser(Denoiser):
    """D(x, φ) = D_G(x, φ) + sin φ · F(x, D_G, φ): with F = 0 (a fresh network) the Gaussian's own.

    `sample` adds to D the deviation of the Gaussian's draw from its mean: the forecast's covariance given x.
    In other coordinates than the state's own, the network sees the state, and of the noise level its mean.

    Args:
        gaussian: D_G.
        network: F, with one feature per channel of the state: D_G (`features` of it are replaced).
        basis: coordinates that x is given in.
    """

    gaussian: GaussianDenoiser
    network: NetworkDenoiser
    basis: Basis

    def with_params(self, params: Any) -> HybridDenoiser:
        """The same with other parameters of the network."""
        return dataclasses.replace(self, network=self.network.with_params(params))

    def mean_and_log_factor(
        self, x: Float[Array, "*v"], angle: Float[Array, "*v"]
    ) -> tuple[Float[Array, "*v"], None]:
        """D; no variance head."""
        return self(x, angle), None

    def _correction(self, mean: Array, x: Array, angle: Array) -> Array:
        seen, state = self.basis.back(mean), self.basis.back(x)
        level = angle if angle.shape == state.shape else jnp.broadcast_to(angle.mean(), state.shape)
        grid = state.ndim - 1 if self.network.layout == "field" else 1
        features = seen if seen.ndim > grid or self.network.layout == "vector" else seen[None]
        output, _ = self.network.with_features(features).outputs(state, level)
        return jnp.sin(angle) * self.basis.to(output)

    def __call__(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, "*v"]:
        mean = self.gaussian(x, angle)
        return mean + self._correction(mean, x, angle)

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*v"], angle: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        correction = self._correction(self.gaussian(x, angle), x, angle)
        return self.gaussian.sample(key, x, angle) + correction

    def for_member(self, member: Float[Array, "*v"]) -> HybridDenoiser:
        gaussian = self.gaussian.for_member(member)
        return dataclasses.replace(self, gaussian=gaussian)

    def numbered(self, index: Int[Array, ""]) -> HybridDenoiser:
        return dataclasses.replace(self, gaussian=self.gaussian.numbered(index))
