"""Functions where objects are expected, and what is refused with a sentence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import MASF, Coordinates, assimilate, dynamics, filters, measurements, simulate
from masf_jax.estimation import Normal, estimate
from masf_jax.measurements.base import places
from masf_jax.smoothers import enks

NOISE = measurements.Gaussian(0.5)
EVERY_SECOND = measurements.Measurement(lambda x: x[::2], NOISE)


def step(x):
    return 0.9 * jnp.roll(x, 1) + 0.1 * jnp.sin(x)


def same_step(x, time, key):
    return step(x)


def forced(x, time, forcing):
    return 0.9 * x + forcing


@pytest.mark.slow
def test_functions_give_what_the_objects_give(key):
    model = dynamics.Function(step, (8,), coordinates=Coordinates.grid((8,), (8.0,)))
    subset = measurements.Measurement(measurements.Subset([0, 2, 4, 6]), NOISE)
    members = jax.random.normal(key, (6, 8))
    twin = simulate(key, step, EVERY_SECOND, 5, x0=jnp.ones(8))
    np.testing.assert_allclose(twin.truth, simulate(key, model, subset, 5, x0=jnp.ones(8)).truth)

    def mean(filter, dynamics, measurement, run=assimilate):
        return run(key, filter, dynamics, measurement, twin.observations, members, scores=()).analysis["mean"]

    for filter in (filters.ETKF(), filters.LETKF(2.0)):
        of_model = mean(filter, model, subset)
        np.testing.assert_allclose(mean(filter, model, EVERY_SECOND), of_model, rtol=1e-5, atol=1e-6)
    expected = mean(filters.ETKF(), model, subset)
    for function in (step, same_step, lambda x, time: step(x)):
        found = mean(filters.ETKF(), function, EVERY_SECOND)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    found = mean(filters.ETKF(), step, EVERY_SECOND, enks)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_function_of_members_and_innovations_is_a_filter(key):
    def kick(key, members, innovations, gain=0.5):
        return members + gain * innovations.mean()

    twin = simulate(key, step, EVERY_SECOND, 3, x0=jnp.ones(8))
    members = jax.random.normal(key, (6, 8))
    run = assimilate(key, kick, step, EVERY_SECOND, twin.observations, members, scores=())
    moved = np.asarray(run.analysis["mean"] - run.forecast["mean"])
    np.testing.assert_allclose(moved, moved[:, :1].repeat(8, 1), atol=1e-5)
    assert (np.abs(moved) > 1e-4).all()


def test_numbers_of_a_function_are_leaves_and_estimated(key):
    model = dynamics.Function(forced, (8,), parameters={"forcing": 1.0})
    assert float(model.with_numbers(forcing=2.0).parameters["forcing"]) == 2.0
    twin = simulate(key, model, EVERY_SECOND, 30, x0=jnp.ones(8))
    members = 1.0 + jax.random.normal(key, (30, 8))
    path = "dynamics.parameters.forcing"
    wrong = model.with_numbers(forcing=2.0)
    given = (wrong, EVERY_SECOND, twin.observations, members)
    found = estimate(key, filters.ETKF(), *given, unknown={path: Normal(2.0, 0.7)})
    assert abs(float(found.mean[path]) - 1.0) < 0.15


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda x: x[::2], (8,), [0, 2, 4, 6]),
        (lambda x: jnp.exp(x[1, :, ::2]), (2, 2, 4), [8, 10, 12, 14]),
        (lambda x: jnp.take(x, jnp.array([2999, 5])), (3000,), [2999, 5]),
        (lambda x: jnp.maximum(x[1:], x[:-1]), (8,), None),
        (lambda x: x[1:] + x[:-1], (8,), None),
        (lambda x: 0.0 * x, (8,), None),
        (lambda x: x[1, 2], (8,), None),
        (lambda x: jnp.sqrt(9.81 * x[0, ::5]), (2, 10), [0, 5]),  # not finite at most states
        (lambda x: jnp.log(x[1:] - 5.0), (4,), [1, 2, 3]),
        (lambda x: jnp.arccos(x[:2]), (40,), [0, 1]),
        (lambda x: jnp.sqrt(-1.0 - x[:2] ** 2), (40,), None),
        (lambda x: x[:1] + 1e5 * x[1:], (2,), None),  # a temperature and a mixing ratio
        (lambda x: x[:1] + jnp.maximum(x[1:] - 273.15, 0.0), (2,), None),  # nothing melts near 0
        (lambda x: x[:1] + jax.nn.sigmoid(x[1:] - 280.0), (2,), None),
        (lambda x: jnp.where(x > 250.0, x, jnp.roll(x, 1)), (8,), None),
        (lambda x: jax.lax.cond(x[0] > 250.0, lambda x: 2 * x, lambda x: x, x)[1:], (3,), None),
        (lambda x: jnp.maximum(x[::2] - 300.0, 0.0) + x[::2], (8,), [0, 2, 4, 6]),
        (lambda x: jnp.where(jnp.arange(8) < 4, x, jnp.roll(x, 1)), (8,), [0, 1, 2, 3, 3, 4, 5, 6]),
        (lambda x: jnp.exp(np.eye(8)[[1, 5]] @ x), (8,), [1, 5]),
        (lambda x: jnp.stack([x[0, 1, 1], x[1, 2, 2]]), (2, 3, 3), [4, 17]),
        (lambda x: 0.0 * x[0].mean(0) + x[1, 0], (2, 3, 3), [9, 10, 11]),
        (lambda x: jax.lax.map(lambda i: x[i], jnp.array([4, 2])), (8,), [4, 2]),
        (lambda x: jnp.sum(x[0, :, None] * jnp.eye(3), 1), (2, 3), [0, 1, 2]),
        (lambda x: x.reshape(2, 3).max(1), (6,), None),
    ],
)
def test_sources_are_found_from_derivatives(function, shape, expected):
    found = measurements.Function(function).sources(shape)
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("function", "mean", "unit", "z"),
    [
        (lambda x: x[:1] + 1e5 * x[1:], (0.0, 0.0), (1.0, 1e-5), 2.0),
        (lambda x: x[:1] + jnp.maximum(x[1:] - 273.15, 0.0), (0.0, 280.0), (1.0, 1.0), 8.85),
    ],
)
def test_a_sum_of_two_components_is_one_in_any_units_and_beyond_a_threshold(function, mean, unit, z):
    """Posterior spread √(1 - 1/(2 + .3²)); taken for a value of one component it was .2."""
    members = np.asarray(mean) + np.asarray(unit) * np.random.default_rng(0).normal(size=(400, 2))
    members = jnp.asarray(members, float)
    sensor, observations = measurements.Measurement(function, measurements.Gaussian(0.3)), jnp.asarray([[z]])
    run = assimilate(jax.random.key(0), MASF(), dynamics.Linear(np.eye(2)), sensor, observations, members)
    np.testing.assert_allclose(
        run.analysis["spread"][0] / jnp.asarray(unit), (1 - 1 / 2.09) ** 0.5, rtol=0.03
    )


def test_places():
    grid = Coordinates.grid((8,), (8.0,))
    operator = measurements.tanh() @ measurements.Function(lambda x: x[::4])
    found = places(operator, (8,), grid)
    assert found is not None
    assert found.positions.ravel().tolist() == [0.0, 4.0]
    own = measurements.Function(lambda x: x.mean()[None], positions=[3.5])
    found = places(own, (8,), grid)
    assert found is not None
    assert found.positions.ravel().tolist() == [3.5]
    assert places(measurements.Function(lambda x: x.mean()[None]), (8,), grid) is None


def test_linear_is_checked():
    assert measurements.Function(jnp.cumsum, linear=True).structure == "dense"
    assert measurements.Function(jnp.cumsum, linear=True).sources((8,)) is None
    with pytest.raises(ValueError, match="square was declared linear"):
        measurements.Function(jnp.square, linear=True).sources((8,))


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e7])
def test_what_a_function_looks_at_does_not_hang_on_units(unit):
    """Beside a value of size 1e7 a sum of two components was taken for one, and x² for linear."""
    both = measurements.Function(lambda x: jnp.stack([unit * x[0], x[1] + x[20]]))
    assert both.sources((40,)) is None
    apart = measurements.Function(lambda x: jnp.stack([unit * x[0], x[20]]))
    np.testing.assert_array_equal(apart.sources((40,)), [0, 20])
    for function in (lambda x: unit * x**2, lambda x: jnp.stack([1e6 * x[0], unit * x[1] ** 2])):
        with pytest.raises(ValueError, match="was declared linear"):
            measurements.Function(function, linear=True).sources((8,))
    measurements.Function(lambda x: unit * jnp.cumsum(x) + 7, linear=True).sources((400,))


def in_numpy(x):
    return np.sin(np.asarray(x))


REFUSED = {
    "got the class Identity: make one": lambda: measurements.Measurement(measurements.Identity, NOISE),
    r"measurements.Linear\(A\)": lambda: measurements.Measurement(np.eye(3), NOISE),
    r"a function h\(x\) of one state; got int": lambda: measurements.Measurement(3, NOISE),
    r"measurements.Gaussian\(std\); got 1.0": lambda: measurements.Measurement(measurements.Identity(), 1.0),
    "takes 2 arguments": lambda: measurements.Measurement(lambda a, b: a, NOISE),
    "in_numpy cannot be traced": lambda: measurements.Measurement(in_numpy, NOISE).output_shape((4,)),
    "give dynamics.BlackBox": lambda: dynamics.Function(in_numpy, (3,)),
    r"real numbers of shape \(3,\); got float\d\d \(2,\)": lambda: dynamics.Function(lambda x: x[:2], (3,)),
    "takes 4 arguments": lambda: dynamics.Function(lambda a, b, c, d: a, (3,)),
    "BlackBox|takes 3 arguments": lambda: dynamics.BlackBox(lambda a, b, c: a, (3,)),
    "or x0: where the truth starts": lambda: simulate(jax.random.key(0), step, EVERY_SECOND, 3),
    "must be f.key, members, innovations": lambda: filters.Function(step),
    "the class ETKF: make one": lambda: _run(filters.ETKF, step),
    "the class Lorenz96. Make one": lambda: _run(filters.ETKF(), dynamics.Lorenz96),
    "members of shape": lambda: _run(lambda key, x, d: x[:2], step),
}


def _run(filter, model):
    key = jax.random.key(0)
    observations = measurements.Observations(np.zeros((2, 4)), 1)
    return assimilate(key, filter, model, EVERY_SECOND, observations, jax.random.normal(key, (3, 8)))


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_such_thing_is_refused_with_what_to_write(said):
    with pytest.raises(ValueError, match=said):
        REFUSED[said]()
