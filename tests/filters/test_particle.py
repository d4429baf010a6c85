"""The particle filter where particles lie on a line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Lorenz63
from masf_jax.filters import ParticleFilter
from masf_jax.measurements import Gaussian, Identity, Measurement
from masf_jax.plots.components import _quantiles


@pytest.mark.parametrize("seed", range(5))
def test_particles_on_a_line_are_resampled_and_jittered_along_it(seed):
    """A covariance of rank one, whose product of anomalies is indefinite in single precision.

    Jitter leaves the line by round-off only (the particles' size times a few units in the last place).
    """
    n, keys = 10_000, jax.random.split(jax.random.key(seed), 3)
    direction = jax.random.normal(keys[0], (3,))
    particles = 30.0 + jax.random.normal(keys[1], (n, 1)) * direction[None]
    filter = ParticleFilter()
    state = filter.init(keys[2], particles)
    measurement = Measurement(Identity(), Gaussian(0.1))
    z = 30.0 + 0.5 * direction
    after, info = filter.analysis(keys[2], state, z, measurement)
    assert float(info["effective_sample_size"]) < n / 2
    ensemble = np.asarray(after.ensemble, np.float64)
    assert np.isfinite(ensemble).all()
    assert len(np.unique(ensemble[:, 0])) > n / 2  # jittered: not copies
    unit = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    off = ensemble - 30.0
    off -= np.outer(off @ unit, unit)
    assert np.abs(off).max() < 1e-3


@pytest.mark.parametrize("far", [1e25, 1e38])
def test_particles_that_no_measurement_knows_stay(far):
    """z so far away that every p(z | x) is 0 as a number: no NaN, equal weights, no effective particle."""
    particles = jax.random.normal(jax.random.key(0), (50, 2))
    particles = particles.at[3].set(jnp.nan)  # and one without any weight anyway
    filter, measurement = ParticleFilter(), Measurement(Identity(), Gaussian(0.1))
    after, info = filter.analysis(
        jax.random.key(1), filter.init(jax.random.key(2), particles), jnp.full(2, far), measurement
    )
    assert float(info["effective_sample_size"]) == 0
    np.testing.assert_array_equal(after.ensemble, particles)
    np.testing.assert_allclose(after.log_weights, -np.log(50), rtol=1e-6)
    near, info = filter.analysis(
        jax.random.key(1), filter.init(jax.random.key(2), particles), jnp.zeros(2), measurement
    )
    assert 0 < float(info["effective_sample_size"]) < 50
    assert np.isfinite(np.asarray(near.log_weights)).all()


def test_saved_members_come_with_their_weights():
    """Mean and spread that were saved are those of members and weights; the figure's band is theirs too."""
    model, sensor = Lorenz63(), Measurement(Identity(), Gaussian(2.0))
    start = model.initial_state(jax.random.key(1))
    members = start[None] + jax.random.normal(jax.random.key(2), (40, 3))
    truth, observations = simulate(jax.random.key(3), model, sensor, 30, 5, start)
    given = ParticleFilter(), model, sensor, observations, members
    run = assimilate(jax.random.key(4), *given, truth=truth, save=("mean", "spread", "ensemble"))
    for stage in (run.forecast, run.analysis):
        weights, states = np.asarray(stage["weights"], np.float64), np.asarray(stage["ensemble"], np.float64)
        np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)
        mean = np.einsum("kn,kni->ki", weights, states)
        np.testing.assert_allclose(stage["mean"], mean, atol=1e-3)
        square = np.einsum("kn,kni->ki", weights, (states - mean[:, None]) ** 2)
        spread = np.sqrt(square / (1 - (weights**2).sum(1))[:, None])
        np.testing.assert_allclose(stage["spread"], spread, rtol=2e-2, atol=1e-3)
    assert np.ptp(np.asarray(run.analysis["weights"])) > 0.05
    data = run.to_xarray()
    assert data["analysis_weights"].dims == ("cycle", "member")
    low, high = _quantiles(
        np.asarray(data["analysis_ensemble"])[..., 0], np.asarray(data["analysis_weights"])
    )
    for k, (a, b) in enumerate(zip(low, high, strict=True)):
        x, w = np.asarray(run.analysis["ensemble"])[k, :, 0], np.asarray(run.analysis["weights"])[k]
        assert w[x < a].sum() < 0.05 <= w[x <= a].sum() + 1e-6
        assert w[x < b].sum() < 0.95 <= w[x <= b].sum() + 1e-6
    equal = _quantiles(np.arange(100.0)[None], np.full((1, 100), 0.01))
    np.testing.assert_allclose(np.ravel(equal), [4, 94], atol=1)
