"""Covariances of a Gaussian forecast: what a Gaussian denoiser needs of them, in the cheapest form."""

from __future__ import annotations

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from ..derivatives import differentiated_as, inverse_sqrt, root_or_zero
from ..dynamics.layout import current
from ..ensemble.double import any_of_batch
from ..ensemble.order import after
from ..ensemble.tall import tall_qr

__all__ = [
    "Covariance",
    "DenseCovariance",
    "DiagonalCovariance",
    "FactoredCovariance",
    "Given",
    "LowRankCovariance",
    "n_measured",
    "reduced",
    "standardised_factor",
]


class Covariance(eqx.Module):
    """A covariance P over the coordinates of a process."""

    @abc.abstractmethod
    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        """P C (C P C + S²)⁻¹ y with C = diag(cos), S = diag(sin): from C x0 + S η to x0, both centred."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Float[Array, "..."]:
        """A draw of N(0, P), raveled where P is a matrix."""

    @abc.abstractmethod
    def transport(
        self, a: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        """(I + P C² S⁻²)^{-1/2} a."""


class Given(NamedTuple):
    """N(0, P), P = DᵀD, given C x0 + S η: the orthonormal triangulation [I; (D C S⁻¹)ᵀ] = [Q₁; Q₂] R.

    RᵀR = I + D C² S⁻² Dᵀ is never formed: what a measurement leaves of P is right to round-off *of the
    analysis*, whatever the measurement's precision. With x0 = Dᵀξ, ξ ~ N(0, I):

        E[ξ | x] = R⁻¹ Q₂ᵀ S⁻¹x,   Cov[ξ | x] = R⁻¹R⁻ᵀ = Q₁Q₁ᵀ,   D C S⁻¹ R⁻¹ = Q₂ᵀ.

    So every x0 that is made of such a ξ = R⁻¹u is Dᵀ(R⁻¹u), and C⁻¹S Q₂u where that is the smaller sum.

    Args:
        factor: D, (k, n); ratio: the diagonal of C S⁻¹; sin: of S.
        upper: R; inverse: R⁻¹, by substitution: Q₁ has its digits for the largest entries only.
        above, below: Q₁, Q₂.
    """

    factor: Float[Array, "k n"]
    ratio: Float[Array, " n"]
    sin: Float[Array, " n"]
    upper: Float[Array, "k k"]
    inverse: Float[Array, "k k"]
    above: Float[Array, "k k"]
    below: Float[Array, "n k"]

    @classmethod
    def of(cls, factor: Array, ratio: Array, sin: Array, r: Array, above: Array, below: Array) -> Given:
        """With R⁻¹; one decomposition after the other (see `after`)."""
        inverse = solve_triangular(after(r, above), jnp.eye(len(r), dtype=r.dtype))
        return cls(factor, ratio, sin, after(r, inverse), inverse, above, below)

    def informed(self, x: Float[Array, "*v"]) -> Float[Array, " k"]:
        """u of E[x0 | x], for a prior mean of 0."""
        return (x.reshape(-1) / self.sin) @ self.below

    def left(self, weights: Float[Array, " k"]) -> Float[Array, " k"]:
        """u of (I + D C² S⁻² Dᵀ)⁻¹ `weights`: what is left of x0 = Dᵀ weights in x - E[x0 | x]."""
        return weights @ self.above

    def transported(self, weights: Float[Array, " k"]) -> Float[Array, " k"]:
        """u of (I + D C² S⁻² Dᵀ)^{-1/2} `weights`."""
        return _polar(self.upper) @ weights

    def weights(self, u: Float[Array, " k"]) -> Float[Array, " k"]:
        """R⁻¹ u."""
        return self.inverse @ u

    def state(self, u: Float[Array, " k"]) -> Float[Array, " n"]:
        """Dᵀ R⁻¹ u."""
        strong = self.ratio**2 * (self.factor**2).sum(0) > 1
        exact = (self.below @ u) / jnp.where(strong, self.ratio, 1.0)
        return jnp.where(strong, exact, self.weights(u) @ self.factor)


@jax.custom_jvp
def _polar(upper: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """The orthogonal Z of upper = Z H, H symmetric and positive definite."""
    x, _, yt = jnp.linalg.svd(upper)
    return x @ yt


@_polar.defjvp
def _polar_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """X K Yᵀ with K_ij = (M - Mᵀ)_ij/(s_i + s_j), M = Xᵀ dR Y: also where singular values coincide."""
    x, s, yt = jnp.linalg.svd(primals[0])
    m = x.T @ tangents[0] @ yt.T
    return x @ yt, x @ ((m - m.T) / (s[:, None] + s[None, :])) @ yt


def _by_root(upper: Array, b: Array) -> Array:
    square = upper @ upper.T
    return b - jnp.linalg.solve(jnp.eye(len(b), dtype=b.dtype) + square @ inverse_sqrt(square), b)


@differentiated_as(_by_root)
def _halved(upper: Float[Array, "k k"], b: Float[Array, " k"]) -> Float[Array, " k"]:
    """H (1 + H)⁻¹ b with H = (R Rᵀ)^{1/2}, R = upper."""
    x, s, _ = jnp.linalg.svd(upper)
    return x @ ((x.T @ b) * s / (1 + s))


def n_measured(ratio: Float[Array, "*v"]) -> Float[Array, ""]:
    """How many components tell more than a millionth of what is known of them, at least 1."""
    return jnp.maximum((jnp.abs(ratio) > 1e-6).sum(), 1).astype(ratio.dtype)


_LOST = 1e-3
"""Round-off of I + S Sᵀ, relative to 1, above which it is not formed."""


class FactoredCovariance(Covariance):
    """P = DᵀD: what all covariances with a known factor share."""

    @property
    @abc.abstractmethod
    def factor(self) -> Float[Array, "k n"]:
        """D."""

    def given(self, cos: Float[Array, "*v"], sin: Float[Array, "*v"]) -> Given:
        """Of C x0 + S η: one factorisation for everything at this noise level."""
        factor, sin = self.factor, sin.reshape(-1)
        ratio = jnp.maximum(cos.reshape(-1), 0.0) / sin
        k, rows = len(factor), (factor * ratio[None, :]).T
        one = jnp.eye(k, dtype=factor.dtype)
        if current().devices is None or len(rows) < k:
            q, r = jnp.linalg.qr(jnp.concatenate([one, rows]))
            return Given.of(factor, ratio, sin, r, q[:k], q[k:])
        turn, upper = tall_qr(rows)
        q, r = jnp.linalg.qr(jnp.concatenate([one, upper]))
        return Given.of(factor, ratio, sin, r, q[:k], turn @ q[k:])

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        factor, c, s = self.factor, cos.reshape(-1), sin.reshape(-1)
        scaled = factor * (jnp.maximum(c, 0.0) / s)[None, :]

        def plain(y: Array) -> Array:
            matrix = jnp.eye(len(factor), dtype=factor.dtype) + scaled @ scaled.T
            return cho_solve(cho_factor(matrix), scaled @ (y / s)) @ factor

        def triangular(y: Array) -> Array:
            given = self.given(cos, sin)
            return given.state(given.informed(y))

        lost = jnp.finfo(factor.dtype).eps * jax.lax.stop_gradient((scaled**2).sum()) > _LOST
        return jax.lax.cond(any_of_batch(lost), triangular, plain, y.reshape(-1)).reshape(y.shape)

    def transport(
        self, a: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        """a - Dᵀ R⁻¹ f Q₂ᵀ (C S⁻¹ a), f = Z (I + (RᵀR)^{-1/2})⁻¹ Zᵀ; exact in the span of D by weights."""
        given = self.given(cos, sin)
        return a - given.state(_halved(given.upper, (given.ratio * a.reshape(-1)) @ given.below)).reshape(
            a.shape
        )

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        return self.standard(key) @ self.factor

    def standard(self, key: PRNGKeyArray) -> Float[Array, " k"]:
        """ξ ~ N(0, I) of a draw Dᵀξ."""
        factor = self.factor
        return jax.random.normal(key, factor.shape[:1], factor.dtype)


class LowRankCovariance(FactoredCovariance):
    """P = DᵀD of at most as many rows as components: O(N² n) once, O(N n) a member.

    Args:
        columns: D, (k, *v): anomalies over √(N - 1), or what `reduced` leaves of them.
    """

    columns: Float[Array, "N *v"]

    @property
    def factor(self) -> Float[Array, "N n"]:
        return self.columns.reshape(len(self.columns), -1)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        return super().draw(key).reshape(self.columns.shape[1:])


def reduced(rows: Float[Array, "N n"]) -> tuple[Float[Array, "n n"], Float[Array, "N n"]]:
    """U and W with rows = W U, WᵀW = I: U is the Cholesky factor of rowsᵀ rows, not formed.

    For N ≥ n. Of a component without spread the column of U is zero.
    """
    varies = (rows != 0).any(0)
    w, upper = jnp.linalg.qr(rows + jnp.where(varies[None], 0.0, jnp.eye(*rows.shape, dtype=rows.dtype)))
    upper = after(upper, w)
    sign = jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0).astype(rows.dtype)
    return jnp.where(varies[None], upper * sign[:, None], 0.0), w * sign[None]


class DiagonalCovariance(Covariance):
    """P = diag(variance): independent components."""

    variance: Float[Array, "*v"]

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        return self.variance * cos / (self.variance * cos**2 + sin**2) * y

    def transport(
        self, a: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        return a / jnp.hypot(1.0, root_or_zero(self.variance) * cos / sin)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        noise = jax.random.normal(key, self.variance.shape, self.variance.dtype)
        return root_or_zero(self.variance) * noise


class DenseCovariance(FactoredCovariance):
    """P as an n × n matrix over raveled coordinates: for small states.

    See `standardised_factor`.
    """

    matrix: Float[Array, "n n"]

    @property
    def factor(self) -> Float[Array, "n n"]:
        standard, std = standardised_factor(self.matrix)
        return standard * std[None, :]


def standardised_factor(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    """U, std with P = diag(std) UᵀU diag(std): the transposed Cholesky factor of the correlations.

    Variances count (1 + 2 n ε) times, ε the rounding error of a number, so that there is one.
    """
    std = root_or_zero(jnp.diagonal(matrix))
    varies = std > 0
    safe = jnp.where(varies, std, 1.0)
    correlation = matrix / safe[:, None] / safe[None, :]
    surplus = jnp.where(varies, 2 * len(safe) * jnp.finfo(safe.dtype).eps, 1.0)
    return jnp.linalg.cholesky(correlation + jnp.diag(surplus)).T, std
