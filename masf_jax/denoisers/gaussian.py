"""The Gaussian denoiser: exact for a Gaussian forecast, and then a bridge with it is a Kalman analysis."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import Basis, IdentityBasis
from ..ensemble.statistics import anomalies
from ..ensemble.taper import Taper
from .base import Denoiser
from .covariance import Covariance, DenseCovariance, LowRankCovariance, TaperedCovariance

__all__ = ["GaussianDenoiser", "ensemble_gaussian"]

_DENSE_TAPERED = 512
"""Up to this many components a tapered covariance is formed and factorised."""


class GaussianDenoiser(Denoiser):
    """D(x, φ) = m + P C (C P C + S²)⁻¹ (x - C m) for x0 ~ N(m, P), C = diag(cos φ), S = diag(sin φ).

    `sample` draws from N(D, Cov[x0 | x]) by conditioning a prior draw: with x' = C x0' + S η for
    x0' ~ N(m, P), x0' + D(x) - D(x') has that law, and needs nothing but D. Where `coupled`, `for_member`
    makes x0' that forecast member instead of a fresh draw, so that the bridge moves it and keeps what
    structure it has (one step: an ensemble Kalman filter with perturbed observations).

    Args:
        mean: m; covariance: P.
        coupled: whether each analysis member comes from a forecast member of its own.
        member: x0', or None: drawn afresh.
    """

    mean: Float[Array, "*v"]
    covariance: Covariance
    coupled: bool = eqx.field(static=True, default=False)
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
        key_state, key_noise = jax.random.split(key)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        if self.member is None:
            fresh = self.covariance.draw(key_state).reshape(x.shape)
        else:
            fresh = self.member - self.mean
        noised = cos * fresh + sin * jax.random.normal(key_noise, x.shape, x.dtype)
        return self.mean + fresh + self.covariance.regress(x - cos * self.mean - noised, cos, sin)

    def for_member(self, member: Float[Array, "*v"]) -> GaussianDenoiser:
        if not self.coupled:
            return self
        return GaussianDenoiser(self.mean, self.covariance, self.coupled, member)


def ensemble_gaussian(
    ensemble: Float[Array, "N *v"],
    taper: Taper | None = None,
    basis: Basis | None = None,
    coupled: bool = False,
) -> GaussianDenoiser:
    """The Gaussian denoiser with the mean and unbiased covariance of an ensemble.

    Args:
        ensemble: members in the coordinates of a process.
        taper: localises the covariance, in the state's own components; None: not localised.
        basis: those coordinates (orthonormal; a taper needs them); None: the state's own components.
        coupled: see `GaussianDenoiser`.
    """
    basis = IdentityBasis() if basis is None else basis
    mean, deviations = anomalies(ensemble)
    n_members, n = ensemble.shape[0], mean.size
    columns = deviations / jnp.sqrt(jnp.asarray(n_members - 1, ensemble.dtype))
    if taper is None and n_members <= n:
        return GaussianDenoiser(mean, LowRankCovariance(columns), coupled)
    if taper is None:
        flat = columns.reshape(n_members, n)
        return GaussianDenoiser(mean, DenseCovariance(flat.T @ flat), coupled)
    tapered = TaperedCovariance(jax.vmap(basis.back)(columns), taper, basis)
    if n > _DENSE_TAPERED:
        return GaussianDenoiser(mean, tapered, coupled)
    eye = jnp.eye(n, dtype=ensemble.dtype).reshape(n, *mean.shape)
    matrix = jax.vmap(tapered.matvec)(eye).reshape(n, n)
    return GaussianDenoiser(mean, DenseCovariance(0.5 * (matrix + matrix.T)), coupled)
