"""The paper's sampler: its bias, and the moments that its linear steps must have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suite.posteriors import guided_moments

from masf_jax.denoisers import DenseCovariance, GaussianDenoiser
from masf_jax.diffusion import bridge, guided, measurement_aware, time_grid
from masf_jax.diffusion.samplers import paper_guidance_scale, paper_score_scale
from masf_jax.diffusion.schedules import TIME_GRIDS
from masf_jax.measurements import Gaussian, Identity, Measurement

DENOISER = GaussianDenoiser(jnp.zeros(1), DenseCovariance(jnp.eye(1)))  # a forecast N(0, 1)


def one(s):
    return jnp.ones_like(s)


def scalar_process(z, std):
    measurement = Measurement(Identity(), Gaussian(std))
    return measurement_aware(measurement, jnp.asarray([z]), jnp.ones(1, bool), jnp.zeros(1), jnp.ones(1))


def ones(s):
    return 1.0


def by_hand(z, std, times, score_scale=ones, guidance_scale=ones):
    return guided_moments(z, std, np.asarray(times, np.float64), score_scale, guidance_scale)


@eqx.filter_jit
def run(key, process, times, count, scales):
    def draw(key):
        key_member, key = jax.random.split(key)
        member = jax.random.normal(key_member, (1,))
        return guided(key, process, DENOISER, times, member, *scales)[0]

    return jax.vmap(draw)(jax.random.split(key, count))


@eqx.filter_jit
def exact_draws(key, process, count):
    draw = jax.vmap(lambda k: bridge(k, process, DENOISER, time_grid(2))[0])
    return draw(jax.random.split(key, count))


COUNT = 5_000
MEAN, SPREAD = 4 / np.sqrt(COUNT), 4 / np.sqrt(2 * COUNT)
"""Four standard errors of a mean, over the spread, and of a spread, relative."""


@pytest.mark.quick_cases("0.2-0.1-None-0.0576")
@pytest.mark.parametrize(("z", "std", "mean", "spread"), [(2.0, 1.0, 1.387, 0.478), (0.2, 0.1, None, 0.0576)])
def test_both_scales_one_count_the_measurement_twice(z, std, mean, spread, key):
    """P = σ = 1, z = 2: 1.39 ± .48 instead of 1.00 ± .71; P = 1, σ = .1: spread σ/√3 instead of .0995."""
    process = scalar_process(z, std)
    times = time_grid(150, "quadratic", 0.992)
    sample = np.asarray(run(key, process, times, COUNT, (one, one)), np.float64)
    known_mean, known_variance = by_hand(z, std, times)
    assert sample.mean() == pytest.approx(known_mean, abs=MEAN * np.sqrt(known_variance))
    assert sample.std() == pytest.approx(np.sqrt(known_variance), rel=SPREAD)
    assert sample.std() == pytest.approx(spread, rel=0.04)
    if mean is not None:
        assert sample.mean() == pytest.approx(mean, abs=0.03)
    exact = np.sqrt(std**2 / (1 + std**2))
    assert sample.std() < 0.7 * exact

    ours = np.asarray(exact_draws(key, process, COUNT), np.float64)
    assert ours.mean() == pytest.approx(z / (1 + std**2), abs=MEAN * exact)
    assert ours.std() == pytest.approx(exact, rel=SPREAD)


@pytest.mark.parametrize(("n_steps", "off"), [(8, 220.0), (64, 0.56)])
def test_it_needs_many_steps(n_steps, off, key):
    """Few steps are far from the limit, as their linear recursion says: off in posterior deviations."""
    times = time_grid(n_steps, "quadratic", 0.992)
    mean, variance = by_hand(2.0, 1.0, times)
    sample = np.asarray(run(key, scalar_process(2.0, 1.0), times, COUNT, (one, one)), np.float64)
    assert sample.mean() == pytest.approx(mean, abs=MEAN * np.sqrt(variance))
    assert sample.std() == pytest.approx(np.sqrt(variance), rel=SPREAD)
    assert abs(mean - 1.0) / np.sqrt(0.5) == pytest.approx(off, rel=0.03)


@pytest.mark.parametrize("std", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("n_steps", [1, 2])
def test_one_or_two_steps_are_worth_nothing(n_steps, std):
    """Why the filter refuses them: on every grid the spread is far above the posterior's."""
    for grid in TIME_GRIDS:
        times = time_grid(n_steps, grid, 0.992)
        for scales in ((), (lambda s: 0.95 + 0.65 * s**1.5, lambda s: 1.1 + 0.4 * (1 - s) ** 2)):
            spread = np.sqrt(by_hand(0.0, std, times, *scales)[1])
            assert spread > 50 * std / np.sqrt(1 + std**2)


def test_the_papers_scales(key):
    """The defaults: c_s = .95 + .65 s^1.5, c_g = 1.1 + .4 (1 - s)²; over-confident too."""
    assert float(paper_score_scale(jnp.asarray(0.25))) == pytest.approx(0.95 + 0.65 / 8)
    assert float(paper_guidance_scale(jnp.asarray(0.5))) == pytest.approx(1.2)
    times = time_grid(150, "quadratic", 0.992)
    sample = np.asarray(run(key, scalar_process(2.0, 1.0), times, COUNT, ()), np.float64)
    mean, variance = by_hand(
        2.0, 1.0, times, lambda s: 0.95 + 0.65 * s**1.5, lambda s: 1.1 + 0.4 * (1 - s) ** 2
    )
    assert sample.mean() == pytest.approx(mean, abs=MEAN * np.sqrt(variance))
    assert sample.std() == pytest.approx(np.sqrt(variance), rel=SPREAD)
    assert sample.std() < 0.5 < np.sqrt(0.5)


@pytest.mark.slow
def test_without_guidance_it_draws_from_the_forecast(key):
    """Guidance scale 0: the reverse process from a noised member gives the forecast back."""
    times = time_grid(150, "quadratic", 0.992)
    sample = run(key, scalar_process(2.0, 1.0), times, COUNT, (one, jnp.zeros_like))
    assert sample.mean() == pytest.approx(0, abs=MEAN)
    assert sample.std() == pytest.approx(1, rel=SPREAD)
