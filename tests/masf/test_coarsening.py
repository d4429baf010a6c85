"""A network that sees blocks of cells: as on a grid of so many cells, and its base where it is zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Lorenz63, Lorenz96
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import LETKF
from masf_jax.masf.amortised.coarse import block_mean, block_sum, interpolated
from masf_jax.masf.amortised.features import analysis_features
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.measurements import Function, Gaussian, Measurement, Subset, arctan

RING = Architecture(channels=4, multipliers=(1,))


def repeated(x):
    """Each cell as a block of two by two."""
    return jnp.repeat(jnp.repeat(x, 2, -1), 2, -2)


def test_blocks_and_what_lies_between_them():
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    np.testing.assert_allclose(block_mean(repeated(jnp.asarray(x)), 2, 2), x, rtol=1e-6)
    np.testing.assert_allclose(block_sum(jnp.asarray(x), 2, 1), x[..., ::2] + x[..., 1::2], rtol=1e-6)
    for c in (2, 3, 5):
        centres, cells = ((np.arange(n) + 0.5) / n for n in (32, 32 * c))
        wave = interpolated(jnp.asarray(np.cos(2 * np.pi * centres)), c, 1)
        np.testing.assert_allclose(wave, np.cos(2 * np.pi * cells), atol=0.5 * (np.pi / 32) ** 2 + 1e-5)
        means = block_mean(interpolated(jnp.asarray(x), c, 2), c, 2)
        assert np.abs(np.asarray(means).mean() - x.mean()) < 1e-6


def test_features_of_blocks_are_those_of_the_coarser_grid(key):
    """Of states that are constant on blocks, a coarser model whose sensor sees the cells has the same."""
    seen = Subset(np.arange(0, 2 * 8 * 8, 3))
    fine = Measurement(arctan() @ seen, Gaussian(0.5))
    coarse = Measurement(Function(lambda x: fine.operator(repeated(x)), (2, 4, 4)), Gaussian(0.5))
    forecast, analysis = jax.random.normal(key, (2, 6, 2, 4, 4))
    z = fine.sample(key, repeated(forecast[0]))
    mask = jnp.arange(z.size) % 4 > 0
    climate = Moments(jnp.full((2, 4, 4), 0.3), jnp.full((2, 4, 4), 2.0))
    wide = Moments(*map(repeated, climate))
    there = analysis_features(forecast, analysis, z, mask, coarse, climate, "field")
    here = analysis_features(repeated(forecast), repeated(analysis), z, mask, fine, wide, "field", 2)
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_fresh_network_leaves_the_base_filter_as_it_is(key):
    dynamics = Lorenz96(16)
    measurement = Measurement(Subset(np.arange(0, 16, 3)), Gaussian(1.0))
    base = LETKF(3.0)
    filter = AmortisedMASF(base, architecture=RING, climatology=16, coarsening=2)
    filter = filter.prepare(dynamics, measurement)
    assert filter.denoiser.features.shape[1:] == (8,)
    ensemble = jax.random.normal(key, (8, 16))
    z, mask = jnp.zeros(6), jnp.ones(6, bool)
    key_base, _ = jax.random.split(key)
    ours, _ = filter.update(key, filter.init(key, ensemble), z, mask, measurement)
    theirs, _ = base.prepare(dynamics, measurement).update(
        key_base, base.init(key, ensemble), z, mask, measurement
    )
    np.testing.assert_allclose(ours.ensemble, theirs.ensemble, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "dynamics", "message"),
    [
        ({"coarsening": 0}, Lorenz96(16), "at least 1"),
        ({"coarsening": 2, "n_steps": 3}, Lorenz96(16), "several steps"),
        ({"coarsening": 3}, Lorenz96(16), "sizes it divides"),
        ({"coarsening": 3}, Lorenz63(), "on a ring or a field"),
    ],
)
def test_what_cannot_be_is_refused(options, dynamics, message):
    with pytest.raises(ValueError, match=message):
        AmortisedMASF(**options).prepare(dynamics, Measurement(Subset([0]), Gaussian(1.0)))
