"""Scores against scoringrules, scipy and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
import scoringrules as sr

from masf_jax.ensemble.statistics import member_sum
from masf_jax.filters import EnsembleState, GaussianState
from masf_jax.metrics import (
    SCORES,
    crps_ensemble,
    crps_gaussian,
    energy_score,
    rank_counts,
    rmse,
    root_mean_variance,
    sliced_wasserstein,
    spread_skill_ratio,
    wasserstein_1d,
)
from masf_jax.metrics.cycle import cycle_scores

RNG = np.random.default_rng(17)
crps_gaussian = jax.jit(crps_gaussian)
crps_ensemble, energy_score = (
    jax.jit(each, static_argnames="fair") for each in (crps_ensemble, energy_score)
)
rmse, root_mean_variance = jax.jit(rmse), jax.jit(root_mean_variance)
rank_counts = jax.jit(rank_counts, static_argnums=2)
wasserstein_1d = jax.jit(wasserstein_1d, static_argnames="order")
sliced_wasserstein = jax.jit(sliced_wasserstein, static_argnames="n_slices")


@functools.partial(jax.jit, static_argnums=0)
def scored(names, state, truth, observed):
    return cycle_scores(names, state, truth, observed, {"bias": lambda s, t, w: (s.mean - t).mean()})


def draw(n, shape=(5,)):
    return RNG.normal(1.0, 2.0, size=(n, *shape)), RNG.normal(size=shape)


@pytest.mark.parametrize("n", [2, 9, 32, 33, 64, 65])
def test_fair_crps_against_scoringrules(n, dtype):
    """All paths: a sorting network up to 32 members, each pair once up to 64, sorting above."""
    x, y = draw(n, (2, 3))
    expected = sr.crps_ensemble(y, x, m_axis=0, estimator="fair")
    found = crps_ensemble(jnp.asarray(x, dtype), jnp.asarray(y, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [20, 40, 70])
def test_crps_of_a_small_spread_far_from_zero(n):
    """Around 300 ± .01 no digits are lost beside those of the members themselves."""
    x, y = (np.asarray(300 + 0.01 * RNG.normal(size=shape), np.float32) for shape in ((n, 50), 50))
    found = crps_ensemble(jnp.asarray(x), jnp.asarray(y)).mean()
    expected = sr.crps_ensemble(y.astype(float), x.astype(float), m_axis=0, estimator="fair").mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_weighted_scores_far_from_zero():
    """Around 101325 ± .1 in float32: CRPS .049 for .031, spread .0746 for .0720."""
    draws = np.random.default_rng(0).normal(size=500)
    x = np.asarray(101325 + 0.1 * draws, np.float32)
    w = np.exp(-0.5 * (1 - draws) ** 2).astype(np.float32)
    w /= w.sum()
    state = EnsembleState(jnp.asarray(x[:, None]), jnp.log(jnp.asarray(w)))
    y, truth = 101325.0, jnp.asarray([101325.0], jnp.float32)
    exact, v = x.astype(float), w / w.sum(dtype=float)
    free, mean = 1 - (v**2).sum(), v @ exact
    pairs = v @ np.abs(exact[:, None] - exact) @ v
    found = crps_ensemble(state.ensemble, truth, state.log_weights)
    np.testing.assert_allclose(found, v @ np.abs(exact - y) - 0.5 * pairs / free, rtol=1e-3)
    spread = np.sqrt(v @ (exact - mean) ** 2 / free)
    np.testing.assert_allclose(np.sqrt(state.moments()[1]), spread, rtol=3e-3)


@pytest.mark.usefixtures("x64")
def test_weighted_crps():
    """Against scoringrules' weighted (not fair) one, with its spread term made fair."""
    x, y = draw(12)
    w = RNG.dirichlet(np.ones(12))
    weights = np.broadcast_to(w[:, None], x.shape)
    plain = sr.crps_ensemble(y, x, m_axis=0, ens_w=weights, estimator="nrg")
    error = (w[:, None] * np.abs(x - y)).sum(0)
    expected = error - (error - plain) / (1 - (w**2).sum())
    found = crps_ensemble(jnp.asarray(x), jnp.asarray(y), jnp.log(jnp.asarray(w)))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    equal = crps_ensemble(jnp.asarray(x), jnp.asarray(y), jnp.asarray(np.full(12, -np.log(12.0))))
    np.testing.assert_allclose(equal, crps_ensemble(jnp.asarray(x), jnp.asarray(y)), rtol=1e-10)
    single = jnp.asarray(np.where(np.arange(12) == 3, 0.0, -np.inf))
    np.testing.assert_allclose(crps_ensemble(jnp.asarray(x), jnp.asarray(y), single), np.abs(x[3] - y))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [1, 2, 13, 40, 70])
def test_scores_of_the_members_own_distribution(n):
    """Not fair: against scoringrules', of one member the absolute error."""
    x, y = draw(n)
    given = jnp.asarray(x), jnp.asarray(y)
    expected = sr.crps_ensemble(y, x, m_axis=0, estimator="nrg")
    np.testing.assert_allclose(crps_ensemble(*given, fair=False), expected, rtol=1e-10)
    weights = jnp.full(n, -np.log(n))
    np.testing.assert_allclose(crps_ensemble(*given, weights, fair=False), expected, rtol=1e-10)
    x, y = draw(n, (4,))
    expected = sr.es_ensemble(y, x, m_axis=0, v_axis=-1, estimator="nrg")
    found = energy_score(jnp.asarray(x), jnp.asarray(y), fair=False)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_gaussian_crps(dtype):
    mean, std, y = RNG.normal(size=6), RNG.uniform(0.1, 2, 6), RNG.normal(size=6)
    found = crps_gaussian(*(jnp.asarray(a, dtype) for a in (mean, std**2, y)))
    assert found.dtype == dtype
    rtol = 1e-10 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(found, sr.crps_normal(y, mean, std), rtol=rtol, atol=1e-5)
    exact = crps_gaussian(*(jnp.asarray([value]) for value in (1.0, 0.0, 3.0)))
    np.testing.assert_allclose(exact, 2.0, rtol=1e-6)  # no variance: the absolute error


@pytest.mark.parametrize(("n", "size"), [(2, 4), (3, 4), (20, 4), (5, 5000)])
def test_fair_energy_score_against_scoringrules(n, size, dtype):
    """Each pair once; of large states in blocks."""
    x, y = draw(n, (size,))
    expected = sr.es_ensemble(y, x, m_axis=0, v_axis=-1, estimator="fair")
    found = energy_score(jnp.asarray(x, dtype), jnp.asarray(y, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("n", "m"), [(40, 40), (13, 40), (7, 1)])
def test_wasserstein_between_samples(n, m):
    x, y = RNG.normal(size=n), RNG.normal(1, 3, size=m)
    np.testing.assert_allclose(
        wasserstein_1d(jnp.asarray(x), jnp.asarray(y), order=1), st.wasserstein_distance(x, y), rtol=1e-12
    )
    lcm = np.lcm(n, m)
    xs, ys = np.repeat(np.sort(x), lcm // n), np.repeat(np.sort(y), lcm // m)
    np.testing.assert_allclose(
        wasserstein_1d(jnp.asarray(x), jnp.asarray(y)), np.sqrt(((xs - ys) ** 2).mean()), rtol=1e-12
    )


def test_wasserstein_of_gaussians():
    """W2² = (μ-ν)² + (σ-τ)²: at quantiles of the normal law; float32 with 10⁵ points."""
    u = (np.arange(100_000) + 0.5) / 100_000
    q = st.norm.ppf(u)
    found = wasserstein_1d(jnp.asarray(1 + 2 * q, jnp.float32), jnp.asarray(-1 + 0.5 * q[::-1], jnp.float32))
    np.testing.assert_allclose(found, np.sqrt(4 + 1.5**2), rtol=2e-3)


def test_sliced_wasserstein(key):
    x = RNG.normal(size=(300, 4))
    shift = np.asarray([3.0, 0.0, 0.0, 4.0])
    members = jnp.asarray(x, jnp.float32)
    moved = jnp.asarray(x + shift, jnp.float32)
    # a pure shift δ: W2² along θ is (θ·δ)², whose mean over directions is |δ|²/n
    found = sliced_wasserstein(key, members, moved, n_slices=2000)
    np.testing.assert_allclose(found, 5.0 / np.sqrt(4), rtol=0.05)
    np.testing.assert_allclose(sliced_wasserstein(key, members, members), 0.0, atol=1e-6)
    line = sliced_wasserstein(key, members[:, :1], moved[:, :1], n_slices=3)
    np.testing.assert_allclose(line, wasserstein_1d(members[:, 0], moved[:, 0]), rtol=1e-5)


def test_rmse_spread_and_their_masks(dtype):
    estimate, truth = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([1.0, 4.0, 6.0])
    where = jnp.asarray([True, True, False])
    np.testing.assert_allclose(rmse(estimate, truth), np.sqrt(13 / 3), rtol=1e-6)
    np.testing.assert_allclose(rmse(estimate, truth, where), np.sqrt(2.0), rtol=1e-6)
    np.testing.assert_allclose(root_mean_variance(estimate, where), np.sqrt(1.5), rtol=1e-6)
    assert bool(jnp.isnan(rmse(estimate, truth, jnp.zeros(3, bool))))
    assert rmse(estimate, truth, where).dtype == dtype


def test_spread_skill_of_an_exchangeable_ensemble():
    """√((N+1)/N) spread/RMSE = 1 in the root-mean-square sense: within 4 standard errors."""
    n, cases = 5, 40_000
    x, y = RNG.normal(size=(n, cases)), RNG.normal(size=cases)
    error = np.sqrt(((x.mean(0) - y) ** 2).mean())
    spread = np.sqrt(x.var(0, ddof=1).mean())
    found = spread_skill_ratio(jnp.asarray(spread), jnp.asarray(error), n)
    assert abs(float(found) - 1) < 4 * np.sqrt(1 / (2 * cases) * (1 + 1 / n))
    np.testing.assert_allclose(spread_skill_ratio(jnp.asarray(2.0), jnp.asarray(4.0)), 0.5)


def test_rank_histogram_is_flat_for_exchangeable_draws():
    x = RNG.normal(size=(10, 20_000))
    counts = np.asarray(rank_counts(jnp.asarray(x[:9]), jnp.asarray(x[9])))
    assert counts.shape == (10,)
    assert counts.sum() == 20_000
    assert st.chisquare(counts).pvalue > 1e-3


def test_rank_counts_by_hand():
    ensemble = jnp.asarray([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, jnp.nan], [2.0, 2.0, 2.0, 2.0]])
    truth = jnp.asarray([-1.0, 0.5, 5.0, 0.5])
    np.testing.assert_array_equal(rank_counts(ensemble, truth), [1, 1, 0, 1])
    np.testing.assert_array_equal(rank_counts(ensemble, truth, 2), [2, 1])


def test_rank_bins_are_even():
    """Merging N + 1 = 100 ranks into 50 bins: two ranks each."""
    ensemble = jnp.asarray(np.broadcast_to(np.arange(99.0)[:, None], (99, 100)), float)
    truth = jnp.asarray(np.arange(100.0) - 0.5, float)
    np.testing.assert_array_equal(rank_counts(ensemble, truth, 50), np.full(50, 2))


@pytest.mark.parametrize("n", [9, 60, 99, 150])
def test_ranks_are_flat_for_rounded_members_and_any_number_of_bins(n):
    """Counts of exchangeable values with many ties: each bin within 5 standard deviations of its share."""
    components, bins = 20_000, min(n + 1, 51)
    x = np.round(RNG.normal(size=(n + 1, components)), 1)
    counts = np.asarray(rank_counts(jnp.asarray(x[:n]), jnp.asarray(x[n]), 51))
    assert counts.shape == (bins,)
    np.testing.assert_allclose(counts.sum(), components, rtol=1e-4)
    assert np.abs(counts - components / bins).max() < 5 * np.sqrt(components / bins)


def test_ranks_of_ties_and_of_bins_by_hand():
    ensemble = jnp.asarray([[0.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    truth = jnp.asarray([0.0, 1.5])  # ranks 0 … 2 of 4, a third each; rank 3
    np.testing.assert_allclose(rank_counts(ensemble, truth), [1 / 3, 1 / 3, 1 / 3, 1], rtol=1e-6)
    # in three bins of 4/3 ranks: the interval [0, 3) is 4/3, 4/3, 1/3 of them; [3, 4) lies in the last
    np.testing.assert_allclose(rank_counts(ensemble, truth, 3), [4 / 9, 4 / 9, 1 / 9 + 1], rtol=1e-6)


def test_rank_of_a_missing_truth_counts_nowhere():
    ensemble = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)
    truth = jnp.asarray([0.0, jnp.nan, 0.0])
    assert int(rank_counts(ensemble, truth).sum()) == 2


def test_scores_of_a_cycle_split_by_what_is_observed():
    x, y = draw(8, (6,))
    state = EnsembleState(jnp.asarray(x, jnp.float32))
    truth, observed = jnp.asarray(y, jnp.float32), jnp.asarray(np.arange(6) < 2)
    names = tuple(name for name in SCORES if name not in ("csi", "ssim"))  # those are of fields
    out = scored(names, state, truth, observed)
    assert set(out) == {
        *(
            f"{name}{part}"
            for name in ("rmse", "spread", "crps")
            for part in ("", "_observed", "_unobserved")
        ),
        "energy_score",
        "rank_histogram",
        "bias",
    }
    error = x.mean(0) - y
    np.testing.assert_allclose(out["rmse_observed"], np.sqrt((error[:2] ** 2).mean()), rtol=1e-5)
    np.testing.assert_allclose(out["rmse_unobserved"], np.sqrt((error[2:] ** 2).mean()), rtol=1e-5)
    np.testing.assert_allclose(out["spread_unobserved"], np.sqrt(x.var(0, ddof=1)[2:].mean()), rtol=1e-5)
    expected = sr.crps_ensemble(y, x, m_axis=0, estimator="fair")
    np.testing.assert_allclose(out["crps_observed"], expected[:2].mean(), rtol=1e-4)
    np.testing.assert_allclose(out["bias"], error.mean(), rtol=1e-5)


def test_scores_of_weighted_and_gaussian_states():
    x, y = draw(8, (6,))
    w = RNG.dirichlet(np.ones(8))
    truth = jnp.asarray(y, jnp.float32)
    weighted = EnsembleState(jnp.asarray(x, jnp.float32), jnp.log(jnp.asarray(w, jnp.float32)))
    out = scored(("rmse", "energy_score"), weighted, truth, None)
    np.testing.assert_allclose(out["rmse"], np.sqrt(((w @ x - y) ** 2).mean()), rtol=1e-5)
    assert bool(jnp.isnan(out["energy_score"]))
    gaussian = GaussianState(jnp.asarray(x[0], jnp.float32), jnp.asarray(4.0 * np.eye(6), jnp.float32))
    out = scored(("crps", "spread"), gaussian, truth, None)
    np.testing.assert_allclose(out["crps"], sr.crps_normal(y, x[0], 2.0).mean(), rtol=1e-4)
    np.testing.assert_allclose(out["spread"], 2.0)


def test_fair_scores_are_unbiased_in_ensemble_size(key):
    """The mean over many draws of 2 members equals that of the law: E|X-y| - E|X-X'|/2."""
    x = jax.random.normal(key, (2, 200_000))
    y = 0.5
    found = np.mean(crps_ensemble(x, np.full(200_000, y, np.float32)), dtype=float)
    exact = float(sr.crps_normal(y, 0.0, 1.0))
    assert abs(found - exact) < 4 * 1.0 / np.sqrt(200_000)


@pytest.mark.slow_cases("20")
@pytest.mark.parametrize("n", [7, 20])
def test_fair_crps_of_exact_members_is_too_small(key, n):
    """Members with the very mean and variance that they stand for are no draws: docs/conventions.md."""
    key_x, key_y = jax.random.split(key)
    x = jax.random.normal(key_x, (n, 400_000))
    x = (x - x.mean(0)[None]) / x.std(0, ddof=1)[None]
    y = jax.random.normal(key_y, x.shape[1:])
    ratio = float(crps_ensemble(x, y).mean()) * np.pi**0.5
    assert ratio == pytest.approx(1 - 5 / (8 * n), abs=0.1 / n)


def test_crps_in_blocks_equals_scoringrules():
    key_x, key_y = jax.random.split(jax.random.key(11))
    ensemble, truth = jax.random.normal(key_x, (7, 2, 2500)), jax.random.normal(key_y, (2, 2500))
    expected = sr.crps_ensemble(np.asarray(truth), np.asarray(ensemble), m_axis=0, estimator="fair")
    np.testing.assert_allclose(crps_ensemble(ensemble, truth), expected, atol=2e-6)


def test_sums_over_members_of_large_states():
    ensemble = jax.random.normal(jax.random.key(12), (6, 200_000))
    np.testing.assert_allclose(member_sum(ensemble), np.asarray(ensemble, np.float64).sum(0), atol=1e-5)


def test_a_truth_of_another_shape_is_refused():
    """It was broadcast: one row ranked among the members of all three."""
    members, truth = np.zeros((7, 3, 5)), np.zeros((1, 5))
    for score in (crps_ensemble, energy_score, rank_counts):
        with pytest.raises(ValueError, match=r"must have one shape; got \(3, 5\) and \(1, 5\)"):
            score(members, truth)
    with pytest.raises(ValueError, match="estimate and truth must have one shape"):
        rmse(members[0], truth)
    with pytest.raises(ValueError, match="n_bins must be at least 1; got 0"):
        rank_counts(members, members[0], 0)
