"""The likelihood of observations: that of their joint Gaussian where it is one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from masf_jax import Likelihood, assimilate, filters, masf
from masf_jax.dynamics import Function, Linear as LinearModel, Lorenz96, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.localization import gaspari_cohn
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Linear,
    Measurement,
    Multiplicative,
    Observations,
    Subset,
)

A = np.asarray([[0.9, 0.2], [-0.3, 0.8]])
H = np.asarray([[1.0, 0.5], [0.0, 2.0], [1.0, -1.0]])
Q, K = 0.1, 5
R = np.asarray([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.8]])
MEAN, P = np.asarray([1.0, -1.0]), np.asarray([[1.0, 0.4], [0.4, 0.6]])


def joint_log_density(values, mask):
    """Of all values at once: z_k = H A^k x_0 + H Σ_j A^{k-j} w_j + v_k."""
    blocks = [H @ np.linalg.matrix_power(A, k) for k in range(1, K + 1)]
    mean = np.concatenate([block @ MEAN for block in blocks])
    roots = [np.concatenate([block @ np.linalg.cholesky(P) for block in blocks])]
    for j in range(1, K + 1):
        rows = [H @ np.linalg.matrix_power(A, k - j) if k >= j else np.zeros_like(H) for k in range(1, K + 1)]
        roots.append(np.sqrt(Q) * np.concatenate(rows))
    root, there = np.concatenate(roots, axis=1), mask.ravel()
    covariance = root @ root.T + np.kron(np.eye(K), R)
    picked = multivariate_normal(mean[there], covariance[np.ix_(there, there)])
    return picked.logpdf(values.ravel()[there])


@pytest.mark.usefixtures("x64")
def test_of_the_kalman_filter_is_the_joint_density():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(K, 3)), rng.random((K, 3)) < 0.7
    mask[2] = False
    model, sensor = ModelError(LinearModel(A), np.sqrt(Q)), Measurement(Linear(H), CorrelatedGaussian(R))
    run = assimilate(
        jax.random.key(0),
        filters.KalmanFilter(MEAN, P),
        model,
        sensor,
        Observations(values, 1, mask),
        jnp.zeros((2, 2)),
        likelihood=Likelihood(),
    )
    assert run.log_likelihood[2] == 0
    assert float(run.log_likelihood.sum()) == pytest.approx(joint_log_density(values, mask), abs=1e-10)


def one_cycle(filter, members, values, operator, likelihood, noise=1.0, model=None):
    model = LinearModel(np.eye(members.shape[1])) if model is None else model
    noise = Gaussian(noise) if isinstance(noise, float) else noise
    run = assimilate(
        jax.random.key(0),
        filter,
        model,
        Measurement(operator, noise),
        Observations(values[None], 1),
        jnp.asarray(members),
        likelihood=likelihood,
    )
    return float(run.log_likelihood[0])


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
@pytest.mark.parametrize("n_members", [4, 9])
def test_of_an_ensemble_is_that_of_its_moments(n_members):
    """In the smaller of both spaces; with a taper, with inflation of the forecast, with a gap."""
    rng = np.random.default_rng(1)
    n, measured = 8, np.asarray([0, 1, 2, 4, 5, 7])
    members, values = 3 * rng.normal(size=(n_members, n)), rng.normal(size=len(measured))
    values[3] = np.nan
    there = np.isfinite(values)
    picked = measured[there]
    away = np.abs(picked[:, None] - picked[None])
    away = np.minimum(away, n - away)
    model = Function(lambda x, time: x, (n,), 1.0, coordinates=Lorenz96(n).coordinates)

    def expected(taper=1.0, factor=1.0):
        covariance = np.atleast_2d(np.cov(members[:, picked].T)) * factor**2 * taper + 0.5**2 * np.eye(
            len(picked)
        )
        return multivariate_normal(members[:, picked].mean(0), covariance).logpdf(values[there])

    def found(filter, likelihood):
        return one_cycle(filter, members, values, Subset(measured), likelihood, 0.5, model)

    near = gaspari_cohn(away / 1.5)
    assert found(filters.ETKF(), Likelihood()) == pytest.approx(expected(), abs=1e-9)
    assert found(masf.MASF(), Likelihood()) == pytest.approx(expected(), abs=1e-9)
    assert found(filters.LETKF(1.5), Likelihood()) == pytest.approx(expected(near), abs=1e-9)
    assert found(filters.LETKF(1.5), Likelihood(None)) == pytest.approx(expected(), abs=1e-9)
    single = expected(np.eye(len(picked)))
    assert found(filters.EnSRF(radius=1.5), Likelihood(0)) == pytest.approx(single, abs=1e-9)
    assert found(filters.ETKF(), Likelihood(1e-3)) == pytest.approx(single, abs=1e-9)
    inflated = filters.ETKF(Inflation(prior=1.3))
    assert found(inflated, Likelihood()) == pytest.approx(expected(factor=1.3), abs=1e-9)


def test_of_particles_is_that_of_the_kalman_filter():
    rng = np.random.default_rng(2)
    members = (MEAN + rng.normal(size=(100_000, 2)) @ np.linalg.cholesky(P).T).astype(np.float32)
    values = np.asarray([0.5, -1.0, 1.0], np.float32)
    noise = CorrelatedGaussian(R)
    particles = one_cycle(filters.ParticleFilter(), members, values, Linear(H), Likelihood(), noise)
    exact = multivariate_normal(H @ MEAN, H @ P @ H.T + R).logpdf(values)
    assert particles == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("filter", [filters.ETKF(), filters.ParticleFilter(), filters.KalmanFilter()])
def test_a_sensor_of_infinite_error_counts_for_nothing(filter):
    members = np.random.default_rng(2).normal(size=(500, 2)).astype(np.float32)
    sensors = [
        (Subset([0, 1]), np.asarray([1.0, 1.0]), Gaussian([0.5, np.inf])),
        (Subset([0]), np.asarray([1.0]), Gaussian(0.5)),
    ]
    key, model = jax.random.key(0), LinearModel(np.eye(2))
    with_it, without = (
        assimilate(
            key,
            filter,
            model,
            Measurement(h, noise),
            Observations(z[None], 1),
            members,
            likelihood=Likelihood(),
        )
        for h, z, noise in sensors
    )
    np.testing.assert_allclose(with_it.analysis["mean"], without.analysis["mean"], atol=1e-5)
    np.testing.assert_allclose(with_it.log_likelihood, without.log_likelihood, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_noise_that_depends_on_the_value_is_that_of_the_mean():
    members, values = np.asarray([[1.0, 3.0], [3.0, 5.0], [2.0, 7.0]]), np.asarray([2.5, 4.0])
    noise = Multiplicative(0.1, floor=0.3)
    found = one_cycle(filters.EnKF(), members, values, Subset([0, 1]), Likelihood(), noise)
    std = np.asarray(noise.at(jnp.asarray(members.mean(0))).standard_deviation(jnp.asarray(values)))
    law = multivariate_normal(members.mean(0), np.cov(members.T) + np.diag(std**2))
    assert found == pytest.approx(law.logpdf(values), abs=1e-9)


def test_refusals():
    with pytest.raises(ValueError, match='must be "filter", None or not negative; got -1'):
        Likelihood(-1.0)
    with pytest.raises(ValueError, match="5000 measured values is a matrix"):
        Likelihood().prepare(
            filters.LETKF(2.0), Lorenz96(5000), Measurement(Subset(range(5000)), Gaussian(1.0))
        )
