"""Twin experiments: the truth, its observations, and their independence of the ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from masf_jax import Simulation, simulate
from masf_jax.dynamics import Function, Linear, Lorenz63, Lorenz96, advance, rollout, spun_up_ensemble
from masf_jax.measurements import Gaussian, Identity, Measurement, Subset, arctan

MEASUREMENT = Measurement(Identity(), Gaussian(1.0))


def test_truth_is_no_member_even_with_a_shared_key(key):
    """JAX ≥ 0.5: split(key, n)[i] == fold_in(key, i), so a careless truth *would* be member 0."""
    data = jax.random.key_data
    assert (data(jax.random.split(key, 3)[0]) == data(jax.random.fold_in(key, 0))).all()
    model = Linear(0.9 * np.eye(3))
    ensemble = np.asarray(spun_up_ensemble(model, key, 8))
    twin = simulate(key, model, MEASUREMENT, 1, 5)
    distance = np.abs(ensemble[:, None] - ensemble[None]).sum(-1) + np.eye(8)
    assert distance.min() > 1e-3  # members differ
    moved = 0.9**5 * ensemble
    assert np.abs(np.asarray(twin.truth[0]) - moved).max(1).min() > 1e-3


@pytest.mark.quick_cases("float32")
def test_truth_and_observations(dtype, key):
    model = Lorenz96(6)
    measurement = Measurement(Subset([1, 4]), Gaussian(0.5))
    x0 = model.forcing + jnp.arange(6.0)
    twin = jax.jit(lambda key: simulate(key, model, measurement, 2000, 2, x0=x0))(key)
    assert twin.truth.shape == (2000, 6)
    assert twin.truth.dtype == twin.observations.values.dtype == dtype
    np.testing.assert_allclose(twin.truth[:3], rollout(model, x0, key, 3, 2), rtol=1e-4)
    assert twin.observations.interval == 2
    noise = np.asarray(twin.observations.values) - np.asarray(twin.truth)[:, [1, 4]]
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * 4000)
    lagged = np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]
    assert abs(lagged) < 4 / np.sqrt(2000)  # a key of its own each cycle


def test_how_a_simulation_is_cut_makes_no_difference(key):
    """To the bit, also of nonlinear operators and cycles one by one."""
    twin = Simulation(key, Lorenz63(), Measurement(arctan(), Gaussian(0.1)), 11, 2)

    def read(size):
        parts, before = [], twin.start
        for i in range(0, 11, size):
            parts.append(twin.read(before, i, min(size, 11 - i)))
            before = parts[-1].truth[-1]
        return [
            np.concatenate(p) for p in zip(*((p.truth, p.observations.values) for p in parts), strict=True)
        ]

    for one, other in zip(read(11), read(1), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="truth is not finite from cycle 4 on"):
        twin.read(jnp.full(3, jnp.nan), 4, 1)


def test_bad_input(key):
    with pytest.raises(ValueError, match="n_cycles must be at least 1; got 0"):
        simulate(key, Lorenz63(), MEASUREMENT, 0)
    with pytest.raises(ValueError, match="steps_per_cycle must be at least 1; got 0"):
        simulate(key, Lorenz63(), MEASUREMENT, 3, 0)


@pytest.mark.parametrize("x0", [np.asarray([1, 2, 3]), [1.0, 2.0, 3.0], xr.DataArray([1.0, 2.0, 3.0])])
def test_a_first_state_of_any_kind(key, x0):
    expected = simulate(key, Lorenz63(), MEASUREMENT, 2, x0=jnp.asarray([1.0, 2.0, 3.0])).truth
    np.testing.assert_array_equal(simulate(key, Lorenz63(), MEASUREMENT, 2, x0=x0).truth, expected)
    members = np.asarray([[1, 2, 3], [3, 4, 5]])
    np.testing.assert_array_equal(
        advance(Lorenz63(), members, 0, key, 2), advance(Lorenz63(), jnp.asarray(members, float), 0, key, 2)
    )


def test_a_first_state_that_is_none(key):
    with pytest.raises(ValueError, match=r"x0 must be one state of shape \(3,\); got \(2,\)"):
        simulate(key, Lorenz63(), MEASUREMENT, 2, x0=np.ones(2))
    with pytest.raises(ValueError, match="x0 holds NaN or Inf"):
        simulate(key, Lorenz63(), MEASUREMENT, 2, x0=np.asarray([1.0, np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"states of shape \(3,\); got \(3,\): one state x is a member"):
        advance(Lorenz63(), np.ones(3), 0, key, 1)
    with pytest.raises(ValueError, match=r"x must be one state of shape \(3,\); got \(1, 3\)"):
        rollout(Lorenz63(), np.ones((1, 3)), key, 2)


def test_what_is_measured_of_a_scalar_state_has_no_axis(key):
    model = Function(lambda x: 0.9 * x, ())
    with pytest.raises(ValueError, match=r"needs an axis, and that of a state of shape \(\) has none"):
        simulate(key, model, MEASUREMENT, 2, x0=1.0)
