"""Run by test_devices.py, once for each process of a run on the loopback: pieces of ten cycles, saved.

    python process_cases.py PROCESS PROCESSES PORT FOLDER [PIECE]

PIECE: process 1 kills itself after so many pieces. Where FOLDER has a state the run goes on from it.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from masf_jax import RunState, assimilate, begin
from masf_jax.dynamics import Lorenz96, MemberLayout
from masf_jax.filters import LETKF
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset

CYCLES, PIECE, N, n = 40, 10, 16, 272


def main(process, processes, port, folder, dies_after=None):
    if processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, process, heartbeat_timeout_seconds=10)
    random = np.random.default_rng(0)
    x, z = 8 + random.normal(size=(N, n)), 8 + random.normal(size=(CYCLES, n // 2))
    model = Lorenz96(n)
    measurement = Measurement(Subset(np.arange(0, n, 2)), Gaussian(1.0))
    filter, layout = LETKF(1.0), MemberLayout(devices=jax.devices())
    state = begin(jax.random.key(0), filter, model, measurement, x)
    path = Path(folder) / "state"
    if path.exists():
        state = RunState.load(path, like=state)
    for i in range(int(state.cycle) // PIECE, CYCLES // PIECE):
        if i == dies_after and process == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        now = Observations(z[i * PIECE : (i + 1) * PIECE], 1)
        run = assimilate(
            None, filter, model, measurement, now, start=state, layout=layout, save=("ensemble",), chunk=5
        )
        state = run.end
        state.save(path)
    if process == 0:
        np.save(Path(folder) / "last", run.analysis["ensemble"][-1])
    share = state.state.ensemble.addressable_shards[0].data.size * processes
    assert share == N * n, "each process holds its share"


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    process, processes, port = map(int, sys.argv[1:4])
    main(process, processes, port, sys.argv[4], *map(int, sys.argv[5:]))
