"""Ensemble-space square roots: the linear algebra of deterministic ensemble filters.

Throughout, S (N, m) are whitened measurement anomalies scaled by 1/√(N-1) and A = I + S Sᵀ (N, N).
Since Sᵀ1 = 0, A 1 = 1: every function of A that maps 1 to 1 preserves the ensemble mean.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..derivatives import differentiated_as, inverse_sqrt, square_root_analysis
from ..dynamics.layout import current
from .tall import tall_qr

__all__ = [
    "LARGEST",
    "Modes",
    "by_singular_values",
    "helmert",
    "inverse_and_inverse_sqrt",
    "inverse_sqrt_quadrature",
    "mean_preserving_rotation",
    "modes",
    "random_orthogonal",
    "weights_by_singular_values",
]


_WIDE = 4096
"""Measured values from which on `modes` goes through the Gram matrix."""
LARGEST = 1e6
"""The largest eigenvalue of A that `inverse_and_inverse_sqrt` serves."""


class Modes(NamedTuple):
    """S = U diag(σ) Vᵀ, from which all functions of A = I + S Sᵀ follow without forming it.

    A itself would lose its identity to round-off where σ² is large.
    """

    u: Float[Array, "*batch N r"]
    sigma: Float[Array, "*batch r"]
    v: Float[Array, "*batch m r"]

    def weights(self, d: Float[Array, "*k m"]) -> Float[Array, "*k N"]:
        """A^{-1} S d."""
        shares = self.sigma / (1.0 + self.sigma**2)
        return ((d @ self.v) * shares[(None,) * (d.ndim - 1)]) @ self.u.T

    def shrunk(self, x: Float[Array, "N n"]) -> Float[Array, "N n"]:
        """A^{-1/2} x."""
        root = jnp.sqrt(1.0 + self.sigma**2)
        return x - (self.u * (self.sigma**2 / (root * (1.0 + root)))[None]) @ (self.u.T @ x)


def modes(s: Float[Array, "*batch N m"]) -> Modes:
    """The singular value decomposition of S; of a wide one through S Sᵀ, which costs far less.

    σ² then has the round-off of |S|²: 1e-16 |S|² in double precision, where analyses that need it use this.
    """
    if s.shape[-1] > max(_WIDE, 16 * s.shape[-2]):
        squares, u = jnp.linalg.eigh(s @ jnp.swapaxes(s, -1, -2))
        sigma = jnp.sqrt(jnp.maximum(squares, 0.0))
        along = jnp.swapaxes(s, -1, -2) @ u
        return Modes(u, sigma, along / jnp.where(sigma > 0, sigma, 1.0)[..., None, :])
    if s.ndim == 2 and current().devices is not None and s.shape[1] > s.shape[0]:
        q, r = tall_qr(s.T)
        u, sigma, vt = jnp.linalg.svd(r.T)
        return Modes(u, sigma, q @ vt.T)
    u, sigma, vt = jnp.linalg.svd(s, full_matrices=False)
    return Modes(u, sigma, jnp.swapaxes(vt, -1, -2))


@differentiated_as(square_root_analysis)
def by_singular_values(
    s: Float[Array, "N m"], d: Float[Array, " m"], x: Float[Array, "N n"]
) -> tuple[Float[Array, " N"], Float[Array, "N n"]]:
    """A^{-1} S d and A^{-1/2} x."""
    found = modes(s)
    return found.weights(d), found.shrunk(x)


def _weights_by_solving(s: Array, d: Array) -> Array:
    n, m = s.shape
    if m < n:
        return jnp.linalg.solve(jnp.eye(m, dtype=s.dtype) + s.T @ s, d.T).T @ s.T
    return jnp.linalg.solve(jnp.eye(n, dtype=s.dtype) + s @ s.T, s @ d.T).T


@differentiated_as(_weights_by_solving)
def weights_by_singular_values(s: Float[Array, "N m"], d: Float[Array, "k m"]) -> Float[Array, "k N"]:
    """A^{-1} S d of each row d."""
    return modes(s).weights(d)


def helmert(n: int) -> Float[np.ndarray, "n n-1"]:
    """An orthonormal basis of the complement of the vector of ones (columns)."""
    rows = np.tril(np.ones((n - 1, n)), 0) - np.diag(np.arange(1.0, n), 1)[: n - 1]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T


@jax.custom_batching.custom_vmap
def _orthogonal_factor(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Q of A = Q R, the diagonal of R positive; of many matrices (under `vmap`) without LAPACK.

    On a CPU jaxlib 0.10 waits for ever where QRs of more than 32 matrices are computed beside an SVD or other
    QRs: in a rotated square-root filter vmapped over seeds.
    """
    q, r = jnp.linalg.qr(a)
    return q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(a.dtype)[None, :]


@_orthogonal_factor.def_vmap
def _(axis_size: int, in_batched: list[bool], a: Array) -> tuple[Array, bool]:
    batched = jnp.vectorize(_by_reflections, signature="(n,n)->(n,n)")
    return batched(a), True


def _by_reflections(a: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The same by Householder's reflections: Q = H_1 … H_n diag(sign R), H_k = I - 2 v vᵀ/|v|²."""
    n = len(a)
    rows = jnp.arange(n)

    def reflect(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, r, signs = carry
        x = jnp.where(rows >= k, r[:, k], 0.0)
        size = jnp.sqrt(jnp.sum(x**2))
        sign = jnp.where(r[k, k] < 0, -1.0, 1.0).astype(a.dtype)
        v = x + jnp.where(rows == k, sign * size, 0.0)
        scale = 2 / jnp.maximum(jnp.sum(v**2), jnp.finfo(a.dtype).tiny)
        r = r - scale * v[:, None] * (v @ r)[None, :]
        q = q - scale * (q @ v)[:, None] * v[None, :]
        return q, r, jnp.where(rows == k, -sign, signs)

    q, _, signs = jax.lax.fori_loop(0, n, reflect, (jnp.eye(n, dtype=a.dtype), a, jnp.ones(n, a.dtype)))
    return q * signs[None, :]


def random_orthogonal(key: PRNGKeyArray, n: int, dtype: jnp.dtype) -> Float[Array, "n n"]:
    """A Haar-distributed orthogonal matrix: QR of a Gaussian matrix with the signs of R divided out.

    The Gaussian matrix is drawn in single precision, where it costs a quarter: one key turns members alike in
    both precisions.
    """
    return _orthogonal_factor(jax.random.normal(key, (n, n), jnp.float32).astype(dtype))


def mean_preserving_rotation(key: PRNGKeyArray, n: int, dtype: jnp.dtype) -> Float[Array, "n n"]:
    """A random orthogonal Ω with Ω1 = 1: Haar on the complement of 1 (Sakov & Oke 2008)."""
    basis = jnp.asarray(helmert(n), dtype)
    return basis @ random_orthogonal(key, n - 1, dtype) @ basis.T + 1.0 / n


@functools.cache
def inverse_sqrt_quadrature(n_nodes: int, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Shifts s_k and weights w_k with λ^{-1/2} ≈ Σ_k w_k / (λ + s_k) on [1, largest].

    Geometric convergence, error ~ exp(-2π² n_nodes / (log(largest) + 3)).
    Source: Hale, Higham & Trefethen (2008), method 3.
    """
    from scipy.special import ellipj, ellipk

    complement = 1.0 - 1.0 / largest
    if largest <= 1e9:
        quarter_period = ellipk(complement)
        points = (np.arange(n_nodes) + 0.5) * quarter_period / n_nodes
        sn, cn, dn, _ = ellipj(points, complement)
    else:
        quarter_period, sn, cn, dn = _jacobi((np.arange(n_nodes) + 0.5) / n_nodes, 1.0 / largest)
    return (sn / cn) ** 2, 2 * quarter_period / (np.pi * n_nodes) * dn / cn**2


def _jacobi(share: np.ndarray, m1: float) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """K, and sn, cn, dn at `share` · K, by arithmetic-geometric means: for a parameter 1 - m1 near 1."""
    a, b, ratios = 1.0, math.sqrt(m1), []
    for _ in range(12):  # quadratic convergence: 9 for m1 = 1e-36
        a, b, c = (a + b) / 2, math.sqrt(a * b), (a - b) / 2
        ratios.append(c / a)
    phi = 2.0 ** len(ratios) * share * (np.pi / 2)
    for ratio in reversed(ratios):
        phi = (phi + np.arcsin(ratio * np.sin(phi))) / 2
    sn, cn = np.sin(phi), np.cos(phi)
    return np.pi / (2 * a), sn, cn, np.sqrt(cn**2 + m1 * sn**2)


def _by_roots(matrix: Array, b: Array) -> tuple[Array, Array]:
    root = inverse_sqrt(matrix)
    along = jnp.einsum("bij,bj->bi", root, b)
    return jnp.einsum("bij,bj->bi", root, along), along


@differentiated_as(_by_roots)
def inverse_and_inverse_sqrt(
    matrix: Float[Array, "batch N N"], b: Float[Array, "batch N"]
) -> tuple[Float[Array, "batch N"], Float[Array, "batch N"]]:
    """A^{-1} b and A^{-1/2} b for a batch of small matrices A = I + S Sᵀ, by conjugate gradients.

    CG on A x = b leaves residuals r_i and step lengths α_i, β_i. The same Krylov space solves every
    shifted system (A + s) x_s = b, with coefficients of r_i that follow from α, β by scalar
    recurrences; λ^{-1/2} ≈ Σ_s w_s/(λ + s) then makes A^{-1/2} b a combination of the r_i. It ends
    when all residuals are at round-off: after about 5 steps for weak measurements, at most N + 10
    (benchmarks/speed/local_solve.py has the gain over an eigendecomposition, which remains for batches so
    badly conditioned that this does not converge). Accurate to about 1e-6 in float32
    and 1e-12 in float64, times the condition number's share, for eigenvalues of A in [1, 10⁶].

    Under `vmap` the mapped axis joins the batch: one loop over all matrices, not a loop of selects.

    Source of the shifted recurrences: Jegerlehner (1996, arXiv hep-lat/9612014).
    """
    dtype = b.dtype
    double = dtype == jnp.float64
    shifts, weights = inverse_sqrt_quadrature(28 if double else 14, LARGEST)
    return _krylov(matrix, b, jnp.asarray(shifts, dtype), jnp.asarray(weights, dtype))


@jax.custom_batching.custom_vmap
def _krylov(
    matrix: Float[Array, "batch N N"],
    b: Float[Array, "batch N"],
    shifts: Float[Array, " nodes"],
    weights: Float[Array, " nodes"],
) -> tuple[Float[Array, "batch N"], Float[Array, "batch N"]]:
    """A^{-1} b and Σ_s w_s (A + s)^{-1} b."""
    dtype = b.dtype
    shifts, weights = shifts[None], weights[None]
    tolerance = 1e-14 if dtype == jnp.float64 else 1e-7
    inverse, n_steps, residuals, alphas, betas, relative = _conjugate_gradients(matrix, b, tolerance)

    # Forward: the shifted residual is zeta·r. Once it underflows, that shift has converged.
    def forward(i: Array, carry: tuple) -> tuple:
        zeta_old, zeta, alpha_old, beta_old, zetas, ratios = carry
        alpha, beta = alphas[i][:, None], betas[i][:, None]
        denominator = alpha * beta_old * (zeta_old - zeta) + zeta_old * alpha_old * (1.0 + shifts * alpha)
        going = (alpha > 0) & (zeta > 1e-12) & (denominator != 0)
        ratio = jnp.where(going, zeta_old * alpha_old / jnp.where(going, denominator, 1.0), 0.0)
        zetas = jax.lax.dynamic_update_index_in_dim(zetas, zeta, i, 0)
        ratios = jax.lax.dynamic_update_index_in_dim(ratios, ratio, i, 0)
        return zeta, zeta * ratio, jnp.where(alpha > 0, alpha, 1.0), beta, zetas, ratios

    ones = jnp.ones((b.shape[0], shifts.shape[1]), dtype)
    history = jnp.zeros((residuals.shape[0], *ones.shape), dtype)
    start = (ones, ones, ones[:, :1], 0.0 * ones[:, :1], history, history)
    *_, zetas, ratios = jax.lax.fori_loop(0, n_steps, forward, start)

    # Backward: x_s = Σ_i α_i^s p_i^s with p_i^s = zeta_i r_i + β_{i-1}^s p_{i-1}^s.
    def backward(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, root = carry
        i = n_steps - 1 - j
        total = alphas[i][:, None] * ratios[i] + betas[i][:, None] * ratios[i] ** 2 * total
        coefficient = (weights * zetas[i] * total).sum(1)
        return total, root + coefficient[:, None] * residuals[i]

    _, root = jax.lax.fori_loop(0, n_steps, backward, (0.0 * ones, jnp.zeros_like(b)))

    # Badly conditioned and still not converged: the eigendecomposition. A loop that runs once or never
    # rather than a `cond`, so that under vmap it costs nothing where no run needs it.
    def decompose(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        values, vectors = jnp.linalg.eigh(matrix)
        values = jnp.maximum(values, 1.0)
        along = jnp.einsum("bij,bi->bj", vectors, b)
        inverse = jnp.einsum("bij,bj->bi", vectors, along / values)
        root = jnp.einsum("bij,bj->bi", vectors, along / jnp.sqrt(values))
        return inverse, root, jnp.zeros_like(carry[2])

    failed = (relative > 100 * tolerance).any()
    return jax.lax.while_loop(lambda carry: carry[2], decompose, (inverse, root, failed))[:2]


@_krylov.def_vmap
def _one_larger_batch(
    size: int,
    batched: list[bool],
    matrix: Array,
    b: Array,
    shifts: Array | np.ndarray,
    weights: Array | np.ndarray,
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    matrix, b = (
        x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
        for x, is_batched in zip((matrix, b), batched[:2], strict=True)
    )
    shifts, weights = (
        x[0] if is_batched else x for x, is_batched in zip((shifts, weights), batched[2:], strict=True)
    )
    flat = matrix.reshape(-1, *matrix.shape[2:]), b.reshape(-1, b.shape[-1])
    inverse, root = _krylov(*flat, shifts, weights)
    return (inverse.reshape(b.shape), root.reshape(b.shape)), (True, True)


def _conjugate_gradients(
    matrix: Float[Array, "batch N N"], b: Float[Array, "batch N"], tolerance: float
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """A^{-1} b, the number of steps, residuals, α and β of each (first axis), and |r|/|b| at the end."""
    n_batch, n = b.shape
    most = n + 10
    start = (b**2).sum(1)
    stop = tolerance**2 * start

    def unconverged(carry: tuple) -> Array:
        return (carry[0] < most) & jnp.any(carry[4] > stop)

    def body(carry: tuple) -> tuple:
        i, x, r, p, rr, residuals, alphas, betas = carry
        residuals = jax.lax.dynamic_update_index_in_dim(residuals, r, i, 0)
        a_p = jnp.einsum("bij,bj->bi", matrix, p)
        curvature = (p * a_p).sum(1)
        active = rr > stop
        alpha = jnp.where(active, rr / jnp.where(active, curvature, 1.0), 0.0)
        x = x + alpha[:, None] * p
        r = r - alpha[:, None] * a_p
        rr_new = (r**2).sum(1)
        beta = jnp.where(active, rr_new / jnp.where(active, rr, 1.0), 0.0)
        p = r + beta[:, None] * p
        alphas = jax.lax.dynamic_update_index_in_dim(alphas, alpha, i, 0)
        betas = jax.lax.dynamic_update_index_in_dim(betas, beta, i, 0)
        return i + 1, x, r, p, rr_new, residuals, alphas, betas

    history = jnp.zeros((most, n_batch, n), b.dtype)
    scalars = jnp.zeros((most, n_batch), b.dtype)
    zero = jnp.asarray(0, jnp.int32)
    carry = (zero, jnp.zeros_like(b), b, b, start, history, scalars, scalars)
    n_steps, x, _, _, rr, residuals, alphas, betas = jax.lax.while_loop(unconverged, body, carry)
    relative = jnp.sqrt(jnp.where(start > 0, rr / jnp.where(start > 0, start, 1.0), 0.0))
    return x, n_steps, residuals, alphas, betas, relative
