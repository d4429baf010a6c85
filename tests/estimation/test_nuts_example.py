"""docs/examples/nuts.py: draws of the Nile's levels have the moments of their posterior, found on a grid."""

import os
import runpy

import jax
import numpy as np
import pytest
import statsmodels.api as sm


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_draws_of_the_nile():
    path = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "examples", "nuts.py")
    example = runpy.run_path(path)
    problem, unknown, seen, members = example["nile"](0)
    volumes = np.asarray(sm.datasets.nile.load_pandas().data["volume"], float)
    np.testing.assert_array_equal(seen.values[:, 0], volumes)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # for BlackJAX
        drawn, wrong = example["draws"](
            jax.random.key(1), problem, unknown, seen, members, np.zeros(2), n=400, warmup=200
        )
    u = np.stack(np.meshgrid(np.linspace(-4, 4, 81), np.linspace(-4, 4, 81)))
    r, q = (120 * np.exp(0.5 * u[0])) ** 2, (40 * np.exp(u[1])) ** 2
    density, mean, variance = -0.5 * (u**2).sum(0), 1120.0, 1e7
    for z in volumes:
        total = variance + r
        density = density - 0.5 * (np.log(total) + (z - mean) ** 2 / total)
        mean, variance = mean + variance / total * (z - mean), variance * r / total + q
    weights = np.exp(density - density.max())
    weights /= weights.sum()
    assert wrong == 0
    for values, level in ((drawn["measurement.noise.std"], r), (drawn["dynamics.std"], q)):
        wanted = (weights * np.sqrt(level)).sum()
        std = np.sqrt((weights * (np.sqrt(level) - wanted) ** 2).sum())
        assert float(values.mean()) == pytest.approx(wanted, abs=0.3 * std)  # of some hundred draws
        assert float(values.std()) == pytest.approx(std, rel=0.25)
