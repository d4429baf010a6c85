"""The bridge's draws against exact posteriors; plain steps and the paper's guided sampler beside it.

Linear-Gaussian: T² of the sample mean (χ² with 5 degrees of freedom if exact: 95% below 11.1) and the
covariance's error relative to its norm, beside what 10⁵ exact draws would show (root mean square).
Kernel forecasts: Wasserstein-2 distance to an importance sample of 10⁶ proposals, beside that between two
such samples. In two dimensions sliced, and by optimal assignment of 2000 points.

    python benchmarks/accuracy/bridge_posteriors.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from suite.common import arguments, finish, header, table
from suite.posteriors import (
    SIZES,
    bimodal_problem,
    bridge_draws,
    distance,
    gaussian_in,
    guided_moments,
    importance_sample,
    process_of,
    random_problem,
    wasserstein,
)

from masf_jax.denoisers import DenseCovariance, GaussianDenoiser, ensemble_kernel
from masf_jax.diffusion import guided, measurement_aware, time_grid
from masf_jax.diffusion.samplers import paper_guidance_scale, paper_score_scale
from masf_jax.measurements import Gaussian, Identity, Measurement

COUNT = 100_000
KEY = jax.random.key(2604)


def linear_gaussian() -> Iterator[list[Any]]:
    for name, size in SIZES.items():
        h, r, mean, p, z, centre, scale = random_problem(*size)
        gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
        exact = mean + gain @ (z - h @ mean), p - gain @ h @ p
        process = process_of(h, r, z, centre, scale)
        denoiser = gaussian_in(process, mean, p)
        for corrected, steps in ((True, (1, 2, 5)), (False, (1, 5, 20, 64, 256))):
            for n_steps in steps:
                sample = bridge_draws(KEY, process, denoiser, n_steps, COUNT, corrected)
                squared, error, noise = distance(sample, *exact)
                mean_column = f"{squared:.1f}" if corrected or n_steps > 1 else "-"
                label = f"{name} {size[0]}×{size[1]}, rank {size[2]}"
                kind = "corrected" if corrected else "plain"
                yield [label, kind, n_steps, mean_column, f"{100 * error:.2f}%", f"{100 * noise:.2f}%"]


def guided_sampler() -> Iterator[list[Any]]:
    denoiser = GaussianDenoiser(jnp.zeros(1), DenseCovariance(jnp.eye(1)))

    def one(s: Any) -> Any:
        return jnp.ones_like(s)

    scales = {"1 and 1": (one, one), "the paper's": (paper_score_scale, paper_guidance_scale)}
    for std, z in ((1.0, 2.0), (0.1, 2.0)):
        measurement = Measurement(Identity(), Gaussian(std))
        process = measurement_aware(
            measurement, jnp.asarray([z]), jnp.ones(1, bool), jnp.zeros(1), jnp.ones(1)
        )
        exact = z / (1 + std**2), std / np.sqrt(1 + std**2)
        for name, pair in scales.items():
            for n_steps in (150, 1000):
                times = time_grid(n_steps, "quadratic", 0.992)

                @jax.jit
                def run(keys: Any, process: Any = process, times: Any = times, pair: Any = pair) -> Any:
                    def draw(key: Any) -> Any:
                        key_member, key = jax.random.split(key)
                        member = jax.random.normal(key_member, (1,))
                        return guided(key, process, denoiser, times, member, *pair)[0]

                    return jax.vmap(draw)(keys)

                x = np.asarray(run(jax.random.split(KEY, COUNT)), np.float64)
                fs = [lambda s, f=f: float(f(jnp.asarray(s))) for f in pair]
                mean, variance = guided_moments(z, std, np.asarray(times, np.float64), *fs)
                yield [
                    f"guided, scales {name}",
                    f"σ = {std:g}, z = {z:g}",
                    n_steps,
                    f"{x.mean():.4f} ± {x.std():.4f}",
                    f"{mean:.4f} ± {variance**0.5:.4f}",
                    f"{exact[0]:.4f} ± {exact[1]:.4f}",
                ]
        vp = process_of(np.eye(1), np.asarray([[std**2]]), np.asarray([z]), np.zeros(1), np.ones(1))
        for name, own in (("measurement-aware", process), ("VP", vp)):
            x = bridge_draws(KEY, own, denoiser, 1, COUNT)
            yield [
                f"bridge, {name}",
                f"σ = {std:g}, z = {z:g}",
                1,
                f"{x.mean():.4f} ± {x.std():.4f}",
                "",
                f"{exact[0]:.4f} ± {exact[1]:.4f}",
            ]


def assigned(first: np.ndarray, second: np.ndarray, count: int = 2000) -> float:
    """W2 by optimal assignment of the first `count` points of two shuffled samples."""
    rng = np.random.default_rng(0)
    a, b = (x[rng.permutation(len(x))[:count]] for x in (first, second))
    costs = cdist(a, b, "sqeuclidean")
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))


def kernel_forecasts() -> Iterator[list[Any]]:
    for n in (1, 2):
        ensemble, h, r, z = bimodal_problem(n)
        process = process_of(h, r, z, ensemble.mean(0), ensemble.std(0))
        denoiser = ensemble_kernel(jax.vmap(process.frame.encode)(jnp.asarray(ensemble, dtype=float)), 0.3)
        kernels, bandwidth = (np.asarray(a, np.float64) for a in (denoiser.members, denoiser.bandwidth))
        first, second, third = (
            importance_sample(np.random.default_rng(seed), process, kernels, bandwidth, h, r, z, COUNT)
            for seed in (1, 2, 3)
        )
        samples = {"importance sample, another": second, "importance sample, a third": third}
        for n_steps in (1, 2, 5):
            samples[f"bridge, corrected, {n_steps}"] = bridge_draws(KEY, process, denoiser, n_steps, COUNT)
        for n_steps in (5, 20, 64):
            samples[f"bridge, plain, {n_steps}"] = bridge_draws(
                KEY, process, denoiser, n_steps, COUNT, corrected=False
            )
        for name, sample in samples.items():
            share = f"{100 * (sample[:, 0] < 0).mean():.1f}%"
            points = f"{assigned(sample, first):.4f}" if n == 2 else ""
            yield [f"{n}-d", name, f"{wasserstein(sample, first):.4f}", points, share]


def main() -> None:
    args = arguments(__doc__).parse_args()
    parts = {
        "Linear-Gaussian posteriors (10⁵ draws)": (
            linear_gaussian,
            ["H", "steps", "number", "T² of mean", "covariance error", "10⁵ exact draws"],
        ),
        "Forecast N(0, 1), z of noise σ (10⁵ draws)": (
            guided_sampler,
            ["sampler", "problem", "steps", "mean ± spread", "by recursion", "exact"],
        ),
        "Kernel forecasts in two groups (10⁵ draws)": (
            kernel_forecasts,
            ["forecast", "sample, steps", "W2 (2-d: sliced)", "W2, 2000 points", "left group"],
        ),
    }
    numbers, blocks = {}, [header("Draws of the bridge against exact posteriors (float32)")]
    for title, (rows, head) in parts.items():
        numbers[title] = list(rows())
        blocks.append(f"{title}\n{table(numbers[title], head)}\n")
    finish(args, "bridge_posteriors", "\n".join(blocks).rstrip(), numbers)


if __name__ == "__main__":
    main()
