"""Models of the user's own: JAX functions and host programs."""

import functools
import subprocess
import sys
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, simulate
from masf_jax.derivatives import NoDerivativeError
from masf_jax.dynamics import BlackBox, Dynamics, Function, advance
from masf_jax.dynamics.host import BlackBoxError
from masf_jax.estimation import LogNormal, Unknown, estimate
from masf_jax.filters import ETKF
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

MEASUREMENT = Measurement(Identity(), Gaussian(0.5))


def jax_model(x, time):
    return 0.9 * jnp.roll(x, 1) + 0.1 * jnp.sin(x) + 0.05 * time


def numpy_model(states, time):
    return 0.9 * np.roll(states, 1, -1) + 0.1 * np.sin(states) + np.float32(0.05 * time)


def run(model, key, n_cycles=5, steps=2):
    ensemble = jax.random.normal(key, (6, 4))
    reference = Function(jax_model, (4,), dt=0.5)
    twin = simulate(jax.random.key(1), reference, MEASUREMENT, n_cycles, steps, x0=jnp.ones(4))
    return assimilate(key, ETKF(), model, MEASUREMENT, twin.observations, ensemble, scores=())


@pytest.mark.quick_cases("float32")
def test_numpy_model_equals_the_jax_one_through_a_whole_run(dtype, key):
    """Under jit, vmap over members and scan over cycles, time passed on."""
    calls = []

    def host(states, time):
        calls.append((states.shape, states.dtype.name, type(time)))
        return numpy_model(states, time)

    ours = run(BlackBox(host, (4,), dt=0.5), key)
    theirs = run(Function(jax_model, (4,), dt=0.5), key)
    np.testing.assert_allclose(ours.analysis["mean"], theirs.analysis["mean"], rtol=2e-5, atol=1e-6)
    assert set(calls) == {((6, 4), dtype, float)}
    assert len(calls) == 10  # all members in one call a step


@pytest.mark.slow
def test_black_box_under_two_vmaps(key):
    model = BlackBox(numpy_model, (4,))
    x = jax.random.normal(key, (3, 5, 4))
    time = jnp.asarray(0.25)
    double = jax.vmap(jax.vmap(model, (0, None, None)), (0, None, None))
    np.testing.assert_allclose(double(x, time, None), numpy_model(np.asarray(x), 0.25), rtol=1e-6)
    np.testing.assert_allclose(model(x[0, 0], time, None), numpy_model(np.asarray(x[0, 0]), 0.25), rtol=1e-6)


def test_black_box_of_a_large_state(key):
    """A large array crosses to the host inside a compiled loop without a deadlock."""
    model = BlackBox(lambda states, time: states + 1.0, (300_000,))
    x = advance(model, jnp.zeros((2, 300_000)), jnp.asarray(0, jnp.int32), key, 3)
    np.testing.assert_array_equal(x, 3.0)


def test_a_subprocess_as_model(key):
    program = "import sys; print(*[2 * float(x) + 1 for x in sys.stdin.read().split()])"

    def host(states, time):
        text = " ".join(map(repr, states.ravel().tolist()))
        done = subprocess.run(
            [sys.executable, "-S", "-c", program], input=text, capture_output=True, text=True, check=True
        )
        return np.asarray(done.stdout.split(), float).reshape(states.shape)

    x = jax.random.normal(key, (3, 2))
    out = advance(BlackBox(host, (2,)), x, jnp.asarray(0, jnp.int32), key, 2)
    np.testing.assert_allclose(out, 4 * x + 3, rtol=1e-6)


def test_wrong_shape_from_the_host_is_named(key):
    model = BlackBox(lambda states, time: states[:, :2], (4,))
    with pytest.raises(Exception, match=r"must return shape \(6, 4\)(.|\n)*got \(6, 2\)"):
        run(model, key).final.ensemble.block_until_ready()


def test_an_exception_of_the_host_reaches_the_user(key):
    def host(states, time):
        raise RuntimeError("pressure solver did not converge at level 7")

    with pytest.raises(BlackBoxError, match="pressure solver did not converge at level 7") as raised:
        run(BlackBox(host, (4,)), key)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert "test_user_models.py, line" in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.slow
def test_a_function_of_one_member_is_told_what_it_is_given(key):
    """By its shape, where it returns one; by what it was given, where it fails."""

    def one(x, time):
        return x[:4] if max(x[0], 0.0) > 0 else -x

    with pytest.raises(
        BlackBoxError, match=r"one raised ValueError(.|\n)*all members at once(.|\n)*\(6, 4\)"
    ):
        run(BlackBox(one, (4,)), key)
    with pytest.raises(BlackBoxError, match=r"got \(4,\). It was written for one member"):
        run(BlackBox(lambda states: states[0], (4,)), key)


def test_members_have_parameters_of_their_own(key):
    """One entry a member, whichever of state and number is batched; an array as it is."""
    seen = []

    def host(states, time, *, drag, weights):
        seen.append((states.shape, drag.shape, weights.shape))
        return states * drag[:, None] + weights

    model = BlackBox(host, (2,), parameters={"drag": 0.5, "weights": [1.0, 2.0]})
    x = jax.random.normal(key, (3, 2))
    out = advance(model, x, jnp.asarray(0, jnp.int32), key, 1)
    np.testing.assert_allclose(out, 0.5 * np.asarray(x) + [1.0, 2.0], rtol=1e-5)
    drags = jnp.array([1.0, 2.0, 3.0], x.dtype)
    for of in (x, x[0]):
        moved = jax.vmap(
            lambda x, d: model.with_numbers(drag=d)(x, 0.0, None), (0 if of.ndim > 1 else None, 0)
        )
        expected = np.asarray(drags)[:, None] * np.asarray(of) + [1.0, 2.0]
        np.testing.assert_allclose(moved(of, drags), expected, rtol=1e-5)
    assert set(seen) == {((3, 2), (3,), (3, 2))}
    with pytest.raises(NoDerivativeError):
        jax.grad(lambda d: model.with_numbers(drag=d)(x[0], 0.0, None).sum())(0.5)


@pytest.mark.slow
def test_a_number_of_a_host_model_is_estimated_with_the_state():
    """As it is of the same model in jax.numpy; a number that is closed over is named."""
    rng = np.random.default_rng(0)
    truth = np.cumprod(np.full((30, 3), 0.93), 0) * 5.0
    values, members = truth + 0.05 * rng.normal(size=truth.shape), 5.0 + 0.1 * rng.normal(size=(30, 3))
    given = Measurement(Identity(), Gaussian(0.05)), Observations(values, 1), members

    def host(states, time, *, factor):
        return factor[:, None] * states

    models = (
        BlackBox(host, (3,), parameters={"factor": 1.0}),
        Function(lambda x, time, *, factor: factor * x, (3,), parameters={"factor": 1.0}),
    )
    unknown = {"dynamics.parameters.factor": LogNormal(1.0, 0.1)}
    ours, theirs = (estimate(jax.random.key(0), ETKF(), model, *given, unknown=unknown) for model in models)
    (name,) = unknown
    assert ours.mean[name] == pytest.approx(0.93, abs=0.01)
    assert ours.mean[name] == pytest.approx(float(theirs.mean[name]), rel=1e-4)

    def put(problem, factor):
        return eqx.tree_at(lambda p: p.dynamics, problem, BlackBox(lambda states: factor * states, (3,)))

    unknown = {"factor": Unknown(LogNormal(1.0, 0.1), put=put)}
    with pytest.raises(ValueError, match=r"holds factor, a number that JAX is tracing(.|\n)*parameters="):
        estimate(jax.random.key(0), ETKF(), models[0], *given, unknown=unknown)


def test_random_function_gets_one_key_per_member_and_step(key):
    model = Function(lambda x, time, key: x + jax.random.normal(key, x.shape, x.dtype), (2,), random=True)
    x = advance(model, jnp.zeros((500, 2)), jnp.asarray(0, jnp.int32), key, 4)
    assert np.unique(np.asarray(x)).size == 1000
    np.testing.assert_allclose(np.asarray(x).var(), 4.0, atol=4 * 4 * np.sqrt(2 / 1000))


@pytest.mark.parametrize("model", [Function, BlackBox])
def test_numbers_of_a_climatology_may_be_traced(model, key):
    """Those that its `partial` holds are the model's own: one program for all of them."""
    compiled = []

    @eqx.filter_jit
    def drawn(model):
        compiled.append(model)
        return model.sample_climatology(key)

    def still(x):
        return x

    def normal(key, mean):
        return mean + jax.random.normal(key, (3,))

    one, two = (
        drawn(model(still, (3,), climatology=functools.partial(normal, mean=jnp.asarray(mean))))
        for mean in (1.0, 2.0)
    )
    np.testing.assert_allclose(two, one + 1.0, rtol=1e-6)
    assert len(compiled) == 1


def test_climatology_of_a_function(key):
    model = Function(jax_model, (4,), climatology=lambda key: jax.random.normal(key, (4,)))
    assert model.sample_climatology(key).shape == (4,)
    with pytest.raises(NotImplementedError, match="Function has no initial_state: give the initial ensemble"):
        Function(jax_model, (4,)).sample_climatology(key)
    with pytest.raises(ValueError, match="dt must be a positive number; got -1"):
        BlackBox(numpy_model, (4,), dt=-1.0)


def test_a_host_model_has_the_names_it_was_given():
    assert BlackBox(lambda states: states, (2,), variable_names=["T", "S"]).variable_names == ("T", "S")
    for one in ("T", ["T"]):
        assert BlackBox(lambda states: states, (3,), variable_names=one).variable_names == ("T",)
    with pytest.raises(ValueError, match="variable_names must name each entry"):
        BlackBox(lambda states: states, (3,), variable_names=["T", "S"])


def test_a_host_model_may_be_a_module_with_arrays(key):
    class Solver(eqx.Module):
        factor: jax.Array

        def __call__(self, states):
            return np.asarray(self.factor) * states

    solvers = Solver(jnp.asarray(0.5)), Solver(jnp.asarray(0.25))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models = [BlackBox(solver, (3,)) for solver in solvers]
    for model, factor in zip(models, (0.5, 0.25), strict=True):
        assert model.function.factor == factor
        found = eqx.filter_jit(advance)(model, jnp.ones((2, 3)), jnp.asarray(0, jnp.int32), key, 1)
        np.testing.assert_array_equal(found, np.full((2, 3), factor))


class Shift(Dynamics):
    """A model of a user, with `dt` as it comes: x moves by its time."""

    dt: Any
    state_shape: tuple[int, ...] = (4,)

    def __call__(self, x, time, key):
        return x + time


@pytest.mark.parametrize("dt", [0.5, 1, np.float64(0.5), jnp.asarray(0.5)], ids=lambda dt: type(dt).__name__)
def test_dt_may_be_a_plain_number(dt, key):
    """x + Σ_k k·dt, in a run of a filter, in the mean and by other numbers."""
    model = Shift(dt)
    x = jnp.zeros((3, 4))
    out = advance(model, x, jnp.asarray(2, jnp.int32), key, 3)
    np.testing.assert_allclose(out, 9.0 * float(dt))
    assert out.dtype == x.dtype
    ours, theirs = (run(each, key, 2) for each in (model, Shift(jnp.asarray(float(dt)))))
    np.testing.assert_allclose(ours.analysis["mean"], theirs.analysis["mean"], rtol=1e-6)
    slower = model.with_numbers(dt=2)
    np.testing.assert_allclose(slower.time_of(jnp.asarray(3)), 6.0)
