"""Memory of 4D-Var: O(√K) states of the search, and of weak constraints a few times the errors it finds."""

import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.dynamics import Lorenz96
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset
from masf_jax.smoothers import FourDVar, WeakFourDVar
from masf_jax.smoothers.four_d_var import minimised

N = 2000
pytestmark = pytest.mark.usefixtures("x64")


def states_held(problem, n_cycles, steps):
    """States of N float64 numbers in the program's temporary arrays."""
    model, sensor = Lorenz96(N), Measurement(Subset(np.arange(0, N, 100)), Gaussian(1.0))
    observations = Observations(jnp.zeros((n_cycles, N // 100)), steps)
    program = minimised.lower(problem, jnp.zeros(N), model, sensor, observations, steps).compile()
    return program.compiled.memory_analysis().temp_size_in_bytes / (8 * N)


@pytest.mark.slow
def test_four_d_var_keeps_the_root_of_the_cycles():
    short, long = (states_held(FourDVar(std=1.0), k, 2) for k in (100, 400))
    assert long < 2.1 * short  # √400 = 2 √100
    assert long < 220  # of 400 cycles, 800 model steps


@pytest.mark.slow
def test_weak_constraints_hold_the_errors_nine_times():
    short, long = (states_held(WeakFourDVar(std=1.0, q=0.1), k, 10) for k in (10, 20))
    assert 8 < (long - short) / (10 * 10) < 9.5
