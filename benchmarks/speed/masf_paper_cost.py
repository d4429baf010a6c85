"""One analysis of the MASF paper's flow: the amortised filter beside the paper's algorithm at its full size.

    python benchmarks/speed/masf_paper_cost.py [--sizes 64 128] [--repeats 3]

The paper's algorithm (`filter=masf_paper`, N = 10, pretraining left out) fine-tunes its U-Net of 17 M
parameters on the forecast members for 120 passes, a step of a batch of 10 each, and draws in 150 steps, a
forward pass of 10 each. Its cost here is that sum of parts: seconds of a training step inside a compiled loop
and of a forward pass, times their counts. The amortised filter's analysis is measured whole (its LETKF
included), as in accuracy/paper.py, with the package's networks, every 10th point measured. All in turn; the
least CPU seconds, wall clock in brackets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
from accuracy.paper import RADII, first_state, measured, overrides, update
from suite.common import arguments, finish, header, table
from suite.unet_calls import unet_calls

from masf_jax.cli.compare.entries import Entry
from masf_jax.cli.config.compose import compose
from masf_jax.cli.run.problem import build_models
from masf_jax.dynamics import spun_up_ensemble
from masf_jax.nn import UNet

EPOCHS, DRAWS, MEMBERS = 120, 150, 10


def amortised(size: int) -> Callable[[], Any]:
    """A compiled analysis on members of the model's climatology."""
    setting = f"grid:{size}"
    more = [f"filter.radius={RADII['grid'][str(size)]:.3g}", "filter.inflation=1.1"]
    settings = compose(overrides(setting, "masf_amortised", more, {}))
    dynamics, network = build_models(settings)
    measurement = network.measurement
    filter = Entry("masf_amortised", settings).build(dynamics).prepare(dynamics, measurement)
    members = jax.jit(lambda key: spun_up_ensemble(dynamics, key, MEMBERS + 1))(jax.random.key(0))
    z = measured(jax.random.key(1), measurement, members[:1])[0]
    state = first_state(filter, jnp.asarray(members[1:]))
    return lambda: jax.block_until_ready(update(filter, state, measurement, z))


def timed(run: Callable[[], Any], steps: int = 1) -> tuple[float, float]:
    """CPU seconds and wall clock of a step."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows, numbers = [], {}
    for size in args.sizes:
        whole = amortised(size)
        _, calls = unet_calls(UNet.paper(2), size, MEMBERS, lone=False)
        runs = {"analysis": (whole, 1)}
        runs |= {name: (calls[name].run, calls[name].steps) for name in ("forward", "training in a loop")}
        for run, _ in runs.values():
            run()
        best = {
            name: tuple(min(pair) for pair in zip(*(timed(*run) for _ in range(args.repeats)), strict=True))
            for name, run in runs.items()
        }
        parts = zip(best["training in a loop"], best["forward"], strict=True)
        paper = [EPOCHS * step + DRAWS * forward for step, forward in parts]
        pairs = [best["analysis"], best["training in a loop"], best["forward"], paper]
        rows.append([f"{size}²", *(f"{cpu:.3g} ({wall:.3g})" for cpu, wall in pairs)])
        rows[-1].append(f"{paper[0] / best['analysis'][0]:,.0f}")
        numbers[str(size)] = best | {"paper": paper}
        print("  ".join(rows[-1]), flush=True)
        jax.clear_caches()
    head = [
        "",
        "amortised analysis",
        "training step",
        "forward",
        f"{EPOCHS} steps + {DRAWS} forwards",
        "ratio",
    ]
    title = header("Seconds of one analysis, N = 10: CPU (wall clock)")
    finish(args, "masf_paper_cost", f"{title}\n{table(rows, head)}", numbers)


if __name__ == "__main__":
    main()
