"""Nonlinear measurements: exact where they are linear, and close to the true posterior where they are not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Lorenz96, spun_up_ensemble
from masf_jax.ensemble import Inflation
from masf_jax.masf import MASF, Automatic, Bridge, GaussianPrior, HybridPrior, KernelPrior, Linearized
from masf_jax.measurements import (
    Gaussian,
    Identity,
    Linear,
    Measurement,
    Pointwise,
    Speed,
    StudentT,
    Subset,
    arctan,
    sigmoid,
    square,
    tanh,
)

N = 2000


@eqx.filter_jit
def _analyse(filter, key, state, z, measurement):
    return filter.analysis(key, state, z, measurement)


def analyse(filter, members, measurement, z, seed=0):
    key = jax.random.key(seed)
    state = filter.init(key, jnp.asarray(members, dtype=float))
    after, info = _analyse(filter, key, state, jnp.asarray(z, dtype=float), measurement)
    return np.asarray(after.ensemble, np.float64), info


def normal(mean, deviation, n=N):
    """N(mean, deviation²) by its quantiles, in random order: no sampling error in the forecast."""
    points = norm.ppf((np.arange(n) + 0.5) / n)
    return (mean + deviation * np.random.default_rng(0).permutation(points))[:, None]


def posterior(mean, deviation, h, z, noise):
    """Quantile function of p(x | z) on a grid, for a scalar normal forecast."""
    x = np.linspace(mean - 8 * deviation, mean + 8 * deviation, 400_001)
    log = -0.5 * ((x - mean) / deviation) ** 2 - 0.5 * ((z - h(x)) / noise) ** 2
    weights = np.cumsum(np.exp(log - log.max()))
    return lambda p: np.interp(p, weights / weights[-1], x)


def wasserstein(draws, quantiles):
    p = (np.arange(len(draws)) + 0.5) / len(draws)
    return float(np.sqrt(np.mean((np.sort(draws) - quantiles(p)) ** 2)))


# operator, its function, noise, forecast mean and deviation, truth; W2 to the posterior: members, mean
POSTERIORS = {
    "arctan": (arctan(), np.arctan, 0.05, 0.5, 1.0, 1.2, 0.04, 0.04),
    "sigmoid": (sigmoid(2.0), lambda x: 1 / (1 + np.exp(-2 * x)), 0.1, 2.0, 1.0, 2.8, 0.12, 0.35),
    "square, one mode": (square(), np.square, 0.5, 4.0, 0.7, 3.2, 0.03, 0.03),
    "square, two modes": (square(), np.square, 0.5, 0.0, 1.0, 1.5, 0.3, np.inf),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
def test_distance_to_the_posterior(name):
    """The forecast is 1 wide; a linear filter is .3 to 2 away (`test_more_iterations…`)."""
    operator, h, noise, mean, deviation, truth, by_member, by_mean = POSTERIORS[name]
    z = h(np.asarray([truth])) + 0.3 * noise
    quantiles = posterior(mean, deviation, h, z, noise)
    members = normal(mean, deviation)
    measurement = Measurement(operator, Gaussian(noise))
    for linearization, bound in ((Linearized(), by_member), (Linearized("mean"), by_mean)):
        filter = MASF(sampler=Bridge(centred=False), route=Automatic(linearization))
        drawn, _ = analyse(filter, members, measurement, z)
        assert wasserstein(drawn[:, 0], quantiles) < bound, linearization.at


@pytest.mark.quick_cases("arctan")
@pytest.mark.parametrize("name", ["arctan", "sigmoid"])
def test_weighted_proposals_are_exact(name):
    """To the sampling error of the share that carries weight: W2 of some 2 % of the forecast's spread."""
    operator, h, noise, mean, deviation, truth, *_ = POSTERIORS[name]
    z = h(np.asarray([truth])) + 0.3 * noise
    filter = MASF(route=Linearized("mean", proposals=10))
    drawn, info = analyse(filter, normal(mean, deviation), Measurement(operator, Gaussian(noise)), z)
    assert wasserstein(drawn[:, 0], posterior(mean, deviation, h, z, noise)) < 0.05
    assert 0.01 < float(info["proposals_used"]) <= 1


@pytest.mark.slow
def test_proposals_take_a_noise_that_is_not_gaussian():
    """A far value under Student-t noise: the bridge takes it for Gaussian, and its spread is too small."""
    z = np.asarray([2.5])
    measurement = Measurement(Pointwise(lambda x: x), StudentT(3.0, 0.3))
    x = np.linspace(-8, 8, 100_001)
    law = jax.jit(jax.vmap(lambda x: measurement.log_prob(jnp.asarray(z, dtype=float), x)))
    log = -0.5 * x**2 + np.asarray(law(jnp.asarray(x[:, None], dtype=float)), np.float64)
    weights = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    mean = weights @ x
    deviation = np.sqrt(weights @ (x - mean) ** 2)
    plain, corrected = (
        analyse(MASF(route=Linearized("mean", proposals=n)), normal(0, 1), measurement, z)[0] for n in (0, 10)
    )
    assert abs(corrected.mean() - mean) < 0.06
    assert plain.std() < 0.75 * deviation
    assert abs(corrected.std() - deviation) < 0.5 * abs(plain.std() - deviation)


@pytest.mark.slow
def test_both_signs_of_a_flow_speed():
    """One cell, forecast N(0, 1) in both directions: the posterior is a ring, with members on all sides."""
    members = np.random.default_rng(1).normal(size=(800, 2, 1, 1))
    measurement = Measurement(Speed(), Gaussian(0.1))
    drawn, _ = analyse(MASF(), members, measurement, [[2.0]])
    speed = np.hypot(*drawn[:, :, 0, 0].T)
    x = np.random.default_rng(2).normal(size=(200_000, 2))
    weights = np.exp(-0.5 * ((2.0 - np.hypot(*x.T)) / 0.1) ** 2)
    expected = (weights * np.hypot(*x.T)).sum() / weights.sum()
    assert abs(speed.mean() - expected) < 0.02
    np.testing.assert_allclose(speed.std(), 0.1, rtol=0.1)
    angles = np.histogram(np.arctan2(*drawn[:, :, 0, 0].T), bins=8, range=(-np.pi, np.pi))[0]
    assert angles.min() > 0.7 * 100


@pytest.mark.slow
def test_more_iterations_and_annealing_bring_it_closer():
    operator, h, noise, mean, deviation, truth, *_ = POSTERIORS["arctan"]
    z = h(np.asarray([truth])) + 0.3 * noise
    quantiles = posterior(mean, deviation, h, z, noise)

    def distance(**keys):
        filter = MASF(sampler=Bridge(centred=False), route=Linearized(**keys))
        drawn, info = analyse(filter, normal(mean, deviation), Measurement(operator, Gaussian(noise)), z)
        return wasserstein(drawn[:, 0], quantiles), float(info["last_step"])

    once, annealed, plain = distance(iterations=1), distance(), distance(annealing=1.0)
    assert annealed[0] < 0.05 < 0.5 < once[0]
    assert annealed[0] < plain[0]
    assert distance(iterations=12, annealing=2.0)[1] < annealed[1] < once[1]


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        ("member", "perturbed"),
        *(pytest.param("mean", kind, marks=pytest.mark.slow) for kind in ("fresh", "transported")),
    ],
)
def test_a_linear_function_is_treated_as_the_linear_operator_it_is(at, kind, x64):
    """The same draws as without linearisation, whatever the iterations."""
    rng = np.random.default_rng(0)
    members, z = rng.normal(2.0, 1.5, size=(5, 8)), np.r_[rng.normal(size=3), np.nan]
    route = Automatic(Linearized(at, iterations=3))
    filter = MASF(GaussianPrior(members=kind), route=route, inflation=Inflation(1.1))
    linear = Measurement(Subset([0, 2, 5, 6]), Gaussian(0.7))
    named = Measurement(Pointwise(lambda x: x) @ Subset([0, 2, 5, 6]), Gaussian(0.7))
    expected, _ = analyse(filter, members, linear, z)
    np.testing.assert_allclose(analyse(filter, members, named, z)[0], expected, atol=1e-10)


@pytest.mark.slow
def test_a_saturated_sensor_leaves_the_forecast_alone():
    members = np.random.default_rng(0).normal(30.0, 1.0, size=(10, 6))
    drawn, info = analyse(MASF(), members, Measurement(tanh(), Gaussian(0.1)), np.ones(6))
    np.testing.assert_allclose(drawn, members, rtol=1e-5)
    assert np.isfinite(float(info["last_step"]))


@pytest.mark.slow
def test_lorenz96_through_an_arctan():
    """Some 40 cycles with 20 members: errors far below the climatology's 3.6, and a spread of their size."""
    model = Lorenz96(40, dt=0.01)
    measurement = Measurement(arctan() @ Subset(range(0, 40, 2)), Gaussian(0.05))
    keys = jax.random.split(jax.random.key(5), 4)
    truth = eqx.filter_jit(model.sample_climatology)(keys[0])
    members = truth[None] + 0.1 * jax.random.normal(keys[1], (20, 40))
    twin = simulate(keys[2], model, measurement, 80, 10, x0=truth)
    filter = MASF(GaussianPrior(14.0, "perturbed"), inflation=Inflation(1.04))
    result = assimilate(keys[3], filter, model, measurement, twin.observations, members, truth=twin.truth)
    rmse, spread = (np.asarray(result.analysis_scores[name])[40:].mean() for name in ("rmse", "spread"))
    assert rmse < 0.2
    assert 0.5 < spread / rmse < 1.6


@pytest.mark.slow
def test_a_flow_seen_by_its_speed(key):
    """Localised, on a grid too large for a tapered covariance: finite, and closer to the speed."""
    from masf_jax.dynamics import Kolmogorov

    flow = Kolmogorov((24, 24))
    members = eqx.filter_jit(spun_up_ensemble)(flow, key, 6)
    measurement = Measurement(sigmoid() @ Speed(squared=True, offset=-3.0), Gaussian(0.1))
    h = jax.jit(jax.vmap(measurement.operator))
    z = h(jnp.asarray(np.asarray(members)[:1] + np.float32(0.1)))
    members = jnp.asarray(np.asarray(members)[1:])
    filter = MASF(GaussianPrior(3.0, "perturbed"), route=Automatic(Linearized(iterations=3))).prepare(
        flow, measurement
    )
    drawn, _ = analyse(filter, members, measurement, np.asarray(z)[0])
    assert np.isfinite(drawn).all()
    before, after = (np.asarray(h(x)) - z for x in (members, jnp.asarray(drawn, dtype=float)))
    assert np.sqrt((after**2).mean()) < 0.6 * np.sqrt((before**2).mean())


@pytest.mark.slow
def test_a_kernel_density_with_proposals():
    """Two modes in the forecast, seen through an arctan: the mean of the weighted members."""
    rng = np.random.default_rng(0)
    members = np.concatenate([rng.normal(-1, 0.3, 500), rng.normal(1.5, 0.3, 500)])[:, None]
    measurement = Measurement(arctan(), Gaussian(0.3))
    filter = MASF(KernelPrior(0.1), route=Automatic(Linearized("mean", proposals=20)))
    drawn, _ = analyse(filter, members, measurement, [0.6])
    weights = np.exp(-0.5 * ((0.6 - np.arctan(members)) / 0.3) ** 2)
    expected = (weights * members).sum() / weights.sum()
    assert abs(drawn.mean() - expected) < 0.05


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"at": "mode"}, 'must be "member" or "mean"'),
        ({"iterations": 0}, "iterations of at least 1"),
        ({"annealing": 0.5}, "annealing of at least 1"),
        ({"proposals": 5}, "need linearization at the mean"),
        ({"at": "mean", "proposals": -1}, "proposals must be 0 or more"),
    ],
)
def test_impossible_settings(keys, message):
    with pytest.raises(ValueError, match=message):
        Linearized(**keys)


def test_a_trained_denoiser_takes_single_components_only():
    from masf_jax.training import FitConfig

    prior = HybridPrior(gaussian=GaussianPrior(members="perturbed"), training=FitConfig(steps=3))
    with pytest.raises(ValueError, match="each value depends on one component"):
        MASF(prior).prepare(Lorenz96(6), Measurement(arctan() @ Linear(np.ones((2, 6))), Gaussian(1.0)))
    MASF(prior).prepare(Lorenz96(6), Measurement(arctan() @ Identity(), Gaussian(1.0)))
