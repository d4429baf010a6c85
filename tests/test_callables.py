"""A network as a model, a sensor or a filter: its weights are leaves, in whatever order things are called."""

from __future__ import annotations

import functools

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from often import often

from masf_jax import assimilate, dynamics, filters, measurements
from masf_jax.callables import callable_name, kept, unwrapped
from masf_jax.results.places import model_name

pytestmark = pytest.mark.usefixtures("x64")
N = 4
SENSOR = measurements.Measurement(measurements.Identity(), measurements.Gaussian(1.0))
SEEN = measurements.Observations(np.linspace(-1.0, 1.0, 2 * N).reshape(2, N), 1)


def dense(weight, x):
    return jnp.tanh(weight @ x)


class Net(eqx.Module):
    weight: jax.Array
    activation: object = jnp.tanh

    def __call__(self, x):
        return self.activation(self.weight @ x)

    def step(self, x):
        return self(x)


class FlaxNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        weight = self.param("weight", linen.initializers.zeros, (N, N), x.dtype)
        return dense(weight, x)


class NnxNet(nnx.Module):
    def __init__(self, weight):
        self.weight = nnx.Param(weight)

    def __call__(self, x):
        return dense(self.weight[...], x)

    def step(self, x):
        return self(x)


class Written(dynamics.Dynamics):
    """The same as a class of its own."""

    weight: jax.Array
    dt: jax.Array
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, weight):
        self.weight, self.dt, self.state_shape = weight, jnp.asarray(0.1), (N,)

    def __call__(self, x, time, key):
        return dense(self.weight, x)


class Holder:
    """A callable that is no pytree."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return dense(self.weight, x)


KINDS = {
    "equinox": Net,
    "method": lambda w: Net(w).step,
    "nnx": NnxNet,
    "nnx method": lambda w: NnxNet(w).step,
    "flax": lambda w: FlaxNet().bind({"params": {"weight": w}}),
    "partial": lambda w: functools.partial(dense, w),
    "partial of a network": lambda w: functools.partial(Net.__call__, Net(w)),
    "jax partial": lambda w: jax.tree_util.Partial(dense, w),
    "closure": lambda w: lambda x: dense(w, x),
    "object": Holder,
}


def nudge(key, members, innovations):
    """A filter whose program is small."""
    return members + 0.3 * innovations


def loss(model, sensor=SENSOR, filter=nudge):
    members = jnp.asarray(np.random.default_rng(0).normal(size=(6, N)))
    key = jax.random.key(1)
    run = assimilate(key, filter, model, sensor, SEEN, members, scores=(), save=("mean",))
    return (run.analysis["mean"] ** 2).sum()


def weights(seed):
    return jnp.asarray(0.5 * np.random.default_rng(seed).normal(size=(N, N)))


def difference(function, w):
    """Along one direction, centred."""
    d, h = weights(99), 1e-5
    return d, (function(w + h * d) - function(w - h * d)) / (2 * h)


@pytest.mark.slow
@pytest.mark.parametrize("kind", often(KINDS, ("nnx",)))
def test_gradients_by_a_network_in_any_order(kind):
    def of(w):
        return loss(dynamics.Function(KINDS[kind](w), (N,), 0.1))

    first, second = weights(1), weights(2)
    expected = [jax.grad(lambda w: loss(Written(w)))(w) for w in (first, second)]
    before = jax.grad(of)(first)
    value = of(second)
    assert not np.isclose(value, of(first), rtol=1e-3)
    after, again = jax.grad(of)(second), jax.grad(of)(first)
    jitted = jax.jit(jax.grad(of))(second)
    for found, correct in ((before, 0), (again, 0), (after, 1), (jitted, 1)):
        np.testing.assert_allclose(found, expected[correct], rtol=1e-9)
    d, slope = difference(of, second)
    np.testing.assert_allclose((after * d).sum(), slope, rtol=1e-6)


def deep(w):
    """A function that closes over one that closes over the weight, and over one that calls itself."""

    def again(x, k):
        return x if k == 0 else again(x, k - 1)

    def inner(x):
        return dense(w, x)

    return lambda x: again(inner(x), 2)


TRACED = {"closure": KINDS["closure"], "object": Holder, "deep": deep, "method": lambda w: Holder(w).__call__}


@pytest.mark.parametrize("kind", often(TRACED, ("deep",)))
def test_what_is_traced_may_be_closed_over_in_programs_with_derivatives_of_their_own(kind):
    """An iterative filter runs the model again inside such a one."""
    by_leaf, by_closure = (
        jax.grad(lambda w, make=make: loss(make(w), filter=filters.IEnKF(iterations=2)))(weights(2))
        for make in (Written, lambda w: dynamics.Function(TRACED[kind](w), (N,), 0.1))
    )
    np.testing.assert_allclose(by_closure, by_leaf, rtol=1e-9)


def test_many_closed_over_values_stay_in_their_order():
    @jax.jit
    def run(w):
        a, b, c, d, e, f, g, h, i, j, k, last = w
        model = dynamics.Function(
            lambda x: x * (a + b + c + d + e + f + g + h + i + j) + k - 2 * last, (N,), 0.1
        )
        return jax.jit(lambda model: model(jnp.ones(N), 0.0, None))(model)

    np.testing.assert_allclose(run(jnp.arange(12.0)), 45 + 10 - 22)


def test_what_else_is_closed_over_is_not_looked_into():
    """A namespace with itself in it, and keys that have no order."""
    names = {1: "one", "two": 2, "step": jnp.tanh}
    names["names"] = names

    def of_names(x):
        return names["step"](x)

    @jax.jit
    def run(w):
        model = dynamics.Function(lambda x: w * of_names(x), (N,), 0.1)
        return model(jnp.ones(N), 0.0, None)

    np.testing.assert_allclose(run(2.0), 2 * np.tanh(np.ones(N)))
    np.testing.assert_allclose(dynamics.Function(of_names, (N,), 0.1)(jnp.ones(N), 0.0, None), np.tanh(1.0))


@pytest.mark.slow
def test_gradients_by_the_model_itself():
    model = dynamics.Function(Net(weights(1)), (N,), 0.1)
    value, slope = eqx.filter_value_and_grad(loss)(model)
    np.testing.assert_allclose(value, loss(model))
    expected = jax.grad(lambda w: loss(Written(w)))(weights(1))
    np.testing.assert_allclose(slope.function.weight, expected, rtol=1e-9)
    assert slope.function.activation is None
    moved = eqx.tree_at(lambda m: m.function.weight, model, weights(2))
    np.testing.assert_array_equal(moved.function.weight, weights(2))
    np.testing.assert_allclose(loss(moved), loss(dynamics.Function(Net(weights(2)), (N,), 0.1)))


def near(w, x):
    """A measurement, or an analysis, that is not linear in the weight."""
    return x + 0.1 * jnp.tanh(w @ x)


@pytest.mark.slow
def test_gradients_by_a_sensor_and_a_filter():
    model = dynamics.Function(lambda x: 0.9 * x, (N,))
    noise = measurements.Gaussian(1.0)

    def by_sensor(w):
        return loss(model, measurements.Measurement(functools.partial(near, w), noise))

    def by_pointwise(w):
        f = functools.partial(lambda a, x: jnp.tanh(a * x), w[0, 0])
        return loss(model, measurements.Measurement(measurements.Pointwise(f), noise))

    def by_filter(w):
        def analysis(weight, key, members, innovations):
            return members + 0.1 * innovations @ weight

        return loss(model, filter=functools.partial(analysis, w))

    for function in (by_sensor, by_pointwise, by_filter):
        w = weights(3)
        assert np.isfinite(function(w))
        found = jax.grad(function)(w)
        d, slope = difference(function, w)
        assert abs(slope) > 1e-4
        np.testing.assert_allclose((found * d).sum(), slope, rtol=1e-6)


@pytest.mark.slow
def test_networks_of_one_structure_compile_once():
    """And another's weights are not those of the first."""
    traced = []

    class Counted(Net):
        def __call__(self, x):
            traced.append(1)
            return super().__call__(x)

    def of(w):
        return loss(dynamics.Function(Counted(w), (N,), 0.1))

    of(weights(1))
    once = len(traced)
    other = of(weights(2))
    assert len(traced) - once == 1  # by `Function`, which looks at one step
    np.testing.assert_allclose(other, loss(Written(weights(2))))


def test_plain_functions_and_numpy_arguments_are_static():
    rows = np.asarray([True, False, True, True])
    for function in (dense, jnp.tanh, functools.partial(dense, np.eye(N)), functools.partial(max, [1])):
        held = kept(function)
        assert not jax.tree.leaves(held)
        same = kept(function)
        assert hash(jax.tree.structure(held)) == hash(jax.tree.structure(same))
        assert jax.tree.structure(held) == jax.tree.structure(same)
    assert unwrapped(kept(dense)) is dense
    picked = jax.jit(lambda f, x: unwrapped(f)(x=x))(
        kept(functools.partial(lambda x, rows: x[rows], rows=rows)), jnp.arange(4.0)
    )
    np.testing.assert_array_equal(picked, [0.0, 2.0, 3.0])


def test_names():
    assert callable_name(functools.partial(dense, 1.0)) == "dense"
    assert callable_name(Net(weights(0))) == "Net"
    assert callable_name(jnp.tanh) == "tanh"


def test_a_model_is_called_as_its_network_is():
    for function in (Net(weights(0)), functools.partial(Net(weights(0)))):
        assert model_name(dynamics.Function(function, (N,))) == "Net"
    assert model_name(dynamics.Function(functools.partial(dense, weights(0)), (N,))) == "dense"
    assert model_name(dynamics.Function(lambda x: x, (N,))) == "Function"
