"""Measurement operators: values, structure, coordinates, composition, lift, gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.measurements import (
    Compose,
    Identity,
    Linear,
    Pointwise,
    Speed,
    Subset,
    absolute,
    arctan,
    center_hole,
    grid_stride,
    moving_window,
    random_points,
    sigmoid,
    square,
    tanh,
)
from masf_jax.measurements.base import output_shape

RING = Coordinates.grid((6,), (6.0,))
X = np.asarray([-2.0, -0.5, 0.0, 0.5, 1.0, 3.0])


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Identity(), X),
        (Subset([4, 0, 2]), X[[4, 0, 2]]),
        (arctan(2.0), np.arctan(2 * X)),
        (sigmoid(3.0), 1 / (1 + np.exp(-3 * X))),
        (tanh(0.5), np.tanh(0.5 * X)),
        (absolute(2.0), 2 * np.abs(X)),
        (square(2.0), 4 * X**2),
        (Pointwise(jnp.cos), np.cos(X)),
        (Linear(np.arange(12.0).reshape(2, 6), [1.0, -1.0]), np.arange(12.0).reshape(2, 6) @ X + [1, -1]),
        (square() @ Subset([5, 1]), X[[5, 1]] ** 2),
        (Subset([5, 1]) @ square(), X[[5, 1]] ** 2),
        (Linear(np.ones((1, 3))) @ (tanh() @ Subset([0, 1, 5])), [np.tanh(X[[0, 1, 5]]).sum()]),
    ],
)
def test_values_and_types(operator, expected, dtype):
    z = operator(jnp.asarray(X, dtype))
    assert z.dtype == dtype
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)
    assert output_shape(operator, (6,)) == z.shape


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
def test_subset_picks_raveled_components_of_any_shape(shape):
    x = jnp.arange(12.0).reshape(shape)
    mask = np.zeros(shape, bool).ravel()
    mask[[1, 5, 10]] = True
    operator = Subset.from_mask(mask.reshape(shape))
    np.testing.assert_array_equal(operator(x), [1, 5, 10])
    np.testing.assert_array_equal(operator.observed(shape), mask.reshape(shape))
    lifted = operator.lift(operator(x), shape)
    np.testing.assert_array_equal(lifted, np.where(mask, np.arange(12.0), 0).reshape(shape))
    np.testing.assert_array_equal(operator(lifted), operator(x))


def test_speed_of_a_flow():
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    expected = np.sqrt(np.asarray(u[0]) ** 2 + np.asarray(u[1]) ** 2)
    np.testing.assert_allclose(Speed()(u), expected, rtol=1e-6)
    np.testing.assert_allclose(Speed(squared=True, offset=-3.0)(u), expected**2 - 3, rtol=1e-4)
    grid = Coordinates.grid((3, 4), (3.0, 4.0))
    assert Speed().coordinates(grid) == grid
    assert Speed().observed((2, 3, 4)) is None


def test_speed_has_a_finite_gradient_at_rest(dtype):
    u = jnp.asarray([[0.0, 3.0], [0.0, 4.0]])
    gradient = jax.grad(lambda u: Speed()(u).sum())(u)
    np.testing.assert_allclose(gradient, [[0.0, 0.6], [0.0, 0.8]], rtol=1e-6)
    tangent = jax.jvp(Speed(), (u,), (jnp.ones_like(u),))[1]
    np.testing.assert_allclose(tangent, [0.0, 1.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Identity(), [1, 1, 1, 1, 1, 1]),
        (Subset([4, 0]), [1, 0, 0, 0, 1, 0]),
        (arctan(), [1, 1, 1, 1, 1, 1]),
        (arctan() @ Subset([2, 3]), [0, 0, 1, 1, 0, 0]),
        (Subset([2, 3]) @ arctan(), [0, 0, 1, 1, 0, 0]),
        (Subset([1]) @ Subset([5, 2]), [0, 0, 1, 0, 0, 0]),
        (Subset([1]) @ (arctan() @ Subset([5, 2])), [0, 0, 1, 0, 0, 0]),
        (Linear(np.eye(6)), None),
        (Subset([0]) @ Linear(np.eye(6)), None),
        (Linear(np.ones((1, 6))) @ arctan(), None),
    ],
)
def test_observed_components(operator, expected):
    found = operator.observed((6,))
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, np.asarray(expected, bool))


def test_coordinates_follow_the_values():
    assert Identity().coordinates(RING) == RING
    assert arctan().coordinates(RING) == RING
    np.testing.assert_array_equal(Subset([4, 1]).coordinates(RING).positions, [[4.0], [1.0]])
    np.testing.assert_array_equal((square() @ Subset([4, 1])).coordinates(RING).positions, [[4.0], [1.0]])
    np.testing.assert_array_equal((Subset([0]) @ Subset([4, 1])).coordinates(RING).positions, [[4.0]])
    assert Linear(np.ones((2, 6))).coordinates(RING) is None
    assert (Subset([0]) @ Linear(np.ones((2, 6)))).coordinates(RING) is None
    for positions in ([0.5, 2.5], [[0.5], [2.5]]):
        found = Linear(np.ones((2, 6)), positions=positions).coordinates(RING)
        np.testing.assert_array_equal(found.positions, [[0.5], [2.5]])
        assert found.period == (6.0,)
    # channels share their grid point: component 7 of a (2, 6) state sits at point 1
    np.testing.assert_array_equal(Subset([7, 5]).coordinates(RING).positions, [[1.0], [5.0]])


def test_composition_shape_and_structure():
    operator = square() @ Subset([4, 1])
    assert isinstance(operator, Compose)
    assert output_shape(operator, (6,)) == (2,)
    assert (Identity.structure, Subset.structure, Linear.structure) == ("identity", "mask", "dense")
    assert Speed.structure is None
    np.testing.assert_array_equal(Identity().lift(jnp.asarray(X, jnp.float32), (6,)), X)
    with pytest.raises(NotImplementedError, match="Speed has no lift"):
        Speed().lift(jnp.zeros((3, 4)), (2, 3, 4))


def test_numbers_may_change_without_recompiling():
    traces = []

    @eqx.filter_jit
    def measure(operator, x):
        traces.append(1)
        return operator(x)

    x = jnp.ones(6)
    for scale in (1.0, 2.0, 3.0):
        np.testing.assert_allclose(measure(arctan(scale), x), np.arctan(scale), rtol=1e-6)
    assert len(traces) == 1
    measure(Subset([0, 1]), x)
    measure(Subset([0, 1]), x)
    assert len(traces) == 2  # equal index sets are one structure
    np.testing.assert_array_equal(measure(Subset([2, 1]), x).shape, (2,))
    assert len(traces) == 3


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (grid_stride((6,), 2), [1, 0, 1, 0, 1, 0]),
        (grid_stride((6,), 3, start=1), [0, 1, 0, 0, 1, 0]),
        (grid_stride((2, 2, 3), 2), [[[1, 0, 1], [0, 0, 0]]] * 2),
        (center_hole((8,), 0.5), [1, 1, 0, 0, 0, 0, 1, 1]),
        (center_hole((1, 4, 4), 0.5), [[[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]]),
        (moving_window((5,), 2, 2, 4), [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]),
        (moving_window((2, 3), 1, 1, 2), [[[1, 0, 0]] * 2, [[0, 1, 0]] * 2]),
    ],
)
def test_masks(mask, expected):
    np.testing.assert_array_equal(mask, np.asarray(expected, bool))


def test_random_points():
    mask = random_points((4, 50), 0.25, seed=3)
    assert mask.shape == (4, 50)
    assert mask.sum() == 50
    np.testing.assert_array_equal(mask, random_points((4, 50), 0.25, seed=3))
    assert (mask != random_points((4, 50), 0.25, seed=4)).any()
    assert random_points((10,), 1e-6, seed=0).sum() == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subset([]), r"non-empty vector of integers; got shape \(0,\), float64"),
        (lambda: Subset([0.5]), r"non-empty vector of integers; got shape \(1,\), float64"),
        (lambda: Subset([1, 1]), "indices must be distinct and not negative"),
        (lambda: Subset([-1]), "indices must be distinct and not negative"),
        (lambda: Linear(np.ones(3)), r"two dimensions \(m, n\); got shape \(3,\)"),
        (lambda: Linear(np.eye(3), np.ones(2)), r"offset must have shape \(3,\); got \(2,\)"),
        (
            lambda: Linear(np.eye(3), positions=[0.0, 1.0]),
            r"positions must be an array \(3, dim.*got shape \(2,\)",
        ),
        (lambda: grid_stride((4,), 0), "stride must be at least 1 .* got 0, 0"),
        (lambda: center_hole((4,), 1.0), "fraction must lie between 0 and 1; got 1.0"),
        (lambda: random_points((4,), 0.0, 1), r"fraction must lie in \(0, 1\]; got 0.0"),
        (lambda: moving_window((4,), 5, 1, 3), r"width must lie in \[1, 4\]; got 5"),
        (
            lambda: output_shape(Subset([9]), (6,)),
            r"Subset does not apply to a state of shape \(6,\): index 9",
        ),
        (
            lambda: output_shape(Linear(np.eye(3)), (6,)),
            r"Linear does not apply .*3 components; got shape \(6,\)",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
