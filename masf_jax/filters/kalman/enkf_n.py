"""The finite-size ensemble Kalman filter: no inflation to tune."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

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
        n_members = x.shape[0]
        ridge = jnp.asarray(n_members - 1, x.dtype)
        mean, deviations = anomalies(x)
        d, y = anomalies(innovations)
        y = -y
        found = modes(y)
        rest = jnp.zeros(n_members - len(found.sigma), x.dtype)
        values = jnp.append(found.sigma**2, rest)
        square = jnp.append((found.sigma * (d @ found.v)) ** 2, rest)
        lam = _inflation(values, square, n_members, self.certainty.astype(x.dtype))
        scaled = found._replace(sigma=found.sigma * jnp.sqrt(lam / ridge))
        updated = jnp.sqrt(lam) * scaled.shrunk(deviations)
        if draws is not None:
            updated = draws @ updated
        w = jnp.sqrt(lam / ridge) * scaled.weights(d)
        return (mean + w @ deviations)[None] + anomalies(updated)[1], {"inflation": jnp.sqrt(lam)}

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        n_members = x.shape[0]
        ridge = jnp.asarray(n_members - 1, x.dtype)
        mean, deviations = anomalies(x)
        d, y = anomalies(innovations)
        y = -y
        values, vectors = jnp.linalg.eigh(y @ y.T)  # squared singular values
        values = jnp.maximum(values, 0.0)
        along = vectors.T @ (y @ d)  # σ_i u_i
        lam = _inflation(values, along**2, n_members, self.certainty.astype(x.dtype))
        w = vectors @ (along / (values + ridge / lam))
        transform = (vectors * jnp.sqrt(ridge / (values + ridge / lam))[None]) @ vectors.T
        if self.rotation:
            transform = mean_preserving_rotation(key, n_members, x.dtype) @ transform
        analysis = (mean + w @ deviations)[None] + anomalies(transform @ deviations)[1]
        return analysis, {"inflation": jnp.sqrt(lam)}


def _inflation(values: Array, square: Array, n_members: int, certainty: Array) -> Array:
    """The minimiser λ of the dual cost, by Newton's method on log λ kept inside a shrinking bracket.

    `values` are σ_i², `square` σ_i² u_i². J'(log λ) = c - e/λ - Σ_i λ σ_i²u_i²/(λσ_i² + N-1)² is
    negative at λ = e/c and positive for large λ.
    """
    ridge = jnp.asarray(n_members - 1, values.dtype)
    e = jnp.asarray((n_members + 1) / n_members, values.dtype)
    c = jnp.asarray(n_members / (n_members - 1), values.dtype)
    correction = (e / c) ** (0.5 * (ridge / (values + ridge)).mean())
    e, c = e / correction * certainty, c * correction * certainty

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
