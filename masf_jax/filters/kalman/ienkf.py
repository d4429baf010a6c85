"""The iterative ensemble Kalman filter: the analysis of the last analysis, carried on by the model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ...derivatives import differentiated_as, inverse_sqrt
from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, MemberLayout, Placement, current
from ...dynamics.rollout import advance
from ...ensemble.double import exactly_where, in_double
from ...ensemble.inflation import Inflation
from ...ensemble.localization import Localization, as_radius_or_none
from ...ensemble.statistics import anomalies, recentre
from ...ensemble.transforms import (
    by_singular_values,
    inverse_and_inverse_sqrt,
    mean_preserving_rotation,
    modes,
)
from ...measurements.measurement import Measurement
from ...numbers import whole, within
from .. import rounding
from ..base import EnsembleState, InflatedFilter, Info, whitened_innovations
from .letkf import LETKF
from .nearby import Nearby

__all__ = ["IEnKF"]

_BATCH_NUMBERS = 2**21
"""Numbers held at once by the local analyses of a batch of points."""


class Window(NamedTuple):
    """From the last analysis to this forecast."""

    start: Float[Array, "N *state"]
    step: Int[Array, ""]
    n_steps: Int[Array, ""]
    key: PRNGKeyArray

    def carried(self, dynamics: Dynamics, start: Float[Array, "N *state"]) -> Float[Array, "N *state"]:
        """Members at its end, of others at its start."""
        return advance(dynamics, start, self.step, self.key, self.n_steps, current())


class IEnKF(InflatedFilter):
    """Finds the start of the window whose forecast fits z, in the space of the ensemble.

    With members x_i = x̄ + X_i at the last analysis and the model M over the window, it minimises

        J(w) = (N-1)/2 |w|² + 1/2 |R^{-1/2}(z - H(M(x̄ + Xᵀw)))|²

    by Gauss-Newton steps. Sensitivities Y come from the members themselves, x̄ + Xᵀw + T X with the transform
    T = ((N-1)/(N-1 + Y Yᵀ))^{1/2} of the step before, taken out of the result again. The analysis is those
    members, carried to the end of the window. One step is an ETKF whose analysis went through the model.

    Every iteration costs a forecast of all members; the model's random numbers are the same in each.

    With a radius there is a w_i at each point i of the window's start, and a J_i in which the precision of
    the values is tapered by their distance from it, as in `LETKF`: a static local domain. All steps are
    taken together, then one forecast is made of the members x̄ + Σ_i w_i X_i + X. Sensitivities are those
    members' anomalies, since a local T cannot be taken out again. It costs one forecast more than iterations.

    Longer windows: `masf_jax.smoothers.ienks`.

    Source: Sakov, Oliver & Bertino (2012), doi 10.1175/MWR-D-11-00176.1; ensemble-space form: Bocquet & Sakov
    (2014), doi 10.1002/qj.2236 (their IEnKS with lag 1); local: Bocquet (2016), doi 10.1002/qj.2711.

    Args:
        inflation: see `Inflation`; of the analysis only.
        rotation: random mean-preserving rotation each analysis.
        iterations: at most so many.
        tolerance: ends when a step |Δw|² is below this times N (at all points).
        radius: Gaspari-Cohn length, support 2·radius (see `LETKF`); inf: no localisation (kept as None).
        dynamics, localization, taper: filled in by `prepare`; what each point sees as in `LETKF`.
    """

    placement: ClassVar[Placement] = "components"
    divides_by_variance: ClassVar[bool] = False
    inflation: Inflation = eqx.field(default_factory=Inflation)
    rotation: bool = eqx.field(static=True, default=False)
    iterations: int = eqx.field(static=True, default=10)
    tolerance: Float[Array, ""] = eqx.field(converter=within("tolerance", "[0, inf]"), default=1e-5)
    radius: Float[Array, ""] | None = eqx.field(converter=as_radius_or_none, default=math.inf)
    dynamics: Dynamics | None = None
    localization: Localization | None = None
    taper: Float[Array, "points m"] | None = None

    def __check_init__(self) -> None:
        super().__check_init__()
        whole("iterations", self.iterations, 1)
        if self.inflation.changes_forecast:
            raise ValueError(
                "the iterative filter forecasts again in every iteration: inflation of the forecast (prior, "
                "adaptive) has no place in it. Use multiplicative inflation or relaxation."
            )

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> IEnKF:
        if self.radius is None:
            return dataclasses.replace(self, dynamics=dynamics)
        local = LETKF(self.radius).prepare(dynamics, measurement)
        return dataclasses.replace(
            self, dynamics=dynamics, localization=local.localization, taper=local.taper
        )

    def remember(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> Window:
        zero = jnp.zeros((), jnp.int32)
        return Window(ensemble, zero, zero, key)

    def take_memory(self, memory: tuple[Any, Window], index: Int[Array, " N"]) -> tuple[Any, Window]:
        inflation, window = memory
        return inflation, window._replace(start=window.start[index])

    def forecast(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> EnsembleState:
        members = advance(dynamics, state.ensemble, step, key, n_steps, layout)
        window = Window(state.ensemble, step, jnp.asarray(n_steps, jnp.int32), key)
        return EnsembleState(members, None, (state.memory[0], window))

    def analyse(
        self,
        key: PRNGKeyArray,
        members: Float[Array, "N *state"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        memory: Window,
    ) -> tuple[Float[Array, "N *state"], Window, Info]:
        if self.dynamics is None:
            raise ValueError("the filter needs the model: call filter.prepare(dynamics, measurement).")
        _, ensemble, info = self.fit(memory, members, self.dynamics, z, mask, measurement)
        return self.rotated(key, ensemble), memory, info

    def fit(
        self,
        window: Window,
        forecast: Float[Array, "N *state"],
        dynamics: Dynamics,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[Float[Array, "N *state"], Float[Array, "N *state"], Info]:
        """The window's members at its start and its end, x̄ + Xᵀw + T X at the minimum of J.

        Made in double precision, the model too, where the working precision does not do.

        Args:
            window: with the members x̄ + X before the measurement; forecast: those carried to its end.
        """
        d, s = anomalies(whitened_innovations(forecast, z, mask, measurement))
        scaled = s / jnp.sqrt(jnp.asarray(len(s) - 1, s.dtype))
        if self.radius is None:
            total, limit = None, math.inf
        else:
            local = LETKF(self.radius, localization=self.localization, taper=self.taper)
            total, limit = local.total, local.limit
        coarse, fine = rounding.of_algebra(d, scaled, z, mask, measurement, total, limit=limit)
        arrays = (self, window, forecast, dynamics, z, mask, measurement)

        def minimum(exact: bool) -> Callable:
            return lambda *arrays: _minimum(*arrays, exact)

        def with_rounding(found: Any, estimate: Array) -> Any:
            start, ensemble, info = found
            return start, ensemble, info | {"rounding": estimate}

        return exactly_where(
            coarse,
            lambda _: with_rounding(in_double(minimum(True), *arrays, result=forecast.dtype), fine),
            lambda coarse: with_rounding(minimum(False)(*arrays), coarse),
        )

    def minimum(
        self,
        window: Window,
        forecast: Float[Array, "N *state"],
        dynamics: Dynamics,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        exact: bool,
        *,
        loop: Callable[..., Any],
    ) -> tuple[Float[Array, "N *state"], Float[Array, "N *state"], Info]:
        """`fit`; `exact`: by singular values of Y, else by eigenvalues of Y Yᵀ; `loop`: a `while_loop`."""
        n, dtype = forecast.shape[0], forecast.dtype
        mean, deviations = anomalies(window.start)

        def moved(w: Array, transform: Array) -> Array:
            return current().spread(mean[None] + jnp.tensordot(w[None] + transform, deviations, 1))

        def better(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            count, w, transform, inverse, ensemble, _ = carry
            d, y = anomalies(whitened_innovations(ensemble, z, mask, measurement))
            step = _by_singular_values if exact else _by_eigenvectors
            change, transform, inverse = step(w, d, -inverse @ y)
            w = w + change
            return (
                count + 1,
                w,
                transform,
                inverse,
                window.carried(dynamics, moved(w, transform)),
                jnp.sum(change**2),
            )

        def unsettled(carry: tuple[Array, ...]) -> Array:
            return (carry[0] < self.iterations) & (carry[-1] > self.tolerance.astype(dtype) * n)

        one = jnp.eye(n, dtype=dtype)
        zero, far = jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, dtype)
        begin = (zero, jnp.zeros(n, dtype), one, one, forecast, far)
        count, w, transform, _, ensemble, change = loop(unsettled, better, begin)
        info = {"iterations": count.astype(dtype), "last_step": jnp.sqrt(change / n)}
        return moved(w, transform), ensemble, info

    def local_minimum(
        self,
        window: Window,
        forecast: Float[Array, "N *state"],
        dynamics: Dynamics,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        exact: bool,
        *,
        loop: Callable[..., Any],
    ) -> tuple[Float[Array, "N *state"], Float[Array, "N *state"], Info]:
        """`fit` with a u_i = √(N-1) w_i at each point: (I + S_i S_iᵀ) u_i ← S_i (d_i + S_iᵀ u_i)."""
        start = window.start
        n, dtype = start.shape[0], start.dtype
        scale = 1.0 / jnp.sqrt(jnp.asarray(n - 1, dtype))
        mean, deviations = anomalies(start)
        taper, lists = self.taper, self.localization
        points = len(lists.neighbours if taper is None else taper)  # pyright: ignore[reportOptionalMemberAccess]
        columns = jnp.moveaxis(deviations.reshape(n, -1, points), 0, -1)  # (channels, points, N)

        def near(d: Array, s: Array) -> Nearby:
            return Nearby(s, d, taper, lists)

        def each(local: Callable[..., Any], near: Nearby, *given: Array) -> Any:
            """local(point, its own of `given`) at all points."""
            batch = max(16, _BATCH_NUMBERS // (n * (2 * n + near.used)))
            return jax.lax.map(
                lambda item: local(*item), (jnp.arange(points), *given), batch_size=min(points, batch)
            )

        def better(near: Nearby, u: Float[Array, "points N"]) -> Float[Array, "points N"]:
            normal = near.normal_matrices()

            def local(point: Array, u: Array) -> Array:
                if exact:
                    s, d, roots = near.of(point)
                    return by_singular_values(s * roots[None], (d + u @ s) * roots, u[:, None])[0]
                gram, projected = (a[0] for a in normal(point[None]))
                return jnp.linalg.solve(jnp.eye(n, dtype=dtype) + gram, projected + gram @ u)

            return each(local, near, u)

        def shrunk(near: Nearby) -> Float[Array, "N *state"]:
            """A_i^{-1/2} X_i."""
            normal = near.normal_matrices()

            def local(point: Array, own: Array) -> Array:
                if exact:
                    s, d, roots = near.of(point)
                    return by_singular_values(s * roots[None], d * roots, own.T)[1].T
                matrix = jnp.eye(n, dtype=dtype) + normal(point[None])[0][0]
                return inverse_and_inverse_sqrt(jnp.broadcast_to(matrix, (len(own), n, n)), own)[1]

            updated = each(local, near, jnp.swapaxes(columns, 0, 1))  # (points, channels, N)
            return jnp.transpose(updated, (2, 1, 0)).reshape(start.shape)

        def centred(u: Float[Array, "points N"], anomalies: Array) -> Array:
            increment = scale * (columns * u[None]).sum(-1)
            return current().spread((mean + increment.reshape(mean.shape))[None] + anomalies)

        def seen(ensemble: Array) -> tuple[Array, Array]:
            d, s = anomalies(whitened_innovations(ensemble, z, mask, measurement))
            return d, -scale * s

        def iterate(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            count, u, d, s, _, _ = carry
            new = better(near(d, s), u)
            change = scale**2 * jnp.sum((new - u) ** 2, axis=1).max()
            return count + 1, new, *seen(window.carried(dynamics, centred(new, deviations))), s, change

        def unsettled(carry: tuple[Array, ...]) -> Array:
            return (carry[0] < self.iterations) & (carry[-1] > self.tolerance.astype(dtype) * n)

        d, s = seen(forecast)
        zero, far = jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, dtype)
        begin = (zero, jnp.zeros((points, n), dtype), d, s, s, far)
        count, u, d, _, used, change = loop(unsettled, iterate, begin)
        found = centred(u, shrunk(near(d, used)))
        info = {"iterations": count.astype(dtype), "last_step": jnp.sqrt(change / n)}
        return found, window.carried(dynamics, found), info

    def rotated(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> Float[Array, "N *state"]:
        """After a random mean-preserving rotation, where there is to be one."""
        if not self.rotation:
            return ensemble
        mean, deviations = anomalies(ensemble)
        turn = mean_preserving_rotation(key, ensemble.shape[0], ensemble.dtype)
        return recentre(mean, jnp.tensordot(turn, deviations, 1))

    def finished(
        self, key: PRNGKeyArray, forecast: Float[Array, "N *state"], ensemble: Float[Array, "N *state"]
    ) -> Float[Array, "N *state"]:
        """Rotated and inflated."""
        key_rotation, key_inflation = self.keys(key)
        return self.inflation.after(key_inflation, forecast, self.rotated(key_rotation, ensemble))


def _by_roots(w: Array, d: Array, y: Array) -> tuple[Array, Array, Array]:
    """The Gauss-Newton step Δw, the transform T = (1 + Y Yᵀ/(N-1))^{-1/2}, and T⁻¹; with derivatives."""
    n, ridge = len(y), len(y) - 1
    matrix = jnp.eye(n, dtype=y.dtype) + y @ y.T / ridge
    root = inverse_sqrt(matrix)
    return root @ (root @ (y @ d / ridge - w)), root, matrix @ root


@differentiated_as(_by_roots)
def _by_eigenvectors(w: Array, d: Array, y: Array) -> tuple[Array, Array, Array]:
    ridge = jnp.asarray(len(y) - 1, y.dtype)
    values, vectors = jnp.linalg.eigh(y @ y.T)
    values = jnp.maximum(values, 0.0) + ridge
    change = vectors @ ((vectors.T @ (y @ d - ridge * w)) / values)
    transform = (vectors * jnp.sqrt(ridge / values)[None]) @ vectors.T
    return change, transform, (vectors * jnp.sqrt(values / ridge)[None]) @ vectors.T


@differentiated_as(_by_roots)
def _by_singular_values(w: Array, d: Array, y: Array) -> tuple[Array, Array, Array]:
    ridge = jnp.asarray(len(y) - 1, y.dtype)
    u, sigma, v = modes(y)
    values, along, one = sigma**2 + ridge, u.T @ w, jnp.eye(len(y), dtype=y.dtype)
    change = u @ ((sigma * (d @ v) - ridge * along) / values + along) - w
    transform = one + (u * (jnp.sqrt(ridge / values) - 1.0)[None]) @ u.T
    return change, transform, one + (u * (jnp.sqrt(values / ridge) - 1.0)[None]) @ u.T


def _minimum_by_scan(filter: IEnKF, *args: Any) -> tuple[Array, Array, Info]:
    """`_minimum` by a loop of fixed length, of which each iteration is made again in reverse mode."""

    def loop(unsettled: Callable, better: Callable, begin: tuple) -> tuple:
        better = jax.checkpoint(better)

        def one(carry: tuple, _: None) -> tuple[tuple, None]:
            return jax.lax.cond(unsettled(carry), better, lambda carry: carry, carry), None

        return jax.lax.scan(one, begin, None, filter.iterations)[0]

    return (filter.minimum if filter.radius is None else filter.local_minimum)(*args, loop=loop)


@differentiated_as(_minimum_by_scan)
def _minimum(filter: IEnKF, *args: Any) -> tuple[Array, Array, Info]:
    return (filter.minimum if filter.radius is None else filter.local_minimum)(*args, loop=jax.lax.while_loop)
