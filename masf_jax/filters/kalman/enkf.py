"""The stochastic ensemble Kalman filter."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...ensemble.inflation import Inflation
from ...ensemble.statistics import anomalies
from ..base import EnsembleFilter, Info

__all__ = ["EnKF"]


class EnKF(EnsembleFilter):
    """Each member assimilates its own perturbed measurement: x_i ← x_i + K (z + ε_i - H(x_i)).

    K = X Sᵀ(S Sᵀ + (N-1) I)^{-1} in whitened space, with the measured perturbations centred over the
    ensemble. Solved in the smaller of ensemble space (N×N) and measurement space (m×m).

    Source: Burgers, van Leeuwen & Evensen (1998), doi 10.1175/1520-0493(1998)126.
    """

    inflation: Inflation = eqx.field(default_factory=Inflation)

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
        noise = jax.random.normal(key, innovations.shape, innovations.dtype)
        perturbed = innovations + anomalies(jnp.where(mask[None], noise, 0.0))[1]
        ridge = jnp.asarray(n_members - 1, x.dtype)
        if n_members <= m:  # weights = perturbed Sᵀ (S Sᵀ + (N-1) I)^{-1}
            factor = cho_factor(s @ s.T + ridge * jnp.eye(n_members, dtype=x.dtype))
            return x + cho_solve(factor, s @ perturbed.T).T @ deviations, {}
        # the same by the matrix inversion lemma: perturbed (SᵀS + (N-1) I)^{-1} Sᵀ, without an N × N matrix
        factor = cho_factor(s.T @ s + ridge * jnp.eye(m, dtype=x.dtype))
        return x + cho_solve(factor, perturbed.T).T @ (s.T @ deviations), {}
