"""Additive model error: its variance, its key, its closed-form moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.dynamics import Linear, Lorenz96, ModelError, advance


def test_variance_grows_as_std_squared_times_time(dtype, key):
    """50 steps of dt .2 of a standing model: variance std²·10 per component, within 4 standard errors."""
    std = np.asarray([0.5, 2.0])
    model = ModelError(Linear(np.eye(2), dt=0.2), std)
    n = 4000
    x = jax.jit(lambda x: advance(model, x, jnp.asarray(0, jnp.int32), key, 50))(jnp.zeros((n, 2)))
    assert x.dtype == dtype
    standard_error = std**2 * 10 * np.sqrt(2 / n)
    assert np.all(np.abs(np.asarray(x).var(0) - std**2 * 10) < 4 * standard_error)
    assert np.all(np.abs(np.asarray(x).mean(0)) < 4 * std * np.sqrt(10 / n))


@pytest.mark.quick_cases("float64")
def test_step_noise_variance_and_mean_step(dtype):
    inner = Lorenz96(8)
    model = ModelError(ModelError(inner, 0.3), 0.4)
    np.testing.assert_allclose(model.step_noise_variance, 0.25 * 0.05, rtol=1e-6)
    x = jnp.arange(8.0)
    time = jnp.asarray(0.0)
    np.testing.assert_array_equal(model.mean_step(x, time), inner(x, time, None))
    assert model.coordinates == inner.coordinates
    assert model.spin_up_steps == inner.spin_up_steps
    assert model.initial_state(jax.random.key(0)).dtype == dtype


@pytest.mark.slow
def test_each_member_and_step_draws_its_own_noise(key):
    model = ModelError(Linear(np.eye(3)), 1.0)
    first = advance(model, jnp.zeros((4, 3)), jnp.asarray(0, jnp.int32), key, 1)
    second = advance(model, jnp.zeros((4, 3)), jnp.asarray(1, jnp.int32), key, 1)
    draws = np.concatenate([np.asarray(first).ravel(), np.asarray(second).ravel()])
    assert np.unique(draws).size == draws.size
    fewer = advance(model, jnp.zeros((2, 3)), jnp.asarray(0, jnp.int32), key, 1)
    np.testing.assert_array_equal(fewer, first[:2])  # noise belongs to the member, not to the batch


def test_bad_input():
    with pytest.raises(ValueError, match=r"must not be negative; got -1\.0"):
        ModelError(Lorenz96(8), -1.0)
    with pytest.raises(ValueError, match=r"state's shape \(8,\); got \(3,\)"):
        ModelError(Lorenz96(8), np.ones(3))
    with pytest.raises(ValueError, match="call it with a key"):
        ModelError(Lorenz96(8), 1.0)(jnp.zeros(8), jnp.asarray(0.0), None)
