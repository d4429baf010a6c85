"""Where a cycle of the score-based filter spends its time: training, sampling, forecast, and the rest.

The three parts are compiled and timed alone, on the inputs they have in a cycle, and so is the whole cycle
(forecast and analysis); all in turn, the best of several. Training takes few passes over the ensemble here,
and the paper's sampler few steps; time is linear in both, and the last column is the whole cycle with
training scaled to the 120 epochs, and sampling to the 150 steps, that the filters take by themselves.

    python benchmarks/speed/masf_cycle.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
from suite.common import arguments, finish, header, interleaved, table

from masf_jax.cli.config.compose import compose
from masf_jax.cli.run.problem import build
from masf_jax.filters import MASF
from masf_jax.masf.routes.base import draws

EPOCHS, STEPS = 120, 15
"""Epochs a cycle of `masf_paper` and of the hybrid denoiser unless set; the paper's 150 steps over ten."""

HYBRID = ["filter=masf", "filter.denoiser=hybrid"]
PAPER = ["filter=masf_paper", "filter.pretraining.epochs=0", "filter.pretraining.states=64"]
NETWORK = ["filter=masf", "filter.denoiser=network", *PAPER[1:], "filter.network.channels=16"]
L63, L96 = ["experiment=lorenz63_sakov2012"], ["experiment=lorenz96_sakov2008"]
FLOW = ["experiment=kolmogorov_grid", "ensemble_size=10", "filter.training.batch_size=10"]
CASES: dict[str, tuple[int, list[str]]] = {
    "Lorenz-63, hybrid, MLP 128×3": (20, [*L63, "ensemble_size=50", *HYBRID, "filter.radius=inf"]),
    "Lorenz-96, hybrid, ring U-Net 32·(1,2)": (2, [*L96, "ensemble_size=40", *HYBRID]),
    "Lorenz-96, masf_paper, U-Net 32·(1,2,4,8)": (
        1,
        [*L96, "ensemble_size=40", *PAPER, f"filter.n_steps={STEPS}"],
    ),
    "Kolmogorov 64², network, U-Net 16·(1,2)": (2, [*FLOW, *NETWORK]),
}


def parts(epochs: int, overrides: list[str]) -> dict[str, Callable[[], Any]]:
    """Name -> compiled call of training, sampling, forecast and the whole cycle of one problem."""
    settings = compose([*overrides, f"filter.training.epochs={epochs}", "n_cycles=1", "burn_in=0"])
    problem = build(settings)
    dynamics, measurement, z = problem.dynamics, problem.measurement, problem.observations.values[0]
    filter = problem.filter.prepare(dynamics, measurement)
    assert isinstance(filter, MASF)
    key, step, n_steps = jax.random.key(0), jnp.zeros((), jnp.int32), settings.steps_per_cycle
    start = filter.init(key, problem.ensemble)
    mask = jnp.isfinite(z)

    @eqx.filter_jit
    def forecast(state: Any) -> Any:
        return filter.forecast(key, state, dynamics, step, n_steps)

    @eqx.filter_jit
    def coordinates(state: Any) -> Any:
        centre, scale, _ = filter.normalization(state.ensemble, state.memory[1][0])
        process = filter.process(measurement, z, mask, centre, scale)
        return process, jax.vmap(process.frame.encode)(state.ensemble)

    @eqx.filter_jit
    def training(process: Any, members: Any, memory: Any) -> Any:
        return filter.prior(key, members, process, memory)[0]

    @eqx.filter_jit
    def sampling(process: Any, denoiser: Any, members: Any) -> Any:
        return draws(key, process, denoiser, members, filter.sampler)

    @eqx.filter_jit
    def cycle(state: Any) -> Any:
        return filter.analysis(key, filter.forecast(key, state, dynamics, step, n_steps), z, measurement)[0]

    ahead = forecast(start)
    process, members = coordinates(ahead)
    denoiser = training(process, members, ahead.memory[1][1])
    calls = {
        "training": lambda: training(process, members, ahead.memory[1][1]),
        "sampling": lambda: sampling(process, denoiser, members),
        "forecast": lambda: forecast(start),
        "cycle": lambda: cycle(start),
    }
    return {
        name: lambda call=call: jax.block_until_ready(jax.tree.leaves(call())) for name, call in calls.items()
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows, numbers = [], {}
    for name, (epochs, overrides) in CASES.items():
        seconds = interleaved(parts(epochs, overrides), args.repeats)
        three = seconds["training"] + seconds["sampling"] + seconds["forecast"]
        more_steps = 150 / STEPS - 1 if "masf_paper" in name else 0
        usual = (
            seconds["cycle"] + (EPOCHS / epochs - 1) * seconds["training"] + more_steps * seconds["sampling"]
        )
        numbers[name] = {**seconds, "epochs": epochs, "cycle, scaled": usual}
        parts_of = [f"{seconds[part]:.4g}" for part in ("training", "sampling", "forecast", "cycle")]
        rows.append([name, epochs, *parts_of, f"{three / seconds['cycle']:.2f}", f"{usual:.3g}"])
    head = ["case", "epochs", "training", "sampling", "forecast", "whole cycle", "parts/whole"]
    text = header(f"Seconds per cycle of MASF (best of {args.repeats})")
    finish(args, "masf_cycle", text + "\n" + table(rows, [*head, "cycle, scaled"]), numbers)


if __name__ == "__main__":
    main()
