"""Moments and systematic resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.ensemble.resampling import systematic
from masf_jax.ensemble.statistics import (
    anomalies,
    effective_sample_size,
    member_variance,
    recentre,
    weighted_moments,
)

RNG = np.random.default_rng(3)


@pytest.mark.quick_cases("float32")
def test_moments(dtype):
    x = RNG.normal(3.0, 2.0, size=(7, 2, 3))
    members = jnp.asarray(x, dtype)
    mean, deviations = anomalies(members)
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(mean, x.mean(0), rtol=rtol)
    np.testing.assert_allclose(recentre(mean, deviations), x, rtol=rtol)
    np.testing.assert_allclose(member_variance(members), x.var(0, ddof=1), rtol=rtol)
    weights = jnp.full((7,), 1 / 7)
    equal = weighted_moments(members, weights)
    np.testing.assert_allclose(equal[0], x.mean(0), rtol=rtol)
    np.testing.assert_allclose(equal[1], x.var(0, ddof=1), rtol=10 * rtol)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_weighted_moments():
    x, w = RNG.normal(size=(5, 4)), np.asarray([0.5, 0.2, 0.2, 0.1, 0.0])
    mean, variance = weighted_moments(jnp.asarray(x), jnp.asarray(w))
    np.testing.assert_allclose(mean, w @ x, rtol=1e-12)
    np.testing.assert_allclose(variance, w @ (x - w @ x) ** 2 / (1 - (w**2).sum()), rtol=1e-12)
    mean, variance = weighted_moments(jnp.asarray(x), jnp.asarray([0.0, 1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(mean, x[1])
    np.testing.assert_array_equal(variance, 0.0)


@pytest.mark.slow
def test_effective_sample_size():
    np.testing.assert_allclose(effective_sample_size(jnp.log(jnp.full((8,), 0.125))), 8.0, rtol=1e-6)
    np.testing.assert_allclose(effective_sample_size(jnp.log(jnp.asarray([0.5, 0.5, 0.0]))), 2.0, rtol=1e-6)


@pytest.mark.slow
def test_systematic_resampling_is_unbiased_and_even(key):
    """Each member appears ⌊N w⌋ or ⌈N w⌉ times, N w times on average."""
    weights = np.asarray([0.4, 0.05, 0.0, 0.25, 0.01, 0.2, 0.09, 0.0])
    n, draws = weights.size, 2000
    index = np.asarray(
        jax.vmap(lambda k: systematic(k, jnp.asarray(weights, jnp.float32)))(jax.random.split(key, draws))
    )
    counts = (index[:, :, None] == np.arange(n)).sum(1)
    assert np.all(counts.sum(1) == n)
    assert np.all(counts >= np.floor(n * weights - 1e-6))
    assert np.all(counts <= np.ceil(n * weights + 1e-6))
    assert np.all(np.abs(counts.mean(0) - n * weights) < 4 * 0.5 / np.sqrt(draws))


@pytest.mark.quick_cases("float32")
def test_systematic_resampling_of_equal_weights_keeps_everyone(dtype, key):
    index = systematic(key, jnp.full((1000,), 1e-3))
    assert np.unique(np.asarray(index)).size >= 998  # a round-off at a boundary may take a neighbour


@pytest.mark.slow
def test_systematic_resampling_survives_round_off(key):
    """Weights that sum to less or more than one still give indices inside."""
    for total in (0.9, 1.1):
        weights = jnp.full((10_001,), total / 10_001)
        index = np.asarray(systematic(key, weights))
        assert index.min() == 0
        assert index.max() == 10_000
        assert np.unique(index).size > 9_900
