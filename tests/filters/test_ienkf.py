"""The iterative ensemble Kalman filter: a linear limit, and the minimum that it claims to find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from masf_jax import assimilate
from masf_jax.dynamics import Linear, Lorenz63
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, IEnKF
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset, arctan

pytestmark = pytest.mark.usefixtures("x64")
N = 6


def test_of_a_linear_model_it_is_the_etkf():
    """Also where measurements are missing; two Gauss-Newton steps, the second of length zero."""
    rng = np.random.default_rng(1)
    dynamics = Linear(0.9 * np.linalg.qr(rng.normal(size=(4, 4)))[0] + 0.2 * rng.normal(size=(4, 4)))
    measurement = Measurement(Subset([0, 2]), Gaussian(0.5))
    z = rng.normal(size=(8, 2))
    z[3], z[5, 0] = np.nan, np.nan
    ensemble = jnp.asarray(rng.normal(size=(N, 4)))
    inflation = Inflation(1.1)
    runs = [
        assimilate(
            jax.random.key(0), filter, dynamics, measurement, Observations(z, 3), ensemble,
            save=("ensemble",), scores=(),
        )
        for filter in (ETKF(inflation), IEnKF(inflation))
    ]  # fmt: skip
    np.testing.assert_allclose(runs[1].analysis["ensemble"], runs[0].analysis["ensemble"], rtol=1e-9)
    assert set(np.asarray(runs[1].info["iterations"])[[0, 1, 2, 4]]) == {2.0}
    np.testing.assert_array_equal(runs[1].analysis["ensemble"][3], runs[1].forecast["ensemble"][3])


@pytest.mark.slow
def test_the_mean_at_the_start_minimises_the_cost():
    """Against SciPy on the cost of the docstring; anomalies so small that differences are tangents."""
    dynamics, n_steps, key = Lorenz63(dt=0.01), 20, jax.random.key(2)
    measurement = Measurement(arctan() @ Subset([0, 1]), Gaussian(1e-4))
    centre = jnp.asarray([1.0, 2.0, 20.0])
    start = centre[None] + 1e-3 * jax.random.normal(key, (N, 3), jnp.float64)
    start = start - (start.mean(0) - centre)[None]
    truth = centre + 1e-3 * jnp.asarray([1.0, -0.5, 0.8])

    def carried(x):
        return jax.lax.fori_loop(0, n_steps, lambda j, x: dynamics(x, j * 0.01, key), x)

    z = measurement.operator(carried(truth))
    filter = IEnKF(tolerance=1e-14, iterations=20).prepare(dynamics, measurement)
    zero = jnp.zeros((), jnp.int32)
    state = filter.forecast(key, filter.init(key, start), dynamics, zero, n_steps)
    after, _ = filter.analysis(key, state, z, measurement)

    deviations = start - centre[None]

    def cost(w):
        x = carried(centre + w @ deviations)
        return 0.5 * (N - 1) * jnp.sum(w**2) - measurement.log_prob(z, x)

    found = minimize(jax.jit(jax.value_and_grad(cost)), np.zeros(N), jac=True, options={"gtol": 1e-8})
    best = carried(centre + jnp.asarray(found.x) @ deviations)
    moved = np.abs(best - carried(centre)).max()
    np.testing.assert_allclose(after.mean, best, atol=0.01 * moved)
    first, _ = ETKF().analysis(key, ETKF().init(key, state.ensemble), z, measurement)
    assert np.abs(after.mean - best).max() <= np.abs(first.mean - best).max()


def test_what_it_cannot_do_it_says():
    with pytest.raises(ValueError, match="inflation of the forecast"):
        IEnKF(Inflation(prior=1.1))
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        IEnKF(iterations=0)
    filter = IEnKF()
    state = filter.init(jax.random.key(0), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="prepare"):
        filter.analysis(jax.random.key(0), state, jnp.zeros(2), Measurement(Identity(), Gaussian(1.0)))
