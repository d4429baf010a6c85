"""The ensemble transform Kalman filter."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...dynamics.layout import Placement
from ...ensemble.inflation import Inflation
from ...ensemble.square_root import symmetric_square_root
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import by_singular_values, helmert, mean_preserving_rotation, random_orthogonal
from ..base import EnsembleFilter, Info

__all__ = ["ETKF"]


class ETKF(EnsembleFilter):
    """Deterministic square-root filter: mean ← mean + Xᵀ w, anomalies ← T X.

    With S whitened measurement anomalies /√(N-1) and A = I + S Sᵀ: w = A^{-1} S d /√(N-1) and
    T = A^{-1/2} (symmetric), from an eigendecomposition in the smaller of ensemble and measurement space.
    With `rotation`, T ← T Ω with a fresh random orthogonal Ω, Ω1 = 1, each
    cycle; then any mean-preserving square root has the same law, and a Cholesky factor on the
    complement of 1 replaces the eigendecomposition.

    Source: Bishop, Etherton & Majumdar (2001); Hunt, Kostelich & Szunyogh (2007); rotation:
    Sakov & Oke (2008), doi 10.1175/2007MWR2021.1.

    Args:
        inflation: see `Inflation`.
        rotation: random mean-preserving rotation each analysis (needed on Lorenz-63, helpful elsewhere).
    """

    placement: ClassVar[Placement] = "components"
    inflation: Inflation = eqx.field(default_factory=Inflation)
    rotation: bool = eqx.field(static=True, default=False)

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
        scale = 1.0 / jnp.sqrt(jnp.asarray(len(x) - 1, x.dtype))
        mean, deviations = anomalies(x)
        d, s = anomalies(innovations)
        w, updated = by_singular_values(-scale * s, d, deviations)
        if draws is not None:
            updated = draws @ updated
        return (mean + scale * w @ deviations)[None] + updated, {}

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        n_members = x.shape[0]
        scale = 1.0 / jnp.sqrt(jnp.asarray(n_members - 1, x.dtype))
        mean, deviations = anomalies(x)
        d, s = anomalies(innovations)
        s = -scale * s
        if s.shape[1] < n_members:
            w, updated = symmetric_square_root(s, d, deviations)
            if self.rotation:
                updated = mean_preserving_rotation(key, n_members, x.dtype) @ updated
            return (mean + (w * scale) @ deviations)[None] + updated, {}
        if self.rotation:
            # In an orthonormal basis of the complement of 1, where all anomalies live.
            basis = jnp.asarray(helmert(n_members), x.dtype)
            s = basis.T @ s
            lower = jnp.linalg.cholesky(jnp.eye(n_members - 1, dtype=x.dtype) + s @ s.T)
            w = basis @ cho_solve((lower, True), s @ d)
            turned = random_orthogonal(key, n_members - 1, x.dtype)
            root = solve_triangular(lower, turned.T, lower=True, trans=1).T
            transform = basis @ root @ basis.T  # T = Ω L^{-1}, so TᵀT = (L Lᵀ)^{-1} = A^{-1}
            updated = transform @ deviations
        else:
            w, updated = symmetric_square_root(s, d, deviations)
        return (mean + (w * scale) @ deviations)[None] + updated, {}
