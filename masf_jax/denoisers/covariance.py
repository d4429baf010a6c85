"""Covariances of a Gaussian forecast: what a Gaussian denoiser needs of them, in the cheapest form."""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import Basis
from ..ensemble.taper import Taper

__all__ = [
    "Covariance",
    "DenseCovariance",
    "DiagonalCovariance",
    "LowRankCovariance",
    "TaperedCovariance",
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


class LowRankCovariance(Covariance):
    """P = D Dᵀ with few columns, by algebra in the space of the columns: O(N² n) once, O(N n) a member.

    Args:
        columns: D's columns as rows, (N, *v): anomalies over √(N - 1).
    """

    columns: Float[Array, "N *v"]

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        flat = self.columns.reshape(self.columns.shape[0], -1)
        scaled = flat * (cos / sin).reshape(1, -1)
        matrix = jnp.eye(flat.shape[0], dtype=flat.dtype) + scaled @ scaled.T
        weights = cho_solve(cho_factor(matrix), scaled @ (y / sin).reshape(-1))
        return (weights @ flat).reshape(y.shape)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        weights = jax.random.normal(key, self.columns.shape[:1], self.columns.dtype)
        return jnp.tensordot(weights, self.columns, axes=1)


class DiagonalCovariance(Covariance):
    """P = diag(variance): independent components."""

    variance: Float[Array, "*v"]

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        return self.variance * cos / (self.variance * cos**2 + sin**2) * y

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        noise = jax.random.normal(key, self.variance.shape, self.variance.dtype)
        return jnp.sqrt(self.variance) * noise


class DenseCovariance(Covariance):
    """P as an n × n matrix over raveled coordinates: for small states."""

    matrix: Float[Array, "n n"]

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        c, s = cos.reshape(-1), sin.reshape(-1)
        total = c[:, None] * self.matrix * c[None, :] + jnp.diag(s**2)
        solved = cho_solve(cho_factor(total), y.reshape(-1))
        return (self.matrix @ (c * solved)).reshape(y.shape)

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        n = self.matrix.shape[0]
        jitter = 10 * n * jnp.finfo(self.matrix.dtype).eps * jnp.trace(self.matrix) / n
        root = jnp.linalg.cholesky(self.matrix + jitter * jnp.eye(n, dtype=self.matrix.dtype))
        return root @ jax.random.normal(key, (n,), self.matrix.dtype)


class TaperedCovariance(Covariance):
    """P = (D Dᵀ) ∘ C, an ensemble covariance localised by a taper, never formed.

    P v = Σ_j d_j ∘ C (d_j ∘ v), solved with conjugate gradients; N(0, P) is drawn as Σ_j d_j ∘ g_j with
    g_j ~ N(0, C) independent.

    Args:
        columns: (N, *state) anomalies over √(N - 1), in the (normalised) state's own components.
        basis: orthonormal coordinates that the denoiser works in.
        tolerance, max_iterations: of the conjugate gradients, on (S⁻¹C P C S⁻¹ + I).
    """

    columns: Float[Array, "N *state"]
    taper: Taper
    basis: Basis
    tolerance: float = eqx.field(static=True, default=1e-4)
    max_iterations: int = eqx.field(static=True, default=100)

    def matvec(self, v: Float[Array, "*v"]) -> Float[Array, "*v"]:
        """P v."""
        products = self.columns * self.basis.back(v)[None]
        points = products.reshape(products.shape[0], -1, self.taper.n_points).sum(1)
        spread = self.taper.apply(points)[:, None, :]
        flat = self.columns.reshape(self.columns.shape[0], -1, self.taper.n_points)
        return self.basis.to((flat * spread).sum(0).reshape(self.columns.shape[1:]))

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        ratio = cos / sin

        def whitened(v: Array) -> Array:
            return v + ratio * self.matvec(ratio * v)

        solved, _ = cg(whitened, y / sin, tol=self.tolerance, maxiter=self.max_iterations)
        return self.matvec(ratio * solved)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        n_members = self.columns.shape[0]
        fields = self.taper.draw(key, n_members, self.columns.dtype)[:, None, :]
        flat = self.columns.reshape(n_members, -1, self.taper.n_points)
        return self.basis.to((flat * fields).sum(0).reshape(self.columns.shape[1:]))
