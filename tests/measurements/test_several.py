"""Several instruments at once, and noise that depends on what is measured."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from masf_jax import Coordinates
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import ETKF, LETKF, MASF, KalmanFilter, ParticleFilter
from masf_jax.filters.base import EnsembleState, GaussianState
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.measurements import (
    Concatenate,
    CorrelatedGaussian,
    Gaussian,
    Identity,
    JointNoise,
    Laplace,
    Linear,
    Measurement,
    Multiplicative,
    RangeBearing,
    Speed,
    StudentT,
    Subset,
    arctan,
    join,
)

SHAPE = (2, 3, 4)
RING = Coordinates.grid((6,), (6.0,))


def instruments():
    """A field, a subset with correlated errors, and a nonlinear one with heavy tails, on (2, 3, 4)."""
    covariance = np.asarray([[1.0, 0.4], [0.4, 0.5]])
    return [
        Measurement(Identity(), Gaussian(np.linspace(0.5, 1.5, 24).reshape(SHAPE))),
        Measurement(Subset([3, 20]), CorrelatedGaussian(covariance)),
        Measurement(Speed(), StudentT(4.0, 0.3)),
    ]


def test_values_density_and_whitening_are_those_of_the_instruments(x64):
    rng = np.random.default_rng(0)
    each = instruments()
    both = join(each, SHAPE)
    x = jnp.asarray(rng.normal(size=SHAPE))
    assert both.output_shape(SHAPE) == (38,)
    parts = [m.operator(x).ravel() for m in each]
    np.testing.assert_array_equal(both.operator(x), np.concatenate(parts))
    z = [jnp.asarray(rng.normal(size=m.output_shape(SHAPE))) for m in each]
    masks = [jnp.asarray(rng.uniform(size=v.shape) < 0.6) for v in z]
    joined = jnp.concatenate([v.ravel() for v in z])
    mask = jnp.concatenate([v.ravel() for v in masks])
    for given, separate in ((None, [None] * 3), (mask, masks)):
        expected = sum(float(m.log_prob(v, x, k)) for m, v, k in zip(each, z, separate, strict=True))
        np.testing.assert_allclose(both.log_prob(joined, x, given), expected, rtol=1e-12)
        white = [m.whitened_innovation(v, x, k) for m, v, k in zip(each, z, separate, strict=True)]
        np.testing.assert_allclose(both.whitened_innovation(joined, x, given), np.concatenate(white))
    std = both.noise.standard_deviation(joined)
    np.testing.assert_allclose(std[:24], np.linspace(0.5, 1.5, 24), rtol=1e-12)
    np.testing.assert_allclose(std[24:], [1.0, np.sqrt(0.5)] + [0.3 * np.sqrt(2)] * 12, rtol=1e-12)
    assert not both.noise.diagonal
    assert join([each[0], each[2]], SHAPE).noise.diagonal


@pytest.mark.slow
def test_draws_are_independent_with_each_instruments_own_law(key):
    noise = join([*instruments()[:2], Measurement(Speed(), Laplace(0.3))], SHAPE).noise
    draws = np.asarray(jax.vmap(lambda key: noise.sample(key, (38,)))(jax.random.split(key, 5000)))
    covariance = np.cov(draws[:, :26].T)
    expected = np.zeros((26, 26))
    expected[:24, :24] = np.diag(np.linspace(0.5, 1.5, 24) ** 2)
    expected[24:, 24:] = [[1.0, 0.4], [0.4, 0.5]]
    np.testing.assert_allclose(covariance, expected, atol=0.15)
    assert stats.kstest(draws[:, 30] / 0.3, stats.laplace.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("operators", "structure", "observed"),
    [
        ([Identity(), Subset([1])], "mask", np.ones(6)),
        ([Subset([1, 2]), Subset([2, 5])], "mask", [0, 1, 1, 0, 0, 1]),
        ([Subset([1]), Linear(np.ones((2, 6)))], "dense", None),
        ([Subset([1]), arctan() @ Subset([0])], None, [1, 1, 0, 0, 0, 0]),
    ],
)
def test_structure_and_sources(operators, structure, observed):
    operator = Concatenate(operators, (6,))
    assert operator.structure == structure
    found = operator.observed((6,))
    assert (found is None) == (observed is None)
    if observed is not None:
        np.testing.assert_array_equal(found, np.asarray(observed, bool))


def test_positions_of_channels_and_periods():
    box = Coordinates.grid((3, 4), (3.0, 4.0))
    found = Concatenate([Identity(), Subset([5, 20]), Speed()], SHAPE).coordinates(box)
    assert found is not None
    expected = np.concatenate([box.positions, box.positions, box.positions[[5, 8]], box.positions])
    np.testing.assert_array_equal(found.positions, expected)
    assert Concatenate([Subset([0]), Linear(np.ones((1, 6)))], (6,)).coordinates(RING) is None
    assert Concatenate([Identity()], (2,)).periods((2,)) is None
    mixed = Concatenate([Identity(), RangeBearing([[0.0, 0.0]])], (2,)).periods((2,))
    np.testing.assert_allclose(mixed, [0, 0, 0, 2 * np.pi])


@eqx.filter_jit
def analysis(filter, key, state, z, measurement):
    return filter.analysis(key, state, z, measurement)[0]


def posterior(x, z, h, r):
    """Mean and covariance by the textbook formula, of an ensemble's Gaussian."""
    mean, p = x.mean(0), np.cov(x.T)
    gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
    return mean + gain @ (z - h @ mean), p - gain @ h @ p


@pytest.mark.quick_cases("etkf")
@pytest.mark.parametrize("filter", [ETKF(), MASF()], ids=["etkf", "masf"])
def test_two_instruments_one_component(filter, key, x64):
    """Repeated and dense measurements: the analysis is that of the stacked H and R."""
    n = 3
    row = np.asarray([[0.5, -1.0, 2.0]])
    for second, h2 in ((Subset([1, 2]), np.eye(n)[[1, 2]]), (Linear(row), row)):
        m = join([Measurement(Subset([1, 0]), Gaussian(0.5)), Measurement(second, Laplace(0.6))], (n,))
        x = np.random.default_rng(1).normal(size=(50, n)) @ np.asarray([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])
        z = np.random.default_rng(2).normal(size=2 + len(h2))
        h = np.concatenate([np.eye(n)[[1, 0]], h2])
        r = np.diag([0.25] * 2 + [2 * 0.36] * len(h2))
        mean, covariance = posterior(x, z, h, r)
        state = filter.init(key, jnp.asarray(x))
        out = analysis(filter, key, state, jnp.asarray(z), m).ensemble
        np.testing.assert_allclose(out.mean(0), mean, atol=1e-8)
        if isinstance(filter, ETKF):
            np.testing.assert_allclose(np.cov(np.asarray(out).T), covariance, atol=1e-8)


@pytest.mark.slow
def test_letkf_localises_each_instrument(key):
    model = Lorenz96(20)
    m = join(
        [Measurement(Subset([2]), Gaussian(0.3)), Measurement(arctan() @ Subset([12]), Gaussian(0.1))], (20,)
    )
    filter = LETKF(radius=1.5).prepare(model, m)
    x = jax.random.normal(key, (10, 20))
    for first, near in ((True, 2), (False, 12)):
        mask = jnp.asarray([first, not first])
        out = filter.analysis(key, filter.init(key, x), jnp.asarray([0.5, 0.5]), m, mask)[0].ensemble
        moved = np.abs(np.asarray(out - x)).max(0)
        distance = np.abs(np.arange(20) - near)
        distance = np.minimum(distance, 20 - distance)
        assert moved[near] > 0.01
        np.testing.assert_allclose(moved[distance >= 3], 0, atol=1e-5)


@pytest.mark.slow
def test_multiplicative_noise(key, x64):
    m = Measurement(Identity(), Multiplicative(0.2, 0.05))
    x, z = jnp.asarray([3.0, -1.0, 0.0]), jnp.asarray([2.5, -1.4, 0.1])
    std = np.sqrt(0.05**2 + (0.2 * np.asarray(x)) ** 2)
    np.testing.assert_allclose(m.log_prob(z, x), stats.norm(x, std).logpdf(z).sum(), rtol=1e-12)
    np.testing.assert_allclose(m.whitened_innovation(z, x), (z - x) / std, rtol=1e-12)
    draws = jax.vmap(m.sample, (0, None))(jax.random.split(key, 40_000), x)
    np.testing.assert_allclose(draws.std(0), std, rtol=0.02)
    np.testing.assert_allclose(draws.mean(0), x, atol=0.01)
    step = 1e-6
    slope = (m.log_prob(z, x.at[0].add(step)) - m.log_prob(z, x.at[0].add(-step))) / (2 * step)
    np.testing.assert_allclose(jax.grad(lambda x: m.log_prob(z, x))(x)[0], slope, rtol=1e-6)
    m.check_noise((3,))


def test_kalman_type_filters_take_the_law_at_the_mean(key, x64):
    """Exactly the analysis with a fixed R = R(mean H), also as part of several instruments."""
    x = jnp.asarray(np.random.default_rng(3).normal(2.0, 0.5, size=(40, 3)))
    z = jnp.asarray([2.5, 1.0, 2.2])
    mean = np.asarray(x.mean(0))
    fixed = Measurement(Identity(), Gaussian(np.sqrt(0.1**2 + (0.3 * mean) ** 2)))
    varying = Measurement(Identity(), Multiplicative(0.3, 0.1))
    filter = ETKF()
    state = filter.init(key, x)
    expected = analysis(filter, key, state, z, fixed)
    for measurement in (varying, join([varying], (3,))):
        found = analysis(filter, key, state, z, measurement)
        np.testing.assert_allclose(found.ensemble, expected.ensemble, atol=1e-9)
    gaussian = GaussianState(x.mean(0), jnp.eye(3))
    oracle = KalmanFilter()
    expected, found = (analysis(oracle, key, gaussian, z, m) for m in (fixed, varying))
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)


def test_the_amortised_filters_features_take_the_law_at_the_mean(key):
    moments = Moments(jnp.full(3, 5.0), jnp.full(3, 4.0))
    filter = AmortisedMASF(ETKF(), architecture=Architecture(width=8, depth=1), climate=moments)
    x = 5 + jax.random.normal(key, (20, 3))
    z, mask = jnp.asarray([6.0, 4.0, 5.0]), jnp.ones(3, bool)
    laws = (Multiplicative(0.2, 0.5), Gaussian(jnp.sqrt(0.25 + (0.2 * x.mean(0)) ** 2)))
    features = eqx.filter_jit(filter.features)
    found, expected = (features(x, x, z, mask, Measurement(Identity(), noise)) for noise in laws)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_particles_weigh_by_their_own_noise(key, x64):
    x = jnp.asarray(np.random.default_rng(4).normal(2.0, 1.0, size=(30, 1)))
    z = jnp.asarray([3.0])
    filter = ParticleFilter(threshold=1e-6)
    out = analysis(filter, key, filter.init(key, x), z, Measurement(Identity(), Multiplicative(0.4, 0.1)))
    weights = stats.norm(x, np.sqrt(0.01 + 0.16 * np.asarray(x) ** 2)).pdf(3.0)[:, 0]
    assert isinstance(out, EnsembleState)
    np.testing.assert_allclose(np.exp(out.log_weights), weights / weights.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: join([], (3,)), "at least one; got none"),
        (lambda: Concatenate([Subset([9])], (3,)), r"Subset does not apply to a state of shape \(3,\)"),
        (
            lambda: join([Measurement(Identity(), Gaussian(np.ones(5)))], (3,)),
            r"Gaussian noise does not fit a measurement of shape \(3,\)",
        ),
        (lambda: Concatenate([Identity()], (3,))(jnp.ones(4)), r"states of shape \(3,\); got \(4,\)"),
        (lambda: JointNoise([Gaussian(1.0)], []), "one shape per noise law; got 0 for 1"),
        (
            lambda: JointNoise([Gaussian(1.0)], [(3,)]).whiten(jnp.ones(2)),
            r"3 values in all; got shape \(2,\)",
        ),
        (lambda: Multiplicative(0.0, 1.0), "fraction of the multiplicative noise must be positive"),
        (lambda: Multiplicative(0.1, 0.0), "floor of the multiplicative noise must be positive"),
        (lambda: Multiplicative(0.1, 1.0).whiten(jnp.ones(2)), "no law without the measured value"),
        (lambda: Multiplicative(0.1, 1.0).log_prob(jnp.ones(2)), "no law without the measured value"),
        (lambda: Multiplicative(0.1, 1.0).sample(jax.random.key(0), (2,)), "no law without"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
