"""The stochastic ensemble Kalman filter."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...dynamics.layout import Placement
from ...ensemble.inflation import Inflation
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import weights_by_singular_values
from ..base import EnsembleFilter, Info

__all__ = ["EnKF"]


class EnKF(EnsembleFilter):
    """Each member assimilates its own perturbed measurement: x_i ← x_i + K (z + ε_i - H(x_i)).

    K = X Sᵀ(S Sᵀ + (N-1) I)^{-1} in whitened space, with the measured perturbations centred over the
    ensemble. Solved in the smaller of ensemble space (N×N) and measurement space (m×m).

    Source: Burgers, van Leeuwen & Evensen (1998), doi 10.1175/1520-0493(1998)126.
    """

    placement: ClassVar[Placement] = "components"
    inflation: Inflation = eqx.field(default_factory=Inflation)

    def draws(self, key: PRNGKeyArray, n_members: int, mask: Bool[Array, " m"], dtype: Any) -> Array:
        """Centred perturbations of the whitened values."""
        noise = jax.random.normal(key, (n_members, mask.size), dtype)
        return anomalies(jnp.where(mask[None], noise, 0.0))[1]

    def exact_transform(
        self, draws: Array, x: Float[Array, "N n"], innovations: Float[Array, "N m"], mask: Bool[Array, " m"]
    ) -> tuple[Float[Array, "N n"], Info]:
        scale = 1.0 / jnp.sqrt(jnp.asarray(len(x) - 1, x.dtype))
        w = weights_by_singular_values(-scale * anomalies(innovations)[1], innovations + draws)
        return x + scale * w @ anomalies(x)[1], {}

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        n_members, m = innovations.shape
        deviations = anomalies(x)[1]
        s = -anomalies(innovations)[1]
        perturbed = innovations + self.draws(key, n_members, mask, innovations.dtype)
        ridge = jnp.asarray(n_members - 1, x.dtype)
        if n_members <= m:  # weights = perturbed Sᵀ (S Sᵀ + (N-1) I)^{-1}
            factor = cho_factor(s @ s.T + ridge * jnp.eye(n_members, dtype=x.dtype))
            return x + cho_solve(factor, s @ perturbed.T).T @ deviations, {}
        # the same by the matrix inversion lemma: perturbed (SᵀS + (N-1) I)^{-1} Sᵀ, without an N × N matrix
        factor = cho_factor(s.T @ s + ridge * jnp.eye(m, dtype=x.dtype))
        return x + cho_solve(factor, perturbed.T).T @ (s.T @ deviations), {}
