"""The Gaussian denoiser: exact for a Gaussian forecast, and then a bridge with it is a Kalman analysis."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..bases import Basis, IdentityBasis
from ..ensemble.local_taper import LocalTaper
from ..ensemble.order import after
from ..ensemble.statistics import anomalies
from ..ensemble.tall import by_rows
from ..ensemble.taper import Taper
from .base import Denoiser
from .covariance import (
    Covariance,
    FactoredCovariance,
    Given,
    LowRankCovariance,
    n_measured,
    reduced,
    standardised_factor,
)
from .local import LocalCovariance
from .tapered import TaperedCovariance

__all__ = ["DENSE_TAPERED", "GaussianDenoiser", "Members", "ensemble_gaussian"]

Members: TypeAlias = Literal["transported", "perturbed", "fresh"]

DENSE_TAPERED = 512
"""Up to this many components a tapered covariance is formed and factorised."""


class GaussianDenoiser(Denoiser):
    """D(x, φ) = m + P C (C P C + S²)⁻¹ (x - C m) for x0 ~ N(m, P), C = diag(cos φ), S = diag(sin φ).

    `sample` draws from N(D, Cov[x0 | x]) by conditioning a prior draw: with x' = C x0' + S η for
    x0' ~ N(m, P), x0' + D(x) - D(x') has that law, and needs nothing but D: `members` "fresh".

    `for_member` gives the analysis of one forecast member x0', which keeps what structure it has:

    * "perturbed": x0' is that member instead of a fresh draw (one step: the stochastic EnKF).
    * "transported": no noise; D(x) + (I + P C² S⁻²)^{-1/2} (x0' - m), a symmetric map in the metric of P⁻¹
      that takes P to Cov[x0 | x] (one step: the ensemble square root filter, whatever localises P).

    Where P = DᵀD is factored (`Given`) each is a sum of terms as small as what x leaves of P, right for x
    of any precision where the coordinates' origin is near E[x0 | x]: see `moved`.

    Source of the square root: Sakov & Bertino (2011), doi 10.1007/s10596-010-9202-6; Bocquet & Farchi (2019),
    doi 10.1080/16000870.2019.1613142.

    Args:
        mean: m; covariance: P.
        members: what `for_member` does.
        member: x0', or None: drawn afresh.
        weights: w with m = -Dᵀw, of coordinates whose origin was moved; None: not moved.
        coefficients: c_i with x0_i = m + Dᵀc_i of each member of the ensemble, (N, k).
        index: which of them x0' is; None: it is not known to be one.
        end: what diffusion time 1 tells, or P between what is measured then, where that is known; given: it,
            of a denoiser for that time alone.
    """

    mean: Float[Array, "*v"]
    covariance: Covariance
    members: Members = eqx.field(static=True, default="fresh")
    member: Float[Array, "*v"] | None = None
    weights: Float[Array, " k"] | None = None
    coefficients: Float[Array, "N k"] | None = None
    index: Int[Array, ""] | None = None
    end: Given | LocalCovariance | None = None
    given: Given | None = None

    @property
    def ignores_noise(self) -> bool:
        return True

    @property
    def by_components(self) -> bool:
        return (
            isinstance(self.covariance, LowRankCovariance) and len(self.covariance.columns) < self.mean.size
        )

    @property
    def factored(self) -> bool:
        """Whether P's factor is known: `moved` needs it."""
        return isinstance(self.covariance, FactoredCovariance)

    def __call__(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, "*v"]:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        if isinstance(self.covariance, FactoredCovariance):
            given = self._given(self.covariance, cos, sin)
            return self._from(given, x, cos, self._expected(given, x, cos))
        return self.mean + self.covariance.regress(x - cos * self.mean, cos, sin)

    def _given(self, covariance: FactoredCovariance, cos: Array, sin: Array) -> Given:
        if self.given is not None:
            return self.given
        return covariance.given(after(cos, self.end.inverse) if isinstance(self.end, Given) else cos, sin)

    def _expected(self, given: Given, x: Array, cos: Array) -> Array:
        """u of E[x0 | x] less the mean, or of all of it where the mean is one of weights (see `Given`)."""
        if self.weights is None:
            return given.informed(x - cos * self.mean)
        return given.informed(x) - given.left(self.weights)

    def _from(self, given: Given, x: Array, cos: Array, u: Array) -> Array:
        part = given.state(u).reshape(x.shape)
        return self.mean + part if self.weights is None else part

    def sample(
        self, key: PRNGKeyArray, x: Float[Array, "*v"], angle: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        moves = self.member is not None and self.members == "transported"
        own = None
        if self.member is not None and self.coefficients is not None and self.index is not None:
            own = self.coefficients[self.index]
        key_state, key_noise = jax.random.split(key)
        if isinstance(self.covariance, FactoredCovariance) and (self.member is None or own is not None):
            given = self._given(self.covariance, cos, sin)
            expected = self._expected(given, x, cos)
            if moves and own is not None:
                deviation = given.state(given.transported(own)).reshape(x.shape)
                return self._from(given, x, cos, expected) + deviation
            standard = self.covariance.standard(key_state) if own is None else own
            noise = jax.random.normal(key_noise, x.shape, x.dtype)
            u = expected + given.left(standard) - noise.reshape(-1) @ given.below
            return self._from(given, x, cos, u)
        if self.member is not None and moves:
            return self(x, angle) + self.covariance.transport(self.member - self.mean, cos, sin)
        if self.member is None:
            fresh = self.covariance.draw(key_state).reshape(x.shape)
        else:
            fresh = self.member - self.mean
        noised = cos * fresh + sin * jax.random.normal(key_noise, x.shape, x.dtype)
        return self.mean + fresh + self.covariance.regress(x - cos * self.mean - noised, cos, sin)

    def moved(
        self, x: Float[Array, "*v"], angle: Float[Array, "*v"], keeps_levels: bool = False
    ) -> tuple[Float[Array, "*v"], GaussianDenoiser]:
        """E[x0 | x], and this denoiser in coordinates with their origin there; for a factored covariance.

        `angle`: the noise levels of diffusion time 1; keeps_levels: they are the same in these coordinates.
        """
        assert isinstance(self.covariance, FactoredCovariance)
        cos = jnp.cos(angle)
        given = self.covariance.given(cos, jnp.sin(angle))
        u = self._expected(given, x, cos)
        weights = given.weights(u) if self.weights is None else self.weights + given.weights(u)
        origin = self._from(given, x, cos, u)
        end = given if keeps_levels else None
        return origin, dataclasses.replace(self, mean=self.mean - origin, weights=weights, end=end)

    def rounding(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, ""]:
        """Estimated round-off of E[x0 | x] in posterior standard deviations, after `moved`.

        3 ε |R⁻ᵀ δ|, δ_j = |j-th row of D C S⁻¹| |S⁻¹x|/√m for m measured components: the factorisation is
        exact for rows that are off by ε of themselves, in some direction. Large where precise values
        contradict each other or leave the members' span, so that what is left of x is many times S. What
        goes the way of equal weights is no state where rows of D are anomalies.
        """
        assert isinstance(self.covariance, FactoredCovariance)
        given = self.end
        if not isinstance(given, Given):
            given = self.covariance.given(jnp.cos(angle), jnp.sin(angle))
        precise = jnp.where(given.ratio > 0, x.reshape(-1) / given.sin, 0.0)
        square = (precise**2).sum() / n_measured(given.ratio)
        rows = (given.factor**2) @ given.ratio**2
        equal, all_rows = given.factor.sum(0), (given.factor**2).sum()
        idle = jnp.where((equal**2).sum() <= 1e-6 * all_rows, given.upper.sum(1), 0.0)
        idle = idle / jnp.maximum(jnp.linalg.norm(idle), 1.0)
        spread = given.above - jnp.outer(given.above @ idle, idle)
        return 3 * jnp.finfo(x.dtype).eps * jnp.sqrt(square * (rows @ spread**2).sum())

    def for_member(self, member: Float[Array, "*v"]) -> GaussianDenoiser:
        return self if self.members == "fresh" else dataclasses.replace(self, member=member)

    def knowing(self, angle: Float[Array, "*v"]) -> GaussianDenoiser:
        if not isinstance(self.covariance, FactoredCovariance):
            return self
        return dataclasses.replace(self, end=self.covariance.given(jnp.cos(angle), jnp.sin(angle)))

    def at_end(self) -> GaussianDenoiser:
        if isinstance(self.end, LocalCovariance):
            return dataclasses.replace(self, covariance=self.end, end=None)
        return self if self.end is None else dataclasses.replace(self, given=self.end)

    def at_once(self, x: Float[Array, "*v"], angle: Float[Array, "*v"]) -> Float[Array, "N *v"] | None:
        """`sample` at diffusion time 1 of all members, where they are moved without noise and P is local."""
        if not isinstance(self.end, LocalCovariance) or self.members != "transported":
            return None
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        increment, deviations = self.end.analysis(x - cos * self.mean, cos, sin)
        return (self.mean + increment)[None] + deviations

    def numbered(self, index: Int[Array, ""]) -> GaussianDenoiser:
        return self if self.members == "fresh" else dataclasses.replace(self, index=index)


def ensemble_gaussian(
    ensemble: Float[Array, "N *v"],
    taper: Taper | None = None,
    basis: Basis | None = None,
    members: Members = "fresh",
    local: LocalTaper | None = None,
) -> GaussianDenoiser:
    """The Gaussian denoiser with the mean and unbiased covariance of an ensemble.

    Args:
        ensemble: members in the coordinates of a process.
        taper: localises the covariance, in the state's own components; None: not localised.
        basis: those coordinates (orthonormal; a taper needs them); None: the state's own components.
        members: see `GaussianDenoiser`.
        local: the same taper around the components that are measured, where the basis is the state's own:
            products take the place of the matrix.
    """
    basis = IdentityBasis() if basis is None else basis
    mean, deviations = anomalies(ensemble)
    n_members, n = ensemble.shape[0], mean.size
    root = jnp.sqrt(jnp.asarray(n_members - 1, ensemble.dtype))
    columns = deviations / root
    flat = columns.reshape(n_members, n)
    tapers = taper is not None or local is not None
    if not tapers and n_members <= n:
        coefficients = root * jnp.eye(n_members, dtype=ensemble.dtype)
    elif not tapers:
        flat, turned = reduced(by_rows(flat))
        coefficients = root * turned
    else:
        tapered = TaperedCovariance(jax.vmap(basis.back)(columns), taper, basis)
        if n > DENSE_TAPERED or local is not None:
            end = None if local is None else LocalCovariance.of(tapered, local)
            return GaussianDenoiser(mean, tapered, members, end=end)
        eye = jnp.eye(n, dtype=ensemble.dtype).reshape(n, *mean.shape)
        matrix = by_rows(jax.vmap(tapered.within)(eye).reshape(n, n))
        standard, std = standardised_factor(0.5 * (matrix + matrix.T))
        scaled = root * flat / jnp.where(std > 0, std, 1.0)[None]
        coefficients = solve_triangular(standard, scaled.T, trans="T").T
        flat = after(standard, coefficients) * std[None]
    factored = LowRankCovariance(flat.reshape(-1, *mean.shape))
    return GaussianDenoiser(mean, factored, members, coefficients=coefficients)
