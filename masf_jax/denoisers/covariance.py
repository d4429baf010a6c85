"""Covariances of a Gaussian forecast: what a Gaussian denoiser needs of them, in the cheapest form."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import Basis
from ..ensemble.taper import Taper
from ..ensemble.transforms import inverse_sqrt_quadrature

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

    def transport(
        self, a: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        """(I + P C² S⁻²)^{-1/2} a, a mean over regressions at higher noise levels tan φ_k = √(1 + s_k) tan φ:

            Σ_k c_k [a - regress(cos φ_k · a, cos φ_k, sin φ_k)],  Σ_k c_k = 1,

        with λ^{-1/2} ∝ Σ_k c_k (1 + s_k)/(λ + s_k) (`inverse_sqrt_quadrature`).
        """

        def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
            shift, share = node
            level = jnp.arctan2(jnp.sqrt(1 + shift) * sin, cos)
            c, s = jnp.cos(level), jnp.sin(level)
            return total - share * self.regress(c * a, c, s), None

        return jax.lax.scan(add, a, _square_root(a.dtype))[0]


def _square_root(dtype: jnp.dtype) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """s_k and c_k: within 1e-5 where measurements shrink variances by up to 10⁶."""
    shifts, weights = inverse_sqrt_quadrature(12, 1e6)
    shares = weights / (1 + shifts)
    return jnp.asarray(shifts, dtype), jnp.asarray(shares / np.sum(shares), dtype)


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

    def _whitened(self, ratio: Float[Array, "*v"]) -> Callable[[Array], Array]:
        """v ↦ (I + S⁻¹C P C S⁻¹) v."""
        return lambda v: v + ratio * self.matvec(ratio * v)

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        ratio = cos / sin
        solved, _ = cg(self._whitened(ratio), y / sin, tol=self.tolerance, maxiter=self.max_iterations)
        return self.matvec(ratio * solved)

    def transport(
        self, a: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        """All levels in one sequence of conjugate gradients: S⁻¹C P C S⁻¹ + (1 + s_k) I differ by shifts."""
        ratio = cos / sin
        shifts, shares = _square_root(a.dtype)
        solved = _shifted_cg(
            self._whitened(ratio), ratio * a, shifts, shares, self.tolerance, self.max_iterations
        )
        return a - self.matvec(ratio * solved)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        n_members = self.columns.shape[0]
        fields = self.taper.draw(key, n_members, self.columns.dtype)[:, None, :]
        flat = self.columns.reshape(n_members, -1, self.taper.n_points)
        return self.basis.to((flat * fields).sum(0).reshape(self.columns.shape[1:]))


def _shifted_cg(
    matvec: Callable[[Array], Array],
    b: Float[Array, "*v"],
    shifts: Float[Array, " k"],
    weights: Float[Array, " k"],
    tolerance: float,
    max_iterations: int,
) -> Float[Array, "*v"]:
    """Σ_k w_k (A + s_k)⁻¹ b for a positive definite A and s_k ≥ 0, with one product by A an iteration.

    All shifts share A's Krylov space: their residuals are ζ_k r, with scalar recurrences for ζ_k. It ends
    when |r| ≤ tolerance · |b|; those of positive shifts are smaller still.

    Source: Jegerlehner (1996), arXiv hep-lat/9612014.
    """
    one, ones = jnp.ones((), b.dtype), jnp.ones_like(shifts)
    wide = (-1, *(1,) * b.ndim)
    stop = tolerance**2 * jnp.sum(b**2)

    def unconverged(carry: tuple) -> Array:
        return (carry[0] < max_iterations) & (carry[4] > stop)

    def step(carry: tuple) -> tuple:
        i, total, r, p, rr, p_shifted, zeta_old, zeta, alpha_old, beta_old = carry
        product = matvec(p)
        alpha = rr / jnp.sum(p * product)
        below = alpha * beta_old * (zeta_old - zeta) + zeta_old * alpha_old * (1 + shifts * alpha)
        going = (zeta > 1e-12) & (below != 0)  # else that shift has converged
        ratio = jnp.where(going, zeta_old * alpha_old / jnp.where(going, below, 1.0), 0.0)
        total = total + jnp.tensordot(weights * alpha * ratio, p_shifted, axes=1)
        r = r - alpha * product
        rr_new = jnp.sum(r**2)
        beta = rr_new / rr
        p_shifted = (zeta * ratio).reshape(wide) * r[None] + (beta * ratio**2).reshape(wide) * p_shifted
        return i + 1, total, r, r + beta * p, rr_new, p_shifted, zeta, zeta * ratio, alpha, beta

    p_shifted = jnp.broadcast_to(b[None], (len(shifts), *b.shape))
    zero = jnp.zeros((), jnp.int32)
    start = (zero, jnp.zeros_like(b), b, b, jnp.sum(b**2), p_shifted, ones, ones, one, 0 * one)
    return jax.lax.while_loop(unconverged, step, start)[1]
