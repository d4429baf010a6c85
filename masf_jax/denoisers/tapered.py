"""An ensemble covariance localised by a taper, never formed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import Basis
from ..ensemble.taper import Taper
from .iterated import IteratedCovariance

__all__ = ["TaperedCovariance"]


class TaperedCovariance(IteratedCovariance):
    """P = (D Dᵀ) ∘ C over all components, whichever are measured.

    P v = Σ_j d_j ∘ C (d_j ∘ v); N(0, P) is drawn as Σ_j d_j ∘ g_j with g_j ~ N(0, C) independent.

    Args:
        columns: (N, *state) anomalies over √(N - 1), in the (normalised) state's own components.
        taper: C; None: over points for which it is not known, and P serves as the frame of `LocalCovariance`.
        basis: orthonormal coordinates that the denoiser works in.
        tolerance, max_iterations: see `IteratedCovariance`.
    """

    columns: Float[Array, "N *state"]
    taper: Taper | None
    basis: Basis

    def seen(self, x: Float[Array, "*v"]) -> Float[Array, "*v"]:
        return x

    def reach(self, u: Float[Array, "*v"]) -> Float[Array, "*v"]:
        return self.within(u)

    def within(self, u: Float[Array, "*v"]) -> Float[Array, "*v"]:
        taper = self._known()
        products = self.columns * self.basis.back(u)[None]
        points = products.reshape(products.shape[0], -1, taper.n_points).sum(1)
        spread = taper.apply(points)[:, None, :]
        flat = self.columns.reshape(self.columns.shape[0], -1, taper.n_points)
        return self.basis.to((flat * spread).sum(0).reshape(self.columns.shape[1:]))

    @property
    def scaling(self) -> Float[Array, ""]:
        """The mean variance, the same in every basis."""
        return (self.columns**2).sum() / self.columns[0].size

    def largest(self, ratio: Float[Array, "*v"]) -> Float[Array, ""]:
        columns, ratio = jax.lax.stop_gradient((self.columns, ratio))
        return 1 + jnp.sum((ratio * self.basis.to(jnp.sqrt((columns**2).sum(0)))) ** 2)

    @property
    def example(self) -> Float[Array, "*v"]:
        return len(self.columns) ** 0.5 * self.basis.to(self.columns[0])

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        n_members, taper = self.columns.shape[0], self._known()
        fields = taper.draw(key, n_members, self.columns.dtype)[:, None, :]
        flat = self.columns.reshape(n_members, -1, taper.n_points)
        return self.basis.to((flat * fields).sum(0).reshape(self.columns.shape[1:]))

    def _known(self) -> Taper:
        if self.taper is None:
            raise ValueError(
                "localised over points that are not a regular periodic grid, and too many for a matrix, the "
                'Gaussian forecast serves one reverse step of moved members only: GaussianPrior(members="'
                'transported" or "perturbed") with Bridge(n_steps=1).'
            )
        return self.taper
