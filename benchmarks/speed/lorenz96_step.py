"""A Lorenz-96 step: the ring closed once for four stages, against once in each, and against a copy.

Least work: a stage takes 7 operations a value (3 of them make the argument of the next), so a step 31 with
its last sum; least traffic: the state read and written once, 8 bytes a value, as `copy` (x -> 1.0000001 x)
does.
By stages: four times a ring made and read. Closed once: one ring, and two passes over it, of two stages each,
in which XLA computes a stage anew at the points that the next one sees.

Compiled loops over steps, all in turn, CPU seconds, best of `--repeats`; nanoseconds a step and value.

    python benchmarks/speed/lorenz96_step.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
from suite.common import arguments, finish, header, table

from masf_jax.dynamics import Lorenz96
from masf_jax.dynamics.integrate import rk4_step

SIZES = [(20, 40, 4000), (40, 40, 2000), (20, 1000, 400), (1, 10**6, 10), (4, 10**6, 4)]
"""Members, variables, steps."""


def steppers(model: Lorenz96) -> dict[str, Callable[[Any], Any]]:
    def by_stages(x: Any) -> Any:
        return rk4_step(model.tendency, x, 0.0, model.dt)

    def tangents(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: x + 1e-9 * jax.jvp(step, (x,), (x,))[1]

    def adjoint(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: x + 1e-9 * jax.vjp(step, x)[1](x)[0]

    def closed_once(x: Any) -> Any:
        return model(x, jnp.zeros((), x.dtype), None)

    ways = {"by stages": by_stages, "closed once": closed_once}
    return {
        **ways,
        **{f"{way}, {what.__name__}": what(f) for what in (tangents, adjoint) for way, f in ways.items()},
        "copy": lambda x: 1.0000001 * x,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    rows, numbers = [], []
    for members, n, steps in SIZES:
        x = 8 + jax.random.normal(jax.random.key(0), (members, n))
        runs = {
            name: jax.jit(lambda x, f=f, s=steps: jax.lax.fori_loop(0, s, lambda _, x: jax.vmap(f)(x), x))
            for name, f in steppers(Lorenz96(n)).items()
        }
        best = dict.fromkeys(runs, float("inf"))
        for turn in range(args.repeats + 1):
            for name, run in runs.items():
                start = time.process_time()
                run(x).block_until_ready()
                if turn:
                    best[name] = min(best[name], time.process_time() - start)
        ns = {name: 1e9 * seconds / steps / x.size for name, seconds in best.items()}
        numbers.append({"members": members, "n": n, "ns": ns})
        ratios = [
            f"{ns[f'by stages{of}'] / ns[f'closed once{of}']:.1f}" for of in ("", ", tangents", ", adjoint")
        ]
        rows.append(
            [
                f"{members} × {n}",
                *(f"{ns[name]:.2f}" for name in ("by stages", "closed once", "copy")),
                f"{ns['closed once'] / ns['copy']:.1f}",
                *ratios,
            ]
        )
    head = ["members × n", "by stages ns", "closed once ns", "copy ns", "closed once / copy"]
    head += ["by stages / closed once", "of tangents", "of adjoint"]
    text = f"{header('Lorenz-96: CPU nanoseconds a step and value')}\n{table(rows, head)}"
    finish(args, "lorenz96_step", text, numbers)


if __name__ == "__main__":
    main()
