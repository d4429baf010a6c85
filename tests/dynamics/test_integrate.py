"""Order of the time steppers, measured."""

from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from masf_jax.dynamics import KuramotoSivashinsky, Lorenz63
from masf_jax.dynamics.integrate import etdrk4_coefficients, rk4_step

pytestmark = pytest.mark.usefixtures("x64")


def run(model, x, n):
    def body(_, x):
        return model(x, jnp.asarray(0.0), None)

    return np.asarray(jax.jit(lambda x: jax.lax.fori_loop(0, n, body, x))(x))


def orders(errors, ratio=2.0):
    return np.log(np.asarray(errors[:-1]) / np.asarray(errors[1:])) / np.log(ratio)


def lorenz63(t, x):
    return np.asarray([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])


def test_rk4_is_of_fourth_order_on_lorenz63():
    x0 = np.asarray([1.509, -1.531, 25.46])
    reference = solve_ivp(lorenz63, (0, 1.0), x0, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    errors = [
        np.abs(run(Lorenz63(dt=dt), jnp.asarray(x0), round(1 / dt)) - reference).max()
        for dt in (0.005, 0.0025, 0.00125)
    ]
    assert orders(errors) == pytest.approx(4.0, abs=0.2)
    assert errors[-1] < 1e-7
    np.testing.assert_allclose(
        Lorenz63().tendency(jnp.asarray(x0), jnp.asarray(0.0)), lorenz63(0, x0), rtol=1e-14
    )


def test_rk4_uses_the_time_of_each_stage():
    """dx/dt = 4t³ is integrated exactly (Simpson's rule)."""
    x = rk4_step(lambda x, t: 4 * t**3 * jnp.ones_like(x), jnp.zeros(1), jnp.asarray(1.0), jnp.asarray(0.5))
    np.testing.assert_allclose(x, [1.5**4 - 1.0], rtol=1e-14)


@pytest.mark.parametrize("c", [0.0, 1e-6, -1e-3, 0.2, -3.0, -120.0])
def test_etdrk4_weights_match_series(c):
    """Against the series of the φ functions (small c) or their closed form (large c)."""
    dt = 0.5
    w = etdrk4_coefficients(np.asarray([c / dt]), dt)
    if abs(c) < 1:
        phi = [sum(c**k / factorial(k + j) for k in range(25)) for j in range(4)]
        half = sum((c / 2) ** k / factorial(k + 1) for k in range(25)) / 2
    else:
        e = np.exp(c)
        phi = [e, (e - 1) / c, (e - 1 - c) / c**2, (e - 1 - c - c**2 / 2) / c**3]
        half = (np.exp(c / 2) - 1) / c
    np.testing.assert_allclose(w.exp, [phi[0]], rtol=1e-12)
    np.testing.assert_allclose(w.exp_half, [np.exp(c / 2)], rtol=1e-12)
    np.testing.assert_allclose(w.half, [dt * half], rtol=1e-12)
    np.testing.assert_allclose(w.first, [dt * (phi[1] - 3 * phi[2] + 4 * phi[3])], rtol=1e-11)
    np.testing.assert_allclose(w.middle, [2 * dt * (phi[2] - 2 * phi[3])], rtol=1e-11)
    np.testing.assert_allclose(w.last, [dt * (4 * phi[3] - phi[2])], rtol=1e-11)


def test_etdrk4_is_of_fourth_order_on_kuramoto_sivashinsky():
    n, length = 32, 22.0
    x = np.arange(n) * length / n
    u0 = np.cos(2 * np.pi * x / length) * (1 + np.sin(4 * np.pi * x / length))
    k = 2 * np.pi / length * np.arange(n // 2 + 1)
    ik = 1j * np.where(np.arange(n // 2 + 1) == n // 2, 0.0, k)

    def tendency(t, u):  # independent: adaptive, no exponential integrator
        return np.fft.irfft((k**2 - k**4) * np.fft.rfft(u) - 0.5 * ik * np.fft.rfft(u**2), n)

    reference = solve_ivp(tendency, (0, 1.0), u0, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    errors = [
        np.abs(run(KuramotoSivashinsky(n, length, dt), jnp.asarray(u0), round(1 / dt)) - reference).max()
        for dt in (0.0125, 0.00625, 0.003125)
    ]
    assert orders(errors) == pytest.approx(4.0, abs=0.2)
    assert errors[-1] < 1e-10
