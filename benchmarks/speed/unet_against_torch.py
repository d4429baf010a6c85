"""Our U-Net takes no longer than the same one in PyTorch, forward and per training step, on the CPU.

python benchmarks/speed/unet_against_torch.py --torch-python PATH

PATH is a Python with torch (`pip install "masf-jax[torch]"`, or torch alone in an environment of its own; by
default this Python). The same layers with the same number of parameters, the paper's size and the small one,
two channels, batches of 10, single precision, both with all cores; torch in its two memory layouts, of which
the faster counts. A training step is loss, gradient, clipping and AdamW: one compiled call a step, and a step
of a compiled loop of STEPS, which is how `masf_jax.training` runs them (torch's is a loop in Python both
times). The lone call gets its memory from the system anew each time: about 0.2 s of page faults at the
paper's size, most of which GLIBC_TUNABLES=glibc.malloc.hugetlb=1 takes away. Calls of both take turns; best
wall clock of the repeats, and the CPU seconds of the best call. On a machine that does other things too,
torch's threads wait for each other at full speed, and both its numbers are many times too large: give
--torch-threads 1 there and compare CPU seconds only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import optax
from suite.common import arguments, finish, header, table
from suite.worker import Worker

from masf_jax.nn import UNet, parameter_count

STEPS = 4


def ours(net: UNet, size: int, batch: int) -> tuple[int, dict[str, tuple[str, int, Callable[[], Any]]]]:
    """Number of parameters, and by name: the job of torch to compare with, steps in a call, and the call."""
    x = jax.random.normal(jax.random.key(0), (batch, size, size, 2))
    t = jnp.full(batch, 0.5)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(net.init, jax.random.key(1), x[0], t[0])
    params = jax.tree.map(lambda s: jnp.asarray(0.02 * rng.standard_normal(s.shape), s.dtype), shapes)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, weight_decay=0.01))
    apply = jax.vmap(net.apply, (None, 0, 0))

    def step(params: Any, state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        gradient = jax.grad(lambda params: jnp.mean((apply(params, x, t) - x) ** 2))(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    def loop(params: Any, state: Any, x: Any, t: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda c, _: (step(*c, x, t), None), (params, state), None, length=STEPS)[0]

    forward = jax.jit(apply).lower(params, x, t).compile()

    def training(steps: Callable[..., Any]) -> Callable[[], None]:
        call = jax.jit(steps, donate_argnums=(0, 1)).lower(params, optimiser.init(params), x, t).compile()
        held = [jax.tree.map(jnp.copy, params), optimiser.init(params)]

        def train() -> None:
            held[:] = call(*held, x, t)
            jax.block_until_ready(held)

        return train

    return parameter_count(params), {
        "forward": ("forward", 1, lambda: jax.block_until_ready(forward(params, x, t))),
        "training": ("training", 1, training(step)),
        "training in a loop": ("training", STEPS, training(loop)),
    }


def timed(run: Callable[[], Any], steps: int) -> tuple[float, float]:
    """Wall clock and CPU seconds a step."""
    begin, cpu = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - begin) / steps, (time.process_time() - cpu) / steps


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--torch-python", default=sys.executable, metavar="PATH")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--torch-threads", type=int, default=cores)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    args = parser.parse_args()
    torch = Worker(args.torch_python, "torch_unet_worker.py", str(args.torch_threads), needs="torch")
    version = torch.ask(job="version")["version"]
    rows, numbers = [], {}
    presets = {"small": (UNet.small(2), args.sizes[:1]), "paper": (UNet.paper(2), args.sizes)}
    for name, (net, sizes) in presets.items():
        embedding = net.embedding or 4 * net.channels
        built = torch.ask(job="build", channels=net.channels, blocks=net.blocks, embedding=embedding)
        for size in sizes:
            count, calls = ours(net, size, args.batch)
            if count != built["parameters"]:
                raise SystemExit(f"not the same network: {count} and {built['parameters']} parameters")
            for label, (job, steps, run) in calls.items():
                run()
                best = {"jax": (float("inf"),) * 2, "first": (float("inf"),) * 2, "last": (float("inf"),) * 2}
                for _ in range(args.repeats):
                    best["jax"] = min(best["jax"], timed(run, steps))
                    for layout in ("first", "last"):
                        answer = torch.ask(job=job, size=size, batch=args.batch, layout=layout)
                        best[layout] = min(best[layout], (answer["seconds"], answer["cpu"]))
                peer = min(best["first"], best["last"])
                numbers[f"{name} {size} {label}"] = best
                rows.append(
                    [
                        f"{name} ({count / 1e6:.2f} M) 2×{size}² {label}",
                        f"{best['jax'][0]:.3f}",
                        f"{best['first'][0]:.3f}",
                        f"{best['last'][0]:.3f}",
                        f"{best['jax'][0] / peer[0]:.2f}",
                        f"{best['jax'][1]:.3f}",
                        f"{peer[1]:.3f}",
                    ]
                )
                print(" ".join(rows[-1]), flush=True)
    head = ["", "ours", "torch NCHW", "torch NHWC", "ours/torch", "ours CPU s", "torch CPU s"]
    title = f"U-Net, batch {args.batch}: seconds a call (torch {version})"
    finish(args, "unet_against_torch", header(title) + "\n" + table(rows, head), numbers)


if __name__ == "__main__":
    main()
