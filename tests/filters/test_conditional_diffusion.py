"""The closed-form conditional diffusion against the mixture it draws from, and that mixture's bias."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters import EnsembleState
from masf_jax.filters.rivals.conditional_diffusion import (
    ConditionalDiffusion,
    cross_validated_bandwidths,
    mixture_draws,
    mixture_flow,
)
from masf_jax.measurements import Gaussian, Identity, Measurement, absolute

MEMBERS = np.asarray([[0.0, 0.0], [2.0, 1.0], [-1.0, 3.0], [0.5, -2.0]])
WEIGHTS = np.asarray([0.1, 0.5, 0.25, 0.15])


@pytest.mark.quick_cases("0.3-None")
@pytest.mark.parametrize(("h", "h_max"), [(0.3, 6.0), (0.05, 2.0), (0.8, 0.8), (0.3, None)])
def test_the_flow_ends_in_the_mixture(h, h_max, key):
    """Without h_max: the draws without a flow."""
    count = 20_000
    members, log_weights = jnp.asarray(MEMBERS, dtype=float), jnp.log(jnp.asarray(WEIGHTS, dtype=float))
    if h_max is None:
        draws = mixture_draws(key, members, log_weights, jnp.asarray(h), count)
    else:
        draws, steps = mixture_flow(key, members, log_weights, jnp.asarray(h), jnp.asarray(h_max), count)
        assert (float(steps) > 1) == (h_max > h)
    draws = np.asarray(draws, np.float64)
    mean = WEIGHTS @ MEMBERS
    covariance = (MEMBERS - mean).T @ np.diag(WEIGHTS) @ (MEMBERS - mean) + h**2 * np.eye(2)
    deviation = np.sqrt(np.diag(covariance).max())
    np.testing.assert_allclose(draws.mean(0), mean, atol=4 * deviation / np.sqrt(count))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=6 * deviation**2 / np.sqrt(count))
    nearest = ((draws[:, None] - MEMBERS[None]) ** 2).sum(-1).argmin(1)
    if h < 0.5:
        np.testing.assert_allclose(np.bincount(nearest) / count, WEIGHTS, atol=0.016)
        inside = (draws - MEMBERS[nearest])[nearest == 1]
        np.testing.assert_allclose(inside.std(0), h, rtol=0.05)


@pytest.mark.quick_cases("False")
@pytest.mark.parametrize("flow", [True, False])
def test_the_filters_law_for_a_gaussian_forecast(x64, flow):
    """Mean and variance with the bandwidths added to noise and forecast; without them: .8 and .2."""
    n, h, h_y, noise, z = 512, 0.3, 0.4, 0.5, 1.0
    members = jnp.asarray(norm.ppf((np.arange(n) + 0.5) / n)[:, None])
    measurement = Measurement(Identity(), Gaussian(noise))
    filter = ConditionalDiffusion(
        normalization=Normalization("raw"), rule="given", h=h, h_y=h_y / np.sqrt(1 + noise**2), flow=flow
    )
    state = filter.init(jax.random.key(0), members)
    after, info = jax.jit(lambda s: filter.analysis(jax.random.key(1), s, jnp.asarray([z]), measurement))(
        state
    )
    total = 1 + noise**2 + h_y**2
    error = np.sqrt(1 / float(info["effective_sample_size"]) + 1 / n)
    assert after.mean[0] == pytest.approx(z / total, abs=3 * error)
    assert after.variance[0] == pytest.approx(1 - 1 / total + h**2, rel=4 * error)


def test_it_finds_both_modes(key):
    members = jax.random.normal(key, (400, 1))
    filter = ConditionalDiffusion(normalization=Normalization("raw"), rule="given", h=0.1, h_y=0.1)
    measurement = Measurement(absolute(), Gaussian(0.1))
    after = jax.jit(lambda x: filter.analysis(key, filter.init(key, x), jnp.asarray([1.0]), measurement)[0])(
        members
    )
    assert isinstance(after, EnsembleState)
    found = np.asarray(after.ensemble)
    assert 0.35 < (found > 0).mean() < 0.65
    assert np.abs(np.abs(found) - 1).mean() < 0.2


@pytest.mark.slow
def test_cross_validation_maximises_the_left_out_likelihood(x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    y = x[:, :1] + 0.3 * rng.normal(size=(30, 1))
    grid = np.asarray([0.1, 0.2, 0.4, 0.8])
    scores = {}
    for h in grid:
        for h_y in grid:
            total = 0.0
            for i in range(30):
                others = np.arange(30) != i
                w = norm.pdf(y[others, 0], y[i, 0], h_y)
                densities = [multivariate_normal.pdf(x[i], c, h**2 * np.eye(2)) for c in x[others]]
                total += np.log(w @ densities / w.sum())
            scores[h, h_y] = total
    found = cross_validated_bandwidths(jnp.asarray(x), jnp.asarray(y), jnp.asarray(grid))
    assert tuple(float(value) for value in found) == max(scores, key=lambda pair: scores[pair])


def test_rules_of_the_bandwidths(key):
    members, away = jax.random.normal(key, (20, 2)), jnp.ones((20, 2))

    def bandwidths(rule):
        return [float(h) for h in ConditionalDiffusion(rule=rule, h_y=0.7)._bandwidths(members, away)]

    assert bandwidths("silverman") == pytest.approx([(4 / (6 * 20)) ** (1 / 8)] * 2)
    assert bandwidths("given") == pytest.approx([0.2, 0.7])
    assert min(abs(bandwidths("cross_validated")[0] - 0.05 * 2**k) for k in range(7)) < 1e-6


REFUSED: dict[str, dict[str, Any]] = {name: {name: 0.0} for name in ("h", "h_y", "h_max", "tolerance")}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be positive; got 0.0"):
        ConditionalDiffusion(**REFUSED[name])


def test_a_missing_value_says_nothing_of_its_component(key):
    """Whatever stands there: the component keeps the forecast's mean."""
    members = jax.random.normal(key, (2000, 2)) + jnp.asarray([[0.0, 5.0]])
    filter = ConditionalDiffusion(
        normalization=Normalization("raw"), rule="given", h=0.1, h_y=0.1, flow=False
    )
    measurement = Measurement(Identity(), Gaussian(0.5))
    z = jnp.asarray([0.5, jnp.nan])
    after, _ = jax.jit(lambda s: filter.analysis(key, s, z, measurement))(filter.init(key, members))
    np.testing.assert_allclose(after.mean, [0.4, 5.0], atol=0.2)
