"""The local ensemble transform Kalman filter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ...derivatives import differentiated_as, inverse_sqrt
from ...dynamics.base import Dynamics
from ...dynamics.layout import MemberLayout, Placement, current
from ...ensemble import points
from ...ensemble.inflation import Inflation
from ...ensemble.localization import Localization, as_radius, as_radius_or_none, localize
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import (
    LARGEST,
    by_singular_values,
    inverse_and_inverse_sqrt,
    mean_preserving_rotation,
)
from ...measurements.measurement import Measurement
from ...numbers import as_float, number
from ..base import EnsembleFilter, Info
from .geometry import measured_coordinates
from .nearby import Nearby

__all__ = ["LETKF"]

_BATCH_NUMBERS = 2**21
"""Numbers held at once by the default batch of local analyses (8 MB in float32)."""


class LETKF(EnsembleFilter):
    """An ETKF at every grid point, with measurement precision tapered by distance.

    At point i, S_i = sqrt(taper) · S over the neighbouring measurements, A_i = I + S_i S_iᵀ, and the
    point's own components are updated with w_i = A_i^{-1} S_i d_i /√(N-1) and T_i = A_i^{-1/2}.
    Only A_i^{-1} a and A_i^{-1/2} a of the component's anomalies a are needed, so the default solver
    is a batched conjugate gradient, several times faster on a CPU than `eigh`. The matrices
    A_i = I + Σ_j taper_ij s_j s_jᵀ come from neighbour lists or, for small networks, from one dense product.

    Source: Hunt, Kostelich & Szunyogh (2007), doi 10.1016/j.physd.2006.11.008; taper: Gaspari & Cohn.

    Args:
        radius: Gaspari-Cohn length in the coordinates' unit, support 2·radius (see `localize`); inf: no
            localisation (kept as None, unless there is a reach).
        inflation: see `Inflation`.
        rotation: one random mean-preserving rotation for all points, each analysis.
        solver: "cg", or "eigh" (the textbook route).
        batch_size: grid points solved at once (bounds the memory); None: about 8 MB of work.
        reach: largest radius that the neighbour lists serve: within it another radius compiles nothing new,
            and may be traced (`vmap` over radii; weights are NaN beyond). None: the radius; where that is
            traced, all measured values are neighbours. (Of dense weights radii never compile anew.)
        localization, taper: filled in by `prepare` (neighbour lists, or dense weights).
        needed: filled in by `spread`: the values that each device's points use; the lists count in those.
    """

    placement: ClassVar[Placement] = "components"
    inflation: Inflation
    localization: Localization | None
    taper: Float[Array, "points m"] | None
    needed: Int[Array, "devices q"] | None
    radius: Float[Array, ""] | None
    rotation: bool = eqx.field(static=True)
    solver: Literal["cg", "eigh"] = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    reach: float | None = eqx.field(static=True)

    def __init__(
        self,
        radius: float | Float[Array, ""] | None,
        inflation: Inflation | None = None,
        rotation: bool = False,
        solver: Literal["cg", "eigh"] = "cg",
        batch_size: int | None = None,
        reach: float | None = None,
        localization: Localization | None = None,
        taper: Float[Array, "points m"] | None = None,
        needed: Int[Array, "devices q"] | None = None,
    ):
        if solver not in ("cg", "eigh"):
            raise ValueError(f'solver must be "cg" or "eigh"; got {solver!r}.')
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        self.reach = None if reach is None else as_float(number("reach", reach, "(0, inf]"))
        radius = math.inf if radius is None else radius
        self.radius = as_radius_or_none(radius) if reach is None else as_radius(radius)
        self.inflation = Inflation() if inflation is None else inflation
        self.rotation, self.solver, self.batch_size = rotation, solver, batch_size
        self.localization, self.taper, self.needed = localization, taper, needed

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> LETKF:
        state, measured = measured_coordinates("LETKF", self.radius, dynamics, measurement)
        (n_points, m), reach = (state.n_points, measured.n_points), self.reach
        if isinstance(self.radius, Tracer) and reach is None and n_points * m > points.DENSE_NUMBERS:
            raise ValueError(
                f"LETKF with a traced radius and no reach weighs all {m} values at each of {n_points} points "
                f"(largest product: {points.DENSE_NUMBERS}): give reach, the largest radius."
            )
        lists = localize(state, measured, math.inf if self.radius is None else self.radius, reach)
        taper = None
        if points.is_dense(lists, m):
            taper = points.dense_weights(lists, m)
            lists = None
        elif self.radius is not None and reach is None:
            reach = as_float(self.radius)  # what the lists serve, also where this is prepared again in `jit`
        return dataclasses.replace(self, reach=reach, localization=lists, taper=taper, needed=None)

    def spread(self, layout: MemberLayout) -> LETKF:
        if layout.devices is None:
            return self
        if self.localization is None:
            return (
                self if self.taper is None else dataclasses.replace(self, taper=layout.put_rows(self.taper))
            )
        lists, needed = points.shares(self.localization, layout)
        return dataclasses.replace(self, localization=lists, needed=needed)

    def draws(self, key: PRNGKeyArray, n_members: int, mask: Bool[Array, " m"], dtype: Any) -> Array | None:
        """The rotation."""
        return mean_preserving_rotation(key, n_members, dtype) if self.rotation else None

    @property
    def limit(self) -> float:
        """That of the quadrature for A^{-1/2} in `inverse_and_inverse_sqrt`."""
        return 0.9 * LARGEST if self.solver == "cg" else math.inf

    @property
    def total(self) -> Callable[[Float[Array, "m 2"]], Float[Array, " 2"]]:
        return self._largest

    def _largest(self, each: Float[Array, "m 2"]) -> Float[Array, " 2"]:
        """The largest sums over the values that one point uses, by their weights."""
        if self.taper is not None:
            return (self.taper.astype(each.dtype) @ each).max(0)
        if self.localization is None:
            raise ValueError("LETKF needs its neighbour lists: call filter.prepare(dynamics, measurement).")
        near, weights = self.localization.neighbours, self.localization.sqrt_weights.astype(each.dtype) ** 2
        if self.needed is not None:  # lists count in the values of the device that has the point
            size = -(-len(near) // len(self.needed))
            near = self.needed[jnp.arange(len(near))[:, None] // size, near]
        return (each[near] * weights[..., None]).sum(1).max(0)

    def exact_transform(
        self,
        draws: Array | None,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        n_members = len(x)
        scale = 1.0 / jnp.sqrt(jnp.asarray(n_members - 1, x.dtype))
        mean, deviations = anomalies(x)
        d, s = anomalies(innovations)
        s = -scale * s

        def solve(near: Nearby, columns: Array) -> tuple[Array, Array]:
            """Of these points, each with its own singular values."""
            n_points = columns.shape[1]

            def local(point: Int[Array, ""]) -> tuple[Array, Array]:
                s, d, weights = near.of(point)
                own = columns[:, point].T
                w, shrunk = by_singular_values(s * weights[None], d * weights, own)
                return scale * w @ own, shrunk

            batch = min(n_points, self.batch_size or max(1, _BATCH_NUMBERS // (4 * n_members * near.used)))
            increment, updated = jax.lax.map(local, jnp.arange(n_points), batch_size=batch)
            return increment.T, jnp.transpose(updated, (2, 0, 1))

        increment, updated = self._by_points(solve, deviations, s, d)
        if draws is not None:
            updated = draws @ updated
        return (mean + increment)[None] + updated, {}

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        n_members = len(x)
        mean, deviations = anomalies(x)
        d, s = anomalies(innovations)
        s = -s / jnp.sqrt(jnp.asarray(n_members - 1, x.dtype))

        def solve(near: Nearby, columns: Array) -> tuple[Array, Array]:
            """Of these points, in batches."""
            channels, n_points = columns.shape[:2]
            normal = near.normal_matrices()

            def local(index: Int[Array, " batch"] | None) -> tuple[Array, Array]:
                return self._solve(columns if index is None else columns[:, index], *normal(index))

            work = n_members * (
                (n_members if near.lists is None else near.used) + channels * (2 * n_members + 20)
            )
            batch = min(n_points, self.batch_size or max(64, _BATCH_NUMBERS // work))
            n_batches = -(-n_points // batch)
            if n_batches == 1:
                return local(None)
            batch = -(-n_points // n_batches)  # all alike: the last one is not filled up
            padded = jnp.minimum(jnp.arange(n_batches * batch), n_points - 1).reshape(n_batches, batch)
            increment, updated = jax.lax.map(local, padded)
            increment = jnp.moveaxis(increment, 0, 1).reshape(channels, -1)[:, :n_points]
            return increment, jnp.moveaxis(updated, 0, 1).reshape(channels, -1, n_members)[:, :n_points]

        increment, updated = self._by_points(solve, deviations, s, d)
        if self.rotation:
            updated = mean_preserving_rotation(key, n_members, x.dtype) @ updated
        return (mean + increment)[None] + updated, {}

    def _by_points(
        self,
        solve: Callable[[Nearby, Float[Array, "channels points N"]], tuple[Array, Array]],
        deviations: Float[Array, "N n"],
        s: Float[Array, "N m"],
        d: Float[Array, " m"],
    ) -> tuple[Float[Array, " n"], Float[Array, "N n"]]:
        """Mean increment and anomalies of all points (see `points.by_points`)."""
        taper, lists = self.taper, self.localization
        if taper is None and lists is None:
            raise ValueError("LETKF needs its neighbour lists: call filter.prepare(dynamics, measurement).")
        n_members, n = deviations.shape
        n_points = len(lists.neighbours if taper is None else taper)  # pyright: ignore[reportOptionalMemberAccess]

        def own(columns: Array, near: Any, s: Array, d: Array) -> tuple[Array, Array]:
            return solve(Nearby(s, d, *near), columns)

        near = taper, lists
        increment, updated = points.by_points(own, deviations, n_points, near, s, d, self.needed)
        return increment.reshape(n), current().reshape(jnp.moveaxis(updated, -1, 0), (n_members, n))

    def _solve(
        self,
        columns: Float[Array, "channels batch N"],
        gram: Float[Array, "batch N N"],
        projected: Float[Array, "batch N"],
    ) -> tuple[Float[Array, "channels batch"], Float[Array, "channels batch N"]]:
        """Mean increments and analysis anomalies of a batch of grid points."""
        n_members = columns.shape[-1]
        matrix = jnp.eye(n_members, dtype=gram.dtype)[None] + gram
        projected = projected / jnp.sqrt(jnp.asarray(n_members - 1, gram.dtype))
        if self.solver == "cg":
            each = jnp.broadcast_to(matrix[None], (columns.shape[0], *matrix.shape))
            flat = columns.reshape(-1, n_members)
            inverse, root = inverse_and_inverse_sqrt(each.reshape(-1, n_members, n_members), flat)
            inverse, root = inverse.reshape(columns.shape), root.reshape(columns.shape)
            return (inverse * projected[None]).sum(-1), root
        return _by_eigenvectors(matrix, columns, projected)


def _by_roots(matrix: Array, columns: Array, projected: Array) -> tuple[Array, Array]:
    """xᵀ A⁻¹ p and A^{-1/2} x."""
    root = jnp.einsum("bij,cbj->cbi", inverse_sqrt(matrix), columns)
    along = jnp.einsum("bij,bj->bi", inverse_sqrt(matrix), projected)
    return (root * along[None]).sum(-1), root


@differentiated_as(_by_roots)
def _by_eigenvectors(matrix: Array, columns: Array, projected: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    coefficients = jnp.einsum("bij,cbi->cbj", vectors, columns)
    root = jnp.einsum("bij,cbj->cbi", vectors, coefficients / jnp.sqrt(values)[None])
    along = jnp.einsum("bij,bi->bj", vectors, projected)
    return (coefficients * (along / values)[None]).sum(-1), root
