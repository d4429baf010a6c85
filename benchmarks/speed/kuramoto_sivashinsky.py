"""A Kuramoto-Sivashinsky step against its real transforms alone: nine, since the state itself saves one.

Four evaluations of -½ (u²)_x take two transforms each, to the grid and back, and a step one to Fourier
space and one back; the first evaluation begins at the state itself, so its transform to the grid is saved.
The weights are 7 reads of a mode, the states of the stages 4: all from the cache, fused with one another.

Compiled loops over steps, all in turn, CPU seconds, best of `--repeats`; microseconds a step.

    python benchmarks/speed/kuramoto_sivashinsky.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
from suite.common import arguments, finish, header, table

from masf_jax.dynamics import KuramotoSivashinsky
from masf_jax.dynamics.integrate import etdrk4_step

SIZES = [(1, 128, 4000), (20, 128, 1500), (20, 1024, 150)]
"""Members, grid points, steps."""


def ways(model: KuramotoSivashinsky) -> dict[str, Callable[[Any], Any]]:
    n, derivative = model.state_shape[0], 1j * model.derivative

    def ten(x: Any) -> Any:
        def nonlinear(v: Any) -> Any:
            return derivative * jnp.fft.rfft(jnp.fft.irfft(v, n) ** 2)

        weights = jax.tree.map(lambda w: w.astype(derivative.dtype), model.weights)
        return jnp.fft.irfft(etdrk4_step(nonlinear, jnp.fft.rfft(x), weights), n)

    def nine(x: Any) -> Any:
        return model(x, jnp.zeros((), x.dtype), None)

    def transforms(x: Any) -> Any:
        for _ in range(5):
            x = jnp.fft.irfft(jnp.fft.rfft(x), n)
        return x

    return {"ten": ten, "nine": nine, "ten alone": transforms}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    rows, numbers = [], []
    for members, n, steps in SIZES:
        model = KuramotoSivashinsky(n)
        x = jax.vmap(model.initial_state)(jax.random.split(jax.random.key(0), members))
        runs = {
            name: jax.jit(lambda x, f=f, s=steps: jax.lax.fori_loop(0, s, lambda _, x: jax.vmap(f)(x), x))
            for name, f in ways(model).items()
        }
        best = dict.fromkeys(runs, float("inf"))
        for turn in range(args.repeats + 1):
            for name, run in runs.items():
                start = time.process_time()
                run(x).block_until_ready()
                if turn:
                    best[name] = min(best[name], time.process_time() - start)
        us = {name: 1e6 * seconds / steps for name, seconds in best.items()}
        us["nine alone"] = 0.9 * us["ten alone"]
        numbers.append({"members": members, "n": n, "us": us})
        cells = [f"{us[name]:.1f}" for name in ("ten", "nine", "nine alone")]
        ratios = [f"{us['ten'] / us['nine']:.2f}", f"{us['nine'] / us['nine alone']:.2f}"]
        rows.append([f"{members} × {n}", *cells, *ratios])
    head = ["members × n", "ten transforms µs", "nine µs", "nine transforms alone µs", "ten / nine"]
    text = header("Kuramoto-Sivashinsky: CPU microseconds a step")
    finish(args, "kuramoto_sivashinsky", f"{text}\n{table(rows, [*head, 'nine / alone'])}", numbers)


if __name__ == "__main__":
    main()
