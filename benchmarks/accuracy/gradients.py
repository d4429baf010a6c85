"""Derivatives through runs in double precision: against differences, and what they cost.

Lorenz-96 (forcing 8, all components measured each .05, noise 1), N = 20 (n + 1 where the filter is not
localised and n = 40). The loss is the mean square of the analysis means, its derivative that along one
direction through the model's forcing and the noise's standard deviation. Error: |gradient - difference| over
|difference|, a central one with Richardson's extrapolation from steps h and h/2; "known" is how far its two
halves are apart, relative: the error can hardly be below. Memory: what the compiled program holds besides
arguments and results (`memory_analysis`), in MiB, for the gradient, the gradient with checkpoint=True, and
the loss alone. Time: CPU seconds of the gradient over those of the loss, plain and with checkpoint=True.

    python benchmarks/accuracy/gradients.py --kept gradients.json

A row that is in the kept file is not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, filters, masf, simulate
from masf_jax.denoisers.iterated import IteratedCovariance
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.measurements import Gaussian, Identity, Measurement

N = 20
INFLATION = Inflation(multiplicative=1.02)
FILTERS: dict[str, Callable[[], Any]] = {
    "EnKF": lambda: filters.EnKF(INFLATION),
    "ETKF": lambda: filters.ETKF(INFLATION),
    "ETKF rotation": lambda: filters.ETKF(INFLATION, rotation=True),
    "EnKF-N": filters.EnKFN,
    "IEnKF": lambda: filters.IEnKF(INFLATION),
    "EnSRF": lambda: filters.EnSRF(radius=4.0, inflation=INFLATION),
    "LETKF": lambda: filters.LETKF(4.0, inflation=INFLATION),
    "MASF": lambda: filters.MASF(inflation=INFLATION),
    "MASF localised": lambda: filters.MASF(masf.GaussianPrior(radius=4.0), inflation=INFLATION),
    "EnSF": lambda: filters.EnSF(),
    "EnFF": lambda: filters.EnFF(),
    "IEnSF": lambda: filters.IEnSF(n_steps=100, iterations=2),
    "Kalman": lambda: filters.KalmanFilter(inflation=1.05),
    "3D-Var": lambda: filters.ThreeDVar(),
}
DENSE = {"Kalman", "3D-Var"}
"""With n × n matrices: n = 40 alone."""
LOCAL = {"EnSRF", "LETKF", "MASF localised", "EnSF", "EnFF", "IEnSF"}


def problem(name: str, n: int, n_cycles: int) -> Callable[..., jax.Array]:
    model, sensor = Lorenz96(n=n), Measurement(Identity(), Gaussian(1.0))
    twin = simulate(jax.random.key(0), model, sensor, n_cycles)
    n_members = N if name in LOCAL or n > 40 else n + 1
    start = twin.truth[0] + 0.5 * jax.random.normal(jax.random.key(1), (n_members, n))
    filter = FILTERS[name]().prepare(model, sensor)

    def loss(moved: jax.Array, checkpoint: bool = False) -> jax.Array:
        changed = eqx.tree_at(lambda m: m.forcing, model, 8.0 + moved)
        noisy = Measurement(Identity(), Gaussian(1.0 - 0.3 * moved))
        run = assimilate(
            jax.random.key(3),
            filter,
            changed,
            noisy,
            twin.observations,
            start,
            scores=(),
            save=("mean",),
            checkpoint=checkpoint,
        )
        return (run.analysis["mean"] ** 2).mean()

    return loss


def cpu(program: Callable[[jax.Array], jax.Array], repeats: int) -> float:
    zero = jnp.zeros(())
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        program(zero).block_until_ready()
        times.append(time.process_time() - begun)
    return min(times)


def row(name: str, n: int, n_cycles: int, h: float) -> dict[str, Any]:
    loss, zero = problem(name, n, n_cycles), jnp.zeros(())
    functions = {
        "loss": loss,
        "gradient": jax.grad(loss),
        "checkpoint": jax.grad(lambda moved: loss(moved, checkpoint=True)),
    }
    programs = {key: jax.jit(f).lower(zero).compile() for key, f in functions.items()}
    held = {key: p.memory_analysis().temp_size_in_bytes / 2**20 for key, p in programs.items()}
    found = float(programs["gradient"](zero))
    kept = float(programs["checkpoint"](zero))
    difference = programs["loss"]
    if name == "MASF localised" and n > 512:  # sums that end early make a difference of their own
        plain = IteratedCovariance._within
        IteratedCovariance._within = lambda self, b, ratio: (jnp.asarray(1e-13, b.dtype), 1000)
        difference = jax.jit(lambda moved: loss(moved) + 0.0).lower(zero).compile()
        IteratedCovariance._within = plain

    def central(h: float) -> float:
        return float(difference(jnp.asarray(h)) - difference(jnp.asarray(-h))) / (2 * h)

    wide, narrow = central(h), central(h / 2)
    best = (4 * narrow - wide) / 3
    times = {key: cpu(program, 3) for key, program in programs.items()}
    return {
        "gradient": found,
        "difference": best,
        "error": abs(found - best) / abs(best),
        "known": abs(narrow - wide) / abs(best),
        "checkpoint": abs(kept - found) / abs(found),
        "memory": held,
        "seconds": times,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=FILTERS, default=list(FILTERS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[40, 1000])
    parser.add_argument("--cycles", nargs="+", type=int, default=[2, 20, 100])
    parser.add_argument("--step", type=float, default=1e-4, help="h")
    parser.add_argument("--kept", type=Path, help="JSON of the rows that are there, and that are made")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    numbers = json.loads(args.kept.read_text()) if args.kept and args.kept.exists() else {}
    rows: list[list[Any]] = []
    for n in args.sizes:
        for name in args.only:
            if n > 40 and name in DENSE:
                continue
            for n_cycles in args.cycles:
                key = f"{name}, {n}, {n_cycles}"
                if key not in numbers:
                    numbers[key] = row(name, n, n_cycles, args.step)
                    if args.kept:
                        args.kept.write_text(json.dumps(numbers, indent=1) + "\n")
                r = numbers[key]
                memory, seconds = r["memory"], r["seconds"]
                sizes = [f"{memory[which]:.2f}" for which in ("gradient", "checkpoint", "loss")]
                ratios = [f"{seconds[which] / seconds['loss']:.1f}" for which in ("gradient", "checkpoint")]
                value, errors = f"{r['difference']:.4g}", [f"{r[key]:.0e}" for key in ("error", "known")]
                rows.append([name, n, n_cycles, value, *errors, *sizes, *ratios])
                print(rows[-1], flush=True)
    head = [
        "",
        "n",
        "cycles",
        "difference",
        "error",
        "known",
        "MiB",
        "checkpoint",
        "loss",
        "time",
        "checkpoint",
    ]
    known = [r["error"] for r in numbers.values() if r["known"] < 1e-4]
    title = (
        f"Gradients in double precision, h = {args.step:g}; largest error {max(known):.0e} of the "
        f"{len(known)} differences known to 1e-4 (others: runs that lost the truth)"
    )
    finish(args, "gradients", f"{header(title)}\n{table(rows, head)}", numbers)


if __name__ == "__main__":
    main()
