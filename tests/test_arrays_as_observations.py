"""An array of values is observations after each model step, wherever observations are expected."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import assimilate, dynamics, filters, measurements, metrics, smoothers
from masf_jax.denoisers import DenseCovariance, GaussianDenoiser
from masf_jax.estimation import Normal, estimate, log_likelihood
from masf_jax.measurements import Observations

EXACT = dynamics.Linear(0.9 * np.eye(4))
MODEL = dynamics.ModelError(EXACT, 0.1)
SENSOR = measurements.Measurement(measurements.Identity(), measurements.Gaussian(0.5))
KEY = jax.random.key(0)
ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
ROWS[1, 2] = np.nan
MEMBERS = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
STATES = np.zeros((3, 4), np.float32)
RING = dynamics.Lorenz96(4)
UNKNOWN = {"dynamics.forcing": Normal(6.0, 2.0)}
DRAWS = jnp.zeros((2, 4, 4)).at[0].set(1.0)


def sda(z):
    flat = GaussianDenoiser(jnp.zeros(16), DenseCovariance(jnp.eye(16)))
    method = smoothers.SDA(smoothers.Reshaped(flat, (16,)), jnp.zeros(4), jnp.ones(4), n_steps=2)
    return method.draws(KEY, 2, 4, SENSOR, z)


ENTRIES = {
    "assimilate": lambda z: assimilate(KEY, filters.ETKF(), MODEL, SENSOR, z, MEMBERS).analysis,
    "enks": lambda z: smoothers.enks(KEY, filters.ETKF(), MODEL, SENSOR, z, MEMBERS).smoothed,
    "ienks": lambda z: smoothers.ienks(KEY, filters.IEnKF(), EXACT, SENSOR, z, MEMBERS, lag=1).smoothed,
    "rts": lambda z: smoothers.rts(filters.KalmanFilter(), MODEL, SENSOR, z, MEMBERS).smoothed,
    "4D-Var": lambda z: smoothers.FourDVar(1.0)(jnp.zeros(4), EXACT, SENSOR, z).trajectory,
    "weak 4D-Var": lambda z: smoothers.WeakFourDVar(1.0)(jnp.zeros(4), MODEL, SENSOR, z).trajectory,
    "SDA": sda,
    "from_draws": lambda z: smoothers.from_draws(DRAWS, MODEL, SENSOR, z).given.observation,
    "estimate": lambda z: estimate(KEY, filters.ETKF(), RING, SENSOR, z, MEMBERS, unknown=UNKNOWN).mean,
    "log_likelihood": lambda z: log_likelihood(KEY, filters.ETKF(), MODEL, SENSOR, z, MEMBERS),
    "desroziers": lambda z: metrics.desroziers(SENSOR, z, STATES, STATES)[:4],
    "withhold": lambda z: measurements.withhold(z, [1]),
    "thin": lambda z: measurements.thin(z, 2).observations,
    "superob": lambda z: measurements.superob(z, 0.5, 2).observations,
}
SELDOM = ("enks", "ienks", "weak 4D-Var")  # as "rts" and "4D-Var"


@pytest.mark.slow_cases("4D-Var", "assimilate", "estimate", "log_likelihood", "rts")
@pytest.mark.parametrize("name", often(ENTRIES, [name for name in ENTRIES if name not in SELDOM]))
def test_the_same_as_observations_a_step_apart(name):
    found, expected = (ENTRIES[name](z) for z in (ROWS, Observations(ROWS, 1)))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_rows_are_steps_one_two_three_also_over_two_calls():
    whole = ENTRIES["assimilate"](ROWS)["mean"]
    given = ENTRIES["assimilate"](Observations(ROWS, [1, 2, 3]))["mean"]
    np.testing.assert_allclose(whole, given, rtol=1e-5, atol=1e-6)
    first = assimilate(KEY, filters.ETKF(), MODEL, SENSOR, ROWS[:2], MEMBERS)
    last = assimilate(None, filters.ETKF(), MODEL, SENSOR, ROWS[2:], start=first.end)
    assert last.steps.tolist() == [3]
    np.testing.assert_allclose(last.analysis["mean"], whole[2:], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_traced_array():
    """Values are data of one program: in jit, and with a derivative."""

    def last_mean(z):
        return assimilate(KEY, filters.ETKF(), MODEL, SENSOR, z, MEMBERS).analysis["mean"][-1].sum()

    value, slope = jax.jit(jax.value_and_grad(last_mean))(jnp.asarray(ROWS))
    np.testing.assert_allclose(value, last_mean(ROWS), rtol=1e-5)
    assert slope[1, 2] == 0  # a missing value moves nothing
    assert (np.asarray(slope)[2] > 0.1).all()


def test_arrays_that_do_not_fit():
    def run(z):
        return assimilate(KEY, filters.ETKF(), MODEL, SENSOR, z, MEMBERS)

    with pytest.raises(ValueError, match=r"values\[None\] one cycle"):
        run(ROWS[0])
    with pytest.raises(ValueError, match=r"observations have shape \(3,\) per cycle.*has shape \(4,\)"):
        run(ROWS[:, :3])
    with pytest.raises(ValueError, match="complex"):
        run(ROWS.astype(complex))
