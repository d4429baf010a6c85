"""Strong and weak scaling of cycles on one to eight forced CPU devices, which share this machine's cores.

Each number of devices runs in a process of its own: Lorenz-96, every second value measured, forecast,
analysis and default scores. CPU seconds are those of the whole process during the cycles, compile excluded,
divided by the devices: what one device computes. Wall time can fall with the cores only, and says nothing
here beyond them. Memory is XLA's account of the compiled program for one device: arguments, results, work
space.

    python benchmarks/speed/devices.py [--filters ETKF LETKF] [--n 100000] [--members 40]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import _path  # noqa: F401
from suite.common import arguments, finish, header, table

DEVICES = (1, 2, 4, 8)


def measure(name: str, n: int, n_members: int, n_cycles: int, repeats: int) -> dict[str, float]:
    """Least CPU and wall seconds a cycle, and memory, of one filter on all devices of this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from masf_jax import assimilate, filters, scan as program
    from masf_jax.dynamics import Lorenz96, MemberLayout
    from masf_jax.measurements import Gaussian, Measurement, Observations, Subset

    filter = filters.LETKF(4.0) if name == "LETKF" else getattr(filters, name)()
    x = 8 + jax.random.normal(jax.random.key(0), (n_members, n))
    measurement = Measurement(Subset(np.arange(0, n, 2)), Gaussian(1.0))
    z = 8 + jax.random.normal(jax.random.key(1), (n_cycles, n // 2))
    devices = jax.devices()
    layout = MemberLayout(devices=tuple(devices) if len(devices) > 1 else None)
    seen: list[Any] = []
    scan = program._scan

    def caught(*args: Any) -> Any:
        seen.append(args)
        return scan(*args)

    def run() -> Any:
        key, observations = jax.random.key(3), Observations(z, 1)
        truth = jnp.full((n_cycles, n), 8.0)
        result = assimilate(
            key, filter, Lorenz96(n), measurement, observations, x, layout=layout, truth=truth
        )
        return jax.block_until_ready(result.final)

    program._scan = caught
    run()
    program._scan = scan
    best = [float("inf")] * 2
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        run()
        spent = time.perf_counter() - start[0], time.process_time() - start[1]
        best = [min(pair) for pair in zip(best, spent, strict=True)]
    account = scan.lower(*seen[0]).compile().compiled.memory_analysis()
    held = account.argument_size_in_bytes + account.output_size_in_bytes + account.temp_size_in_bytes
    return {"wall": best[0] / n_cycles, "cpu": best[1] / n_cycles, "megabytes": held / 1e6}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--filters", nargs="+", default=["ETKF", "LETKF", "EnSRF", "MASF", "EnSF"])
    parser.add_argument("--weak", nargs="*", default=["ETKF", "LETKF"], help="those with weak scaling too")
    parser.add_argument("--n", type=int, default=40_000, help="components of the state, on all devices")
    parser.add_argument("--members", type=int, default=40)
    parser.add_argument("--cycles", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        name, n = args.only.split(",")
        print(json.dumps(measure(name, int(n), args.members, args.cycles, args.repeats)))
        return
    # the serial filter and the sampler of 500 steps take a smaller state
    sizes = {name: args.n // {"EnSRF": 20, "EnSF": 10}.get(name, 1) for name in {*args.filters, *args.weak}}
    numbers: dict[str, Any] = {}
    rows = []
    for scaling in ("strong", "weak"):
        for name in args.filters if scaling == "strong" else args.weak:
            for devices in DEVICES:
                n = sizes[name] if scaling == "strong" else sizes[name] * devices // max(DEVICES)
                flags = os.environ.get("XLA_FLAGS", "")
                environment = os.environ | {
                    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
                    "JAX_PLATFORMS": "cpu",
                    "OPENBLAS_NUM_THREADS": "1",
                }
                options = [f"--{key}={getattr(args, key)}" for key in ("members", "cycles", "repeats")]
                command = [sys.executable, __file__, f"--only={name},{n}", *options]
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode:
                    raise SystemExit(f"{name} on {devices} devices: {done.stderr[-2000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                numbers[f"{scaling},{name},{devices}"] = found
                one = numbers[f"{scaling},{name},1"]["cpu"]
                own, ideal = found["cpu"] / devices, one / devices if scaling == "strong" else one
                rows.append(
                    [
                        name,
                        scaling,
                        n,
                        devices,
                        f"{1e3 * own:.1f}",
                        f"{own / ideal:.2f}",
                        f"{1e3 * found['wall']:.1f}",
                        f"{found['megabytes']:.1f}",
                    ]
                )
                print(*rows[-1], flush=True)
    head = [
        "filter",
        "scaling",
        "n",
        "devices",
        "CPU ms a cycle and device",
        "over ideal",
        "wall ms",
        "MB a device",
    ]
    title = f"Cycles on forced CPU devices: Lorenz-96, N = {args.members}, half of the values measured"
    finish(args, "devices", header(title) + "\n" + table(rows, head), numbers)


if __name__ == "__main__":
    main()
