"""Thinned observations and superobservations against loops, draws and the Kalman filter."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.filters import GaussianState, KalmanFilter
from masf_jax.measurements import Gaussian, Identity, Linear, Measurement, Observations, square, superob, thin

measured = eqx.filter_jit(lambda operator, x: operator(x))


def gappy(shape, seed=0, steps=3):
    rng = np.random.default_rng(seed)
    return Observations(rng.normal(size=shape), steps, rng.uniform(size=shape) < 0.7)


@pytest.mark.parametrize(
    ("shape", "picked"),
    [
        ((5, 11), np.s_[:, 1::3]),
        ((5, 6, 7), np.s_[:, 1::3, 1::3]),
        ((5, 2, 6, 7), np.s_[:, :, 1::3, 1::3]),
    ],
)
def test_thinning_is_slicing(shape, picked, dtype):
    dense = gappy(shape, steps=[0, 2, 3, 7, 9])
    found = thin(dense, 3, start=1)
    np.testing.assert_array_equal(found.observations.values, np.asarray(dense.values)[picked].reshape(5, -1))
    np.testing.assert_array_equal(found.observations.mask, np.asarray(dense.mask)[picked].reshape(5, -1))
    np.testing.assert_array_equal(found.observations.steps, dense.steps)
    assert found.observations.values.dtype == dtype
    x = jnp.asarray(np.random.default_rng(1).normal(size=shape[1:]), dtype)
    expected = (np.asarray(x) ** 2)[picked[1:]].ravel()
    np.testing.assert_allclose(measured(found.operator @ square(), x), expected, rtol=1e-6)


@pytest.mark.parametrize("least", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("shape", [(4, 8), (4, 2, 4, 6)])
def test_superobs_are_block_means(shape, least, x64):
    dense = gappy(shape, seed=2)
    values, mask = np.asarray(dense.values), np.asarray(dense.mask)
    size = 2 if len(shape) == 2 else 4
    found = superob(dense, 0.5, 2, least=least)
    found_values, found_mask = np.asarray(found.observations.values), np.asarray(found.observations.mask)
    assert found.observations.interval == 3
    n_axes = 1 if size == 2 else 2
    for block in np.ndindex(found.observations.values.shape):
        sides = (slice(2 * i, 2 * i + 2) for i in block[-n_axes:])
        cells = (*block[:-n_axes], *sides)
        accepted = mask[cells].sum() >= least * size
        assert found_mask[block] == accepted
        if accepted:
            expected = values[cells][mask[cells]].mean()
            np.testing.assert_allclose(found_values[block], expected, rtol=1e-12)
    x = jnp.asarray(np.random.default_rng(3).normal(size=shape[1:]))
    whole = superob(Observations(np.asarray(x)[None], 1), 0.5, 2)
    np.testing.assert_allclose(
        measured(found.operator @ Identity(), x), np.asarray(whole.observations.values)[0], rtol=1e-12
    )


@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_error_of_a_superob(correlation):
    rng = np.random.default_rng(4)
    n, factor = 40_000, 3
    own, shared = rng.normal(size=(n, 6)), np.repeat(rng.normal(size=(n, 2)), factor, axis=1)
    errors = 0.8 * (np.sqrt(1 - correlation) * own + np.sqrt(correlation) * shared)
    found = superob(Observations(errors, 1), 0.8, factor, correlation=correlation)
    np.testing.assert_allclose(np.std(found.observations.values), found.std, rtol=0.01)
    sigma = np.asarray([0.2, 0.5, 1.0, 0.3, 0.3, 0.3])
    varied = superob(Observations(errors, 1), sigma, factor)
    assert varied.std.shape == (2,)
    exact = [np.sqrt((sigma[:3] ** 2).sum()) / 3, 0.3 / np.sqrt(3)]
    np.testing.assert_allclose(varied.std, exact, rtol=1e-12)
    partly = superob(Observations(errors, 1), 0.8, factor, least=0.6)
    assert partly.std == pytest.approx(0.8 / np.sqrt(2))


def test_analysis_of_superobs_is_that_of_all_values(key, x64):
    """Where the state does not vary within a block, averaging first loses nothing."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(3, 3))
    state = GaussianState(jnp.asarray(rng.normal(size=3)), jnp.asarray(root @ root.T))
    dense = Observations(rng.normal(size=(1, 12)), 1)
    spread_out = Linear(np.repeat(np.eye(3), 4, axis=0))
    coarse = superob(dense, 0.7, 4)
    analysis = eqx.filter_jit(KalmanFilter().analysis)
    every = analysis(key, state, dense.values[0], Measurement(spread_out, Gaussian(0.7)))[0]
    means = Measurement(coarse.operator @ spread_out, Gaussian(coarse.std))
    found = analysis(key, state, coarse.observations.values[0], means)[0]
    np.testing.assert_allclose(found.mean, every.mean, atol=1e-10)
    np.testing.assert_allclose(found.variance, every.variance, atol=1e-10)


def test_positions_of_what_is_left():
    grid = Coordinates.grid((4, 6), (4.0, 6.0))
    dense = Observations(np.zeros((1, 4, 6)), 1)
    thinned, coarse = thin(dense, 2, 1).operator @ Identity(), superob(dense, 1.0, 2).operator @ Identity()
    first = (thinned.coordinates(grid), coarse.coordinates(grid))
    assert first[0] is not None
    assert first[1] is not None
    np.testing.assert_array_equal(first[0].positions[:2], [[1.0, 1.0], [1.0, 3.0]])
    np.testing.assert_array_equal(first[1].positions[:2], [[0.5, 0.5], [0.5, 2.5]])


DENSE = Observations(np.zeros((2, 6)), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: thin(DENSE, 0), "stride must be at least 1 .* got 0, 0"),
        (lambda: thin(DENSE, 2, 6), r"nothing is left: start 6 lies outside a measurement of shape \(6,\)"),
        (lambda: superob(DENSE, 1.0, 4), r"blocks of 4 cells do not fill the grid \(6,\)"),
        (lambda: superob(DENSE, 1.0, 2, least=0.0), "least must lie in .* got 0.0 and 0.0"),
        (lambda: superob(DENSE, 1.0, 2, correlation=1.5), "correlation in .* got 1.0 and 1.5"),
        (lambda: superob(DENSE, -1.0, 2), "std must be positive, one number or of shape"),
        (lambda: superob(DENSE, np.ones(3), 2), r"or of shape \(6,\); got shape \(3,\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
