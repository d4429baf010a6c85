"""Filters that learn the forecast's score: their samplers with a known score, and the learning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.denoisers import DiagonalCovariance, GaussianDenoiser
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Linear
from masf_jax.filters.rivals.score_filter import ExplodingSampler, ScoreFilter
from masf_jax.filters.rivals.score_network import ScoreNetwork, smoothed_score
from masf_jax.filters.rivals.ssls import SSLS, LangevinSampler
from masf_jax.measurements import Gaussian, Identity, Measurement
from masf_jax.training import FitConfig

PRIOR = GaussianDenoiser(jnp.zeros(1), DiagonalCovariance(jnp.ones(1)))
NOISE, Z = 0.5, 1.0
COUNT = 4000


def guidance(x, step):
    return (Z - x) / NOISE**2


def exploding_law(sigma=25.0, steps=200, noise=NOISE, z=Z):
    """Mean and variance for a N(0, 1) forecast: every step is linear. Nothing is capped here."""
    first, rate = 1e-3, np.log(sigma)
    mean, variance, dt = 0.0, (sigma**2 - 1) / (2 * rate), (1 - first) / steps
    for k in range(steps):
        t = 1 - k * dt
        g2, s2, w = sigma ** (2 * t), (sigma ** (2 * t) - 1) / (2 * rate), max(1 - 2 * t, 0) / noise**2
        keep = 1 - dt * g2 * (1 / (1 + s2) + w)
        mean, variance = keep * mean + dt * g2 * w * z, keep**2 * variance + dt * g2
    return mean, variance


def langevin_law(sigma, step, steps, noise=NOISE, z=Z):
    mean, variance = 0.0, 1.0
    for k in range(steps):
        w = min((k + 1) / (steps // 2), 1) / noise**2
        keep = 1 - step * (1 / (1 + sigma**2) + w)
        mean, variance = keep * mean + step * w * z, keep**2 * variance + 2 * step
    return mean, variance


def check(found, law):
    mean, variance = law
    assert np.mean(found) == pytest.approx(mean, abs=4 * np.sqrt(variance / COUNT))
    assert np.var(found) == pytest.approx(variance, rel=4 * np.sqrt(2 / COUNT))


def test_the_exploding_sampler_with_the_forecasts_own_score(key):
    sampler = ExplodingSampler(n_steps=200)
    found = jax.jit(lambda key: sampler(key, PRIOR, jnp.zeros((COUNT, 1)), guidance))(key)
    check(found, exploding_law())


def test_the_langevin_sampler_with_the_forecasts_own_score(key):
    sampler, members = LangevinSampler(0.3, 0.01, 400), jax.random.normal(key, (COUNT, 1))
    found = jax.jit(lambda key: sampler(key, PRIOR, members, guidance))(key)
    check(found, langevin_law(0.3, 0.01, 400))


def test_their_bias_where_the_posterior_is_known():
    """A N(0, 1) forecast and z = 2: the posterior is N(1, .5) for noise 1, N(1.980, .0099) for noise .1."""
    assert exploding_law(steps=20_000, noise=1.0, z=2.0) == pytest.approx((0.816, 0.393), abs=2e-3)
    assert exploding_law(steps=20_000, noise=0.1, z=2.0) == pytest.approx((1.980, 0.0050), abs=6e-4)
    assert langevin_law(0.2, 5e-3, 500, 0.1, 2.0) == pytest.approx((1.981, 0.0132), abs=6e-4)
    assert langevin_law(0.2, 5e-3, 500, 1.0, 2.0) == pytest.approx((0.991, 0.513), abs=2e-3)


def test_the_guidance_is_capped(key):
    """A likelihood far away moves a member no farther than the cap allows."""
    sampler = ExplodingSampler(n_steps=50, cap=2.0)
    far = sampler(key, PRIOR, jnp.zeros((4, 1)), lambda x, step: jnp.full(x.shape, 1e6))
    none = sampler(key, PRIOR, jnp.zeros((4, 1)), lambda x, step: jnp.zeros_like(x))
    moved = np.asarray(far - none)
    assert (moved > 0.1).all()
    assert (moved < 6.0).all()


def test_the_score_is_that_of_the_noised_law(x64):
    prior = GaussianDenoiser(jnp.asarray([1.0]), DiagonalCovariance(jnp.asarray([4.0])))
    x, std = jnp.asarray([[0.3], [2.0]]), jnp.asarray(1.5)
    np.testing.assert_allclose(smoothed_score(prior, x, std), -(x - 1) / (4 + 1.5**2), rtol=1e-9)


@pytest.mark.parametrize("kind", [ScoreFilter, pytest.param(SSLS, marks=pytest.mark.slow)])
def test_trained_in_the_cycle_it_finds_the_posterior_nearly(kind, key):
    """A forecast N(3, 4) seen with noise 2 at 5: the posterior is N(4, 2), the samplers' own law near it."""
    members = 3 + 2 * jax.random.normal(key, (100, 1))
    training = FitConfig(steps=200, learning_rate=5e-3, validation_fraction=0.0)
    network = ScoreNetwork(training=training, restart=False, architecture=Architecture(width=16, depth=1))
    measurement, model = Measurement(Identity(), Gaussian(2.0)), Linear(np.eye(1))
    filter = kind(network=network).prepare(model, measurement)
    state = filter.init(key, members)
    after, info = jax.jit(lambda s: filter.analysis(key, s, jnp.asarray([5.0]), measurement))(state)
    assert after.mean[0] == pytest.approx(4.0, abs=0.5)
    assert 1.0 < after.variance[0] < 3.5
    assert float(info["training_loss"]) < 2
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.memory[1][1], after.memory[1][1])
    assert max(jax.tree.leaves(moved)) > 0, "the next cycle's training goes on from here"


REFUSED = {
    "sigma": lambda: ExplodingSampler(sigma=1.0),
    "cap": lambda: ExplodingSampler(cap=0.0),
    "n_steps": lambda: LangevinSampler(n_steps=0),
    "step": lambda: LangevinSampler(step=0.0),
    "no variance_head": lambda: ScoreNetwork(architecture=Architecture(variance_head=True)),
    "the network is not there yet": lambda: ScoreNetwork(restart=False).init(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
