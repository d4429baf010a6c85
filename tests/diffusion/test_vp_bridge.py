"""The variance-preserving bridge: its end is the measurement, and its steps compose."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.diffusion import vp_bridge
from masf_jax.measurements import CorrelatedGaussian, Gaussian, Identity, Linear, Measurement, Subset

N = 5


made = eqx.filter_jit(vp_bridge)
reversed_step = eqx.filter_jit(lambda process, *arguments: process.reverse(*arguments))


@eqx.filter_jit
def signal(process, t):
    """Gain, noise and angle."""
    return process.gain(t), process.std(t), process.angle(t)


def make_bridge(noise_std=0.7, z=None):
    rng = np.random.default_rng(3)
    h = rng.normal(size=(3, N))
    root = rng.normal(size=(3, 3))
    measurement = Measurement(Linear(h), CorrelatedGaussian(noise_std**2 * (root @ root.T + np.eye(3))))
    z = rng.normal(size=3) if z is None else z
    centre, scale = rng.normal(size=N), rng.uniform(0.5, 2, N)
    as_float = [jnp.asarray(value, dtype=float) for value in (z, centre, scale)]
    mask = jnp.asarray(np.ones(3, bool))
    return made(measurement, as_float[0], mask, *as_float[1:]), measurement


def test_signal_and_noise_keep_the_variance(dtype):
    process, _ = make_bridge()
    for t in (0.0, 0.3, 1.0):
        gain, std, angle = map(np.asarray, signal(process, jnp.asarray(t)))
        np.testing.assert_allclose(gain**2 + std**2, 1, rtol=1e-6)
        np.testing.assert_allclose(angle, np.arctan2(std, gain), atol=1e-6)
    assert np.asarray(process.observed).sum() == 3
    gain, std, _ = signal(process, jnp.asarray(0.0))
    np.testing.assert_array_equal(gain, 1)
    np.testing.assert_array_equal(std, 0)


def test_the_end_has_the_law_of_the_measurement(key):
    """Over draws of ε, v_1 of H x + ε is N(g v_0, s²) for the x that the frame encodes."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=N), dtype=float)
    process, measurement = make_bridge()
    frame = process.frame

    @jax.jit
    def ends(keys):
        def one(key):
            z = measurement.sample(key, x)
            return vp_bridge(measurement, z, jnp.ones(3, bool), frame.centre, frame.scale).measured

        return jax.vmap(one)(keys)

    drawn = np.asarray(ends(jax.random.split(key, 20_000)), np.float64)[:, np.asarray(process.observed)]
    gain, std, _ = (
        np.asarray(value, np.float64)[np.asarray(process.observed)]
        for value in signal(process, jnp.asarray(1.0))
    )
    v0 = np.asarray(eqx.filter_jit(frame.encode)(x), np.float64)[np.asarray(process.observed)]
    assert np.all(np.abs(drawn.mean(0) - gain * v0) < 4 * std / np.sqrt(20_000))
    covariance = np.cov(drawn.T) / (std[:, None] * std[None, :])
    np.testing.assert_allclose(covariance, np.eye(3), atol=4 * np.sqrt(2 / 20_000))


def test_unobserved_directions_start_in_fresh_noise(key):
    process, _ = make_bridge()
    ends = np.asarray(jax.vmap(process.endpoint)(jax.random.split(key, 20_000)), np.float64)
    observed = np.asarray(process.observed)
    np.testing.assert_array_equal(ends[:, observed], np.broadcast_to(ends[:1, observed], (20_000, 3)))
    np.testing.assert_allclose(np.cov(ends[:, ~observed].T), np.eye(2), atol=4 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize("times", [(0.1, 0.4, 0.9), (0.0, 0.5, 1.0)])
def test_transitions_compose(times, dtype):
    """s → u → t is s → t, and s → t of the marginal at s is the marginal at t."""
    process, _ = make_bridge()
    s, u, t = (jnp.asarray(value) for value in times)
    first, second, direct = jax.device_get(
        jax.jit(lambda s, u, t: [process.transition(*pair) for pair in ((s, u), (u, t), (s, t))])(s, u, t)
    )
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(second.factor * first.factor, direct.factor, atol=tolerance)
    composed = second.factor**2 * first.variance + second.variance
    np.testing.assert_allclose(composed, direct.variance, atol=tolerance)
    std_s, std_t = (np.asarray(signal(process, time)[1]) for time in (s, t))
    np.testing.assert_allclose(direct.factor**2 * std_s**2 + direct.variance, std_t**2, atol=tolerance)
    assert (direct.variance >= 0).all()


def test_reverse_step_is_the_conditional_of_the_forward_process(key):
    """Moments of v_t given v_s and v_0, by Gaussian conditioning of (v_t, v_s) given v_0."""
    process, _ = make_bridge()
    s, t = jnp.asarray(0.8), jnp.asarray(0.3)
    rng = np.random.default_rng(1)
    v0, vs = (jnp.asarray(rng.normal(size=N), dtype=float) for _ in range(2))
    count = 40_000
    run = jax.jit(jax.vmap(lambda k: process.reverse(k, vs, v0, s, t)))
    drawn = np.asarray(run(jax.random.split(key, count)), np.float64)
    (g_s, s_s), (g_t, s_t) = (
        [np.asarray(value, np.float64) for value in signal(process, time)[:2]] for time in (s, t)
    )
    covariance = g_s / g_t * s_t**2  # of v_t and v_s given v_0: v_s = M v_t + …, M = g_s/g_t
    mean = g_t * np.asarray(v0) + covariance / s_s**2 * (np.asarray(vs) - g_s * np.asarray(v0))
    variance = s_t**2 - covariance**2 / s_s**2
    assert np.all(np.abs(drawn.mean(0) - mean) < 4.5 * np.sqrt(variance / count))
    np.testing.assert_allclose(drawn.var(0), variance, rtol=4.5 * np.sqrt(2 / count))


def test_last_step_gives_x0_itself(key):
    process, _ = make_bridge()
    v0, vs = jnp.asarray(np.arange(5.0), float), jnp.asarray(np.ones(5), float)
    after = reversed_step(process, key, vs, v0, jnp.asarray(0.2), jnp.asarray(0.0))
    np.testing.assert_array_equal(after, v0)


def test_frame_is_undone(dtype):
    process, _ = make_bridge()
    x = jnp.asarray(np.random.default_rng(2).normal(size=N), dtype=float)
    there_and_back = jax.jit(lambda x: process.frame.decode(process.frame.encode(x)))
    np.testing.assert_allclose(there_and_back(x), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("std", [1e-6, 1e6])
def test_extreme_noise_stays_finite(std, key):
    """Nearly exact and nearly worthless measurements, in single precision."""
    z, centre = jnp.asarray([1.0, -2.0]), jnp.zeros(3)
    process = made(
        Measurement(Subset(np.asarray([0, 2])), Gaussian(std)), z, jnp.ones(2, bool), centre, jnp.ones(())
    )
    v = eqx.filter_jit(process.endpoint)(key)
    for s, t in ((1.0, 0.5), (0.5, 1e-3), (1e-3, 0.0)):
        v = reversed_step(process, key, v, jnp.asarray([1.0, 0.3, -2.0]), jnp.asarray(s), jnp.asarray(t))
        assert np.isfinite(np.asarray(v)).all()
    score = np.asarray(eqx.filter_jit(process.likelihood_score)(v, jnp.asarray(0.5)))
    assert score[1] == 0
    assert np.isfinite(score).all()


def test_new_numbers_do_not_recompile():
    """Values, mask, noise, centre, scale: leaves. The structure of the operator is not."""
    traces = []

    @jax.jit
    def build(measurement, z, mask, centre, scale):
        traces.append(None)
        return vp_bridge(measurement, z, mask, centre, scale)

    for i in range(3):
        measurement = Measurement(Identity(), Gaussian(0.5 + i))
        build(
            measurement, jnp.full(4, 1.0 * i), jnp.arange(4) != i, jnp.full(4, 2.0 * i), jnp.full(4, 1.0 + i)
        )
    assert len(traces) == 1
