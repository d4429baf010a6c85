"""Baselines that need no ensemble: climatology, optimal interpolation, 3D-Var."""

from __future__ import annotations

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..derivatives import without_derivative
from ..dynamics.base import Dynamics
from ..dynamics.layout import ALL_AT_ONCE, MemberLayout
from ..dynamics.rollout import SAMPLED, Climatology as ClimateMoments, at_once, climatology
from ..measurements.measurement import Measurement
from ..numbers import check_covariance, whole, within
from .base import EnsembleState, Filter, GaussianState, Info, State
from .kalman.exact import SquareRootFilter, factor_of, gaussian_analysis, square_root

__all__ = ["Climatology", "OptimalInterpolation", "ThreeDVar"]

_LARGEST = 5_000


def _moments(name: str, known: ClimateMoments | None, dynamics: Dynamics, seed: int) -> ClimateMoments:
    n = math.prod(dynamics.state_shape)
    if known is not None:
        if known.mean.shape != (n,) or known.covariance.shape != (n, n):
            raise ValueError(
                f"the moments of {name} are those of raveled states: mean ({n},) and covariance ({n}, {n}) "
                f"for states of shape {dynamics.state_shape}; got {known.mean.shape} and "
                f"{known.covariance.shape}."
            )
        check_covariance(f"the covariance of {name}", known.covariance)
        return known
    if n > _LARGEST:
        raise ValueError(f"{name} holds an n × n climatological covariance; n = {n} exceeds {_LARGEST}.")
    with at_once(dynamics):
        moments = eqx.filter_jit(climatology)(dynamics, jax.random.key(seed), 20_000, 4)
    return without_derivative(SAMPLED, moments)


def _advance_mean(
    mean: Float[Array, "*state"], dynamics: Dynamics, step: Int[Array, ""], n_steps: int | Int[Array, ""]
) -> Float[Array, "*state"]:
    def one(i: Array, x: Array) -> Array:
        return dynamics.mean_step(x, dynamics.time_of(step + i).astype(x.dtype))

    return jax.lax.fori_loop(0, n_steps, one, mean)


class Climatology(Filter):
    """Always the model's climatological mean and covariance, whatever is measured.

    Args:
        moments: the climatology; None: `prepare` samples 20 000 states of the model.
        seed: of that sample.
    """

    moments: ClimateMoments | None = None
    seed: int = eqx.field(static=True, default=1)

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> Climatology:
        moments = _moments("climatology", self.moments, dynamics, self.seed)
        return dataclasses.replace(self, moments=moments)

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> GaussianState:
        mean, covariance = _cast(self.moments, ensemble.dtype)
        return GaussianState(mean.reshape(ensemble.shape[1:]), covariance)

    def forecast(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> GaussianState:
        return state

    def update(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[GaussianState, Info]:
        return state, {}


class OptimalInterpolation(Filter):
    """x_a = μ + K (z - H(μ)), the climatology N(μ, B) the prior of every cycle; the model carries x_a on.

    Args:
        moments, seed: as for `Climatology`.
    """

    moments: ClimateMoments | None = None
    seed: int = eqx.field(static=True, default=1)

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> OptimalInterpolation:
        moments = _moments("optimal interpolation", self.moments, dynamics, self.seed)
        return dataclasses.replace(self, moments=moments)

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> GaussianState:
        covariance = _cast(self.moments, ensemble.dtype).covariance
        return GaussianState(ensemble.mean(0), covariance, square_root(covariance))

    def completed(self, state: State) -> State:
        if isinstance(state, EnsembleState) or state.memory is not None:
            return state
        climate = _cast(self.moments, state.mean.dtype).covariance
        return GaussianState(state.mean, state.covariance, square_root(climate))

    def forecast(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> GaussianState:
        mean = _advance_mean(state.mean, dynamics, step, n_steps)
        return GaussianState(mean, state.covariance, state.memory)

    def update(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[GaussianState, Info]:
        mean = _cast(self.moments, state.mean.dtype).mean.reshape(state.mean.shape)
        analysis, info = gaussian_analysis(mean, state.memory, z, mask, measurement)
        return GaussianState(analysis.mean, analysis.covariance, state.memory), info


class ThreeDVar(SquareRootFilter):
    """Minimises |x - x_f|²_B + |z - H(x)|²_R with static B = scale · climatological covariance.

    Gauss-Newton from the forecast; one iteration is exact for a linear operator.

    Args:
        scale: of the climatological covariance.
        iterations: Gauss-Newton iterations.
        moments, seed: as for `Climatology`.
    """

    scale: Float[Array, ""] = eqx.field(
        converter=within("scale of the background covariance", "(0, inf]"), default=0.02
    )
    iterations: int = eqx.field(static=True, default=1)
    moments: ClimateMoments | None = None
    seed: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        whole("iterations", self.iterations, 1)

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> ThreeDVar:
        moments = _moments("3D-Var", self.moments, dynamics, self.seed)
        return dataclasses.replace(self, moments=moments)

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> GaussianState:
        covariance = self._background(ensemble.dtype)
        return GaussianState(ensemble.mean(0), covariance, square_root(covariance))

    def _background(self, dtype: jnp.dtype) -> Float[Array, "n n"]:
        return self.scale.astype(dtype) * _cast(self.moments, dtype).covariance

    def forecast(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> GaussianState:
        mean = _advance_mean(state.mean, dynamics, step, n_steps)
        return GaussianState(mean, self._background(mean.dtype), state.memory)

    def update(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[GaussianState, Info]:
        factor = factor_of(state)
        analysis, info = gaussian_analysis(state.mean, factor, z, mask, measurement, self.iterations)
        return GaussianState(analysis.mean, analysis.covariance, factor), info


def _cast(moments: ClimateMoments | None, dtype: jnp.dtype) -> ClimateMoments:
    if moments is None:
        raise ValueError("this filter needs the climatology: call filter.prepare(dynamics, measurement).")
    return jax.tree.map(lambda a: a.astype(dtype), moments)
