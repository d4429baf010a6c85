"""What an amortised denoiser is told of a forecast ensemble, its analysis and the measurement."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...derivatives import root_or_zero
from ...ensemble.normalization import Moments
from ...ensemble.statistics import anomalies, member_mean, member_variance
from ...measurements.measurement import Measurement
from .coarse import block_mean, block_sum

__all__ = ["SPACE", "Layout", "Scaled", "analysis_features", "member_features", "scaled"]

Layout: TypeAlias = Literal["vector", "ring", "field"]

SPACE: dict[Layout, int] = {"vector": 0, "ring": 1, "field": 2}
"""Number of a layout's space axes."""
_SHIFTS = (1, 2)  # distances in cells at which correlations of the forecast are looked at
_TEMPERATURES = (1.0, 0.3)  # powers of the likelihood that weight the members of a small state
_LEAST = 20.0  # a member's likelihood, relative to the best one's, counts as e^-20 at least
_FARTHEST = 1e6  # and next to nothing is as good as nothing, whose logarithm is -inf
_TINY = 1e-6  # of the climatological deviation: no spread is smaller


class Scaled(NamedTuple):
    """An ensemble by its mean, its spread, and its members' deviations in units of that."""

    mean: Float[Array, "*x"]
    spread: Float[Array, "*x"]
    deviations: Float[Array, "N *x"]


def scaled(ensemble: Float[Array, "N *x"], climate: Moments) -> Scaled:
    """Mean, standard deviation and (x_i - mean)/deviation of an ensemble."""
    mean, deviations = anomalies(ensemble)
    spread = jnp.sqrt(member_variance(ensemble) + _TINY**2 * climate.variance)
    return Scaled(mean, spread, deviations / spread[None])


def analysis_features(
    forecast: Float[Array, "N *x"],
    analysis: Float[Array, "N *x"],
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    measurement: Measurement,
    climate: Moments,
    layout: Layout,
    coarsening: int = 1,
    each_channel: bool = False,
) -> Float[Array, "..."]:
    """Features of about unit size: (f,) for "vector", (f, *space) for "ring" and "field".

    With forecast N(m, s²) and analysis N(a, b²) per component, climatology N(c, d²), likelihood
    l(x) = log p(z | x) and its Jacobian J = R^{-1/2} ∂H/∂x, each of the size of a state:

    - (a - m)/s, log s/d, log b/s, (a - c)/d, and c over the mean of d: where on the attractor this is;
    - asinh(s ∇l(m)), asinh(b ∇l(a)), asinh(b Jᵀ1): what the measurement says at both means, and where it is
      sensitive, for any differentiable operator and any noise law (zero where nothing is measured);
    - the forecast's skewness;
    - its correlations between neighbours along each axis and between channels ("ring", "field"), or all of
      them, the analysis's too, and mean and spread of the members weighted by the likelihood ("vector").

    `coarsening` c > 1: all of this of the means over blocks of c cells along each space axis, ∇l and Jᵀ1 by a
    value that a block shares, taken at the means on the cells.

    `each_channel`: of states (C, *space), for a network that sees their channels one by one: (C, f, *space),
    each with what a state of that channel alone would have, d averaged over the channel.
    """
    space, on_cells = SPACE[layout], (member_mean(forecast), member_mean(analysis))
    forecast, analysis = (block_mean(x, coarsening, space) for x in (forecast, analysis))
    climate = Moments(*(block_mean(x, coarsening, space) for x in climate))
    f, a = scaled(forecast, climate), scaled(analysis, climate)
    deviation = jnp.sqrt(climate.variance)

    def log_likelihood(x: Array) -> Array:
        return measurement.log_prob(z, x, mask)

    def whitened(x: Array) -> Array:
        return measurement.noise.whiten(measurement.operator(x), mask)

    value, pull_back = jax.vjp(whitened, on_cells[1])
    gradients = (*map(jax.grad(log_likelihood), on_cells), pull_back(jnp.ones_like(value))[0])
    score_f, score_a, sensitivity = (block_sum(each, coarsening, space) for each in gradients)
    places = tuple(range(-space, 0))
    states = [
        (a.mean - f.mean) / f.spread,
        jnp.log(f.spread / deviation),
        jnp.log(a.spread / f.spread),
        (a.mean - climate.mean) / deviation,
        climate.mean / (deviation.mean(places, keepdims=True) if each_channel else jnp.mean(deviation)),
        jnp.arcsinh(f.spread * score_f),
        jnp.arcsinh(a.spread * score_a),
        jnp.arcsinh(a.spread * sensitivity),
        member_mean(f.deviations**3),
    ]
    if layout == "vector":
        weights, flat = jax.vmap(log_likelihood)(forecast), forecast.reshape(len(forecast), -1)
        f, a = (Scaled(x.mean.ravel(), x.spread.ravel(), x.deviations.reshape(flat.shape)) for x in (f, a))
        return jnp.concatenate([*map(jnp.ravel, states), *_vector_features(flat, weights, f, a)])
    states += [member_mean(f.deviations * jnp.roll(f.deviations, k, axis)) for k, axis in _pairs(space)]
    if each_channel:
        return jnp.stack(states, 1)
    grid = forecast.shape[-space:]
    channels = [state.reshape(-1, *grid) for state in states]
    if forecast.ndim == space + 2:
        count = forecast.shape[1]
        channels += [
            member_mean(f.deviations[:, i] * f.deviations[:, j])[None] for i in range(count) for j in range(i)
        ]
    return jnp.concatenate(channels)


def member_features(
    forecast: Float[Array, "N *x"],
    analysis: Float[Array, "N *x"],
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    measurement: Measurement,
    climate: Moments,
    layout: Layout,
    coarsening: int = 1,
    each_channel: bool = False,
) -> Float[Array, "..."]:
    """What a network is told of each member x_i, in the forecast and in the analysis.

    "ring", "field": (N, 3C, *space): deviations in units of the spread s, of both, and asinh(s ∇l(x_i)) in
    the forecast; of blocks of cells and of each channel by itself, (C, N, 3, *space), as `analysis_features`.

    "vector": (N, 2n + 2): the deviations of both, and for both l(x_i) relative to the likeliest member's, as
    l/(1 - l/20).
    """
    space = SPACE[layout]

    def log_likelihood(x: Array) -> Array:
        return measurement.log_prob(z, x, mask)

    f, a = (
        scaled(
            block_mean(x, coarsening, space), Moments(*(block_mean(c, coarsening, space) for c in climate))
        )
        for x in (forecast, analysis)
    )
    if layout == "vector":
        out = []
        for each, x in ((f, forecast), (a, analysis)):
            log = jax.vmap(log_likelihood)(x)
            behind = jnp.maximum(log - jnp.max(log), -_FARTHEST)
            out += [each.deviations.reshape(len(x), -1), (behind / (1 - behind / _LEAST))[:, None]]
        return jnp.concatenate(out, 1)
    score = block_sum(jax.vmap(jax.grad(log_likelihood))(forecast), coarsening, space)
    states = [f.deviations, a.deviations, jnp.arcsinh(f.spread[None] * score)]
    if each_channel:
        return jnp.moveaxis(jnp.stack(states, 2), 0, 1)
    grid = f.mean.shape[-space:]
    return jnp.concatenate([x.reshape(len(x), -1, *grid) for x in states], 1)


def _pairs(space: int) -> list[tuple[int, int]]:
    return [(shift, -1 - axis) for axis in range(space) for shift in _SHIFTS]


def _vector_features(
    forecast: Float[Array, "N n"], log_likelihood: Float[Array, " N"], f: Scaled, a: Scaled
) -> list[Float[Array, "..."]]:
    """What grows with the square of the state's size, or needs few members' likelihoods to differ."""
    n_members, n = forecast.shape
    below = jnp.tril_indices(n, -1)
    out = [(each.deviations.T @ each.deviations / (n_members - 1))[below] for each in (f, a)]
    for power in _TEMPERATURES:
        weights = jax.nn.softmax(power * log_likelihood)
        mean = weights @ forecast
        spread = root_or_zero(weights @ (forecast - mean[None]) ** 2)  # 0 where one member has all weight
        out += [jnp.arcsinh((mean - a.mean) / a.spread), jnp.log(spread / a.spread + 0.05)]
    return out
