"""The Gaussian denoiser: exact for a Gaussian forecast, and then a bridge with it is a Kalman analysis."""

from __future__ import annotations

from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import Basis, IdentityBasis
from ..ensemble.statistics import anomalies
from ..ensemble.taper import Taper
from .base import Denoiser
from .covariance import Covariance, DenseCovariance, LowRankCovariance, TaperedCovariance

__all__ = ["GaussianDenoiser", "Members", "ensemble_gaussian"]

Members: TypeAlias = Literal["transported", "perturbed", "fresh"]

_DENSE_TAPERED = 512
"""Up to this many components a tapered covariance is formed and factorised."""


class GaussianDenoiser(Denoiser):
    """D(x, φ) = m + P C (C P C + S²)⁻¹ (x - C m) for x0 ~ N(m, P), C = diag(cos φ), S = diag(sin φ).

    `sample` draws from N(D, Cov[x0 | x]) by conditioning a prior draw: with x' = C x0' + S η for
    x0' ~ N(m, P), x0' + D(x) - D(x') has that law, and needs nothing but D: `members` "fresh".

    `for_member` gives the analysis of one forecast member x0', which keeps what structure it has:

    * "perturbed": x0' is that member instead of a fresh draw (one step: the stochastic EnKF).
    * "transported": no noise; D(x) + (I + P C² S⁻²)^{-1/2} (x0' - m), a symmetric map in the metric of P⁻¹
      that takes P to Cov[x0 | x] (one step: the ensemble square root filter, whatever localises P); see
      `Covariance.transport`.

    Source of the square root: Sakov & Bertino (2011), doi 10.1007/s10596-010-9202-6; Bocquet & Farchi (2019),
    doi 10.1080/16000870.2019.1613142.

    Args:
        mean: m; covariance: P.
        members: what `for_member` does.
        member: x0', or None: drawn afresh.
    """

    mean: Float[Array, "*v"]
    covariance: Covariance
    members: Members = eqx.field(static=True, default="fresh")
    member: Float[Array, "*v"] | None = None

    @property
    def ignores_noise(self) -> bool:
        return True

    def __call__(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, "*v"]:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return self.mean + self.covariance.regress(x - cos * self.mean, cos, sin)

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*v"], angle: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        if self.member is not None and self.members == "transported":
            deviation = self.member - self.mean
            return self(x, angle) + self.covariance.transport(deviation, jnp.cos(angle), jnp.sin(angle))
        key_state, key_noise = jax.random.split(key)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        if self.member is None:
            fresh = self.covariance.draw(key_state).reshape(x.shape)
        else:
            fresh = self.member - self.mean
        noised = cos * fresh + sin * jax.random.normal(key_noise, x.shape, x.dtype)
        return self.mean + fresh + self.covariance.regress(x - cos * self.mean - noised, cos, sin)

    def for_member(self, member: Float[Array, "*v"]) -> GaussianDenoiser:
        if self.members == "fresh":
            return self
        return GaussianDenoiser(self.mean, self.covariance, self.members, member)


def ensemble_gaussian(
    ensemble: Float[Array, "N *v"],
    taper: Taper | None = None,
    basis: Basis | None = None,
    members: Members = "fresh",
) -> GaussianDenoiser:
    """The Gaussian denoiser with the mean and unbiased covariance of an ensemble.

    Args:
        ensemble: members in the coordinates of a process.
        taper: localises the covariance, in the state's own components; None: not localised.
        basis: those coordinates (orthonormal; a taper needs them); None: the state's own components.
        members: see `GaussianDenoiser`.
    """
    basis = IdentityBasis() if basis is None else basis
    mean, deviations = anomalies(ensemble)
    n_members, n = ensemble.shape[0], mean.size
    columns = deviations / jnp.sqrt(jnp.asarray(n_members - 1, ensemble.dtype))
    if taper is None and n_members <= n:
        return GaussianDenoiser(mean, LowRankCovariance(columns), members)
    if taper is None:
        flat = columns.reshape(n_members, n)
        return GaussianDenoiser(mean, DenseCovariance(flat.T @ flat), members)
    tapered = TaperedCovariance(jax.vmap(basis.back)(columns), taper, basis)
    if n > _DENSE_TAPERED:
        return GaussianDenoiser(mean, tapered, members)
    eye = jnp.eye(n, dtype=ensemble.dtype).reshape(n, *mean.shape)
    matrix = jax.vmap(tapered.matvec)(eye).reshape(n, n)
    return GaussianDenoiser(mean, DenseCovariance(0.5 * (matrix + matrix.T)), members)
