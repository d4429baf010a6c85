"""The measurement noise found along the way, and Desroziers' diagnostics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.filters import (
    ETKF,
    AdaptiveNoise,
    EnFF,
    EnSF,
    EnSFSampler,
    IEnKF,
    KalmanFilter,
    ParticleFilter,
)
from masf_jax.filters.likelihood import Likelihood
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Measurement,
    Multiplicative,
    Observations,
    Scaled,
    Subset,
)
from masf_jax.metrics import desroziers

MODEL = Lorenz96(10, dt=0.05)
INNER = ETKF(Inflation(multiplicative=1.02))


def _run(filter, std, said, cycles, gaps=0.0):
    keys = jax.random.split(jax.random.key(3), 4)
    start = MODEL.sample_climatology(keys[0])
    twin = simulate(keys[1], MODEL, Measurement(Identity(), Gaussian(std)), cycles, 1, start)
    observations = twin.observations
    if gaps:
        mask = np.random.default_rng(0).random(observations.values.shape) > gaps
        mask[5:8] = False
        observations = Observations(observations.values, 1, mask)
    members = start[None] + jax.random.normal(keys[2], (16, 10))
    sensor = Measurement(Identity(), Gaussian(said))
    return assimilate(
        keys[3], filter, MODEL, sensor, observations, members, truth=twin.truth, likelihood=Likelihood()
    )


@pytest.mark.slow
def test_a_factor_held_is_that_noise():
    known = _run(INNER, 2.0, 2.0, 20)
    held = _run(AdaptiveNoise(INNER, lower=4.0, upper=4.0), 2.0, 1.0, 20)
    for stage in ("forecast", "analysis"):
        np.testing.assert_allclose(getattr(held, stage)["mean"], getattr(known, stage)["mean"], atol=2e-3)
    np.testing.assert_allclose(held.log_likelihood, known.log_likelihood, rtol=1e-4)


def test_one_factor_is_found():
    run = _run(AdaptiveNoise(INNER), 0.5, 1.0, 600, gaps=0.3)
    found = np.asarray(run.info["noise_factor"])
    assert np.isnan(found[5:8]).all()  # nothing was measured
    np.testing.assert_allclose(np.sqrt(np.nanmean(found[200:])), 0.5, rtol=0.05)


def test_a_factor_for_each_value_is_found():
    std = np.linspace(0.5, 2.0, 10)
    filter = AdaptiveNoise(INNER, memory=600, each=True)
    run = _run(filter, std, 1.0, 1200)
    found = np.sqrt(filter.factor(run.final))
    np.testing.assert_allclose(found, std, rtol=0.15)  # 4 standard errors
    np.testing.assert_allclose(np.mean(found / std), 1.0, atol=0.05)


def test_diagnostics_of_an_optimal_gain():
    rng, n_cycles = np.random.default_rng(1), 40_000
    p = np.array([[1.0, 0.5, 0.2], [0.5, 2.0, 0.3], [0.2, 0.3, 0.5]])
    r, h = np.array([[0.5, 0.1], [0.1, 0.8]]), np.eye(2, 3)
    gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
    forecast = rng.multivariate_normal(np.zeros(3), p, n_cycles)  # of the truth 0
    z = rng.multivariate_normal(np.zeros(2), r, n_cycles)
    analysis = forecast + (z - forecast @ h.T) @ gain.T
    mask = np.ones(z.shape, bool)
    mask[:100, 0] = False
    measurement, observations = Measurement(Subset([0, 1]), Gaussian(1.0)), Observations(z, 1, mask)
    found = desroziers(measurement, observations, forecast, analysis, skip=50)
    hph = h @ p @ h.T
    expected = r, hph, hph - hph @ np.linalg.inv(hph + r) @ hph, hph + r
    for got, wanted in zip(found, expected, strict=False):
        np.testing.assert_allclose(got, wanted, atol=0.05)
    np.testing.assert_array_equal(found.counts, n_cycles - np.array([[100, 100], [100, 50]]))
    diagonal = desroziers(measurement, observations, forecast, analysis, skip=50, diagonal=True)
    np.testing.assert_allclose(diagonal.noise, np.diagonal(found.noise), rtol=1e-4)
    unseen = desroziers(measurement, Observations(z, 1, np.zeros_like(mask)), forecast, analysis)
    assert np.isnan(unseen.noise).all()


@pytest.mark.parametrize(
    ("z", "means", "skip", "message"),
    [
        ((20, 1), (20, 10), 0, r"observations have shape \(1,\) per cycle, but the measurement .*\(10,\)"),
        ((20, 10), (10, 10), 0, r"means of the 20 cycles of the observations, .*; got \(10, 10\)"),
        ((20, 10), (20, 10), 20, "skip must be 0 to 19 of 20 cycles; got 20"),
        ((20, 10), (20, 10), -3, "skip must be 0 to 19 of 20 cycles; got -3"),
    ],
    ids=["values", "cycles", "all", "negative"],
)
def test_diagnostics_of_what_does_not_fit(z, means, skip, message):
    """One measured value was compared with each of ten."""
    sensor, x = Measurement(Identity(), Gaussian(1.0)), jnp.zeros(means)
    with pytest.raises(ValueError, match=message):
        desroziers(sensor, Observations(np.ones(z), 1), x, x, skip=skip)


def test_scaled_noise():
    scale, covariance = (
        np.array([0.5, 2.0, 3.0]),
        np.array([[1.0, 0.3, 0.1], [0.3, 2.0, 0.2], [0.1, 0.2, 0.5]]),
    )
    residual, mask = jnp.array([0.3, -1.0, 2.0]), jnp.array([True, False, True])
    pairs = (
        (Scaled(Gaussian(2.0), scale), Gaussian(2.0 * scale)),
        (
            Scaled(CorrelatedGaussian(covariance), scale),
            CorrelatedGaussian(covariance * np.outer(scale, scale)),
        ),
        (Scaled(Multiplicative(0.1, 0.5), 2.0).at(residual), Multiplicative(0.2, 1.0).at(residual)),
    )
    for scaled, plain in pairs:
        for valid in (mask, None):
            np.testing.assert_allclose(
                scaled.log_prob(residual, valid), plain.log_prob(residual, valid), rtol=1e-5
            )
            np.testing.assert_allclose(
                scaled.whiten(residual, valid), plain.whiten(residual, valid), rtol=1e-5
            )
        np.testing.assert_allclose(
            scaled.log_scale(residual, mask), plain.log_scale(residual, mask), rtol=1e-5
        )
        np.testing.assert_allclose(scaled.standard_deviation(residual), plain.standard_deviation(residual))
        drawn = (noise.sample(jax.random.key(0), (3,)) for noise in (scaled, plain))
        np.testing.assert_allclose(*drawn, rtol=1e-5)
        assert scaled.diagonal == plain.diagonal


def test_inside_jit(key):
    """Its bounds are checked again where it is rebuilt in a compiled program: a TracerBoolConversionError."""
    members = jax.random.normal(key, (4, 10))
    sensor = Measurement(Identity(), Gaussian(1.0))

    def mean(key):
        return assimilate(key, AdaptiveNoise(INNER), MODEL, sensor, np.ones((2, 10)), members).analysis[
            "mean"
        ]

    np.testing.assert_allclose(jax.jit(mean)(key), mean(key), rtol=1e-4, atol=1e-4)


def test_refusals():
    with pytest.raises(TypeError, match="needs an ensemble filter"):
        AdaptiveNoise(KalmanFilter())
    with pytest.raises(ValueError, match="lower must not exceed"):
        AdaptiveNoise(INNER, lower=2.0, upper=1.0)
    with pytest.raises(ValueError, match="weights"):
        _run(AdaptiveNoise(ParticleFilter()), 1.0, 1.0, 2)
    correlated = Measurement(Identity(), CorrelatedGaussian(np.eye(10)))
    with pytest.raises(ValueError, match="uncorrelated"):
        AdaptiveNoise(INNER, each=True).prepare(MODEL, correlated)


AROUND = {
    "enff": EnFF(n_steps=10),
    "ienkf": IEnKF(iterations=2),
    "ensf": EnSF(sampler=EnSFSampler(n_steps=10)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AROUND)
def test_a_factor_of_one_changes_nothing(name):
    """Of filters that forecast in a way of their own, or weigh each state by its own law of the noise."""
    keys = jax.random.split(jax.random.key(3), 3)
    sensor = Measurement(Identity(), Multiplicative(0.3, 0.2))
    start = MODEL.sample_climatology(keys[0])
    twin = simulate(keys[1], MODEL, sensor, 4, 1, start)
    members = start[None] + jax.random.normal(keys[2], (8, 10))
    runs = [
        assimilate(jax.random.key(4), filter, MODEL, sensor, twin.observations, members)
        for filter in (AROUND[name], AdaptiveNoise(AROUND[name], lower=1.0, upper=1.0))
    ]
    np.testing.assert_allclose(runs[1].analysis["mean"], runs[0].analysis["mean"], rtol=1e-4, atol=1e-4)
