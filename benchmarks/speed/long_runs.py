"""Memory of long runs by cycle, killed (SIGKILL) and gone on with once: python long_runs.py [OUT]

Each case is a process of its own: an ETKF on Lorenz-96, truth and observations made along the way
(`Simulation`), results to disk (`save_to`). RSS is read from /proc after each chunk; "flat" is the largest
over the median, after the first tenth of the process's cycles. The digest of all results on disk is compared
with that of a run that was not killed. Then `masf-jax run`, whose results end in a result.nc: the most that
each process had. 64 MB of results wait to be written at most, which 200 cycles do not fill.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = ["dynamics.n=10000", "filter=etkf", "burn_in=0", "save=[mean]", "chunk=40", "figures=false"]
COMMAND_CYCLES = (200, 2000, 4000)
CASES = {"n=40, N=20, 100000 cycles": (40, 20, 100_000), "n=100000, N=20, 2000 cycles": (100_000, 20, 2_000)}


def rss() -> int:
    """Resident bytes that are this process's own (not pages of files)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def child(path: str, n: int, members: int, cycles: int, kill_at: int) -> None:
    import jax

    from masf_jax import Record, Simulation, assimilate
    from masf_jax.dynamics import Lorenz96
    from masf_jax.filters import ETKF
    from masf_jax.measurements import Gaussian, Identity, Measurement

    class Watched(Record):
        def append(self, *arguments) -> None:
            super().append(*arguments)
            done = int(arguments[1].cycle)
            print(f"{done} {rss()}", flush=True)
            if kill_at and done >= kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    model, sensor = Lorenz96(n=n), Measurement(Identity(), Gaussian(1.0))
    start = 8.0 + jax.random.normal(jax.random.key(3), (n,))
    twin = Simulation(jax.random.key(0), model, sensor, cycles, 1, start)
    ensemble = start + jax.random.normal(jax.random.key(1), (members, n))
    record = Watched(path, resume=True, seconds=0.0)
    assimilate(jax.random.key(2), ETKF(rotation=True), model, sensor, twin, ensemble, save_to=record)


def command(path: str, cycles: int) -> None:
    """`masf-jax run`; prints the most bytes that it had in memory."""
    import threading
    import time

    from masf_jax.cli.main import main

    most = 0

    def look() -> None:
        nonlocal most
        while True:
            most = max(most, rss())
            time.sleep(0.01)

    threading.Thread(target=look, daemon=True).start()
    if main(["run", *COMMAND, f"n_cycles={cycles}", f"output_dir={path}"]) not in (0, 3):
        raise SystemExit(1)
    print(f"most {most}")


def digest(path: Path) -> str:
    """Of all arrays, but not of how they are cut into files."""
    import zarr

    found, group = hashlib.sha256(), zarr.open_group(path, mode="r")
    for name in sorted(key for key in group.array_keys()):
        array = group[name]
        for first in range(0, array.shape[0], array.chunks[0]):
            found.update(array[first : first + array.chunks[0]].tobytes())
    return found.hexdigest()[:16]


def measure(path: Path, case: tuple[int, int, int], kill_at: int) -> list[tuple[int, int]]:
    command = [sys.executable, __file__, "child", path, *case, kill_at]
    out = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if out.returncode != (-signal.SIGKILL if kill_at else 0):
        raise SystemExit(out.stderr)
    return [tuple(map(int, line.split())) for line in out.stdout.splitlines()]


def main(out: str | None) -> None:
    lines = ["python benchmarks/speed/long_runs.py benchmarks/results/long_runs.txt"]
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
            whole, killed = Path(folder) / "whole", Path(folder) / "killed"
            parts = {"not killed": measure(whole, case, 0)}
            expected = digest(whole)
            shutil.rmtree(whole)
            parts["until killed"] = measure(killed, case, case[2] // 2)
            parts["gone on with"] = measure(killed, case, 0)
            same = "bit-equal" if digest(killed) == expected else "DIFFERENT"
            lines.append(f"{name}: results killed once and gone on with against not killed: {same}")
        for part, seen in parts.items():
            later = sorted(bytes_ for _, bytes_ in seen[len(seen) // 10 :])
            middle = later[len(later) // 2]
            shown = ", ".join(f"{cycle}: {bytes_ / 2**20:.0f}" for cycle, bytes_ in seen[:: len(seen) // 5])
            flat = f"largest / median {later[-1] / middle:.3f}, last / median {seen[-1][1] / middle:.3f}"
            lines.append(f"  {part}: MB after cycle {shown}; {flat}")
    lines += ["", "masf-jax run " + " ".join(COMMAND) + ": the most, MB"]
    seen = []
    for cycles in COMMAND_CYCLES:
        with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
            call = [sys.executable, __file__, "command", f"{folder}/run", str(cycles)]
            done = subprocess.run(call, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            size = (Path(folder) / "run" / "result.nc").stat().st_size
        seen.append(int(done.stdout.split()[-1]))
        lines.append(f"  {cycles} cycles: {seen[-1] / 2**20:.0f}; result.nc {size / 2**20:.0f} MB")
    lines.append(f"  {COMMAND_CYCLES[2]} cycles over {COMMAND_CYCLES[1]}: {seen[2] / seen[1]:.3f}")
    print("\n".join(lines))
    if out:
        Path(out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], *map(int, sys.argv[3:]))
    elif sys.argv[1:2] == ["command"]:
        command(sys.argv[2], int(sys.argv[3]))
    else:
        main(*sys.argv[1:2] or [None])
