"""The closed-form conditional diffusion filter: kernels around pairs of states and simulated measurements."""

from __future__ import annotations

from typing import Any, Literal, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ...denoisers.kernel import KernelDenoiser
from ...derivatives import without_derivative
from ...ensemble.density import silverman_factor
from ...ensemble.inflation import Inflation
from ...ensemble.keys import member_keys
from ...ensemble.normalization import Normalization
from ...ensemble.resampling import PICKED
from ...ensemble.statistics import anomalies, effective_sample_size, member_variance
from ...numbers import within
from ..base import Info
from .sampled import Likelihood, SampledFilter

__all__ = ["ConditionalDiffusion", "cross_validated_bandwidths", "mixture_draws", "mixture_flow"]

Rule = Literal["given", "silverman", "cross_validated"]

_GRID = tuple(0.05 * 2**k for k in range(7))
"""Bandwidths that cross-validation tries, in standard deviations."""
_MAX_STEPS = 4096  # of the solver


class ConditionalDiffusion(SampledFilter):
    """Draws from Σ_i w_i(z) N(x_i, h² I), w_i ∝ exp(-|z - y_i|²/2h_y²), by a probability flow.

    y_i is a measurement of member i, simulated with noise: the filter needs neither the likelihood nor H's
    derivative. The flow is that of x_i + σ̄ η, σ̄ from h_max down to h:

        dx/dt = -σ̄ σ̄' s,   s = Σ_i ω_i (x_i - x)/σ̄²,   ω_i ∝ w_i exp(-|x - x_i|²/2σ̄²),

    started from its exact law at h_max, solved with an adaptive Runge-Kutta method (Diffrax). So the
    mixture is the law of the draws whatever h_max; `flow=False` draws from it without a solver, and is a
    regularised particle filter whose likelihood are kernels around simulated measurements. The law
    approaches p(x | z) as h and h_y vanish and the ensemble grows, faster than its bandwidths shrink: for few
    variables. A Gaussian forecast of variance P seen with noise R gets mean P/(P + R + h_y²) z and variance
    P - P²/(P + R + h_y²) + h², not those without h.

    Source: Binder, Dasgupta & Oberai (2026), arXiv 2603.21291.

    Args:
        inflation: see `Inflation`.
        normalization: coordinates in which h is one number (see `Normalization`); None: the state's own.
        rule: how h and h_y are chosen in each cycle: "given"; "silverman": both Silverman's factor for as
            many components as state and measurement have together; "cross_validated": see
            `cross_validated_bandwidths`, on a grid of .05 to 3.2.
        h: of the state, in the coordinates' unit; h_y: of each measured value, in standard deviations of
            the simulated ones over the members. Of the rule "given".
        h_max: where the flow begins; at least h.
        tolerance: of the solver, relative and absolute (to h_max).
        flow: False: x_i + h η, i drawn by w_i: the same law in O(N n) operations, not O(N² n) a step.
    """

    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=Normalization)
    rule: Rule = eqx.field(static=True, default="cross_validated")
    h: Float[Array, ""] = eqx.field(converter=within("h", "(0, inf]"), default=0.2)
    h_y: Float[Array, ""] = eqx.field(converter=within("h_y", "(0, inf]"), default=0.2)
    h_max: Float[Array, ""] = eqx.field(converter=within("h_max", "(0, inf]"), default=5.0)
    tolerance: Float[Array, ""] = eqx.field(converter=within("tolerance", "(0, inf]"), default=1e-3)
    flow: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}; got {self.rule!r}.")

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        key_noise, key_flow = jax.random.split(key)
        away = self._simulated(key_noise, members, likelihood)
        h, h_y = self._bandwidths(members, away)
        log_weights = jax.nn.log_softmax(-0.5 * (away**2).sum(1) / h_y**2)
        if self.flow:
            h_max = jnp.maximum(self.h_max.astype(h.dtype), h)
            drawn, steps = mixture_flow(
                key_flow, members, log_weights, h, h_max, members.shape[0], self.tolerance.astype(h.dtype)
            )
        else:
            drawn, steps = mixture_draws(key_flow, members, log_weights, h, len(members)), jnp.zeros_like(h)
        info = {
            "effective_sample_size": effective_sample_size(log_weights),
            "bandwidth": h,
            "bandwidth_measured": h_y,
            "solver_steps": steps,
        }
        return drawn, memory, info

    def _simulated(self, key: PRNGKeyArray, members: Array, likelihood: Likelihood) -> Float[Array, "N m"]:
        """z - y_i in standard deviations of y over the members; zero where nothing is measured."""
        measurement, shape = likelihood.measurement, members.shape[1:]
        keys = member_keys(key, len(members))

        def one(key: PRNGKeyArray, x: Array) -> Array:
            return measurement.difference(likelihood.z, measurement.sample(key, x), shape)

        away = jax.vmap(one)(keys, likelihood.decode(members))
        variance = member_variance(away)
        away = away / jnp.sqrt(jnp.where(variance > 0, variance, 1.0))[None]
        return jnp.where(likelihood.mask[None], away, 0.0).reshape(len(members), -1)

    def _bandwidths(self, members: Array, away: Array) -> tuple[Scalar, Scalar]:
        dtype, n = members.dtype, members.shape[0]
        if self.rule == "given":
            return self.h.astype(dtype), self.h_y.astype(dtype)
        if self.rule == "silverman":
            factor = jnp.asarray(silverman_factor(n, members[0].size + away.shape[1]), dtype)
            return factor, factor
        return cross_validated_bandwidths(members.reshape(n, -1), away, jnp.asarray(_GRID, dtype))


def cross_validated_bandwidths(
    x: Float[Array, "N n"], y: Float[Array, "N m"], grid: Float[Array, " k"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """h and h_y of `grid` with the largest Σ_i log Σ_{j≠i} w_j(y_i) N(x_i; x_j, h² I): leaving one out.

    N × N memory.
    """
    n_members, n = x.shape
    itself = jnp.eye(n_members, dtype=bool)

    def squares(values: Array) -> Array:
        flat = anomalies(values)[1]
        norms = (flat**2).sum(1)
        return jnp.maximum(norms[:, None] + norms[None, :] - 2 * flat @ flat.T, 0.0)

    distances_x, distances_y = squares(x), squares(y)

    def score(pair: tuple[Array, Array]) -> Array:
        h, h_y = pair
        log_weights = jax.nn.log_softmax(jnp.where(itself, -jnp.inf, -0.5 * distances_y / h_y**2), axis=1)
        logits = jnp.where(itself, -jnp.inf, log_weights - 0.5 * distances_x / h**2)
        return jax.nn.logsumexp(logits, axis=1).sum() - n_members * n * jnp.log(h)

    h, h_y = (values.reshape(-1) for values in jnp.meshgrid(grid, grid, indexing="ij"))
    best = jnp.argmax(jax.lax.map(score, (h, h_y)))
    return h[best], h_y[best]


def mixture_draws(
    key: PRNGKeyArray,
    members: Float[Array, "N *x"],
    log_weights: Float[Array, " N"],
    h: Scalar,
    count: int,
) -> Float[Array, "{count} *x"]:
    """`count` draws of Σ_i w_i N(x_i, h² I)."""
    key_pick, key_noise = jax.random.split(key)
    log_weights = without_derivative(PICKED, log_weights)
    picked = members[jax.random.categorical(key_pick, log_weights, shape=(count,))]
    return picked + h * jax.random.normal(key_noise, picked.shape, members.dtype)


def mixture_flow(
    key: PRNGKeyArray,
    members: Float[Array, "N *x"],
    log_weights: Float[Array, " N"],
    h: Scalar,
    h_max: Scalar,
    count: int,
    tolerance: float | Float[Array, ""] = 1e-3,
) -> tuple[Float[Array, "{count} *x"], Float[Array, ""]]:
    """`count` draws of Σ_i w_i N(x_i, h² I), and the number of steps the solver took.

    In τ = log(h_max/σ̄) the flow is dx/dτ = E[x_i | x, σ̄] - x. All draws share the steps, which the
    worst of them decides. A solve that does not reach the end leaves values that are not finite.
    """
    shape = members.shape[1:]
    start = mixture_draws(key, members, log_weights, h_max, count)
    denoiser = KernelDenoiser(members, jnp.zeros(shape, members.dtype), log_weights)

    def velocity(tau: Any, x: Array, args: None) -> Array:
        sigma = h_max * jnp.exp(-jnp.asarray(tau, x.dtype))
        angle = jnp.full(shape, jnp.arctan(sigma))
        return jax.vmap(denoiser, (0, None))(x / jnp.hypot(jnp.ones_like(sigma), sigma), angle) - x

    def worst(error: Array) -> Array:
        return jnp.sqrt(jnp.max(jnp.mean(error.reshape(count, -1) ** 2, axis=1)))

    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance * h_max, norm=worst)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        jnp.zeros_like(h),
        jnp.log(h_max / h),
        None,
        start,
        stepsize_controller=controller,
        adjoint=diffrax.ForwardMode(),
        max_steps=_MAX_STEPS,
        throw=False,
    )
    assert solution.ys is not None
    return solution.ys[-1], jnp.asarray(solution.stats["num_steps"]).astype(h.dtype)
