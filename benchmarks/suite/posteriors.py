"""Problems whose posterior is known, and distances of samples from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.denoisers import Denoiser, DenseCovariance, GaussianDenoiser
from masf_jax.diffusion import Process, bridge, cosine_schedule, time_grid, vp_bridge
from masf_jax.measurements import CorrelatedGaussian, Linear, Measurement

SIZES = {"wide": (3, 5, 3), "tall": (7, 5, 5), "rank-deficient": (4, 5, 2)}
"""Values, components and rank of H."""


def random_problem(n_values: int, n: int, rank: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """H, R, the forecast's mean and covariance, z, and a frame that is centred and scaled elsewhere."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(n_values, rank)) @ rng.normal(size=(rank, n))
    r = rng.normal(size=(n_values, n_values))
    r = r @ r.T / n_values + 0.1 * np.eye(n_values)
    p = rng.normal(size=(n, n))
    p = p @ p.T / n + 0.2 * np.eye(n)
    mean = rng.normal(size=n)
    z = h @ mean + 2 * rng.normal(size=n_values)
    return h, r, mean, p, z, rng.normal(size=n), rng.uniform(0.5, 2, size=n)


def process_of(
    h: np.ndarray,
    r: np.ndarray,
    z: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
    build: Callable[..., Any] = vp_bridge,
) -> Any:
    """The process of a dense measurement with correlated noise, all values valid."""
    measurement = Measurement(Linear(h), CorrelatedGaussian(r))
    arrays = [jnp.asarray(value, dtype=float) for value in (z, centre, scale)]
    return jax.jit(build)(measurement, arrays[0], jnp.ones(len(z), bool), *arrays[1:])


def gaussian_in(process: Process, mean: np.ndarray, covariance: np.ndarray) -> GaussianDenoiser:
    """The forecast N(mean, covariance) as a denoiser in the process's coordinates."""
    n = len(mean)
    origin = process.frame.encode(jnp.zeros(n))
    columns = jax.vmap(process.frame.encode)(jnp.eye(n)) - origin[None]
    turn = np.asarray(columns, np.float64).T
    moved = jnp.asarray(turn @ covariance @ turn.T, dtype=float)
    return GaussianDenoiser(process.frame.encode(jnp.asarray(mean, dtype=float)), DenseCovariance(moved))


def bridge_draws(
    key: Any, process: Process, denoiser: Denoiser, n_steps: int, count: int, corrected: bool = True
) -> np.ndarray:
    """`count` states drawn by the bridge, (count, *x)."""
    times = time_grid(n_steps)

    @jax.jit
    def run(keys: Any, process: Process, denoiser: Denoiser) -> Any:
        def one(key: Any) -> Any:
            return process.frame.decode(bridge(key, process, denoiser, times, corrected))

        return jax.vmap(one)(keys)

    return np.asarray(run(jax.random.split(key, count), process, denoiser), np.float64)


def distance(sample: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[float, float, float]:
    """Hotelling's T² of the sample mean, the covariance's relative error, and what sampling makes of it.

    For count draws of N(m, C), E |Ĉ - C|² = ((tr C)² + |C|²)/(count - 1) in the Frobenius norm.
    """
    count = len(sample)
    away = sample.mean(0) - mean
    norm = np.linalg.norm(covariance)
    noise = math.sqrt((np.trace(covariance) ** 2 + norm**2) / (count - 1)) / norm
    error = np.linalg.norm(np.cov(sample.T) - covariance) / norm
    return float(count * away @ np.linalg.solve(covariance, away)), float(error), float(noise)


def bimodal(n: int, n_members: int = 60, seed: int = 0) -> np.ndarray:
    """Members in two groups, unequal in number and width, in n = 1 or 2 dimensions."""
    rng = np.random.default_rng(seed)
    side = np.where(rng.uniform(size=n_members) < 0.35, -1.0, 1.0)
    width = np.where(side < 0, 0.25, 0.5)
    place = np.linspace(1.5, 1.0, n)
    return side[:, None] * place[None] + width[:, None] * rng.normal(size=(n_members, n))


def bimodal_problem(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Members of such a forecast, and H, R, z of one value between the groups."""
    h = np.asarray([[1.0, 0.4]])[:, :n]
    return bimodal(n), h, np.asarray([[1.44 if n == 1 else 1.0]]), np.asarray([-0.2])


def importance_sample(
    rng: np.random.Generator,
    process: Process,
    kernels: np.ndarray,
    bandwidth: np.ndarray,
    h: np.ndarray,
    r: np.ndarray,
    z: np.ndarray,
    count: int,
    proposals: int = 10**6,
) -> np.ndarray:
    """`count` states of the kernel density weighted by the likelihood, resampled from `proposals` draws.

    Kernels and bandwidth are in the process's coordinates.
    """
    decode = jax.jit(jax.vmap(process.frame.decode))
    v = kernels[rng.integers(len(kernels), size=proposals)]
    v = v + bandwidth[None] * rng.normal(size=v.shape)
    x = np.asarray(decode(jnp.asarray(v, dtype=float)), np.float64)
    residual = z[None] - x @ h.T
    log_w = -0.5 * (residual @ np.linalg.inv(r) * residual).sum(1)
    w = np.cumsum(np.exp(log_w - log_w.max()))
    chosen = np.searchsorted(w / w[-1], (rng.uniform() + np.arange(count)) / count)
    return x[np.minimum(chosen, proposals - 1)]


def wasserstein(first: np.ndarray, second: np.ndarray, n_directions: int = 20) -> float:
    """W2 of two samples (count, n) of one size, n = 1; for n = 2 sliced: root mean square over directions."""
    n = first.shape[1]
    angles = np.pi * np.arange(n_directions) / n_directions
    directions = np.ones((1, 1)) if n == 1 else np.stack([np.cos(angles), np.sin(angles)], 1)
    gaps = np.sort(first @ directions.T, axis=0) - np.sort(second @ directions.T, axis=0)
    return float(np.sqrt((gaps**2).mean()))


def guided_moments(
    z: float,
    std: float,
    times: np.ndarray,
    score_scale: Callable[[float], float],
    guidance_scale: Callable[[float], float],
) -> tuple[float, float]:
    """Mean and variance of the guided sampler for the forecast N(0, 1) and H = 1, by the paper's formulas.

    Every step is v ← α v + β + γ ξ; the first v is x0 + √(1 - a²) σ η.
    """

    a = np.asarray(jax.vmap(cosine_schedule)(jnp.asarray(times, dtype=float)), np.float64)
    variances = (1 - a**2) * std**2
    mean, variance = 0.0, 1 + variances[0]
    for s, now, after in zip(times[:-1], variances[:-1], variances[1:], strict=True):
        step = after - now  # S of the reverse step, negative; M = 1
        c_s, c_g = score_scale(s), guidance_scale(s)
        # prior score -x/(1 + Σ_s), likelihood score (z - x)/(Σ_1 - Σ_s)
        slope, constant = -c_s / (1 + now) - c_g / (std**2 - now), c_g * z / (std**2 - now)
        alpha = 1 - step * slope
        mean = alpha * mean - step * constant
        variance = alpha**2 * variance + abs(step)
    return mean, variance
