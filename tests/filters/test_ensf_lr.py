"""The two-step filter: EnSF where something is measured, regression elsewhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.dynamics import Lorenz96
from masf_jax.filters import EnSF, EnSFLR, EnSFSampler
from masf_jax.measurements import Gaussian, Identity, Linear, Measurement, Subset

SAMPLER = EnSFSampler(n_steps=50)


def analysed(filter, members, measurement, z):
    state = filter.init(jax.random.key(0), members)
    after, _ = jax.jit(lambda s: filter.analysis(jax.random.key(1), s, z, measurement))(state)
    return np.asarray(after.ensemble)


@pytest.mark.parametrize("n_members", [12, 3])
def test_the_rest_is_regressed_on_what_is_measured(n_members, x64):
    """C_oo⁻¹, or its pseudo-inverse (of correlations) with fewer members than measured components."""
    rng = np.random.default_rng(0)
    members = rng.normal(size=(n_members, 5)) @ rng.normal(size=(5, 5))
    where = np.asarray([0, 2, 3])
    rest = np.setdiff1d(np.arange(5), where)
    measurement = Measurement(Subset(where), Gaussian(0.3))
    found = analysed(EnSFLR(sampler=SAMPLER, ridge=1e-8), jnp.asarray(members), measurement, jnp.ones(3))
    correlation, std = np.corrcoef(members.T), members.std(0, ddof=1)
    gain = np.linalg.pinv(correlation[np.ix_(where, where)], rcond=1e-9) @ correlation[np.ix_(where, rest)]
    expected = members[:, rest] + ((found - members) / std)[:, where] @ gain * std[rest]
    np.testing.assert_allclose(found[:, rest], expected, atol=1e-5)
    assert np.abs(found - members).min(0).max() > 0.01


def test_where_all_is_measured_it_is_ensf(key):
    members = jax.random.normal(key, (8, 4))
    measurement, z = Measurement(Identity(), Gaussian(0.3)), jnp.ones(4)
    one = analysed(EnSFLR(sampler=SAMPLER), members, measurement, z)
    np.testing.assert_array_equal(one, analysed(EnSF(sampler=SAMPLER), members, measurement, z))


@pytest.mark.slow
def test_weights_of_a_batch_see_measured_components_only(key, x64):
    """Unmeasured components that lie elsewhere change nothing in the measured ones."""
    members = jax.random.normal(key, (8, 4))
    filter = EnSFLR(sampler=EnSFSampler(n_steps=20, batch_size=None))
    measurement, z = Measurement(Subset([0, 1]), Gaussian(0.3)), jnp.ones(2)
    shifted = members.at[:, 2:].multiply(50.0)
    one, two = (analysed(filter, values, measurement, z)[:, :2] for values in (members, shifted))
    np.testing.assert_allclose(one, two, atol=1e-9)


def test_refused():
    mixing = Measurement(Linear(np.ones((2, 6))), Gaussian(1.0))
    with pytest.raises(ValueError, match="those of Linear mix components"):
        EnSFLR().prepare(Lorenz96(6), mixing)
    with pytest.raises(ValueError, match="ridge must be positive"):
        EnSFLR(ridge=0.0)
