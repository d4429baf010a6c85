"""The ensemble score filter: its own law where all is Gaussian, its bias there, and its batches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often
from scipy.stats import norm

from masf_jax.denoisers import KernelDenoiser
from masf_jax.diffusion import LinearSchedule
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters import EnSF, EnSFSampler
from masf_jax.measurements import Gaussian, Identity, Measurement, arctan

SCHEDULE = LinearSchedule(0.5, 0.025)
FINE = LinearSchedule(0.01, 0.0)
STEPS = 100


def quantiles(n, std=1.0):
    """n members at the quantiles of N(0, std²): a forecast without sampling error."""
    return jnp.asarray(std * norm.ppf((np.arange(n) + 0.5) / n)[:, None])


def law(prior, noise, z, own, schedule=SCHEDULE, steps=STEPS):
    """Mean and variance of the sampler's result for a N(0, prior) forecast: every step is linear.

    `own`: the prior score of a member is that of itself alone; else that of the noised Gaussian.
    """
    eps_a, eps_b = float(schedule.eps_alpha), float(schedule.eps_beta)
    mean, variance, slope = 0.0, 1.0, 0.0  # `slope`: of x on the member
    for k in range(steps):
        t, dt = 1 - k / steps, 1 / steps
        alpha, beta2 = 1 - (1 - eps_a) * t, eps_b + (1 - eps_b) * t
        f = -(1 - eps_a) / alpha
        g2 = 1 - eps_b - 2 * f * beta2
        pull = 1 / beta2 if own else 1 / (alpha**2 * prior + beta2)
        damping = (1 - t) / noise
        keep = 1 - dt * (f + g2 * (pull + damping))
        mean = keep * mean + dt * g2 * damping * z
        slope = keep * slope + (dt * g2 * alpha / beta2 if own else 0.0)
        variance = keep**2 * variance + dt * g2
    return mean, variance + slope**2 * prior


def analysed(filter, members, measurement, z, seed=0):
    state = filter.init(jax.random.key(0), members)
    return jax.jit(lambda s: filter.analysis(jax.random.key(seed), s, z, measurement)[0].ensemble)(state)


@pytest.mark.parametrize("own", often([True, False], [True]))
def test_its_law_for_a_gaussian_forecast_is_that_of_its_linear_steps(own, x64):
    n = 4096 if own else 1024
    sampler = EnSFSampler(SCHEDULE, STEPS, 1 if own else None, start="noise")
    measurement = Measurement(Identity(), Gaussian(0.5))
    found = np.asarray(analysed(EnSF(sampler=sampler), quantiles(n), measurement, jnp.asarray([1.0])))
    mean, variance = law(1.0, 0.25, 1.0, own)
    assert found.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / n))
    assert found.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / n))


@pytest.mark.parametrize(
    ("own", "schedule", "noise", "posterior", "ensf"),
    [
        (True, SCHEDULE, 1.0, (1.0, 0.5), (0.134, 0.897)),  # released settings: little notice taken
        (True, SCHEDULE, 0.0025, (1.995, 0.0025), (1.834, 0.0091)),
        (False, SCHEDULE, 1.0, (1.0, 0.5), (0.831, 0.447)),
        (False, FINE, 1.0, (1.0, 0.5), (1.050, 0.444)),  # what is left is the damped likelihood's
        (False, FINE, 0.01, (1.980, 0.0099), (1.999, 0.0050)),
        (True, FINE, 0.01, (1.980, 0.0099), (0.010, 0.990)),  # one member is a prior that is sure
    ],
)
def test_its_bias_where_the_posterior_is_known(own, schedule, noise, posterior, ensf):
    """A N(0, 1) forecast and z = 2, by the law that the sampler was seen to have above."""
    found = law(1.0, noise, 2.0, own, schedule, steps=500 if schedule is SCHEDULE else 20_000)
    assert found == pytest.approx(ensf, abs=6e-4)
    assert posterior == pytest.approx((2 / (1 + noise), noise / (1 + noise)), abs=6e-4)


def test_a_batch_of_all_members_is_the_full_score(key):
    members = 3 * jax.random.normal(key, (6, 4))
    measurement = Measurement(arctan(), Gaussian(0.2))
    z = jnp.asarray([0.5, -1.0, 0.3, 1.2])

    def run(size):
        return np.asarray(
            analysed(EnSF(sampler=EnSFSampler(n_steps=20, batch_size=size)), members, measurement, z)
        )

    np.testing.assert_array_equal(run(6), run(None))
    assert np.abs(run(3) - run(6)).max() > 1e-3
    with pytest.raises(ValueError, match="batch_size 7 is larger than the ensemble"):
        run(7)


def test_batches_hold_the_own_member_and_others(key):
    """Members far apart, noise small beside that: a draw ends at a member of its batch."""
    members = 100 * jnp.arange(8.0)[:, None]
    vague = Measurement(Identity(), Gaussian(1e6))
    at = {}
    for size in (1, 4, None):
        sampler = EnSFSampler(n_steps=100, batch_size=size, start="forecast", limit=None)
        filter = EnSF(normalization=Normalization("raw"), sampler=sampler)
        at[size] = np.asarray(analysed(filter, members, vague, jnp.zeros(1)))
        np.testing.assert_allclose(at[size], members, atol=2)  # from p_1 everyone comes home


@pytest.mark.slow
def test_the_prior_score_is_the_noised_mixtures(x64, key):
    members, x = jax.random.normal(key, (5, 3)), jnp.asarray([0.3, -0.2, 1.0])
    t = jnp.asarray(0.4)
    alpha, variance = SCHEDULE.alpha(t), SCHEDULE.variance(t)

    def log_density(x):
        return jax.nn.logsumexp(-0.5 * ((x[None] - alpha * members) ** 2).sum(1) / variance)

    mean = SCHEDULE.denoised(KernelDenoiser(members, jnp.zeros(3)), x, t)
    np.testing.assert_allclose(SCHEDULE.score(x, mean, t), jax.grad(log_density)(x), rtol=1e-9)


def test_rates_are_those_of_the_moments(x64):
    t = jnp.asarray(0.3)
    f, g2 = SCHEDULE.rates(t)
    assert f == pytest.approx(float(jax.grad(lambda t: jnp.log(SCHEDULE.alpha(t)))(t)))
    assert g2 == pytest.approx(float(jax.grad(SCHEDULE.variance)(t) - 2 * f * SCHEDULE.variance(t)))


def test_raw_coordinates_are_the_samplers_own(key):
    """As released: the sampler is given the members as they are, and the likelihood's score as it is."""
    members, sampler = 3 + 2 * jax.random.normal(key, (20, 2)), EnSFSampler(n_steps=50)
    z, filter = jnp.asarray([0.5, 1.0]), EnSF(normalization=Normalization("raw"), sampler=sampler)
    found = analysed(filter, members, Measurement(Identity(), Gaussian(0.5)), z)
    key_draw = filter.keys(jax.random.key(0))[0]
    drawn = jax.jit(lambda x: sampler(key_draw, x, lambda x, step: (z[None] - x) / 0.25))(members)
    np.testing.assert_allclose(found, drawn, rtol=1e-4)


def test_a_component_without_spread_stays(key):
    members = jax.random.normal(key, (20, 3)).at[:, 1].set(300.1)
    measurement = Measurement(Identity(), Gaussian(0.1))
    found = analysed(
        EnSF(sampler=EnSFSampler(n_steps=20)), members, measurement, jnp.asarray([0.0, 5.0, 1.0])
    )
    np.testing.assert_array_equal(found[:, 1], members[:, 1])
    assert np.isfinite(np.asarray(found)).all()


def test_relaxation_to_the_prior_spread(key):
    members = jax.random.normal(key, (20, 3))
    filter = EnSF(Inflation(rtps=1.0), sampler=EnSFSampler(n_steps=50))
    after = analysed(filter, members, Measurement(Identity(), Gaussian(0.1)), jnp.ones(3))
    np.testing.assert_allclose(after.std(0), members.std(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"start": "here"}, "start must be one of"),
        ({"limit": 0.0}, "limit of the score must be positive"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnSFSampler(**arguments)


def test_refused_schedules():
    with pytest.raises(ValueError, match="eps_alpha must lie in"):
        LinearSchedule(0.0)
    with pytest.raises(ValueError, match="eps_beta must lie in"):
        LinearSchedule(0.5, 1.0)
