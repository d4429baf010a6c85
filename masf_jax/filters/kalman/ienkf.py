"""The iterative ensemble Kalman filter: the analysis of the last analysis, carried on by the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, MemberLayout, Placement, current
from ...dynamics.rollout import advance
from ...ensemble.double import exactly_where, in_double
from ...ensemble.inflation import Inflation
from ...ensemble.statistics import anomalies, recentre
from ...ensemble.transforms import mean_preserving_rotation, modes
from ...measurements.measurement import Measurement
from ...numbers import within
from .. import rounding
from ..base import EnsembleState, InflatedFilter, Info, whitened_innovations

__all__ = ["IEnKF"]


class Window(NamedTuple):
    """From the last analysis to this forecast."""

    start: Float[Array, "N *state"]
    step: Int[Array, ""]
    n_steps: Int[Array, ""]
    key: PRNGKeyArray


class IEnKF(InflatedFilter):
    """Finds the start of the window whose forecast fits z, in the space of the ensemble.

    With members x_i = x̄ + X_i at the last analysis and the model M over the window, it minimises

        J(w) = (N-1)/2 |w|² + 1/2 |R^{-1/2}(z - H(M(x̄ + Xᵀw)))|²

    by Gauss-Newton steps. Sensitivities Y come from the members themselves, x̄ + Xᵀw + T X with the transform
    T = ((N-1)/(N-1 + Y Yᵀ))^{1/2} of the step before, taken out of the result again. The analysis is those
    members, carried to the end of the window. One step is an ETKF whose analysis went through the model.

    Every iteration costs a forecast of all members; the model's random numbers are the same in each.

    Longer windows: `masf_jax.smoothers.ienks`.

    Source: Sakov, Oliver & Bertino (2012), doi 10.1175/MWR-D-11-00176.1; ensemble-space form: Bocquet & Sakov
    (2014), doi 10.1002/qj.2236 (their IEnKS with lag 1).

    Args:
        inflation: see `Inflation`; of the analysis only.
        rotation: random mean-preserving rotation each analysis.
        iterations: at most so many.
        tolerance: ends when a step |Δw|² is below this times N.
        dynamics: filled in by `prepare`.
    """

    placement: ClassVar[Placement] = "components"
    divides_by_variance: ClassVar[bool] = False
    inflation: Inflation = eqx.field(default_factory=Inflation)
    rotation: bool = eqx.field(static=True, default=False)
    iterations: int = eqx.field(static=True, default=10)
    tolerance: Float[Array, ""] = eqx.field(converter=within("tolerance", "[0, inf]"), default=1e-5)
    dynamics: Dynamics | None = None

    def __check_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1; got {self.iterations}.")
        if self.inflation.changes_forecast:
            raise ValueError(
                "the iterative filter forecasts again in every iteration: inflation of the forecast (prior, "
                "adaptive) has no place in it. Use multiplicative inflation or relaxation."
            )

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> IEnKF:
        return dataclasses.replace(self, dynamics=dynamics)

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
        window = memory

        def carried(dynamics: Dynamics, start: Array) -> Array:
            return advance(dynamics, start, window.step, window.key, window.n_steps, current())

        _, ensemble, info = self.fit(window.start, members, self.dynamics, carried, z, mask, measurement)
        return self.rotated(key, ensemble), window, info

    def fit(
        self,
        start: Float[Array, "N *state"],
        forecast: Float[Array, "N *state"],
        dynamics: Dynamics,
        carried: Callable[[Dynamics, Array], Array],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[Float[Array, "N *state"], Float[Array, "N *state"], Info]:
        """The window's members at its start and its end, x̄ + Xᵀw + T X at the minimum of J.

        Made in double precision, the model too, where the working precision does not do.

        Args:
            start, forecast: members x̄ + X before the measurement, and carried to the end.
            carried: the model over the window, of all members.
        """
        d, s = anomalies(whitened_innovations(forecast, z, mask, measurement))
        scaled = s / jnp.sqrt(jnp.asarray(len(s) - 1, s.dtype))
        coarse, fine = rounding.of_algebra(d, scaled, z, mask, measurement)
        arrays = (self, start, forecast, dynamics, z, measurement)

        def minimised(exact: bool) -> Callable:
            def run(
                filter: IEnKF, start: Array, forecast: Array, dynamics: Dynamics, z: Array, given: Any
            ) -> Any:
                return filter._minimum(start, forecast, dynamics, carried, z, mask, given, exact)

            return run

        def with_rounding(found: Any, estimate: Array) -> Any:
            start, ensemble, info = found
            return start, ensemble, info | {"rounding": estimate}

        return exactly_where(
            coarse,
            lambda _: with_rounding(in_double(minimised(True), *arrays, result=start.dtype), fine),
            lambda coarse: with_rounding(minimised(False)(*arrays), coarse),
        )

    def _minimum(
        self,
        start: Float[Array, "N *state"],
        forecast: Float[Array, "N *state"],
        dynamics: Dynamics,
        carried: Callable[[Dynamics, Array], Array],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        exact: bool,
    ) -> tuple[Float[Array, "N *state"], Float[Array, "N *state"], Info]:
        """`fit`; `exact`: by singular values of Y, else by eigenvalues of Y Yᵀ."""
        n, dtype = start.shape[0], start.dtype
        mean, deviations = anomalies(start)
        ridge = jnp.asarray(n - 1, dtype)

        def moved(w: Array, transform: Array) -> Array:
            return current().spread(mean[None] + jnp.tensordot(w[None] + transform, deviations, 1))

        def by_eigenvalues(w: Array, d: Array, y: Array) -> tuple[Array, Array, Array]:
            values, vectors = jnp.linalg.eigh(y @ y.T)
            values = jnp.maximum(values, 0.0) + ridge
            change = vectors @ ((vectors.T @ (y @ d - ridge * w)) / values)
            transform = (vectors * jnp.sqrt(ridge / values)[None]) @ vectors.T
            return change, transform, (vectors * jnp.sqrt(values / ridge)[None]) @ vectors.T

        def by_singular_values(w: Array, d: Array, y: Array) -> tuple[Array, Array, Array]:
            u, sigma, v = modes(y)
            values, along, one = sigma**2 + ridge, u.T @ w, jnp.eye(n, dtype=dtype)
            change = u @ ((sigma * (d @ v) - ridge * along) / values + along) - w
            transform = one + (u * (jnp.sqrt(ridge / values) - 1.0)[None]) @ u.T
            return change, transform, one + (u * (jnp.sqrt(values / ridge) - 1.0)[None]) @ u.T

        def better(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            count, w, transform, inverse, ensemble, _ = carry
            d, y = anomalies(whitened_innovations(ensemble, z, mask, measurement))
            step = by_singular_values if exact else by_eigenvalues
            change, transform, inverse = step(w, d, -inverse @ y)
            w = w + change
            return (
                count + 1,
                w,
                transform,
                inverse,
                carried(dynamics, moved(w, transform)),
                jnp.sum(change**2),
            )

        def unsettled(carry: tuple[Array, ...]) -> Array:
            return (carry[0] < self.iterations) & (carry[-1] > self.tolerance.astype(dtype) * n)

        one = jnp.eye(n, dtype=dtype)
        zero, far = jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, dtype)
        begin = (zero, jnp.zeros(n, dtype), one, one, forecast, far)
        count, w, transform, _, ensemble, change = jax.lax.while_loop(unsettled, better, begin)
        info = {"iterations": count.astype(dtype), "last_step": jnp.sqrt(change / n)}
        return moved(w, transform), ensemble, info

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
