"""EM for noise levels: the Nile's published variances, one step against the joint Gaussian, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm

from masf_jax.dynamics import Linear, Lorenz96, ModelError
from masf_jax.estimation import EM, LogNormal, Normal, estimate
from masf_jax.filters import ETKF, KalmanFilter
from masf_jax.measurements import Gaussian, Identity, Laplace, Measurement, Observations


def _level_likelihood(values, log_std):
    (r, q), mean, variance, total = np.exp(2 * log_std), 1120.0, 1e7, 0.0
    for z in values[:, 0]:
        total -= 0.5 * (np.log(2 * np.pi * (variance + r)) + (z - mean) ** 2 / (variance + r))
        mean, variance = mean + variance / (variance + r) * (z - mean), variance * r / (variance + r) + q
    return total


def test_nile():
    """Durbin & Koopman (2012), section 2.10: 15098.5 and 1469.2."""
    values = np.asarray(sm.datasets.nile.load_pandas().data["volume"], float)[:, None]
    with jax.enable_x64(True):
        found = estimate(
            jax.random.key(0),
            KalmanFilter(mean=[1120.0], covariance=[[1e7]]),
            ModelError(Linear([[1.0]]), 50.0),
            Measurement(Identity(), Gaussian(100.0)),
            Observations(values, np.arange(100)),
            jnp.zeros((2, 1)),
            unknown={"measurement.noise.std": LogNormal(100.0), "dynamics.std": LogNormal(50.0)},
            engine=EM(steps=300),
        )
        np.testing.assert_allclose(found.mean["measurement.noise.std"] ** 2, 15098.5, rtol=1e-3)
        np.testing.assert_allclose(found.mean["dynamics.std"] ** 2, 1469.2, rtol=1e-3)
        assert np.diff(found.log_likelihood).min() > -1e-9
        # the observed information on the logarithms, by differences
        at, e = np.log([found.mean["measurement.noise.std"], found.mean["dynamics.std"]]), 0.01 * np.eye(2)
        hessian = [
            [
                sum(s * t * _level_likelihood(values, at + s * a + t * b) for s in (1, -1) for t in (1, -1))
                for a in e
            ]
            for b in e
        ]
        std = np.exp(at) * np.sqrt(np.diag(np.linalg.inv(-np.array(hessian) / 0.02**2)))
        np.testing.assert_allclose(list(found.std.values()), std, rtol=3e-2)
        np.testing.assert_allclose(found.u, [np.log(1.22876), np.log(38.33 / 50)], rtol=1e-3)


def test_one_step_is_the_expectation_given_all_values():
    """Per component, with gaps and uneven steps, against the joint Gaussian of all states and values."""
    jacobian, dt = np.array([[0.9, 0.2], [-0.1, 0.8]]), 0.5
    r, q = np.array([0.7, 1.3]), np.array([0.4, 0.9])
    steps, rng = np.array([0, 1, 3, 4, 6]), np.random.default_rng(0)
    z, mask = rng.normal(size=(5, 2)), rng.random((5, 2)) > 0.3
    with jax.enable_x64(True):
        found = estimate(
            jax.random.key(0),
            KalmanFilter(mean=[0.3, -0.2], covariance=np.diag([1.0, 2.0])),
            ModelError(Linear(jacobian, dt=dt), q),
            Measurement(Identity(), Gaussian(r)),
            Observations(z, steps, mask),
            jnp.zeros((2, 2)),
            unknown={"measurement.noise.std": LogNormal(r), "dynamics.std": LogNormal(q)},
            engine=EM(steps=1, laplace=False),
        )
    # the unknown vector: first state, then the errors of six steps; states and values are linear in it
    covariance = np.diag(np.concatenate([[1.0, 2.0], np.tile(q**2 * dt, 6)]))
    mean = np.concatenate([[0.3, -0.2], np.zeros(12)])
    state, states = np.eye(2, 14), []
    for k in range(7):
        states.append(state)
        state = jacobian @ state + np.eye(2, 14, 2 * k + 2)
    h = np.concatenate([states[k] for k in steps])[mask.reshape(-1)]
    noise = np.tile(r**2, 5)[mask.reshape(-1)]
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + np.diag(noise))
    posterior = covariance - gain @ h @ covariance
    mean = mean + gain @ (z[mask] - h @ mean)
    errors = (mean**2 + np.diag(posterior))[2:].reshape(6, 2).mean(0) / dt
    squares = (z[mask] - h @ mean) ** 2 + np.diag(h @ posterior @ h.T)
    component = np.tile([0, 1], 5)[mask.reshape(-1)]
    left = np.array([squares[component == i].mean() for i in (0, 1)])
    np.testing.assert_allclose(found.mean["measurement.noise.std"] ** 2, left, rtol=1e-9)
    np.testing.assert_allclose(found.mean["dynamics.std"] ** 2, errors, rtol=1e-9)
    assert np.isnan(found.std["dynamics.std"]).all()


@pytest.mark.parametrize(
    ("noise", "unknown", "message"),
    [
        (Gaussian(1.0), {"dynamics.forcing": Normal(8.0, 1.0)}, "noise levels alone.*dynamics.forcing"),
        (Laplace(1.0), {"measurement.noise.scale": LogNormal(1.0)}, "noise levels alone"),
        (Gaussian(1.0), {"measurement.noise.std": Normal(0.0, 1.0)}, "is not positive"),
    ],
)
def test_refusals(noise, unknown, message):
    with pytest.raises(ValueError, match=message):
        estimate(
            jax.random.key(0),
            ETKF(),
            Lorenz96(8),
            Measurement(Identity(), noise),
            Observations(np.zeros((2, 8)), 1),
            np.random.default_rng(0).normal(size=(4, 8)),
            unknown=unknown,
            engine=EM(),
        )


def test_steps_are_counted():
    with pytest.raises(ValueError, match="at least 1"):
        EM(steps=0)
