"""Follows a file to which observations are added, one number a line: python online.py SEEN STATE OUT [once]

After each line: a cycle, a line of OUT (step, mean, spread), and the run's state in STATE, from which the
next start of this script goes on. With "once" it ends at the end of the file, else it waits for more.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from masf_jax import RunState, assimilate, begin, dynamics, filters, measurements

seen, kept, out = map(Path, sys.argv[1:4])
model = dynamics.Function(lambda x, t: 0.95 * x + 0.1 * jnp.sin(t / 24), (1,))
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(0.3))
filter = filters.ETKF(rotation=True)
members = jax.random.normal(jax.random.key(0), (20, 1))

run = begin(jax.random.key(1), filter, model, sensor, members)
if kept.exists():
    run = RunState.load(kept, run)
told = out.read_text().splitlines(keepends=True) if out.exists() else []
out.write_text("".join(told[: int(run.cycle)]))  # a line whose state was not kept any more comes again

while True:
    lines = seen.read_text().splitlines()
    for line in lines[int(run.cycle) :]:
        z = jnp.array([[float(line)]])
        now = assimilate(None, filter, model, sensor, z, start=run)
        run = now.end
        with out.open("a") as file:
            mean, spread = (float(now.analysis[name].item()) for name in ("mean", "spread"))
            file.write(f"{int(run.step)} {mean:.6f} {spread:.6f}\n")
        run.save(kept)
    if "once" in sys.argv:
        break
    time.sleep(1.0)
