"""The particle filter where particles lie on a line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.filters import ParticleFilter
from masf_jax.measurements import Gaussian, Identity, Measurement


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
