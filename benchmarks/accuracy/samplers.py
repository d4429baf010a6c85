"""The samplers of p(x0 | z) against exact posteriors: errors and seconds by steps and time grid.

A Gaussian forecast of four components with two measured combinations (errors of mean, in posterior standard
deviations, and of covariance, relative, Frobenius), and a bimodal kernel forecast of one component (exact
one-dimensional Wasserstein-2 distance). Exact denoisers, so all error is the sampler's; `exact draws` is
what is left from the number of draws. Seconds: of CPU time (other processes share the machine), both
problems and all grids in one compiled call, the best of several in turn, as a ratio to `bridge` with the
corrected step at the same number of steps.

    python benchmarks/accuracy/samplers.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import _path  # noqa: F401
import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm
from suite.common import arguments, finish, header, table

from masf_jax.denoisers import DenseCovariance, GaussianDenoiser, KernelDenoiser
from masf_jax.diffusion import Process, bridge, guided, time_grid, vp_bridge
from masf_jax.diffusion.schedules import TIME_GRIDS
from masf_jax.diffusion.sde import probability_flow, reverse_sde
from masf_jax.measurements import CorrelatedGaussian, Gaussian, Identity, Linear, Measurement

STEPS = (2, 4, 8, 16, 32, 64, 128)
PAPER_START = 0.992


def gaussian_problem() -> tuple[Process, GaussianDenoiser, np.ndarray, np.ndarray]:
    """Process, denoiser, and the posterior's mean and covariance in the process's coordinates."""
    rng = np.random.default_rng(1)
    root, h = rng.normal(size=(4, 4)), rng.normal(size=(2, 4))
    p, r = root @ root.T / 4 + 0.1 * np.eye(4), np.array([[0.3, 0.1], [0.1, 0.2]])
    z = np.array([1.5, -2.0])
    measurement = Measurement(Linear(h), CorrelatedGaussian(r))
    process = vp_bridge(measurement, jnp.asarray(z, float), jnp.ones(2, bool), jnp.zeros(4), jnp.ones(()))
    v = np.asarray(jax.vmap(process.frame.basis.back)(jnp.eye(4))).T
    gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
    denoiser = GaussianDenoiser(jnp.zeros(4), DenseCovariance(jnp.asarray(v.T @ p @ v, float)))
    return process, denoiser, v.T @ gain @ z, v.T @ (p - gain @ h @ p) @ v


MEMBERS, BANDWIDTH, NOISE, VALUE = np.array([-2.0, -1.6, 1.8, 2.2]), 0.4, 1.0, 0.2


def bimodal_problem(n: int) -> tuple[Process, KernelDenoiser, np.ndarray]:
    """Process, denoiser, and n quantiles of the posterior."""
    measurement = Measurement(Identity(), Gaussian(NOISE))
    process = vp_bridge(measurement, jnp.asarray([VALUE]), jnp.ones(1, bool), jnp.zeros(1), jnp.ones(()))
    denoiser = KernelDenoiser(jnp.asarray(MEMBERS, float)[:, None], jnp.asarray([BANDWIDTH], float))
    total = BANDWIDTH**2 + NOISE**2
    weights = norm.pdf(VALUE, MEMBERS, np.sqrt(total))
    means = MEMBERS + BANDWIDTH**2 / total * (VALUE - MEMBERS)
    x = np.linspace(-6, 6, 200_001)
    cdf = (weights / weights.sum() * norm.cdf(x[:, None], means, BANDWIDTH * NOISE / np.sqrt(total))).sum(1)
    return process, denoiser, np.interp((np.arange(n) + 0.5) / n, cdf, x)


def from_member(key: Any, process: Any, denoiser: Any, times: Any) -> Any:
    """The paper's sampler, started from a noised draw of the forecast."""
    key_member, key = jax.random.split(key)
    blank = jnp.full_like(process.measured, 0.5 * np.pi)
    v0 = denoiser.sample(key_member, jnp.zeros_like(blank), blank)
    return guided(key, process, denoiser, PAPER_START * times, v0)


SAMPLERS: dict[str, tuple[Callable[..., Any], int]] = {
    "bridge, corrected": (bridge, 1),
    "bridge, plain": (partial(bridge, corrected=False), 1),
    "guided (paper's scales)": (from_member, 1),
    "SDE Euler": (partial(reverse_sde, solver=diffrax.Euler()), 1),
    "SDE SEA": (partial(reverse_sde, solver=diffrax.SEA()), 1),
    "SDE Heun": (partial(reverse_sde, solver=diffrax.Heun()), 2),
    "SDE SRA1": (partial(reverse_sde, solver=diffrax.SRA1()), 2),
    "SDE ShARK": (partial(reverse_sde, solver=diffrax.ShARK()), 2),
    "flow Heun": (partial(probability_flow, solver=diffrax.Heun()), 2),
}
"""Each with its evaluations of the denoiser a step."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    n = args.draws
    linear, gaussian, mean, covariance = gaussian_problem()
    scalar, kernel, quantiles = bimodal_problem(n)
    keys = jax.random.split(jax.random.key(0), n)

    def errors(v: np.ndarray, x: np.ndarray) -> list[float]:
        off = np.abs((v.mean(0) - mean) / np.sqrt(np.diag(covariance))).max()
        spread = np.linalg.norm(np.cov(v.T) - covariance) / np.linalg.norm(covariance)
        return [float(off), float(spread), float(np.sqrt(np.mean((np.sort(x) - quantiles) ** 2)))]

    rng = np.random.default_rng(0)
    floor = errors(
        rng.multivariate_normal(mean, covariance, n),
        np.interp(rng.uniform(size=n), (np.arange(n) + 0.5) / n, quantiles),
    )
    rows: list[list[Any]] = [["exact draws", "", "", "", "", *(f"{e:.3f}" for e in floor)]]
    numbers: list[dict[str, Any]] = []
    for steps in STEPS:
        grids = jnp.stack([time_grid(steps, kind) for kind in TIME_GRIDS])
        runs = {}
        for name, (sampler, _) in SAMPLERS.items():

            def both(keys: Any, grids: Any, sampler: Any = sampler) -> Any:
                def one(times: Any) -> Any:
                    v = jax.vmap(lambda k: sampler(k, linear, gaussian, times))(keys)
                    return v, jax.vmap(lambda k: sampler(k, scalar, kernel, times))(keys)

                return jax.lax.map(one, grids)

            compiled = jax.jit(both).lower(keys, grids).compile()
            runs[name] = lambda compiled=compiled, grids=grids: jax.block_until_ready(compiled(keys, grids))
        outputs = {name: run() for name, run in runs.items()}
        seconds = dict.fromkeys(runs, float("inf"))
        for _ in range(args.repeats):
            for name, run in runs.items():
                start = time.process_time()
                run()
                seconds[name] = min(seconds[name], time.process_time() - start)
        for name, output in outputs.items():
            v, x = (np.asarray(a, np.float64) for a in output)
            ratio = seconds[name] / seconds["bridge, corrected"]
            for i, kind in enumerate(TIME_GRIDS):
                e = errors(v[i], x[i, :, 0])
                numbers.append({"sampler": name, "steps": steps, "grid": kind, "errors": e, "ratio": ratio})
                evaluations = SAMPLERS[name][1] * (steps - 1) + 1 if "bridge" not in name else steps
                rows.append([name, kind, steps, evaluations, f"{ratio:.2f}", *(f"{a:.3f}" for a in e)])
    rows[1:] = sorted(rows[1:], key=lambda row: (list(SAMPLERS).index(row[0]), TIME_GRIDS.index(row[1])))
    head = [
        "sampler",
        "grid",
        "steps",
        "denoiser calls",
        "CPU seconds / corrected",
        "mean",
        "covariance",
        "W2 bimodal",
    ]
    text = header(f"Errors and seconds of the samplers, {n} draws, float32") + "\n" + table(rows, head)
    finish(args, "samplers", text, numbers)


if __name__ == "__main__":
    main()
