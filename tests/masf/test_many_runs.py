"""Many runs in one program: LAPACK calls of XLA's CPU programs must not wait for each other."""

import subprocess
import sys

import pytest

RUNS = """
import sys, warnings
import jax
import masf_jax as mj
from masf_jax.masf import MASF, Bridge, GaussianPrior
from masf_jax.measurements import Gaussian, Identity, Measurement, arctan

warnings.simplefilter("ignore")
n, measurement = 40, Measurement(Identity(), Gaussian(1.0))
if sys.argv[1] == "transported":
    filter, runs, n_members = MASF(), 200, 24
elif sys.argv[1] == "two steps":
    filter, runs, n_members = MASF(GaussianPrior(members="fresh"), sampler=Bridge(2)), 64, 24
elif sys.argv[1] == "localised":
    filter, runs, n_members, n = MASF(GaussianPrior(4.0, rotation=True)), 64, 24, 20
else:  # a tangent a member: a batch in a single run, too
    filter, runs, n_members, measurement = MASF(), 2, 40, Measurement(arctan(), Gaussian(0.05))
dynamics = mj.dynamics.Lorenz96(n)
members = 8 + jax.random.normal(jax.random.key(0), (runs, n_members, n))
observations = mj.simulate(jax.random.key(3), dynamics, measurement, 20, x0=members[0, 0]).observations
run = jax.jit(jax.vmap(lambda key, members: mj.assimilate(
    key, filter, dynamics, measurement, observations, members, scores=()
).analysis["mean"]))
for _ in range(3):
    jax.block_until_ready(run(jax.random.split(jax.random.key(1), runs), members))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transported", "two steps", "localised", "tangents"])
def test_many_runs_in_one_program_end(name):
    """They waited for ever on two cores: jaxlib 0.10 (docs/performance.md)."""
    done = subprocess.run([sys.executable, "-c", RUNS, name], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
