"""CRPS and energy score of an ensemble: all pairs against a sorting network, each pair once, blocks.

Per component, of N members: all pairs N², each pair once N (N - 1) / 2 absolute differences; Batcher's
network about N log² N / 4 pairs of a minimum and a maximum (20 members: 400, 190, 97). Energy score: N² or
N (N - 1) / 2 squares; the way before went through the ensemble N - 1 times, blocks of components go once.

Compiled loops, all in turn, CPU seconds, best of `--repeats`: microseconds a score, and seconds to compile.

    python benchmarks/speed/scores.py
"""

from __future__ import annotations

import time
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
from suite.common import arguments, finish, header, table

from masf_jax.metrics.scores import crps_ensemble, energy_score

SIZES = [(20, 40, 1000), (40, 40, 500), (10, 8192, 30), (20, 10**6, 1)]
"""Members, components, scores in a loop."""
BLOCK = 2048


def crps_of_all_pairs(x: Any, y: Any) -> Any:
    def pairs(x: Any) -> Any:
        return jnp.abs(x[:, None] - x[None]).sum((0, 1))

    n, size = x.shape
    if size > BLOCK:
        blocks = jnp.moveaxis(jnp.pad(x, ((0, 0), (0, -size % BLOCK))).reshape(n, -1, BLOCK), 1, 0)
        total = jax.lax.map(pairs, blocks).reshape(-1)[:size]
    else:
        total = pairs(x)
    return jnp.abs(x - y).mean(0) - total / (2.0 * n * (n - 1))


def energy_of_all_pairs(x: Any, y: Any) -> Any:
    n = len(x)

    def add(k: Any, total: Any) -> Any:
        return total + jnp.sqrt(((x - jnp.roll(x, k, 0)) ** 2).sum(1)).sum()

    total = jax.lax.fori_loop(1, n, add, jnp.zeros((), x.dtype))
    return jnp.sqrt(((x - y) ** 2).sum(1)).mean() - total / (2.0 * n * (n - 1))


SCORES = {"CRPS": (crps_of_all_pairs, crps_ensemble), "energy score": (energy_of_all_pairs, energy_score)}


def compiled(score: Any, x: Any, repeats: int) -> tuple[Any, float]:
    """A loop of the score, each call hanging on the one before; seconds to compile it."""

    def again(_: Any, last: Any) -> Any:
        return score(x + 0.0 * last.ravel()[0], 0.9 * x[0])

    start = time.process_time()
    run = jax.jit(lambda x: jax.lax.fori_loop(0, repeats, again, score(x, x[0]))).lower(x).compile()
    return run, time.process_time() - start


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    rows, numbers = [], []
    for members, size, loop in SIZES:
        x = jax.random.normal(jax.random.key(0), (members, size))
        for name, ways in SCORES.items():
            runs = [compiled(way, x, loop) for way in ways]
            best = [float("inf")] * 2
            for turn in range(args.repeats + 1):
                for i, (run, _) in enumerate(runs):
                    start = time.process_time()
                    run(x).block_until_ready()
                    if turn:
                        best[i] = min(best[i], time.process_time() - start)
            us = [1e6 * seconds / (loop + 1) for seconds in best]
            seconds = [seconds for _, seconds in runs]
            numbers.append({"members": members, "size": size, "score": name, "us": us, "compile": seconds})
            cells = [*(f"{each:.1f}" for each in us), f"{us[0] / us[1]:.1f}"]
            rows.append([f"{name}, {members} × {size}", *cells, *(f"{each:.2f}" for each in seconds)])
    head = ["score, N × n", "all pairs µs", "now µs", "ratio", "compiled in s", "now s"]
    finish(
        args, "scores", f"{header('Scores of an ensemble: CPU microseconds')}\n{table(rows, head)}", numbers
    )


if __name__ == "__main__":
    main()
