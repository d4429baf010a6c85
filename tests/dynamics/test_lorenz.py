"""Lorenz-63 and Lorenz-96 against what is known of them in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often
from scipy.integrate import solve_ivp

from masf_jax.dynamics import Lorenz63, Lorenz96
from masf_jax.dynamics.integrate import rk4_step


def step(model, x):
    return model(x, jnp.zeros((), x.dtype), None)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sign", [0, 1, -1])
def test_lorenz63_fixed_points(sign):
    rho, beta = 28.0, 8.0 / 3.0
    q = sign * np.sqrt(beta * (rho - 1))
    point = jnp.asarray([q, q, (rho - 1) * abs(sign)])
    model = Lorenz63()
    np.testing.assert_allclose(model.tendency(point, jnp.asarray(0.0)), 0.0, atol=1e-13)
    np.testing.assert_allclose(step(model, point), point, atol=1e-13)


@pytest.mark.quick_cases("float32")
def test_lorenz96_against_a_plain_loop(dtype, key):
    n = 7
    model = Lorenz96(n, forcing=5.0)
    x = jax.random.normal(key, (n,))
    expected = [(x[(i + 1) % n] - x[i - 2]) * x[i - 1] - x[i] + 5.0 for i in range(n)]
    assert x.dtype == dtype
    np.testing.assert_allclose(model.tendency(x, jnp.asarray(0.0)), expected, rtol=1e-5)
    assert step(model, x).dtype == dtype


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", often([4, 7, 8, 40], [7]))
def test_lorenz96_closes_its_ring_once_for_all_stages(n, key):
    """The step and its derivatives are those of RK4 with a tendency on the closed ring."""
    model, (x, along) = Lorenz96(n), 3.0 * jax.random.normal(key, (2, n))
    value, slope = jax.jvp(lambda x: step(model, x), (x,), (along,))
    expected = jax.jvp(lambda x: rk4_step(model.tendency, x, 0.0, model.dt), (x,), (along,))
    np.testing.assert_allclose((value, slope), expected, rtol=1e-13, atol=1e-13)
    backwards = jax.vjp(lambda x: step(model, x), x)[1](x)[0]
    np.testing.assert_allclose(backwards @ along, slope @ x, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_lorenz96_advection_conserves_energy(key):
    """Σ x_i dx_i/dt of the quadratic term vanishes: with F = 0, dE/dt = -2E exactly."""
    x = 3.0 * jax.random.normal(key, (40,))
    tendency = Lorenz96(40, forcing=0.0).tendency(x, jnp.asarray(0.0))
    np.testing.assert_allclose(x @ tendency, -(x @ x), rtol=1e-12)
    assert float(jnp.abs(tendency + x).max()) > 1.0  # the advection itself is not zero


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_lorenz96_is_equivariant_under_rotation_of_the_ring(key):
    x = 3.0 * jax.random.normal(key, (12,))
    model = Lorenz96(12)
    np.testing.assert_allclose(step(model, jnp.roll(x, 5)), jnp.roll(step(model, x), 5), rtol=1e-14)
    mirrored = step(model, x[::-1])[::-1]
    assert float(jnp.abs(mirrored - step(model, x)).max()) > 0.1  # but it knows its direction


@pytest.mark.usefixtures("x64")
def test_lorenz96_trajectory_against_scipy(key):
    x0 = 8.0 + jax.random.normal(key, (10,))

    def tendency(t, x):
        return (np.roll(x, -1) - np.roll(x, 2)) * np.roll(x, 1) - x + 8.0

    reference = solve_ivp(tendency, (0, 0.5), np.asarray(x0), method="DOP853", rtol=1e-12, atol=1e-12)
    model = Lorenz96(10, dt=0.001)
    x = jax.lax.fori_loop(0, 500, lambda _, x: step(model, x), x0)
    np.testing.assert_allclose(x, reference.y[:, -1], atol=1e-7)


@pytest.mark.slow
def test_lorenz96_large_step_is_local():
    """A step of 10⁵ variables equals the small model on a repeated pattern."""
    x = jnp.linspace(-3.0, 8.0, 10)
    large = step(Lorenz96(100_000), jnp.tile(x, 10_000))
    np.testing.assert_allclose(large, np.tile(step(Lorenz96(10), x), 10_000), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_parameters_are_leaves_and_differentiable():
    x = jnp.arange(8.0)

    def total(model):
        return step(model, x).sum()

    gradient = eqx.filter_grad(total)(Lorenz96(8))
    difference = (total(Lorenz96(8, 8 + 1e-5)) - total(Lorenz96(8, 8 - 1e-5))) / 2e-5
    np.testing.assert_allclose(gradient.forcing, difference, rtol=1e-7)


@pytest.mark.parametrize(
    ("make", "expected", "came"),
    [
        (lambda: Lorenz96(3), "n must be at least 4", "got 3"),
        (lambda: Lorenz96(40, dt=0.0), "dt must be a positive number", "got 0.0"),
        (lambda: Lorenz63(dt=-1.0), "dt must be a positive number", "got -1.0"),
        (lambda: Lorenz63(dt=float("nan")), "dt must be a positive number", "got nan"),
    ],
)
def test_bad_parameters(make, expected, came):
    with pytest.raises(ValueError, match=expected) as error:
        make()
    assert came in str(error.value)


class Damped(Lorenz96):
    """Lorenz-96 with another damping, by its tendency alone."""

    def tendency(self, x, time):
        return super().tendency(x, time) - 0.1 * x**3


@pytest.mark.slow
def test_a_subclass_with_another_tendency_steps_by_it(key):
    x = jax.random.normal(key, (12,))
    model = Damped(12)
    expected = rk4_step(model.tendency, x, 0.0, model.dt)
    np.testing.assert_array_equal(model(x, 0.0, None), expected)
    assert np.abs(np.asarray(expected - Lorenz96(12)(x, 0.0, None))).max() > 1e-3
