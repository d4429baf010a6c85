"""The iterative ensemble score filter: the posterior itself where all is Gaussian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax.denoisers import DiagonalCovariance, GaussianDenoiser, ensemble_gaussian
from masf_jax.filters import IEnSF
from masf_jax.measurements import Gaussian, Linear, Measurement

LAWS: dict[str, dict[str, Any]] = {
    "ensemble": {"h": [[1.0, 0.5]], "std": 0.7, "z": [1.5]},
    "sure": {"h": [[1.0, 0.0]], "std": 0.2, "z": [1.5]},  # iterations without relaxation diverge here
    "diagonal": {"h": [[1.0, 0.0], [0.0, 1.0]], "std": 0.7, "z": [1.5, -0.5]},
    "mixture": {"h": [[1.0, 0.5]], "std": 0.7, "z": [1.5]},
}


def gaussian_members(n, covariance, seed=3):
    """n draws with exactly this covariance and mean 0."""
    draws = np.random.default_rng(seed).normal(size=(n, len(covariance)))
    draws -= draws.mean(0)
    draws = draws @ np.linalg.inv(np.linalg.cholesky(np.cov(draws.T))).T
    return draws @ np.linalg.cholesky(covariance).T


@pytest.mark.quick_cases("diagonal")
@pytest.mark.parametrize("name", often(LAWS, [name for name in LAWS if name != "mixture"]))
def test_a_gaussian_forecast_gives_the_posterior(name, x64):
    case, n = LAWS[name], 200 if name == "mixture" else 400
    prior = "ensemble" if name == "sure" else name
    p = np.diag([1.0, 2.0]) if prior == "diagonal" else np.asarray([[1.0, 0.8], [0.8, 2.0]])
    h = np.asarray(case["h"])
    gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + case["std"] ** 2 * np.eye(len(h)))
    mean, covariance = gain @ case["z"], p - gain @ h @ p
    filter = IEnSF(prior=prior, n_steps=100, iterations=8)
    measurement = Measurement(Linear(h), Gaussian(case["std"]))
    state = filter.init(jax.random.key(0), jnp.asarray(gaussian_members(n, p)))
    z = jnp.asarray(case["z"])
    after, info = jax.jit(lambda s: filter.analysis(jax.random.key(1), s, z, measurement))(state)
    found = np.asarray(after.ensemble)
    deviations = np.sqrt(np.diag(covariance))
    assert float(info["last_step"]) < 0.15
    assert (np.abs(found.mean(0) - mean) / deviations).max() < 4 / np.sqrt(n) + 0.06
    error = np.abs(np.cov(found.T) - covariance) / np.outer(deviations, deviations)
    assert error.max() < (0.3 if prior == "mixture" else 0.16)


@pytest.mark.slow
def test_the_diagonal_covariance_is_a_diagonal_matrix(x64, key):
    members = jnp.asarray(gaussian_members(50, np.diag([1.0, 4.0])))
    full = ensemble_gaussian(members)
    diagonal = GaussianDenoiser(full.mean, DiagonalCovariance(jnp.asarray([1.0, 4.0])))
    x, angle = jnp.asarray([0.3, -1.0]), jnp.asarray([0.4, 1.1])
    np.testing.assert_allclose(diagonal(x, angle), full(x, angle), rtol=1e-9)
    draws = jax.vmap(diagonal.covariance.draw)(jax.random.split(key, 20_000))
    np.testing.assert_allclose(draws.var(0), [1.0, 4.0], rtol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": "flat"}, "prior must be one of"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"limit": -1.0}, "limit of the score must be positive"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        IEnSF(**arguments)
