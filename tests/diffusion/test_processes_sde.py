"""Every process against its own equation, and its transitions and reverse steps against each other."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax.bases import IdentityBasis
from masf_jax.denoisers import DenseCovariance, GaussianDenoiser
from masf_jax.diffusion import Frame, measurement_aware, vp_bridge
from masf_jax.diffusion.sde import forward_sde, reverse_terms
from masf_jax.measurements import Blur, CorrelatedGaussian, Gaussian, Linear, Measurement, Subset

SIZE = 6
NAMES = [
    "vp mask",
    "vp fourier",
    "vp dense",
    "measurement-aware mask",
    "measurement-aware fourier",
    "measurement-aware dense",
]


def process(name):
    rng = np.random.default_rng(3)
    build = vp_bridge if name.startswith("vp") else measurement_aware
    if name.endswith("mask"):
        measurement = Measurement(Subset(np.array([0, 2, 3])), Gaussian(np.array([0.3, 0.8, 1.5])))
    elif name.endswith("fourier"):
        measurement = Measurement(Blur.gaussian((SIZE,), 0.8), Gaussian(0.4))
    elif name == "vp dense":
        root = rng.normal(size=(4, 4))
        measurement = Measurement(
            Linear(rng.normal(size=(4, SIZE))), CorrelatedGaussian(0.2 * (root @ root.T + np.eye(4)))
        )
    else:
        vectors, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
        matrix = vectors @ np.diag([0.0, 0.2, 0.5, 0.7, 0.9, 1.0]) @ vectors.T
        measurement = Measurement(Linear(matrix), Gaussian(0.5))
    z = jnp.asarray(rng.normal(size=measurement.output_shape((SIZE,))), float)
    centre, scale = jnp.asarray(np.zeros(SIZE), float), jnp.asarray(1.0, float)
    return eqx.filter_jit(build)(measurement, z, jnp.asarray(np.ones(z.shape, bool)), centre, scale)


@eqx.filter_jit
def signal(process, t):
    """Gain, noise, and their rates."""
    return process.gain(t), process.std(t), *process.rates(t)


@eqx.filter_jit
def transitions(process, *pairs):
    return [process.transition(*pair) for pair in pairs]


def bare(process):
    """The process in its own coordinates, so that all of a class share one compiled program."""
    frame = Frame(jnp.zeros(SIZE), jnp.ones(()), IdentityBasis())
    return eqx.tree_at(lambda p: p.frame, process, frame)


@eqx.filter_jit
def simulated(keys, process, v0, times):
    return jax.vmap(lambda key: forward_sde(key, process, v0, times))(keys)


@pytest.mark.quick_cases("measurement-aware fourier")
@pytest.mark.parametrize("name", often(NAMES, NAMES[::2]))
def test_the_simulated_equation_has_the_moments_of_the_process(name, key):
    chosen, n = bare(process(name)), 6_000
    v0 = jnp.asarray(np.linspace(-2.0, 2.0, SIZE), float)
    times = jnp.asarray(np.linspace(0.0, 0.85, 49) ** 2 / 0.85, float)
    v = np.asarray(simulated(jax.random.split(key, n), chosen, v0, times))
    gain, std, *_ = map(np.asarray, signal(chosen, jnp.asarray(np.asarray(times)[-1])))
    np.testing.assert_allclose(
        v.mean(0), gain * np.asarray(v0), atol=float(5 * std.max() / np.sqrt(n)) + 2e-3
    )
    expected = np.diag(np.asarray(std) ** 2)
    np.testing.assert_allclose(np.cov(v.T), expected, atol=float(std.max() ** 2) * 5 * np.sqrt(2 / n) + 2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_rates_at_the_data(name, x64):
    """At t = 0, outside any compiled program: F = ġ and G² = d(s²)/dt, which is not 0 where s is √t-like."""
    chosen, h = process(name), jnp.asarray(1e-7)
    f, g = chosen.rates(jnp.asarray(0.0))
    np.testing.assert_allclose(f, (chosen.gain(h) - 1) / h, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(g**2, chosen.std(h) ** 2 / h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_transitions_compose(name, x64):
    chosen = process(name)
    s, u, t = (jnp.asarray(value) for value in (0.15, 0.4, 0.95))
    first, second, whole = jax.device_get(transitions(chosen, (s, u), (u, t), (s, t)))
    np.testing.assert_allclose(first.factor * second.factor, whole.factor, rtol=1e-12)
    np.testing.assert_allclose(
        second.factor**2 * first.variance + second.variance, whole.variance, rtol=1e-10, atol=1e-14
    )
    assert (np.asarray(whole.variance) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_noising_further_and_reversing_is_noising_less(name, key):
    """The pair (v_s, v_t) has the same law whichever is drawn first."""
    chosen, n = process(name), 10_000
    t, s = jnp.asarray(0.3), jnp.asarray(0.8)
    v0 = jnp.asarray(np.linspace(-1.0, 1.5, SIZE), float)

    def pair(key):
        key_s, key_t = jax.random.split(key)
        v_s = chosen.noised(key_s, v0, s)
        return v_s, chosen.reverse(key_t, v_s, v0, s, t)

    v_s, v_t = (np.asarray(v) for v in jax.jit(jax.vmap(pair))(jax.random.split(key, n)))
    (_, std_s, *_), (gain_t, std_t, *_) = (map(np.asarray, signal(chosen, time)) for time in (s, t))
    np.testing.assert_array_less(np.abs(v_t.mean(0) - gain_t * np.asarray(v0)), 5 * std_t / n**0.5)
    np.testing.assert_allclose(v_t.std(0), std_t, rtol=5 / (2 * n) ** 0.5)
    forward = np.asarray(transitions(chosen, (t, s))[0].factor) * std_t**2
    covariance = ((v_s - v_s.mean(0)) * (v_t - v_t.mean(0))).mean(0)
    np.testing.assert_array_less(np.abs(covariance - forward), 7 * std_s * std_t / n**0.5)


@pytest.mark.parametrize(
    ("name", "scales"), [(name, (1.3, 1.2)) for name in NAMES] + [(name, (1.0, 0.0)) for name in NAMES[::5]]
)
def test_the_information_drift_is_the_reverse_equation(name, scales, x64):
    """dY = (g/s²) dv + Y d log(g/s²), dv = [-F v + G² (c_s score + c_g likelihood score)] dτ."""
    chosen = process(name)
    rng = np.random.default_rng(0)
    v, matrix = jnp.asarray(rng.normal(size=SIZE)), rng.normal(size=(SIZE, SIZE))
    denoiser = GaussianDenoiser(jnp.ones(SIZE), DenseCovariance(jnp.asarray(matrix @ matrix.T)))
    t, dt = jnp.asarray(0.6), 1e-7
    brownian = diffrax.UnsafeBrownianPath((SIZE,), jax.random.key(0))
    constant = [None if scales == (1.0, 0.0) else lambda t, c=c: jnp.asarray(c) for c in scales]
    terms = reverse_terms(chosen, denoiser, brownian, t, t - dt, v, *constant)

    def factor(t):
        return chosen.gain(t) / chosen.std(t) ** 2

    @jax.jit
    def both(v):
        got = terms.terms[0].vf(jnp.asarray(0.0), factor(t) * v, None) / dt
        f, g = chosen.rates(t)
        mean = denoiser(chosen.rescaled(v, t), chosen.angle(t))
        score = scales[0] * chosen.score(v, mean, t) + scales[1] * chosen.likelihood_score(v, t)
        slope = -jax.jvp(factor, (t,), (jnp.ones_like(t),))[1]
        return got, factor(t) * (-f * v + g**2 * score) + v * slope

    got, expected = map(np.asarray, both(v))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
