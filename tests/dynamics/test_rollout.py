"""Trajectories, spin-up and climatologies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.dynamics import (
    Function,
    Linear,
    Lorenz63,
    ModelError,
    advance,
    climatology,
    rollout,
    spun_up_ensemble,
)


def steps(n):
    return jnp.asarray(n, jnp.int32)


def test_rollout_keeps_every_nth_state_and_leaves_out_the_first(dtype, key):
    model = Function(lambda x, time: x + time, (2,), dt=0.5)
    x = rollout(model, jnp.zeros(2), key, 3, every=2)
    # times 0, .5 | 1, 1.5 | 2, 2.5
    np.testing.assert_allclose(x, np.asarray([[0.5] * 2, [3.0] * 2, [7.5] * 2]), rtol=1e-6)
    assert x.dtype == dtype
    later = rollout(model, x[0], key, 2, every=2, step=2)
    np.testing.assert_allclose(later, x[1:], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_advance_traced_and_static_counts_agree(key):
    model = ModelError(Linear(0.9 * np.eye(8)), 0.5)
    x = jax.random.normal(key, (3, 8))
    traced = jax.jit(lambda n: advance(model, x, steps(4), key, n))
    for n in (0, 1, 3):
        np.testing.assert_allclose(advance(model, x, steps(4), key, n), traced(steps(n)), rtol=1e-12)
    two = advance(model, advance(model, x, steps(4), key, 2), steps(6), key, 1)
    np.testing.assert_allclose(two, advance(model, x, steps(4), key, 3), rtol=1e-12)


@pytest.mark.slow
def test_spin_up_reaches_the_attractor(key):
    ensemble = spun_up_ensemble(Lorenz63(), key, 64)
    assert ensemble.shape == (64, 3)
    assert np.unique(np.asarray(ensemble)[:, 0]).size == 64
    z = np.asarray(ensemble)[:, 2]
    assert 18 < z.mean() < 29  # 23.5 ± 4 standard errors of 64 draws
    assert z.min() > 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_climatology_moments_of_an_autoregression(key):
    """x' = A x + ξ with known stationary covariance; errors within 5 standard errors of correlated draws."""
    a, noise = np.asarray([[0.5, 0.2], [0.0, -0.3]]), 0.7
    model = ModelError(Linear(a, initial_mean=0.0), noise)
    expected = np.zeros((2, 2))
    for _ in range(100):
        expected = a @ expected @ a.T + noise**2 * np.eye(2)
    moments = jax.jit(lambda key: climatology(model, key, 32_000, every=3))(key)
    # `Linear` spins up for no steps and starts at N(0, 1): that is forgotten within a few of 2000 rounds.
    np.testing.assert_allclose(moments.mean, 0.0, atol=5 * 1.0 / np.sqrt(32_000))
    np.testing.assert_allclose(moments.covariance, expected, atol=5 * np.sqrt(2 / 32_000))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_climatology_of_a_fixed_orbit_is_exact(key):
    """x alternates between 1e3 + 1 and 1e3 - 1: mean 1e3, variance 1 (N/(N-1)), no cancellation."""
    model = Function(lambda x, time: 2e3 - x, (1,), climatology=lambda key: jnp.asarray([1e3 + 1.0]))
    moments = climatology(model, key, 320)
    np.testing.assert_allclose(moments.mean, [1e3], rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, [[320 / 319]], rtol=1e-12)


@pytest.mark.quick_cases("float64")
def test_linear_model(dtype, key):
    model = Linear([[0.0, 1.0], [-1.0, 0.0]], initial_mean=3.0, initial_std=0.1)
    np.testing.assert_allclose(model(jnp.asarray([1.0, 2.0]), jnp.asarray(0.0), None), [2.0, -1.0])
    draws = np.asarray(spun_up_ensemble(model, key, 400))
    assert draws.dtype == dtype
    assert abs(draws.mean() - 3.0) < 0.02
    assert abs(draws.std() - 0.1) < 0.01
    with pytest.raises(ValueError, match=r"matrix must be square \(n, n\); got shape \(2, 3\)"):
        Linear(np.zeros((2, 3)))


def test_a_function_is_run_as_a_model_is(key):
    """`advance` and `rollout` take one, as `simulate` does; the step's number may be a Python int."""

    def turned(x, time):
        return jnp.stack([0.9 * x[1] + 0.1 * time, -x[0]])

    x = jnp.asarray([[1.0, 2.0], [0.5, -1.0]])
    made = advance(Function(turned, (2,)), x, jnp.asarray(3, jnp.int32), key, 4)
    np.testing.assert_array_equal(advance(turned, x, 3, key, 4), made)
    np.testing.assert_allclose(rollout(turned, x[0], key, 4, step=3)[-1], made[0], rtol=1e-6)
    with pytest.raises(ValueError, match="must be a model"):
        advance(Function, x, 0, key, 1)
