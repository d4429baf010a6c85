"""Memory and time of a Kolmogorov transition with members in batches.

Memory: XLA's account of the compiled transition (work space; ensemble before and after come on top), and
the peak resident memory of a process that makes the ensemble, compiles and runs it once, before and after
the run. Time: all batch sizes of a grid in turn in one process, best of `--repeats`, as a ratio to all
members at once. `--inner-steps` shortens the transition: neither memory nor the ratios hang on its length.

    python benchmarks/member_batches.py [--cases 100x256 40x512] [--inner-steps 4]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

from _common import arguments, finish, header, interleaved, table

MB = 1e6


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak * 1024 / MB


def batch_sizes(n_members: int) -> list[int | None]:
    """All at once, then about a quarter, a tenth, one."""
    return [None, *dict.fromkeys((max(1, n_members // 4), max(1, n_members // 10), 1))]


def transition(n_members: int, n: int, n_inner: int | None, batch_size: int | None) -> tuple[Any, Any]:
    """The compiled transition of N members, and its ensemble."""
    import jax
    import jax.numpy as jnp

    from masf_jax.dynamics import Kolmogorov, MemberLayout, advance

    model = Kolmogorov(n, n_inner=n_inner)
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
    before = peak_mb()
    run()
    return {
        "ensemble": account.output_size_in_bytes / MB,
        "work": account.temp_size_in_bytes / MB,
        "peak_before": before,
        "peak": peak_mb(),
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
    seconds = interleaved(runs, args.repeats)
    for each in found:
        each["seconds"] = seconds[str(each["batch"])]
        each["ratio"] = each["seconds"] / seconds["None"]
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cases", nargs="+", default=["100x256", "40x512"], help="MEMBERSxGRID")
    parser.add_argument("--inner-steps", type=int, help="inner steps of the transition; default: the model's")
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
                each["batch"] or "all",
                *(f"{each[name]:.0f}" for name in ("ensemble", "work", "peak_before", "peak")),
                f"{each['ratio']:.2f}",
            ]
            for each in numbers[case]
        ]
    head = ["members", "grid", "batch", "ensemble MB", "work space MB", "peak RSS before MB", "and after"]
    title = "Kolmogorov flow: memory and time of a transition with members in batches"
    finish(args, "member_batches", header(title) + "\n" + table(rows, [*head, "time / all"]), numbers)


if __name__ == "__main__":
    main()
