"""Localised MASF with a nonlinear operator: conjugate gradients find what factorisations found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax.dynamics import Lorenz96
from masf_jax.masf import MASF, Automatic, GaussianPrior, Linearized
from masf_jax.masf.priors import gaussian
from masf_jax.measurements import Gaussian, Measurement, arctan

N = 72


@pytest.mark.slow
@pytest.mark.parametrize("at", often(["member", "mean"], ["mean"]))
def test_the_same_analysis_without_a_matrix(at, x64, monkeypatch):
    random = np.random.default_rng(0)
    members = jnp.asarray(random.normal(1.0, 0.3, size=(10, N)))
    measurement, z = Measurement(arctan(), Gaussian(0.1)), jnp.asarray(random.normal(0.8, 0.1, size=N))
    filter = MASF(GaussianPrior(4.0), route=Automatic(Linearized(at)))

    def analysed():
        prepared = filter.prepare(Lorenz96(N), measurement)
        state = prepared.init(jax.random.key(1), members)
        run = jax.jit(lambda state: prepared.analysis(jax.random.key(2), state, z, measurement)[0].ensemble)
        return prepared.prior.local is None, np.asarray(run(state))

    dense, iterated = analysed()
    assert not dense
    monkeypatch.setattr(gaussian, "_DENSE_TANGENTS", 512)
    dense, factored = analysed()
    assert dense
    np.testing.assert_allclose(iterated, factored, atol=2e-3 * factored.std(0).mean())
