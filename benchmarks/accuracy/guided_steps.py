"""How many steps the guided sampler needs: its exact moments for a Gaussian forecast of one component.

Forecast N(0, 1), H = 1, noise σ, z = 2√(1 + σ²): every step of the sampler is
linear, so mean and spread follow by recursion, without draws. Errors are in posterior standard deviations.

    python benchmarks/accuracy/guided_steps.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax.diffusion import Process, measurement_aware, time_grid, vp_bridge
from masf_jax.diffusion.samplers import paper_guidance_scale, paper_score_scale
from masf_jax.diffusion.schedules import TIME_GRIDS
from masf_jax.measurements import Gaussian, Identity, Measurement

Scales = tuple[Callable[[Any], Any], Callable[[Any], Any]]
SCALES: dict[str, Scales] = {
    "the paper's": (paper_score_scale, paper_guidance_scale),
    "1": (jnp.ones_like, jnp.ones_like),
}
PROCESSES = {"measurement_aware": measurement_aware, "vp": vp_bridge}
STEPS = (2, 4, 8, 16, 24, 32, 48, 64, 100, 150, 400)
NOISES = (0.1, 1.0, 10.0)
WIDE = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1000.0)
LIMIT = 2000
"""Steps that stand for the sampler's own limit."""


def process_of(kind: str, std: float) -> Process:
    """From one component of unit scale to the value z = 2√(1 + σ²)."""
    z = jnp.asarray([2 * math.hypot(1, std)])
    measurement = Measurement(Identity(), Gaussian(std))
    return PROCESSES[kind](measurement, z, jnp.ones(1, bool), jnp.zeros(1), jnp.ones(1))


def moments(process: Process, times: Any, scales: Scales) -> tuple[float, float]:
    """Mean and standard deviation of what `guided` gives: v ← α v + β + γ ξ, from v_0 ~ N(0, 1) noised."""
    gains, stds = (np.asarray(jax.vmap(f)(times), np.float64)[:, 0] for f in (process.gain, process.std))
    one = jnp.ones(())
    last_gain, last_std, value = (
        float(x[0]) for x in (process.gain(one), process.std(one), process.measured)
    )
    c_s, c_g = (np.asarray(jax.vmap(f)(times), np.float64) for f in scales)
    mean, variance = 0.0, gains[0] ** 2 + stds[0] ** 2
    for k in range(len(gains) - 1):
        factor = gains[k + 1] / gains[k]
        step = stds[k + 1] ** 2 - factor**2 * stds[k] ** 2
        m = last_gain / gains[k]
        left = last_std**2 - m**2 * stds[k] ** 2
        slope = -c_s[k] / (gains[k] ** 2 + stds[k] ** 2) - c_g[k] * m**2 / left
        alpha = factor - step * slope
        mean = alpha * mean - step * c_g[k] * m * value / left
        variance = alpha**2 * variance + abs(step)
    return mean, math.sqrt(variance)


def errors() -> Iterator[list[str]]:
    for (kind, std), (name, scales) in product(product(PROCESSES, NOISES), SCALES.items()):
        process, spread = process_of(kind, std), std / math.hypot(1, std)
        cells = []
        for n_steps in STEPS:
            mean, deviation = moments(process, time_grid(n_steps, "quadratic", 0.992), scales)
            cells.append(f"{(mean - 2 / math.hypot(1, std)) / spread:.2g}, {deviation / spread:.2g}")
        yield [f"{kind}, scales {name}, σ = {std:g}", *cells]


def least() -> Iterator[list[str]]:
    """The smallest spread over the sampler's limit, of all processes, scales and noises."""
    cases = list(product(PROCESSES, WIDE, SCALES.values()))
    limits = [
        moments(process_of(kind, std), time_grid(LIMIT, "quadratic", 0.992), scales)[1]
        for kind, std, scales in cases
    ]
    for n_steps in (1, 2, 3, 4, 6, 8, 16):
        cells = []
        for grid in TIME_GRIDS:
            times = time_grid(n_steps, grid, 0.992)
            ratios = [
                moments(process_of(kind, std), times, scales)[1] / limit
                for (kind, std, scales), limit in zip(cases, limits, strict=True)
            ]
            cells.append(f"{min(ratios):.3g} to {max(ratios):.2g}")
        yield [str(n_steps), *cells]


def main() -> None:
    args = arguments(__doc__).parse_args()
    first, second = list(errors()), list(least())
    text = "\n\n".join(
        [
            header("Steps of the guided sampler: mean's error and spread, in posterior standard deviations"),
            table(first, ["quadratic grid, steps:", *map(str, STEPS)]),
            "Spread over the sampler's own limit, least and greatest of both processes, both scales and\n"
            f"σ = {', '.join(f'{std:g}' for std in WIDE)}:",
            table(second, ["steps", *TIME_GRIDS]),
        ]
    )
    finish(args, "guided_steps", text, {"errors": first, "least": second})


if __name__ == "__main__":
    main()
