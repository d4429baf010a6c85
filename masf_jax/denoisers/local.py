"""A tapered covariance between the components that are measured: for what they tell, in one step."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..dynamics.layout import current
from ..ensemble.local_taper import LocalTaper
from ..ensemble.points import by_points
from .iterated import IteratedCovariance
from .tapered import TaperedCovariance

__all__ = ["LocalCovariance"]

_BATCH_NUMBERS = 2**21
"""Numbers held at once by a batch of grid points (8 MB in float32)."""


class LocalCovariance(IteratedCovariance):
    """P = (D Dᵀ) ∘ C of m measured components with k neighbours each: the numbers P[M, M], (m, k).

    For noise levels where nothing else is known, diffusion time 1, in the state's own components. Products
    of P[:, M], (n, k), are made in batches of points, of all members at once. An analysis takes
    N k (n + m) products for P, N k m for an iteration, and N k n at the end. Where P[M, M] has more numbers
    than N transforms of the grid take products, those take its place in the iterations.

    Args:
        whole: P over all components.
        local: C.
        columns: D on M; between: P[M, M] (see `LocalTaper.between`), None: by `whole`.
    """

    whole: TaperedCovariance
    local: LocalTaper
    columns: Float[Array, "N m"]
    between: Float[Array, "m k"] | None

    @classmethod
    def of(cls, whole: TaperedCovariance, local: LocalTaper) -> LocalCovariance:
        """With D and P on M; on several devices D lies there by members."""
        members = current().place(whole.columns) if current().devices is not None else whole.columns
        columns = members.reshape(len(members), -1)[:, local.measured]
        n_members, n_points = len(columns), local.n_points
        transforms = n_members * n_points * math.log2(n_points)  # about as many products
        known = whole.taper is not None and local.near is not None
        between = None if known and columns.shape[1] * local.used > transforms else local.between(columns)
        limits = {"tolerance": whole.tolerance, "max_iterations": whole.max_iterations}
        return cls(whole, local, columns, between, **limits)

    def seen(self, x: Float[Array, "*v"]) -> Float[Array, " m"]:
        return x.reshape(-1)[self.local.measured]

    def within(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        if self.between is None:
            return self.seen(self.whole.within(self._placed(u)))
        return self.local.product(self.between, u)

    def _placed(self, u: Float[Array, " m"]) -> Float[Array, "*v"]:
        """u as a state, 0 where nothing is measured."""
        state = self.whole.columns.shape[1:]
        return jnp.zeros(math.prod(state), u.dtype).at[self.local.measured].set(u).reshape(state)

    def reach(self, u: Float[Array, " m"]) -> Float[Array, "*v"]:
        return self._everywhere(u[None], None)[0][0]

    @property
    def scaling(self) -> Float[Array, " m"]:
        return (self.columns**2).sum(0)

    def largest(self, ratio: Float[Array, " m"]) -> Float[Array, ""]:
        """By Gershgorin's circles, or by the trace."""
        if self.between is None:
            return 1 + jax.lax.stop_gradient((ratio**2 * self.scaling).sum())
        between, ratio = jax.lax.stop_gradient((jnp.abs(self.between), jnp.abs(ratio)))
        return 1 + jnp.max(ratio * self.local.product(between, ratio))

    @property
    def example(self) -> Float[Array, " m"]:
        return len(self.columns) ** 0.5 * self.columns[0]

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        return self.whole.draw(key)

    def analysis(
        self, y: Float[Array, "*v"], cos: Float[Array, "*v"], sin: Float[Array, "*v"]
    ) -> tuple[Float[Array, "*v"], Float[Array, "N *v"]]:
        """`regress` of y, and `transport` of √(N - 1) D: of all members at once."""
        ratio = self.seen(cos / sin)
        solved = ratio * self.solved(self.seen(y / sin), ratio)
        rooted = current().each(lambda a: ratio * self.rooted(ratio * a, ratio), self.columns)
        mean, moves = self._everywhere(solved[None], rooted)
        return mean[0], (len(self.columns) - 1) ** 0.5 * (self.whole.columns - moves)

    def _everywhere(
        self, lanes: Float[Array, "L m"], of_members: Float[Array, "N m"] | None
    ) -> tuple[Float[Array, "L *v"], Float[Array, "N *v"]]:
        """P[:, M] u of each; on several devices each makes its own points, and the second come by members."""
        local, columns = self.local, self.whole.columns
        n_members, state = len(columns), columns.shape[1:]

        def solve(columns: Array, near: tuple, of_members: tuple, lanes: Array) -> tuple[Array, Array]:
            (seen, *moves), (weights, lists) = of_members, near
            u = jnp.concatenate([lanes, *moves])
            channels, n_points = columns.shape[:2]

            def one(index: Array) -> Array:
                own = columns[:, index]
                if lists is None:
                    return ((own @ seen) * weights[index].astype(own.dtype)[None]) @ u.T
                near = lists.neighbours[index]
                taper = lists.sqrt_weights[index].astype(own.dtype) ** 2
                rows = jnp.einsum("cbn,nbk->cbk", own, seen[:, near]) * taper[None]
                return jnp.einsum("cbk,lbk->cbl", rows, u[:, near])

            work = (n_members + len(u) + channels) * local.used
            n_batches = -(-n_points // max(64, _BATCH_NUMBERS // work))
            size = -(-n_points // n_batches)
            index = jnp.minimum(jnp.arange(n_batches * size), n_points - 1).reshape(n_batches, size)
            found = one(index[0]) if n_batches == 1 else jnp.moveaxis(jax.lax.map(one, index), 0, 1)
            found = found.reshape(channels, -1, len(u))[:, :n_points]
            return found[..., : len(lanes)], found[..., len(lanes) :]

        divided = current().devices is not None and local.shared is not None
        near = local.weights, local.shared if divided else local.near
        given = (self.columns,) if of_members is None else (self.columns, of_members)
        flat = columns.reshape(n_members, -1)
        found = by_points(solve, flat, local.n_points, near, given, lanes, local.needed if divided else None)
        lanes_found, moves = (
            current().reshape(jnp.moveaxis(each, -1, 0), (each.shape[-1], *state)) for each in found
        )
        return lanes_found, moves
