"""Gradients through runs are central differences: also where eigenvalues repeat, in every size."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, filters
from masf_jax.derivatives import inverse_sqrt
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.measurements import Gaussian, Linear, Measurement, Observations, Subset

N = 6
FILTERS = {
    "enkf": filters.EnKF(Inflation(1.05)),
    "etkf": filters.ETKF(Inflation(1.05)),
    "etkf rotation": filters.ETKF(rotation=True),
    "ensrf": filters.EnSRF(radius=2.0),
    "letkf": filters.LETKF(2.0),
    "letkf eigh": filters.LETKF(2.0, solver="eigh"),
    "masf": filters.MASF(),
}
# members and measured components: fewer values than members; more, of a rank below the number of members
SIZES = {"few values": (9, [0, 2, 3]), "values of low rank": (9, [0, 1, 2, 3, 4, 5] * 2)}


# of MASF with a dense H of repeated singular values there is none: its coordinates are singular vectors
CASES = [(name, size) for name in FILTERS for size in SIZES if (name, size) != ("masf", "values of low rank")]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "size"), CASES)
def test_of_the_forcing_through_a_run(name, size):
    n_members, picked = SIZES[size]
    rng = np.random.default_rng(1)
    start = 3 + 3 * rng.normal(size=N)
    members = jnp.asarray(start + rng.normal(size=(n_members, N)))
    few = size == "few values"
    operator = Subset(picked) if few else Linear(np.eye(N)[picked], positions=np.asarray(picked, float))
    sensor = Measurement(operator, Gaussian(1.0))
    seen = Observations(start[picked] + rng.normal(size=(4, len(picked))), 1)
    filter = FILTERS[name].prepare(Lorenz96(n=N), sensor)

    @jax.jit
    def loss(forcing):
        model = eqx.tree_at(lambda m: m.forcing, Lorenz96(n=N), forcing)
        run = assimilate(jax.random.key(3), filter, model, sensor, seen, members, scores=(), save=("mean",))
        return (run.analysis["mean"] ** 2).sum()

    at, h = jnp.asarray(7.0), 1e-4
    expected = float(loss(at + h) - loss(at - h)) / (2 * h)
    assert float(jax.jit(jax.grad(loss))(at)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("x64")
def test_of_a_root_with_repeated_eigenvalues():
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    matrix, change = (vectors * [1, 1, 1, 4, 4]) @ vectors.T, rng.normal(size=(5, 5))
    change = change + change.T
    tangent = jax.jvp(inverse_sqrt, (jnp.asarray(matrix),), (jnp.asarray(change),))[1]
    h = 1e-5
    moved = (np.asarray(inverse_sqrt(jnp.asarray(matrix + sign * h * change))) for sign in (1, -1))
    np.testing.assert_allclose(tangent, np.subtract(*moved) / (2 * h), atol=1e-8)
