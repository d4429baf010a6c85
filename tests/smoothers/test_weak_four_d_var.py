"""Weak-constraint 4D-Var: the exact smoother of a linear problem, strong 4D-Var without model error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import conditioned, trajectory_prior
from scipy.optimize import minimize

from masf_jax import simulate
from masf_jax.dynamics import Linear, Lorenz63, ModelError
from masf_jax.filters import KalmanFilter
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset, arctan
from masf_jax.smoothers import FourDVar, WeakFourDVar, rts

A = 0.95 * np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, -0.1, 1.0]])
B = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 0.5]])
Q = 0.1 * np.array([[1.0, 0.4, 0.0], [0.4, 0.5, 0.0], [0.0, 0.0, 0.0]])
MEAN = np.array([0.5, -1.0, 0.2])
STEPS = np.array([0, 3, 4, 9])
STD = 0.5
MEASUREMENT = Measurement(Subset([0, 2]), Gaussian(STD))
COLUMNS = np.linalg.cholesky(B).T


def measured():
    z = np.random.default_rng(3).normal(size=(len(STEPS), 2))
    z[2, 1] = np.nan
    return z


def exact(q):
    """Means of the states at steps 0 … 9."""
    length = STEPS[-1] + 1
    prior, joint = trajectory_prior(MEAN, B, A, q, length)
    pick = np.kron(np.eye(length)[STEPS], np.eye(3)[[0, 2]])
    return conditioned(prior, joint, pick, STD**2 * np.eye(len(pick)), measured())[0]


@pytest.mark.quick_cases("float64")
def test_of_a_linear_model_it_is_the_exact_smoother(dtype):
    """Irregular steps (one at 0) and a gap; a singular Q and two stages, or the model's own Q."""
    q = None if dtype == "float32" else Q
    model = ModelError(Linear(A), 0.3) if q is None else Linear(A)
    method = WeakFourDVar(
        columns=COLUMNS, q=q, tolerance=1e-11 if dtype == "float64" else 1e-4, stages=1 if q is None else 2
    )
    found = method(
        jnp.asarray(MEAN, dtype), model, MEASUREMENT, Observations(jnp.asarray(measured(), dtype), STEPS)
    )
    wanted = exact(0.3**2 if q is None else Q)
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(found.start, wanted[0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.trajectory, wanted[STEPS], rtol=0, atol=tolerance)
    assert found.trajectory.dtype == dtype
    # the errors are what the model does not explain
    x = np.asarray(found.start, float)
    for k, n_steps in enumerate(np.diff(STEPS, prepend=0)):
        for j in range(n_steps):
            x = A @ x + np.asarray(found.errors[k, j])
        assert not np.asarray(found.errors[k, n_steps:]).any()
    np.testing.assert_allclose(x, wanted[-1], atol=10 * tolerance)
    assert found.error_cost > 0


@pytest.mark.usefixtures("x64")
def test_it_is_the_rauch_tung_striebel_smoother():
    observations = Observations(measured(), STEPS)
    wanted = rts(KalmanFilter(MEAN, B), ModelError(Linear(A), 0.3), MEASUREMENT, observations, scores=())
    method = WeakFourDVar(columns=COLUMNS, q=0.3**2, tolerance=1e-11)
    found = method(jnp.asarray(MEAN), Linear(A), MEASUREMENT, observations)
    np.testing.assert_allclose(found.trajectory, wanted.smoothed["mean"], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(found.to_xarray()["step"], STEPS)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_without_error_it_is_strong_4d_var_and_with_it_what_scipy_finds():
    """A nonlinear model and measurement."""
    dynamics, truth = Lorenz63(dt=0.02), jnp.asarray([1.0, 2.0, 20.0])
    measurement = Measurement(arctan() @ Subset([0, 2]), Gaussian(0.1))
    twin = simulate(jax.random.key(1), dynamics, measurement, 4, 5, truth)
    problem = truth + jnp.asarray([0.4, -0.3, 0.5]), dynamics, measurement, twin.observations
    strong = FourDVar(std=0.5, tolerance=1e-9)(*problem)
    for q, tolerance in ((jnp.zeros(3), 1e-8), (jnp.full(3, 1e-12), 1e-5)):
        weak = WeakFourDVar(std=0.5, q=q, tolerance=1e-9)(*problem)
        np.testing.assert_allclose(weak.start, strong.start, rtol=0, atol=tolerance)
        np.testing.assert_allclose(weak.trajectory, strong.trajectory, rtol=0, atol=tolerance)

    variance = jnp.asarray([0.02, 0.01, 0.04])
    found = WeakFourDVar(std=0.5, q=variance, tolerance=1e-8)(*problem)
    background, z = problem[0], twin.observations.values

    @jax.jit
    def cost(flat):
        parts = flat.reshape(21, 3)

        def one(x, q):
            x = dynamics(x, jnp.asarray(0.0), None) + q
            return x, x

        states = jax.lax.scan(one, parts[0], parts[1:])[1][4::5]
        misfit = jax.vmap(measurement.whitened_innovation)(z, states)
        error = jnp.sum(parts[1:] ** 2 / variance[None])
        return 0.5 * (jnp.sum((parts[0] - background) ** 2) / 0.5**2 + error + jnp.sum(misfit**2))

    start = jnp.concatenate([background, jnp.zeros(60)])
    best = minimize(cost, np.asarray(start), jac=jax.jit(jax.grad(cost)), options={"gtol": 1e-8})
    np.testing.assert_allclose(found.cost, best.fun, rtol=1e-8)
    np.testing.assert_allclose(found.start, best.x[:3], atol=1e-5)
    np.testing.assert_allclose(found.errors.reshape(20, 3), best.x[3:].reshape(20, 3), atol=1e-5)
    assert found.gradient_norm < 1e-8
    assert found.cost < strong.cost


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_slope_falls_far_below_what_the_cost_can_show():
    """|∇J| of √(2 ε J), some 3e-8 here, changes J by its round-off."""
    dynamics, truth = Lorenz63(dt=0.02), jnp.asarray([1.0, 2.0, 20.0])
    measurement = Measurement(arctan() @ Subset([0, 2]), Gaussian(0.1))
    method = WeakFourDVar(std=0.5, q=jnp.asarray([0.02, 0.01, 0.04]), tolerance=1e-12)

    def found(key):
        twin = simulate(key, dynamics, measurement, 4, 5, truth)
        return method(truth + jnp.asarray([0.4, -0.3, 0.5]), dynamics, measurement, twin.observations)

    several = jax.vmap(found)(jax.random.split(jax.random.key(0), 16))
    np.testing.assert_array_less(several.gradient_norm, 1e-12)
    np.testing.assert_array_less(several.iterations, 30)


def test_what_it_cannot_do_it_says():
    problem = Linear(A), Measurement(Identity(), Gaussian(1.0)), Observations(np.zeros((2, 3)), 1)
    x = jnp.zeros(3)
    for q, message in (
        (None, "Linear says none: give q"),
        (-1.0, "variances, 0 or more; got -1"),
        ([0.1, 0.2], r"got shape \(2,\)"),
        (np.eye(2), r"got shape \(2, 2\)"),
        (np.triu(np.ones((3, 3))), "q must be symmetric; its correlations differ by up to 1"),
        (np.eye(3) - 0.9, "least eigenvalue of its correlations is -17"),
        (np.nan, "q must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            WeakFourDVar(std=1.0, q=q)(x, *problem)
    with pytest.raises(ValueError, match="either std or columns"):
        WeakFourDVar(q=1.0)
    with pytest.raises(ValueError, match="inner must be at least 1"):
        WeakFourDVar(std=1.0, q=1.0, inner=0)
