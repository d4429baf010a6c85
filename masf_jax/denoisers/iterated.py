"""Covariances that are never formed: conjugate gradients on products with them."""

from __future__ import annotations

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from ..derivatives import differentiated_as
from ..ensemble.double import LOST, any_of_batch
from ..ensemble.transforms import inverse_sqrt_quadrature
from .covariance import Covariance, n_measured

__all__ = ["IteratedCovariance"]


def _solved_to_the_end(covariance: IteratedCovariance, b: Array, ratio: Array) -> Array:
    """A⁻¹ b to round-off: the solution, and its derivative by one more solution."""
    return _to_the_end(covariance.whitened(ratio), b, covariance.max_iterations)


def _rooted_to_the_end(covariance: IteratedCovariance, b: Array, ratio: Array) -> Array:
    """Σ_k c_k (A + s_k)⁻¹ b, each to round-off."""
    whitened = covariance.whitened(ratio)

    def one(shift: Array) -> Array:
        return _to_the_end(lambda v: whitened(v) + shift * v, b, covariance.max_iterations)

    shifts, shares = _square_root(jax.lax.stop_gradient(covariance.largest(ratio)))
    return jnp.tensordot(shares, jax.vmap(one)(shifts), axes=1)


def _to_the_end(matvec: Callable[[Array], Array], b: Array, most: int) -> Array:
    double = b.dtype == jnp.float64
    tolerance, most = (1e-12, 10 * most) if double else (1e-6, most)
    return cg(matvec, b, tol=tolerance, maxiter=most)[0]


class IteratedCovariance(Covariance):
    """P by its products between components that may be measured, M: all of them, or fewer.

    With A = I + Q, Q = S⁻¹C P C S⁻¹ on M (elsewhere C = 0) and r = C S⁻¹ the regression is
    P[:, M] r A⁻¹ S⁻¹y, and (I + P C² S⁻²)^{-1/2} a = a - P[:, M] r f(A) r a with
    f(A) = (A - 1)⁻¹ (1 - A^{-1/2}) = Σ_k c_k (A + s_k)⁻¹.

    Args:
        tolerance: largest residual of the conjugate gradients on A, relative to the right side, and not above
            .01 in double precision, .01 a measured component in single: x0 is off by no more posterior
            deviations than it is long.
        max_iterations: of them; ten times as many in double precision.
    """

    tolerance: float = eqx.field(static=True, default=1e-4, kw_only=True)
    max_iterations: int = eqx.field(static=True, default=100, kw_only=True)

    @abc.abstractmethod
    def seen(self, x: Float[Array, "*v"]) -> Float[Array, "*m"]:
        """x on M."""

    @abc.abstractmethod
    def within(self, u: Float[Array, "*m"]) -> Float[Array, "*m"]:
        """P[M, M] u."""

    @abc.abstractmethod
    def reach(self, u: Float[Array, "*m"]) -> Float[Array, "*v"]:
        """P[:, M] u."""

    @property
    @abc.abstractmethod
    def scaling(self) -> Float[Array, "..."]:
        """About the diagonal of P[M, M], for the preconditioner."""

    @abc.abstractmethod
    def largest(self, ratio: Float[Array, "*m"]) -> Float[Array, ""]:
        """At least the largest eigenvalue of A."""

    @property
    @abc.abstractmethod
    def example(self) -> Float[Array, "*m"]:
        """A member's deviation on M."""

    def whitened(self, ratio: Float[Array, "*m"]) -> Callable[[Array], Array]:
        """v ↦ A v."""
        return lambda v: v + ratio * self.within(ratio * v)

    def regress(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        ratio = self.seen(cos / sin)
        return self.reach(ratio * self.solved(self.seen(y / sin), ratio))

    def transport(
        self, a: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, "*v"]:
        """All levels in one sequence of conjugate gradients: A + s_k differ by shifts."""
        ratio = self.seen(cos / sin)
        return a - self.reach(ratio * self.rooted(ratio * self.seen(a), ratio))

    def residual(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> Float[Array, ""]:
        """What conjugate gradients leave, of y and of a member, in posterior standard deviations.

        The whole length of a residual, which is the most; in single precision, where it is spread evenly,
        its largest component. Without derivatives: it is reported only.
        """
        self, y, cos, sin = jax.lax.stop_gradient((self, y, cos, sin))
        ratio = self.seen(cos / sin)
        y, member = self.seen(y / sin), ratio * self.example
        order = 2 if y.dtype == jnp.float64 else jnp.inf

        def left(b: Array, solved: Array) -> Array:
            return jnp.linalg.norm((b - self.whitened(ratio)(solved)).reshape(-1), order)

        whole = jnp.zeros(1, y.dtype), jnp.ones(1, y.dtype)
        moved = _shifted_cg(self.whitened(ratio), member, *whole, *self._within(member, ratio))
        return jnp.maximum(left(y, self.solved(y, ratio)), left(member, moved))

    def _within(self, b: Float[Array, "*m"], ratio: Float[Array, "*m"]) -> tuple[Float[Array, ""], int]:
        """Largest residual relative to b, and of iterations."""
        double = b.dtype == jnp.float64
        length = jnp.sqrt((b**2).sum() / (1.0 if double else n_measured(ratio)))
        least = LOST / jnp.maximum(length, jnp.finfo(b.dtype).tiny)
        return jnp.minimum(least.astype(b.dtype), self.tolerance), self.max_iterations * (10 if double else 1)

    @differentiated_as(_solved_to_the_end)
    def solved(self, b: Float[Array, "*m"], ratio: Float[Array, "*m"]) -> Float[Array, "*m"]:
        """A⁻¹ b, by A scaled to a diagonal near 1: else what is not measured is far from all that is."""
        tolerance, most = self._within(b, ratio)
        diagonal = 1 + ratio**2 * self.scaling
        scaled = cg(self.whitened(ratio), b, tol=tolerance, maxiter=most, M=lambda r: r / diagonal)  # pyright: ignore[reportArgumentType]
        return scaled[0]

    @differentiated_as(_rooted_to_the_end)
    def rooted(self, b: Float[Array, "*m"], ratio: Float[Array, "*m"]) -> Float[Array, "*m"]:
        """f(A) b."""
        (tolerance, most), largest = self._within(b, ratio), self.largest(ratio)

        def by(levels: tuple[Array, Array]) -> Array:
            return _shifted_cg(self.whitened(ratio), b, *levels, tolerance, most)

        hard = any_of_batch(jnp.logical_not(largest <= _MILD))
        return jax.lax.cond(
            hard, lambda: by(_square_root(largest)), lambda: by(_levels(_FEW, _MILD, b.dtype))
        )


_RANGES = tuple(10.0**k for k in range(6, 25, 3))
_FEW, _MILD = 6, 100.0
"""Terms of the square root that do up to this largest eigenvalue (within 2e-6)."""


def _levels(terms: int, largest: float, dtype: jnp.dtype) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """See `_square_root`."""
    shifts, weights = inverse_sqrt_quadrature(terms, largest)
    shares = weights / (1 + shifts)
    return jnp.asarray(shifts, dtype), jnp.asarray(shares / shares.sum(), dtype)


def _square_root(largest: Float[Array, ""]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """s_k and c_k with λ^{-1/2} ≈ Σ_k c_k (1 + s_k)/(λ + s_k), Σ_k c_k = 1, for λ from 1 to `largest`.

    Within 1e-5 up to 10⁶ (spreads shrunk to a thousandth; four of the terms are nothing), 3e-4 up to 10¹²,
    .002 up to 10¹⁵ and .04 up to 10²⁴.
    """
    nodes = [inverse_sqrt_quadrature(12 if limit == _RANGES[0] else 16, limit) for limit in _RANGES]
    shifts = np.stack([np.pad(s, (0, 16 - len(s)), mode="edge") for s, _ in nodes])
    shares = np.stack([np.pad(w / (1 + s), (0, 16 - len(s))) for s, w in nodes])
    which = jnp.searchsorted(jnp.asarray(_RANGES[:-1], largest.dtype), largest)
    shares = shares / shares.sum(1, keepdims=True)
    return jnp.asarray(shifts, largest.dtype)[which], jnp.asarray(shares, largest.dtype)[which]


def _shifted_cg(
    matvec: Callable[[Array], Array],
    b: Float[Array, "*v"],
    shifts: Float[Array, " k"],
    weights: Float[Array, " k"],
    tolerance: Float[Array, ""],
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
