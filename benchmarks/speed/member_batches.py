"""Memory and time of a Kolmogorov transition with members in batches.

Memory: XLA's account of the compiled transition (work space; ensemble before and after come on top), and
the resident memory of a process that has made the ensemble and compiled, before it runs the transition, and
its peak meanwhile (Linux). Time: all batch sizes of a grid in turn in one process, best of `--repeats`, as
ratios to all members at once: of the wall clock, and of CPU time, less disturbed by other processes.
`--inner-steps` shortens the transition: memory does not hang on its length, and ratios hardly do.

    python benchmarks/speed/member_batches.py [--cases 100x256 40x512] [--inner-steps 4]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from suite.common import arguments, finish, header, table

MB = 1e6


def resident_mb(field: str) -> float:
    """VmRSS, or the peak VmHWM since it was last reset, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / MB


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def batch_sizes(n_members: int) -> list[int | None]:
    """All at once, then about a quarter, a tenth, one; and by itself."""
    return [n_members, *dict.fromkeys((max(1, n_members // 4), max(1, n_members // 10), 1)), None]


def transition(n_members: int, n: int, n_inner: int | None, batch_size: int | None) -> tuple[Any, Any]:
    """The compiled transition of N members, and its ensemble."""
    import jax
    import jax.numpy as jnp

    from masf_jax.dynamics import Kolmogorov, MemberLayout, advance

    model = Kolmogorov(n)
    if n_inner is not None:
        model = Kolmogorov(n, dt=float(model.dt) * n_inner / model.n_inner, n_inner=n_inner)
    layout, key = MemberLayout(batch_size), jax.random.key(1)
    draw = jax.jit(lambda key: jax.lax.map(model.initial_state, jax.random.split(key, n_members)))
    x = jax.block_until_ready(draw(jax.random.key(0)))
    run = jax.jit(lambda model, x: advance(model, x, jnp.asarray(0, jnp.int32), key, 1, layout))
    compiled = run.lower(model, x).compile()
    return compiled, lambda: jax.block_until_ready(compiled(model, x))


def memory(args: argparse.Namespace) -> dict[str, float]:
    """XLA's account and the process' peak of one case, in this process."""
    n_members, n, batch = (int(part) for part in args.only.split(","))
    compiled, run = transition(n_members, n, args.inner_steps, batch or None)
    account = compiled.memory_analysis()
    before = resident_mb("VmRSS")
    reset_peak()
    run()
    return {
        "ensemble": account.output_size_in_bytes / MB,
        "work": account.temp_size_in_bytes / MB,
        "before": before,
        "peak": resident_mb("VmHWM"),
    }


def measure(args: argparse.Namespace, n_members: int, n: int) -> list[dict[str, Any]]:
    """Memory of each batch size in processes of their own, then all their times here."""
    sizes = batch_sizes(n_members)
    options = [] if args.inner_steps is None else [f"--inner-steps={args.inner_steps}"]
    found = []
    for size in sizes:
        command = [sys.executable, __file__, f"--only={n_members},{n},{size or 0}", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{n_members} members at {n}², batches of {size}: {done.stderr[-2000:]}")
        found.append({"batch": size} | json.loads(done.stdout.splitlines()[-1]))
    runs = {str(size): transition(n_members, n, args.inner_steps, size)[1] for size in sizes}
    best = {name: [float("inf")] * 2 for name in runs}
    for _ in range(args.repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            best[name] = [min(pair) for pair in zip(best[name], spent, strict=True)]
    for each in found:
        each["seconds"], each["cpu_seconds"] = best[str(each["batch"])]
        each["ratio"] = each["seconds"] / best[str(n_members)][0]
        each["cpu_ratio"] = each["cpu_seconds"] / best[str(n_members)][1]
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cases", nargs="+", default=["100x256", "40x512"], help="MEMBERSxGRID")
    parser.add_argument("--inner-steps", type=int, help="a transition of so many inner steps; default: 0.2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", metavar="MEMBERS,GRID,BATCH", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(memory(args)))
        return
    numbers, rows = {}, []
    for case in args.cases:
        n_members, n = (int(part) for part in case.split("x"))
        numbers[case] = measure(args, n_members, n)
        rows += [
            [
                n_members,
                f"{n}²",
                each["batch"] or "by itself",
                *(f"{each[name]:.0f}" for name in ("ensemble", "work", "before", "peak")),
                f"{each['ratio']:.2f}",
                f"{each['cpu_ratio']:.2f}",
            ]
            for each in numbers[case]
        ]
    head = ["members", "grid", "batch", "ensemble MB", "work space MB", "resident MB", "peak MB"]
    title = "Kolmogorov flow: memory and time of a transition with members in batches"
    finish(
        args,
        "member_batches",
        header(title) + "\n" + table(rows, [*head, "time / all", "CPU / all"]),
        numbers,
    )


if __name__ == "__main__":
    main()
