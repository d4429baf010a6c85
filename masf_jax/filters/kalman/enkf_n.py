"""The finite-size ensemble Kalman filter: no inflation to tune."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...derivatives import differentiated_as, square_root_analysis
from ...dynamics.layout import Placement
from ...ensemble.inflation import Inflation
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import mean_preserving_rotation, modes
from ...numbers import within
from ..base import EnsembleFilter, Info

__all__ = ["EnKFN"]


class EnKFN(EnsembleFilter):
    """An ETKF whose forecast inflation λ = l² is inferred each cycle from a hyperprior for sampling error.

    With Y whitened anomalies, d the whitened innovation, σ_i and u_i the singular values of Y and d's
    components along them, λ minimises the dual cost

        J(λ) = Σ_i u_i² / (λ σ_i² + N - 1) + e/λ + c log λ,   e = (N+1)/N,  c = N/(N-1),

    after which the ETKF is applied with anomalies inflated by √λ. e is divided and c multiplied by
    (e/c)^{k/2}, k = mean_i (N-1)/(σ_i² + N-1), so that the hyperprior's mode e/c becomes (e/c)^{1-k}: 1 where
    the measurements say nothing; both are multiplied by `certainty`.

    Source: Bocquet, Raanes & Hannart (2015), doi 10.5194/npg-22-645-2015 (dual form; eq. 36 for the
    correction of e and c).

    Args:
        inflation: further inflation; none by default.
        rotation: random mean-preserving rotation each analysis.
        certainty: weight of the hyperprior (1: as derived; 2 gives less inflation in calm regimes).
    """

    placement: ClassVar[Placement] = "components"
    inflation: Inflation = eqx.field(default_factory=Inflation)
    rotation: bool = eqx.field(static=True, default=False)
    certainty: Float[Array, ""] = eqx.field(converter=within("certainty", "(0, inf]"), default=1.0)

    def draws(self, key: PRNGKeyArray, n_members: int, mask: Bool[Array, " m"], dtype: Any) -> Array | None:
        """The rotation."""
        return mean_preserving_rotation(key, n_members, dtype) if self.rotation else None

    def exact_transform(
        self,
        draws: Array | None,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        mean, deviations = anomalies(x)
        d, y = anomalies(innovations)
        lam, increment, updated = _by_singular_values(-y, d, deviations, self.certainty.astype(x.dtype))
        if draws is not None:
            updated = draws @ updated
        return (mean + increment)[None] + anomalies(updated)[1], {"inflation": jnp.sqrt(lam)}

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        mean, deviations = anomalies(x)
        d, y = anomalies(innovations)
        turn = mean_preserving_rotation(key, len(x), x.dtype) if self.rotation else None
        given = -y, d, deviations, self.certainty.astype(x.dtype), turn
        lam, increment, updated = _by_eigenvectors(*given)
        return (mean + increment)[None] + anomalies(updated)[1], {"inflation": jnp.sqrt(lam)}


def _by_roots(
    y: Array, d: Array, deviations: Array, certainty: Array, turn: Array | None = None
) -> tuple[Array, Array, Array]:
    """λ, the mean's increment and the (turned) anomalies, in a form that has derivatives.

    λ by one Newton step from where it is: d log λ = -dJ'/J'', of the implicit function.
    """
    n_members = len(y)
    ridge = jnp.asarray(n_members - 1, y.dtype)
    gram, projected = y @ y.T, y @ d
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(gram))
    values, square = jnp.maximum(values, 0.0), (vectors.T @ jax.lax.stop_gradient(projected)) ** 2
    certainty_now = jax.lax.stop_gradient(certainty)
    u = jnp.log(_inflation(values, square, n_members, certainty_now))
    inverse = jnp.linalg.inv(gram / ridge + jnp.eye(n_members, dtype=y.dtype))
    e, c = _hyperprior(jnp.trace(inverse) / n_members, n_members, certainty)

    def slope(u: Array) -> Array:
        lam = jnp.exp(u)
        along = jnp.linalg.solve(lam * gram + ridge * jnp.eye(n_members, dtype=y.dtype), projected)
        return c - e / lam - lam * (along**2).sum()

    steepness = jax.jvp(slope, (u,), (jnp.ones_like(u),))[1]
    lam = jnp.exp(u - slope(u) / jax.lax.stop_gradient(steepness))
    size = jnp.sqrt(lam / ridge)
    w, updated = square_root_analysis(size * y, d, deviations)
    updated = jnp.sqrt(lam) * updated
    return lam, size * w @ deviations, updated if turn is None else turn @ updated


@differentiated_as(_by_roots)
def _by_eigenvectors(
    y: Array, d: Array, deviations: Array, certainty: Array, turn: Array | None
) -> tuple[Array, Array, Array]:
    n_members = len(y)
    ridge = jnp.asarray(n_members - 1, y.dtype)
    values, vectors = jnp.linalg.eigh(y @ y.T)  # squared singular values
    values = jnp.maximum(values, 0.0)
    along = vectors.T @ (y @ d)  # σ_i u_i
    lam = _inflation(values, along**2, n_members, certainty)
    w = vectors @ (along / (values + ridge / lam))
    transform = (vectors * jnp.sqrt(ridge / (values + ridge / lam))[None]) @ vectors.T
    if turn is not None:
        transform = turn @ transform
    return lam, w @ deviations, transform @ deviations


@differentiated_as(_by_roots)
def _by_singular_values(
    y: Array, d: Array, deviations: Array, certainty: Array
) -> tuple[Array, Array, Array]:
    n_members = len(y)
    ridge = jnp.asarray(n_members - 1, y.dtype)
    found = modes(y)
    rest = jnp.zeros(n_members - len(found.sigma), y.dtype)
    square = jnp.append((found.sigma * (d @ found.v)) ** 2, rest)
    lam = _inflation(jnp.append(found.sigma**2, rest), square, n_members, certainty)
    scaled = found._replace(sigma=found.sigma * jnp.sqrt(lam / ridge))
    w = jnp.sqrt(lam / ridge) * scaled.weights(d)
    return lam, w @ deviations, jnp.sqrt(lam) * scaled.shrunk(deviations)


def _hyperprior(share: Array, n_members: int, certainty: Array) -> tuple[Array, Array]:
    """e and c, corrected, for k = `share`."""
    e = jnp.asarray((n_members + 1) / n_members, share.dtype)
    c = jnp.asarray(n_members / (n_members - 1), share.dtype)
    correction = (e / c) ** (0.5 * share)
    return e / correction * certainty, c * correction * certainty


def _inflation(values: Array, square: Array, n_members: int, certainty: Array) -> Array:
    """The minimiser λ of the dual cost, by Newton's method on log λ kept inside a shrinking bracket.

    `values` are σ_i², `square` σ_i² u_i². J'(log λ) = c - e/λ - Σ_i λ σ_i²u_i²/(λσ_i² + N-1)² is
    negative at λ = e/c and positive for large λ.
    """
    ridge = jnp.asarray(n_members - 1, values.dtype)
    e, c = _hyperprior((ridge / (values + ridge)).mean(), n_members, certainty)

    def slope(u: Array) -> Array:
        lam = jnp.exp(u)
        return c - e / lam - (lam * square / (lam * values + ridge) ** 2).sum()

    def step(_: int | Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, u = carry
        value, derivative = jax.jvp(slope, (u,), (jnp.ones_like(u),))
        low, high = jnp.where(value < 0, u, low), jnp.where(value < 0, high, u)
        newton = u - value / jnp.where(derivative > 0, derivative, 1.0)
        inside = (derivative > 0) & (newton > low) & (newton < high)
        return low, high, jnp.where(inside, newton, 0.5 * (low + high))

    low = jnp.log(e / c)
    return jnp.exp(jax.lax.fori_loop(0, 25, step, (low, low + 20.0, jnp.maximum(low, 0.0)))[2])
