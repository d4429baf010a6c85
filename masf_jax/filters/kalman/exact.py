"""The exact Kalman filter (extended by linearisation for nonlinear models): the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpy.typing import ArrayLike

from ...derivatives import triangular
from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, MemberLayout
from ...ensemble.double import exactly_where, in_double
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import by_singular_values
from ...measurements.measurement import Measurement
from ...numbers import check_covariance, number
from .. import rounding
from ..base import Filter, GaussianState, Info, State, departures

Carry = TypeVar("Carry")

__all__ = [
    "KalmanFilter",
    "factor_of",
    "gaussian_analysis",
    "gaussian_state",
    "linear_step",
    "linearize",
    "over_steps",
    "square_root",
    "with_noise",
]


def linearize(
    measurement: Measurement, mean: Float[Array, "*state"], z: Float[Array, "*z"], mask: Bool[Array, "*z"]
) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """Whitened innovation at `mean` and the Jacobian of the whitened measurement there."""

    def innovation(flat: Array) -> Array:
        return measurement.whitened_innovation(z, flat.reshape(mean.shape), mask)

    flat = mean.reshape(-1)
    return innovation(flat), -jax.jacfwd(innovation)(flat)


def square_root(covariance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """F with P = F Fᵀ, in whatever units; negative eigenvalues, which are round-off, count as 0."""
    return in_double(_by_correlations, covariance, result=covariance.dtype)


def _by_correlations(covariance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """D R with D = diag(P)^{1/2} and R Rᵀ = D⁻¹ P D⁻¹: eigenvectors mix no units. D is any: a constant."""
    variance = jax.lax.stop_gradient(jnp.diagonal(covariance))
    deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    return deviation[:, None] * _root(covariance / deviation[:, None] / deviation[None])


@jax.custom_jvp
def _root(covariance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]


@_root.defjvp
def _root_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """dF = V B, B_ij = (Vᵀ dP V)_ij √λ_j/(λ_i + λ_j): one with dF Fᵀ + F dFᵀ = dP, also of equal λ.

    Another F of the same P is as good: nothing hangs on which one it is.
    """
    values, vectors = jnp.linalg.eigh(primals[0])
    values = jnp.maximum(values, 0.0)
    both = values[:, None] + values[None]
    inner = vectors.T @ tangents[0] @ vectors * jnp.sqrt(values)[None] / jnp.where(both > 0, both, 1.0)
    return vectors * jnp.sqrt(values)[None], vectors @ inner


def gaussian_state(mean: Float[Array, "*state"], factor: Float[Array, "n k"]) -> GaussianState:
    """N(mean, F Fᵀ); its memory is F, which holds twice the digits of F Fᵀ."""
    return GaussianState(mean, factor @ factor.T, factor)


def factor_of(state: GaussianState) -> Float[Array, "n k"]:
    """F of a state made by `gaussian_state`, or of its covariance."""
    return square_root(state.covariance) if state.memory is None else state.memory


def linear_step(
    dynamics: Dynamics, flat: Float[Array, " n"], step: Int[Array, ""]
) -> tuple[Float[Array, " n"], Float[Array, "n n"], Float[Array, " n"] | None]:
    """The raveled state a mean step after step number `step`, its Jacobian, and std of the model error."""
    shape, variance = dynamics.state_shape, dynamics.step_noise_variance
    time = dynamics.time_of(step).astype(flat.dtype)

    def model(x: Array) -> Array:
        return dynamics.mean_step(x.reshape(shape), time).reshape(-1)

    jacobian = jax.jacfwd(model)(flat)
    if variance is None:
        return model(flat), jacobian, None
    return model(flat), jacobian, jnp.sqrt(jnp.broadcast_to(variance, shape).reshape(-1).astype(flat.dtype))


def with_noise(factor: Float[Array, "n n"], std: Float[Array, " n"] | None) -> Float[Array, "n n"]:
    """A square root of F Fᵀ + diag(std²)."""
    if std is None:
        return factor
    return triangular(jnp.concatenate([factor.T, jnp.diag(std)])).T


def over_steps(
    n_steps: int | Int[Array, ""], one: Callable[[Any, Carry], Carry], start: Carry, layout: MemberLayout
) -> Carry:
    """start ← one(i, start), i = 0, …, n_steps - 1; a traced number is at most the layout's `most_steps`."""
    if isinstance(n_steps, int) or layout.most_steps is None:
        return jax.lax.fori_loop(0, n_steps, one, start)

    def one_of_most(carry: Carry, i: Array) -> tuple[Carry, None]:
        return jax.lax.cond(i < n_steps, lambda carry: one(i, carry), lambda carry: carry, carry), None

    # a loop of fixed length has a derivative in reverse mode
    return jax.lax.scan(one_of_most, start, jnp.arange(layout.most_steps, dtype=n_steps.dtype))[0]


class SquareRootFilter(Filter):
    """Filters whose state is Gaussian, and remembers the square root F of its covariance."""

    def completed(self, state: State) -> State:
        assert isinstance(state, GaussianState)
        return GaussianState(state.mean, state.covariance, factor_of(state))


def gaussian_update(
    factor: Float[Array, "n k"], jacobian: Float[Array, "m n"], d: Float[Array, " m"]
) -> tuple[Float[Array, " n"], Float[Array, "n k"]]:
    """K d and the analysis' F of P = F Fᵀ, for whitened measurements (R = I).

    With S = (G F)ᵀ and L Lᵀ = I + SᵀS: K d = F S (L Lᵀ)^{-1} d, F_a = F - F S L^{-T} (L + I)^{-1} Sᵀ.

    Source: Andrews (1968), AIAA J. 6, doi 10.2514/3.4688.
    """
    s = (jacobian @ factor).T
    eye = jnp.eye(len(d), dtype=factor.dtype)
    lower = jnp.linalg.cholesky(eye + s.T @ s)
    moved = factor @ s
    back = solve_triangular(lower + eye, s.T, lower=True)
    back = solve_triangular(lower, back, lower=True, trans=1)
    return moved @ cho_solve((lower, True), d), factor - moved @ back


def exact_update(
    factor: Float[Array, "n k"], jacobian: Float[Array, "m n"], d: Float[Array, " m"]
) -> tuple[Float[Array, " n"], Float[Array, "n k"]]:
    """The same without Gram matrices, by singular values of S; F_a = F (I + S Sᵀ)^{-1/2}."""
    w, shrunk = by_singular_values((jacobian @ factor).T, d, factor.T)
    return factor @ w, shrunk.T


def gaussian_analysis(
    mean: Float[Array, "*state"],
    factor: Float[Array, "n k"],
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    measurement: Measurement,
    iterations: int = 1,
) -> tuple[GaussianState, Info]:
    """The posterior of the prior N(mean, F Fᵀ), by Gauss-Newton steps from `mean`; one is exact for linear H.

    In double precision where the working one does not do.
    """
    innovation, jacobian = linearize(measurement, mean, z, mask)
    measured = jacobian @ factor
    coarse, fine = rounding.of_algebra(innovation, measured.T, z, mask, measurement)
    n_valid = mask.sum().astype(innovation.dtype)
    expected = departures(innovation, (measured**2).sum(1), n_valid)

    def minimised(update: Callable) -> Callable:
        def run(mean: Array, factor: Array, z: Array, measurement: Measurement) -> tuple[Array, Array]:
            forecast = mean.reshape(-1)

            def iterate(_: int | Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
                x = carry[0]
                innovation, jacobian = linearize(measurement, x.reshape(mean.shape), z, mask)
                increment, analysed = update(factor, jacobian, innovation + jacobian @ (x - forecast))
                return forecast + increment, analysed

            return jax.lax.fori_loop(0, iterations, iterate, (forecast, factor))

        return run

    arrays = (mean, factor, z, measurement)
    x, analysed, estimate = exactly_where(
        coarse,
        lambda _: (*in_double(minimised(exact_update), *arrays, result=mean.dtype), fine),
        lambda coarse: (*minimised(gaussian_update)(*arrays), coarse),
    )
    std = [jnp.sqrt((f**2).sum(1)) for f in (factor, analysed)]
    info = expected | {"rounding": rounding.of_gaussian(std[0], x, std[1], estimate)}
    return gaussian_state(x.reshape(mean.shape), analysed), info


class KalmanFilter(SquareRootFilter):
    """Exact for linear-Gaussian problems; otherwise the extended Kalman filter.

    In square-root form, P = F Fᵀ. Forecast, each step: m ← M(m), P ← J P Jᵀ + Q with J the model's Jacobian
    at m and Q the model error's variance of a step: F ← J F, or the QR factor of [J F, Q^{1/2}]. Analysis:
    see `gaussian_analysis`.

    Source: Kalman (1960).

    Args:
        mean, covariance: the initial Gaussian; None: sample mean and covariance of the ensemble.
        inflation: factor on the forecast covariance.
    """

    mean: Float[Array, "*state"] | None
    covariance: Float[Array, "n n"] | None
    inflation: Float[Array, ""]

    def __init__(
        self, mean: ArrayLike | None = None, covariance: ArrayLike | None = None, inflation: ArrayLike = 1.0
    ):
        self.mean = None if mean is None else number("the first mean", mean, "(-inf, inf)")
        if covariance is not None:
            check_covariance("the first covariance", covariance)
        self.covariance = None if covariance is None else jnp.asarray(covariance, dtype=float)
        self.inflation = number("inflation of the forecast covariance", inflation, "[0, inf]")

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> KalmanFilter:
        n = math.prod(dynamics.state_shape)
        if n > 10_000:
            raise ValueError(f"the Kalman filter holds an n × n covariance; n = {n} is too large.")
        return self

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> GaussianState:
        mean, deviations = anomalies(ensemble)
        self._check_first(mean.shape)
        n_members, n = ensemble.shape[0], mean.size
        factor = deviations.reshape(n_members, n).T / jnp.sqrt(jnp.asarray(n_members - 1, mean.dtype))
        if n_members < n:
            factor = jnp.pad(factor, ((0, 0), (0, n - n_members)))
        elif n_members > n:
            factor = triangular(factor.T).T
        if self.mean is not None:
            mean = jnp.broadcast_to(self.mean, mean.shape).astype(mean.dtype)
        if self.covariance is not None:
            factor = square_root(self.covariance).astype(mean.dtype)
        return gaussian_state(mean, factor)

    def _check_first(self, shape: tuple[int, ...]) -> None:
        n = math.prod(shape)
        if self.mean is not None and self.mean.shape not in ((), shape):
            raise ValueError(
                f"the first mean must be one number or of the state's shape {shape}; got {self.mean.shape}."
            )
        if self.covariance is not None and self.covariance.shape != (n, n):
            raise ValueError(
                f"the first covariance must be {n} × {n} for states of shape {shape}; got "
                f"{self.covariance.shape}."
            )

    def init_alone(self, dynamics: Dynamics) -> GaussianState:
        shape = dynamics.state_shape
        if self.mean is None or self.covariance is None:
            raise ValueError(
                "it needs the Gaussian at step 0: give KalmanFilter(mean=…, covariance=…), or the first "
                "ensemble."
            )
        self._check_first(shape)
        mean = jnp.broadcast_to(self.mean, shape)
        return gaussian_state(mean, square_root(self.covariance).astype(mean.dtype))

    def forecast(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        dynamics: Dynamics,
        step: Int[Array, ""],
        n_steps: int | Int[Array, ""],
        layout: MemberLayout = ALL_AT_ONCE,
    ) -> GaussianState:
        shape = state.mean.shape

        def one(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            flat, factor = carry
            following, jacobian, noise = linear_step(dynamics, flat, step + i)
            return following, with_noise(jacobian @ factor, noise)

        flat, factor = over_steps(n_steps, one, (state.mean.reshape(-1), factor_of(state)), layout)
        return gaussian_state(flat.reshape(shape), jnp.sqrt(self.inflation.astype(factor.dtype)) * factor)

    def update(
        self,
        key: PRNGKeyArray,
        state: GaussianState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[GaussianState, Info]:
        return gaussian_analysis(state.mean, factor_of(state), z, mask, measurement)
