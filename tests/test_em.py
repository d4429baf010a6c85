"""EM: the Nile's published variances, one step against the joint Gaussian, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm

from masf_jax.dynamics import Linear, Lorenz96, ModelError
from masf_jax.estimation import EM, LogNormal, Normal, Unknown, em, estimate
from masf_jax.filters import ETKF, KalmanFilter
from masf_jax.measurements import Gaussian, Identity, Laplace, Measurement, Observations, Subset


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


JACOBIAN, DT = np.array([[0.9, 0.2], [-0.1, 0.8]]), 0.5
R, Q = np.array([0.7, 1.3]), np.array([0.4, 0.9])
STEPS = np.array([0, 1, 3, 4, 6])
Z, MASK = np.random.default_rng(0).normal(size=(5, 2)), np.random.default_rng(1).random((5, 2)) > 0.3


def one_step(unknown, seed=0):
    """Per component, with gaps and uneven steps."""
    return estimate(
        jax.random.key(seed),
        KalmanFilter(mean=[0.3, -0.2], covariance=np.diag([1.0, 2.0])),
        ModelError(Linear(JACOBIAN, dt=DT), Q),
        Measurement(Identity(), Gaussian(R)),
        Observations(Z + seed, STEPS, MASK),
        jnp.asarray([[0.0, 1.0], [1.0, 0.0]]),
        unknown=unknown,
        engine=EM(steps=1, laplace=False),
    )


def all_states():
    """Given all values: second moments (7, 2, 7, 2) of states, mean squares of errors and of misfits.

    The unknown vector is the first state, then the errors of six steps; states and values are linear in it.
    """
    covariance = np.diag(np.concatenate([[1.0, 2.0], np.tile(Q**2 * DT, 6)]))
    mean = np.concatenate([[0.3, -0.2], np.zeros(12)])
    state, states = np.eye(2, 14), []
    for k in range(7):
        states.append(state)
        state = JACOBIAN @ state + np.eye(2, 14, 2 * k + 2)
    h = np.concatenate([states[k] for k in STEPS])[MASK.reshape(-1)]
    noise = np.tile(R**2, 5)[MASK.reshape(-1)]
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + np.diag(noise))
    posterior = covariance - gain @ h @ covariance
    mean = mean + gain @ (Z[MASK] - h @ mean)
    errors = (mean**2 + np.diag(posterior))[2:].reshape(6, 2).mean(0) / DT
    squares = (Z[MASK] - h @ mean) ** 2 + np.diag(h @ posterior @ h.T)
    component = np.tile([0, 1], 5)[MASK.reshape(-1)]
    all_of = np.concatenate(states)
    moments = np.outer(all_of @ mean, all_of @ mean) + all_of @ posterior @ all_of.T
    return moments.reshape(7, 2, 7, 2), errors, np.array([squares[component == i].mean() for i in (0, 1)])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_step_is_the_expectation_given_all_values():
    found = one_step({"measurement.noise.std": LogNormal(R), "dynamics.std": LogNormal(Q)})
    _, errors, left = all_states()
    np.testing.assert_allclose(found.mean["measurement.noise.std"] ** 2, left, rtol=1e-9)
    np.testing.assert_allclose(found.mean["dynamics.std"] ** 2, errors, rtol=1e-9)
    assert np.isnan(found.std["dynamics.std"]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_step_of_a_matrix_is_the_regression_given_all_values():
    """Shumway & Stoffer (1982), eq. 10: S₁₀ S₀₀⁻¹; another key and other values compile nothing."""
    unknown = {"dynamics.dynamics.matrix": Normal(JACOBIAN, 0.3)}
    found, (moments, *_) = one_step(unknown), all_states()
    later = sum(moments[j + 1, :, j] for j in range(6))
    before = sum(moments[j, :, j] for j in range(6))
    wanted = later @ np.linalg.inv(before)
    np.testing.assert_allclose(found.mean["dynamics.dynamics.matrix"], wanted, rtol=1e-9)
    np.testing.assert_allclose(found.problem.dynamics.dynamics.matrix, wanted, rtol=1e-9)
    programs = em._steps._cached._cache_size()
    one_step({"dynamics.dynamics.matrix": Normal(JACOBIAN, 0.3)}, seed=1)
    assert em._steps._cached._cache_size() == programs


class SecondOrder(Linear):
    """(x_k, x_{k-1}) by x_{k+1} = a x_k + b x_{k-1}."""

    coefficients: jax.Array

    def __init__(self, coefficients):
        super().__init__(np.eye(2))
        self.coefficients = jnp.asarray(coefficients, float)

    def __call__(self, x, time, key):
        return jnp.stack([self.coefficients @ x, x[0]])


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("error")  # that it has not settled
@pytest.mark.slow
def test_coefficients_and_noise_where_a_component_has_no_error():
    """No step lowers the likelihood; the maximum is near the truth, by what it says of itself."""
    rng, n, true = np.random.default_rng(3), 400, np.array([1.2, -0.6])
    x = np.zeros(n)
    for k in range(2, n):
        x[k] = true @ x[[k - 1, k - 2]] + 0.5 * rng.normal()
    found = estimate(
        jax.random.key(0),
        KalmanFilter(mean=np.zeros(2), covariance=np.eye(2)),
        ModelError(SecondOrder([0.5, 0.0]), [0.5, 0.0]),
        Measurement(Subset([0]), Gaussian(1.0)),
        Observations((x + 0.3 * rng.normal(size=n))[:, None], np.arange(n)),
        jnp.eye(2),
        unknown={
            "dynamics.dynamics.coefficients": Normal([0.5, 0.0], 0.5),
            "measurement.noise.std": LogNormal(1.0),
        },
        engine=EM(steps=40),
    )
    assert np.diff(found.log_likelihood).min() > -1e-9
    for name, wanted in (("dynamics.dynamics.coefficients", true), ("measurement.noise.std", 0.3)):
        assert (np.abs(found.mean[name] - wanted) < 2.5 * found.std[name]).all()
        assert (np.asarray(found.std[name]) < 0.1).all()


def _squared(problem, value):
    return eqx.tree_at(lambda p: p.dynamics.dynamics.coefficients, problem, value**2)


NOISY = ModelError(SecondOrder([0.5, 0.0]), [0.0, 0.5])
NOT_LINEAR = {
    "no filter": (ETKF(), NOISY, Normal([0.5, 0.0], 1.0), "coefficients want a KalmanFilter"),
    "no prior": (KalmanFilter(), NOISY, LogNormal([0.5, 0.1]), "want a Normal prior"),
    "no noise": (KalmanFilter(), NOISY.dynamics, Normal([0.5, 0.0], 1.0), "the model has no error"),
    "exact": (KalmanFilter(), NOISY, Normal([0.5, 0.0], 1.0), "without model error hang on it"),
    "bent": (
        KalmanFilter(),
        NOISY,
        Unknown(Normal([0.5, 0.0], 1.0), None, _squared, (2,)),
        "is not linear in",
    ),
}


@pytest.mark.parametrize("case", NOT_LINEAR)
def test_what_is_no_coefficient(case):
    filter, model, prior, message = NOT_LINEAR[case]
    name = "dynamics." * (1 + isinstance(model, ModelError)) + "coefficients"
    with pytest.raises(ValueError, match=message):
        estimate(
            jax.random.key(0),
            filter,
            model,
            Measurement(Identity(), Gaussian(1.0)),
            Observations(np.zeros((2, 2)), 1),
            np.eye(2),
            unknown={name: prior},
            engine=EM(),
        )


@pytest.mark.parametrize(
    ("noise", "unknown", "message"),
    [
        (
            Gaussian(1.0),
            {"dynamics.forcing": Normal(8.0, 1.0)},
            "forcing is neither: coefficients want a KalmanFilter",
        ),
        (Laplace(1.0), {"measurement.noise.scale": LogNormal(1.0)}, "is neither: it is not of the model"),
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
