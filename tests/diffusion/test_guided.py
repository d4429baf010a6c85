"""The paper's sampler: its bias, and the moments that its linear steps must have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _posteriors import guided_moments

from masf_jax.denoisers import DenseCovariance, GaussianDenoiser
from masf_jax.diffusion import bridge, guided, measurement_aware, time_grid
from masf_jax.diffusion.samplers import paper_guidance_scale, paper_score_scale
from masf_jax.measurements import Gaussian, Identity, Measurement

DENOISER = GaussianDenoiser(jnp.zeros(1), DenseCovariance(jnp.eye(1)))  # a forecast N(0, 1)


def one(s):
    return jnp.ones_like(s)


def scalar_process(z, std):
    measurement = Measurement(Identity(), Gaussian(std))
    return measurement_aware(measurement, jnp.asarray([z]), jnp.ones(1, bool), jnp.zeros(1), jnp.ones(1))


def run(key, process, times, count, scales):
    def draw(key):
        key_member, key = jax.random.split(key)
        member = jax.random.normal(key_member, (1,))
        return guided(key, process, DENOISER, times, member, *scales)[0]

    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(key, count)), np.float64)


@pytest.mark.parametrize(("z", "std", "mean", "spread"), [(2.0, 1.0, 1.387, 0.478), (0.2, 0.1, None, 0.0576)])
def test_both_scales_one_count_the_measurement_twice(z, std, mean, spread, key):
    """P = σ = 1, z = 2: 1.39 ± .48 instead of 1.00 ± .71; P = 1, σ = .1: spread σ/√3 instead of .0995."""
    process = scalar_process(z, std)
    times = time_grid(400, "quadratic", 0.992)
    sample = run(key, process, times, 10_000, (one, one))
    by_hand = guided_moments(z, std, np.asarray(times, np.float64), lambda s: 1.0, lambda s: 1.0)
    assert sample.mean() == pytest.approx(by_hand[0], abs=4 * np.sqrt(by_hand[1] / 10_000))
    assert sample.var() == pytest.approx(by_hand[1], rel=4 * np.sqrt(2 / 10_000))
    assert sample.std() == pytest.approx(spread, rel=0.03)
    if mean is not None:
        assert sample.mean() == pytest.approx(mean, abs=0.03)
    exact = np.sqrt(std**2 / (1 + std**2))
    assert sample.std() < 0.7 * exact

    draws = jax.jit(jax.vmap(lambda k: bridge(k, process, DENOISER, time_grid(2))[0]))
    ours = np.asarray(draws(jax.random.split(key, 10_000)), np.float64)
    assert ours.mean() == pytest.approx(z / (1 + std**2), abs=4 * exact / np.sqrt(10_000))
    assert ours.std() == pytest.approx(exact, rel=4 / np.sqrt(2 * 10_000))


def test_the_papers_scales(key):
    """The defaults: c_s = .95 + .65 s^1.5, c_g = 1.1 + .4 (1 - s)²; over-confident too."""
    assert float(paper_score_scale(jnp.asarray(0.25))) == pytest.approx(0.95 + 0.65 / 8)
    assert float(paper_guidance_scale(jnp.asarray(0.5))) == pytest.approx(1.2)
    times = time_grid(150, "quadratic", 0.992)
    sample = run(key, scalar_process(2.0, 1.0), times, 10_000, ())
    by_hand = guided_moments(
        2.0,
        1.0,
        np.asarray(times, np.float64),
        lambda s: 0.95 + 0.65 * s**1.5,
        lambda s: 1.1 + 0.4 * (1 - s) ** 2,
    )
    assert sample.mean() == pytest.approx(by_hand[0], abs=4 * np.sqrt(by_hand[1] / 10_000))
    assert sample.var() == pytest.approx(by_hand[1], rel=4 * np.sqrt(2 / 10_000))
    assert sample.std() < 0.5 < np.sqrt(0.5)


def test_without_guidance_it_draws_from_the_forecast(key):
    """Guidance scale 0: the reverse process from a noised member gives the forecast back."""
    sample = run(
        key, scalar_process(2.0, 1.0), time_grid(400, "quadratic", 0.992), 10_000, (one, jnp.zeros_like)
    )
    assert sample.mean() == pytest.approx(0, abs=4 / np.sqrt(10_000))
    assert sample.std() == pytest.approx(1, rel=0.03)
