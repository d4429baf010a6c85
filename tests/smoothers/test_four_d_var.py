"""4D-Var: the closed-form mean of a linear problem, and a minimum of the cost that SciPy finds too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import conditioned, trajectory_prior
from scipy.optimize import minimize
from suite.precision_cases import case, window_errors

from masf_jax import simulate
from masf_jax.dynamics import Function, Linear, Lorenz63, ModelError
from masf_jax.measurements import (
    Gaussian,
    Identity,
    Measurement,
    Multiplicative,
    Observations,
    Subset,
    arctan,
)
from masf_jax.smoothers import FourDVar
from masf_jax.smoothers.four_d_var import InexactWarning, ModelErrorWarning

A = 0.95 * np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, -0.1, 1.0]])
B = np.array([[1.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 0.5]])
STEPS = np.array([0, 3, 4, 9])
MEAN = np.array([0.5, -1.0, 0.2])


def measured():
    z = np.random.default_rng(3).normal(size=(len(STEPS), 2))
    z[2, 1] = np.nan
    return z


def exact(covariance):
    prior, joint = trajectory_prior(MEAN, covariance, A, 0.0, STEPS[-1] + 1)
    pick = np.kron(np.eye(STEPS[-1] + 1)[STEPS], np.eye(3)[[0, 2]])
    return conditioned(prior, joint, pick, 0.1**2 * np.eye(len(pick)), measured())[0]


def test_measurements_of_several_axes_are_as_those_in_a_row():
    """Winds and temperatures at four places, all measured, as they are and raveled."""
    rows = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    both = [
        FourDVar(std=1.0)(
            jnp.zeros(shape),
            Function(lambda x: 0.9 * jnp.roll(x.reshape(-1), 1).reshape(x.shape), shape),
            Measurement(Identity(), Gaussian(0.5)),
            Observations(jnp.asarray(rows.reshape(4, *shape)), STEPS),
        )
        for shape in ((6,), (2, 3), (1, 3, 2))
    ]
    for found in both[1:]:
        np.testing.assert_allclose(found.start.reshape(-1), both[0].start, atol=1e-5)
        np.testing.assert_allclose(found.rounding, both[0].rounding, rtol=0.5)


@pytest.mark.quick_cases("float64")
def test_of_a_linear_model_it_is_the_posterior_mean(dtype):
    """Irregular steps (one at 0) and a gap; the model's error is left out."""
    correlated = dtype == "float32"
    if correlated:
        method = FourDVar(columns=np.linalg.cholesky(B).T, tolerance=1e-4)
    else:
        method = FourDVar(std=[1.0, 0.5, 2.0], tolerance=1e-4)
    with pytest.warns(ModelErrorWarning, match="the error of ModelError is left out"):
        found = method(
            jnp.asarray(MEAN, dtype),
            ModelError(Linear(A), 0.3),
            Measurement(Subset([0, 2]), Gaussian(0.1)),
            Observations(jnp.asarray(measured(), dtype), STEPS),
        )
    wanted = exact(B if correlated else np.diag([1.0, 0.5, 2.0]) ** 2)
    tolerance = 1e-4 if dtype == "float64" else 1e-3
    np.testing.assert_allclose(found.start, wanted[0], atol=tolerance)
    np.testing.assert_allclose(found.trajectory, wanted[STEPS], atol=tolerance)
    assert found.start.dtype == dtype
    assert found.iterations < 40


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_on_lorenz63_it_finds_what_scipy_finds():
    """Nonlinear model and measurement, noise that grows with H(x)."""
    dynamics = Lorenz63(dt=0.02)
    measurement = Measurement(arctan() @ Subset([0, 2]), Multiplicative(0.1, 0.05))
    truth = jnp.asarray([1.0, 2.0, 20.0])
    twin = simulate(jax.random.key(1), dynamics, measurement, 4, 5, truth)
    background = truth + jnp.asarray([0.4, -0.3, 0.5])
    found = FourDVar(std=0.5, tolerance=1e-6)(background, dynamics, measurement, twin.observations)
    np.testing.assert_array_equal(found.to_xarray()["smoothed_mean"], found.trajectory)
    z = np.asarray(twin.observations.values)

    def states(x0):
        def cycle(x, _):
            x = jax.lax.fori_loop(0, 5, lambda j, x: dynamics(x, jnp.asarray(0.0), None), x)
            return x, x

        return jax.lax.scan(cycle, x0, length=4)[1]

    laws = [Measurement(measurement.operator, measurement.noise.at(measurement.operator(x)))
            for x in states(background)]  # fmt: skip

    @jax.jit
    def cost(x0):
        total = 0.5 * jnp.sum((x0 - background) ** 2) / 0.5**2
        for law, value, x in zip(laws, z, states(x0), strict=True):
            total = total + 0.5 * jnp.sum(law.whitened_innovation(jnp.asarray(value), x) ** 2)
        return total

    best = minimize(cost, np.asarray(background), jac=jax.jit(jax.grad(cost)), options={"gtol": 1e-7})
    np.testing.assert_allclose(found.cost, best.fun, rtol=1e-8)
    np.testing.assert_allclose(found.start, best.x, atol=1e-5)
    assert found.gradient_norm < 1e-6
    assert cost(background) > found.cost + 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_window_that_grows_finds_lower_minima():
    """Lorenz-63 over 4 units of time, four times that of error growth: near the truth's cost, or not.

    Which window's search of all cycles at once is caught in a high minimum hangs on rounding (a start on the
    attractor does, and so does the search): 16 to 21 of 40 were, by instruction set and precision.
    """
    dynamics, measurement = Lorenz63(dt=0.02), Measurement(Identity(), Gaussian(1.0))

    def problem(key):
        keys = jax.random.split(key, 3)
        start = dynamics.sample_climatology(keys[0])
        twin = simulate(keys[1], dynamics, measurement, 20, 10, start)
        return start + 2 * jax.random.normal(keys[2], (3,)), twin.observations.values

    def found(background, z, stages):
        method = FourDVar(std=2.0, tolerance=0.1, iterations=30, stages=stages)
        return method(background, dynamics, measurement, Observations(z, 10)).cost

    given = jax.jit(jax.vmap(problem))(jax.random.split(jax.random.key(0), 32))
    whole, grown = (jax.jit(jax.vmap(lambda x, z, n=n: found(x, z, n)))(*given) for n in (1, 10))
    assert np.sum(whole > 300) >= 8
    assert np.max(grown) < 80  # the expected cost of the truth: 63/2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redundant", "distinct"])
def test_float32_is_exact_or_says_so(kind):
    """From hopeless sensors to a millionth of the background's spread; then values far from 0."""
    ratios = (1e-5, 1.0, 1e2, 1e4, 1e6)
    for error, rounding, slope in window_errors([case(kind, 20, 30, ratio) for ratio in ratios]):
        assert error < 0.01
        assert max(rounding, slope) < 0.1
    found = window_errors([case(kind, 20, 30, ratio, 0, 100.0) for ratio in ratios])
    assert all(rounding > 0.1 for error, rounding, _ in found if error > 0.1)
    assert [rounding > 0.1 for _, rounding, _ in found] == [False, False, False, True, True]


def test_a_search_that_did_not_end_warns():
    measurement, observations = Measurement(Identity(), Gaussian(0.01)), Observations(np.ones((2, 3)), 1)
    with pytest.warns(InexactWarning, match="ended after . iterations with a gradient"):
        FourDVar(std=[1.0, 0.1, 3.0], iterations=1)(jnp.zeros(3, float), Linear(A), measurement, observations)


def test_what_it_cannot_do_it_says():
    measurement, observations = Measurement(Identity(), Gaussian(1.0)), Observations(np.zeros((2, 3)), 1)
    with pytest.raises(ValueError, match="either std or columns"):
        FourDVar()
    with pytest.raises(ValueError, match="either std or columns"):
        FourDVar(std=1.0, columns=np.eye(3))
    with pytest.raises(ValueError, match="positive everywhere"):
        FourDVar(std=[1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="iterations, history and stages"):
        FourDVar(std=1.0, iterations=0)
    with pytest.raises(ValueError, match="stages must be at least 1"):
        FourDVar(std=1.0, stages=0)
    with pytest.raises(ValueError, match="background must be one state"):
        FourDVar(std=1.0)(jnp.zeros((2, 3)), Linear(A), measurement, observations)
    with pytest.raises(ValueError, match="columns must fit"):
        FourDVar(columns=np.eye(2))(jnp.zeros(3), Linear(A), measurement, observations)
    with pytest.raises(ValueError, match="observations have shape"):
        FourDVar(std=1.0)(jnp.zeros(3), Linear(A), measurement, Observations(np.zeros((2, 2)), 1))
