"""Our U-Net takes no longer than the same one in PyTorch, forward and per training step, on the CPU.

python benchmarks/speed/unet_against_torch.py --torch-python PATH

PATH is a Python with torch (`pip install "masf-jax[torch]"`, or torch alone in an environment of its own; by
default this Python). The same layers with the same number of parameters, the paper's size and the small one,
two channels, batches of 10, single precision, both with all cores; torch in its two memory layouts, of which
the faster counts. A training step is loss, gradient, clipping and AdamW: one compiled call a step, and a step
of a compiled loop of STEPS, which is how `masf_jax.training` runs them (torch's is a loop in Python both
times). The lone call gets its memory from the system anew each time: about 0.2 s of page faults at the
paper's size, most of which GLIBC_TUNABLES=glibc.malloc.hugetlb=1 takes away. Calls of both take turns; best
wall clock of the repeats, and the CPU seconds of the best call; wall clock of the compilation of ours (no
cache). On a machine that does other things too,
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
from suite.common import arguments, finish, header, table
from suite.unet_calls import unet_calls
from suite.worker import Worker

from masf_jax.nn import UNet


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
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="small: the first only")
    parser.add_argument("--networks", nargs="+", default=["small", "paper"], choices=["small", "paper"])
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", None)
    torch = Worker(args.torch_python, "torch_unet_worker.py", str(args.torch_threads), needs="torch")
    version = torch.ask(job="version")["version"]
    rows, numbers = [], {}
    presets = {"small": (UNet.small(2), args.sizes[:1]), "paper": (UNet.paper(2), args.sizes)}
    for name in args.networks:
        net, sizes = presets[name]
        embedding = net.embedding or 4 * net.channels
        built = torch.ask(job="build", channels=net.channels, blocks=net.blocks, embedding=embedding)
        for size in sizes:
            count, calls = unet_calls(net, size, args.batch)
            if count != built["parameters"]:
                raise SystemExit(f"not the same network: {count} and {built['parameters']} parameters")
            for label, call in calls.items():
                call.run()
                best = {"jax": (float("inf"),) * 2, "first": (float("inf"),) * 2, "last": (float("inf"),) * 2}
                for _ in range(args.repeats):
                    best["jax"] = min(best["jax"], timed(call.run, call.steps))
                    for layout in ("first", "last"):
                        answer = torch.ask(job=call.job, size=size, batch=args.batch, layout=layout)
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
                        f"{best['jax'][1] / peer[1]:.2f}",
                        f"{call.compilation:.0f}",
                    ]
                )
                print(" ".join(rows[-1]), flush=True)
    head = ["", "ours", "torch NCHW", "torch NHWC", "ours/torch", "ours CPU s", "torch CPU s"]
    head += ["ratio", "compilation s"]
    title = f"U-Net, batch {args.batch}: seconds a call (torch {version})"
    finish(args, "unet_against_torch", header(title) + "\n" + table(rows, head), numbers)


if __name__ == "__main__":
    main()
