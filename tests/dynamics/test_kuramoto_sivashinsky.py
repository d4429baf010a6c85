"""Kuramoto-Sivashinsky: linear growth, conservation, symmetry, precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.dynamics import KuramotoSivashinsky


def run(model, u, n):
    def body(_, u):
        return model(u, jnp.zeros((), u.dtype), None)

    return jax.jit(lambda u: jax.lax.fori_loop(0, n, body, u))(u)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", [1, 5, 11, 20])
def test_small_waves_grow_at_the_linear_rate(mode):
    n, length, steps = 64, 32 * np.pi, 4
    model = KuramotoSivashinsky(n, length)
    k = 2 * np.pi * mode / length
    wave = np.cos(k * np.arange(n) * length / n)
    u = run(model, jnp.asarray(1e-9 * wave), steps)
    growth = np.exp((k**2 - k**4) * float(model.dt) * steps)
    np.testing.assert_allclose(u, 1e-9 * growth * wave, atol=1e-9 * growth * 1e-7)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_mean_is_conserved_and_the_state_stays_bounded(key):
    model = KuramotoSivashinsky(64, 22.0, dt=0.25)
    u0 = model.initial_state(key)
    assert abs(float(u0.mean())) < 1e-12
    shifted = run(model, u0 + 0.3, 200)
    np.testing.assert_allclose(shifted.mean(), 0.3, atol=1e-12)
    assert 0.5 < float(shifted.std()) < 5


@pytest.mark.usefixtures("x64")
def test_galilean_invariance(key):
    """u(x, t) + c moves with speed c: the sign and the factor 1/2 of u u_x."""
    n, length = 64, 22.0
    model = KuramotoSivashinsky(n, length, dt=0.05)
    u0 = run(model, model.initial_state(key), 200)
    c = length / n  # one grid point per unit of time
    moved = run(model, u0 + c, 20)
    np.testing.assert_allclose(moved - c, jnp.roll(run(model, u0, 20), 1), atol=1e-5)


@pytest.mark.quick_cases("float32")
def test_types_follow_the_state(dtype, key):
    model = KuramotoSivashinsky(32, 22.0)
    u = model.initial_state(key)
    out = eqx.filter_jit(model)(u, jnp.asarray(0.0), None)
    assert u.dtype == out.dtype == dtype
    assert bool(jnp.isfinite(out).all())


def test_dealiasing_removes_the_upper_third():
    plain = KuramotoSivashinsky(48, 22.0)
    clean = KuramotoSivashinsky(48, 22.0, dealias=True)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(clean.derivative)), np.arange(1, 16))  # 3m < n
    assert np.count_nonzero(np.asarray(plain.derivative)) == 23  # neither the mean nor Nyquist


def test_dealiasing_leaves_no_aliases():
    """The square of wave 60 of 128 points has waves 0 and 120, which looks like 8."""
    wave = jnp.asarray(np.cos(60 * 2 * np.pi * np.arange(128) / 128), float)
    aliased, clean = (
        np.abs(np.fft.rfft(KuramotoSivashinsky(dealias=dealias, dt=1e-3)(wave, 0.0, None)))[8] / 64
        for dealias in (False, True)
    )
    assert aliased > 1e-5
    assert clean < 1e-8


@pytest.mark.parametrize(
    ("arguments", "expected", "came"),
    [
        ({"n": 33}, "even number", "got 33"),
        ({"length": -1.0}, "length must be a positive number", "got -1.0"),
        ({"dt": 0.0}, "dt must be a positive number", "got 0.0"),
    ],
)
def test_bad_parameters(arguments, expected, came):
    with pytest.raises(ValueError, match=expected) as error:
        KuramotoSivashinsky(**arguments)
    assert came in str(error.value)
