"""Scores of an ensemble or Gaussian estimate against the truth, at one time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..arrays import of_arrays
from ..derivatives import root_or_zero
from ..dynamics.layout import current
from ..ensemble.statistics import member_mean

__all__ = [
    "crps_ensemble",
    "crps_gaussian",
    "energy_score",
    "masked_mean",
    "rmse",
    "root_mean_variance",
    "sliced_wasserstein",
    "spread_skill_ratio",
    "wasserstein_1d",
]

_NETWORK, _PAIRWISE = 32, 64
"""Up to these ensemble sizes a sorting network (longer ones compile for seconds), and each pair once, are
faster than XLA's sort: 7 and 2 times as fast as all pairs of 20 members (benchmarks/speed/scores.py)."""
_BLOCK = 2048
"""Components whose pairs are summed at once: blocks that fit the cache are far faster at n = 10⁶."""
_MATRIX = 256
"""Up to this ensemble size the energy score keeps a matrix of all pairs."""


def masked_mean(values: Float[Array, "*x"], where: Bool[Array, "*x"] | None = None) -> Float[Array, ""]:
    """Mean over the components that are True in `where` (all if None; NaN if none)."""
    if where is None:
        return values.mean()
    count = where.sum().astype(values.dtype)
    return jnp.where(where, values, 0.0).sum() / count


@of_arrays("estimate", "truth")
def rmse(
    estimate: Float[Array, "*x"], truth: Float[Array, "*x"], where: Bool[Array, "*x"] | None = None
) -> Float[Array, ""]:
    """√ mean (estimate - truth)², in the state's units."""
    return jnp.sqrt(masked_mean((estimate - truth) ** 2, where))


@of_arrays("variance")
def root_mean_variance(
    variance: Float[Array, "*x"], where: Bool[Array, "*x"] | None = None
) -> Float[Array, ""]:
    """Spread: √ mean variance over components (the variance unbiased, 1/(N-1))."""
    return jnp.sqrt(masked_mean(variance, where))


@of_arrays("spread", "error")
def spread_skill_ratio(
    spread: Float[Array, "*c"], error: Float[Array, "*c"], n_members: int | None = None
) -> Float[Array, "*c"]:
    """√((N+1)/N) spread / RMSE: 1 for a reliable ensemble of N members (Fortin et al. 2014)."""
    factor = 1.0 if n_members is None else math.sqrt((n_members + 1) / n_members)
    return factor * spread / error


@of_arrays("ensemble", "truth")
def crps_ensemble(
    ensemble: Float[Array, "N *x"],
    truth: Float[Array, "*x"],
    log_weights: Float[Array, " N"] | None = None,
    fair: bool = True,
) -> Float[Array, "*x"]:
    """Continuous ranked probability score of each component; 0 is perfect, state units.

    Equal weights: mean_i |x_i - y| - 1/(2N(N-1)) Σ_ij |x_i - x_j|, unbiased in N (Ferro 2014).
    Weighted: Σ w_i |x_i - y| - 1/2 Σ_ij w_i w_j |x_i - x_j| / (1 - Σ w²).

    `fair`: of what independent members are drawn from. False: of the members' own empirical distribution,
    1/(2N²) and no 1 - Σ w², which is proper also where members are placed with regard to each other. The
    fair one is not: of Gaussian members whose mean and variance are exact, as a square-root filter's, it is
    too small by a share of about 5/(8N).
    """
    n = ensemble.shape[0]
    error = jnp.abs(ensemble - truth[None])
    if log_weights is None:
        distances = current().by_components(_pair_distances, ensemble)
        return member_mean(error) - distances / (2.0 * n * (n - fair))
    weights = jnp.exp(log_weights)
    order = jnp.argsort(ensemble, axis=0)
    x = jnp.take_along_axis(ensemble, order, axis=0)
    w = weights[order]
    below = jnp.cumsum(w, axis=0)[:-1]
    total = 2.0 * (below * (1.0 - below) * jnp.diff(x, axis=0)).sum(0)  # Σ_ij w_i w_j |x_i - x_j|, by gaps
    free = 1.0 - (weights**2).sum() if fair else jnp.ones((), weights.dtype)
    gap = jnp.where(free > 0, 0.5 * total / jnp.where(free > 0, free, 1.0), 0.0)
    return jnp.tensordot(weights, error, axes=1) - gap


def _pair_distances(ensemble: Float[Array, "N *x"]) -> Float[Array, "*x"]:
    """Σ_ij |x_i - x_j| of each component: through sorted members, or each pair once."""
    n = ensemble.shape[0]
    if n > _PAIRWISE:
        return _sum_over_gaps(jnp.sort(ensemble, axis=0))
    sums = _by_network if n <= _NETWORK else _each_pair_once
    flat = ensemble.reshape(n, -1)
    size = flat.shape[1]
    if size <= _BLOCK:
        return sums(flat).reshape(ensemble.shape[1:])
    blocks = jnp.pad(flat, ((0, 0), (0, -size % _BLOCK))).reshape(n, -1, _BLOCK)
    return jax.lax.map(sums, jnp.moveaxis(blocks, 1, 0)).reshape(-1)[:size].reshape(ensemble.shape[1:])


def _sum_over_gaps(members: Sequence[Array] | Float[Array, "N *x"]) -> Float[Array, "*x"]:
    """Σ_ij |x_i - x_j| = 2 Σ_k k (N - k) (x_{k+1} - x_k) of members in order: k (N - k) pairs span a gap."""
    n = len(members)
    if isinstance(members, jax.Array):
        k = jnp.arange(1, n, dtype=members.dtype)
        return jnp.tensordot(2.0 * k * (n - k), jnp.diff(members, axis=0), axes=1)
    total = jnp.zeros_like(members[0])
    for k in range(1, n):
        total = total + 2.0 * k * (n - k) * (members[k] - members[k - 1])
    return total


def _by_network(x: Float[Array, "N block"]) -> Float[Array, " block"]:
    """By Batcher's merge exchange (1968): N log² N / 4 minima and maxima of whole rows, in one loop."""
    rows = list(x)
    for a, b in _exchanges(len(rows)):
        rows[a], rows[b] = jnp.minimum(rows[a], rows[b]), jnp.maximum(rows[a], rows[b])
    return _sum_over_gaps(rows)


@functools.cache
def _exchanges(n: int) -> tuple[tuple[int, int], ...]:
    """Places (a, b) to put in order, one after the other, to sort n values (Knuth, algorithm 5.2.2M)."""
    out, p = [], 1
    while p < n:
        k = p
        while k >= 1:
            lower = (i + j for j in range(k % p, n - k, 2 * k) for i in range(min(k, n - j - k)))
            out += [(a, a + k) for a in lower if a // (2 * p) == (a + k) // (2 * p)]
            k //= 2
        p *= 2
    return tuple(out)


def _each_pair_once(x: Float[Array, "N block"]) -> Float[Array, " block"]:
    """Members against those k places on, k up to N / 2 round the circle."""
    n = len(x)
    round = jnp.concatenate([x, x[: n // 2]])
    twice = jnp.zeros_like(x)
    for k in range(1, (n + 1) // 2):
        twice = twice + jnp.abs(x - round[k : k + n])
    total = 2.0 * twice.sum(0)
    return total if n % 2 else total + jnp.abs(x - round[n // 2 : n // 2 + n]).sum(0)


@of_arrays("mean", "variance", "truth")
def crps_gaussian(
    mean: Float[Array, "*x"], variance: Float[Array, "*x"], truth: Float[Array, "*x"]
) -> Float[Array, "*x"]:
    """CRPS of N(mean, variance): σ [u (2Φ(u) - 1) + 2φ(u) - 1/√π], u = (truth - mean)/σ."""
    sigma = jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))
    u = (truth - mean) / sigma
    return sigma * (u * (2.0 * norm.cdf(u) - 1.0) + 2.0 * norm.pdf(u) - 1.0 / math.sqrt(math.pi))


@of_arrays("ensemble", "truth")
def energy_score(
    ensemble: Float[Array, "N *x"], truth: Float[Array, "*x"], fair: bool = True
) -> Float[Array, ""]:
    """Energy score mean_i |x_i - y| - 1/(2N(N-1)) Σ_ij |x_i - x_j|, Euclidean norms.

    `fair`: as of `crps_ensemble`; False: 1/(2N²).

    Each pair once, members against those k places on: memory O(N n). Of large states all pairs of a block of
    components at a time, one pass over the ensemble.
    """
    n = ensemble.shape[0]
    x = ensemble.reshape(n, -1)
    error = jnp.sqrt(((x - truth.reshape(1, -1)) ** 2).sum(1)).mean()
    large = x.shape[1] > _BLOCK and n <= _MATRIX and current().devices is None
    total = _distances_in_blocks(x) if large else _distances_round(x)
    return error - total / (2.0 * n * (n - fair))


def _distances_round(x: Float[Array, "N n"]) -> Float[Array, ""]:
    """Σ_ij |x_i - x_j| of members against those k places on, k up to N / 2 round the circle."""
    n = len(x)
    round = jnp.concatenate([x, x[: n // 2]])

    def at(k: Array | int) -> Array:
        return root_or_zero(((x - jax.lax.dynamic_slice_in_dim(round, k, n)) ** 2).sum(1)).sum()

    zero = jnp.zeros((), x.dtype)
    total = 2.0 * jax.lax.fori_loop(1, (n + 1) // 2, lambda k, total: total + at(k), zero)
    return total if n % 2 else total + at(n // 2)


def _distances_in_blocks(x: Float[Array, "N n"]) -> Float[Array, ""]:
    """The same, squares summed over blocks of components that stay in the cache."""
    n, size = x.shape
    padded = jnp.pad(x, ((0, 0), (0, -size % _BLOCK)))

    def add(block: Array, squares: Array) -> Array:
        across = jax.lax.dynamic_slice_in_dim(padded, block * _BLOCK, _BLOCK, 1).T  # sums of whole rows
        return squares + ((across[:, :, None] - across[:, None, :]) ** 2).sum(0)

    squares = jax.lax.fori_loop(0, padded.shape[1] // _BLOCK, add, jnp.zeros((n, n), x.dtype))
    return root_or_zero(squares).sum()


@of_arrays("x", "y", alike=False)
def wasserstein_1d(x: Float[Array, " N"], y: Float[Array, " M"], order: int = 2) -> Float[Array, ""]:
    """W_p between two one-dimensional samples of any sizes: (∫ |F⁻¹(u) - G⁻¹(u)|^p du)^{1/p}, exact."""
    n, m = x.shape[0], y.shape[0]
    levels = jnp.sort(
        jnp.concatenate([jnp.arange(1, n + 1, dtype=x.dtype) / n, jnp.arange(1, m + 1, dtype=x.dtype) / m])
    )
    width = jnp.diff(levels, prepend=jnp.zeros((1,), x.dtype))
    middle = levels - 0.5 * width
    x_at = jnp.sort(x)[jnp.clip((middle * n).astype(jnp.int32), 0, n - 1)]
    y_at = jnp.sort(y)[jnp.clip((middle * m).astype(jnp.int32), 0, m - 1)]
    return (width * jnp.abs(x_at - y_at) ** order).sum() ** (1.0 / order)


@of_arrays("x", "y", alike=False)
def sliced_wasserstein(
    key: PRNGKeyArray, x: Float[Array, "N *x"], y: Float[Array, "M *x"], n_slices: int = 128, order: int = 2
) -> Float[Array, ""]:
    """(mean over random unit directions θ of W_p(θᵀx, θᵀy)^p)^{1/p} (Bonneel et al. 2015).

    In one dimension this is W_p itself.
    """
    x, y = x.reshape(x.shape[0], -1), y.reshape(y.shape[0], -1)
    directions = jax.random.normal(key, (n_slices, x.shape[1]), x.dtype)
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)

    def one(direction: Array) -> Array:
        return wasserstein_1d(x @ direction, y @ direction, order) ** order

    return jax.lax.map(one, directions).mean() ** (1.0 / order)
