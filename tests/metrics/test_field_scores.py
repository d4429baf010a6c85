"""Scores of fields against their definitions written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from masf_jax.filters import EnsembleState
from masf_jax.metrics import SCORES, critical_success_index, structural_similarity

RNG = np.random.default_rng(3)
similar, critical_success = jax.jit(structural_similarity), jax.jit(critical_success_index)


def fields(noise):
    grid = 2 * np.pi * np.arange(32) / 32
    y, x = grid[:, None], grid[None]
    truth = np.stack([np.sin(2 * y) * np.cos(x), np.cos(y) + np.sin(3 * x)])
    truth = truth + 0.05 * RNG.normal(size=truth.shape)  # no ties
    return truth + noise * RNG.normal(size=truth.shape), truth


def blur(x):
    """Gaussian window of 11 points and width 1.5, where it fits."""
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()
    return correlate1d(correlate1d(x, window, 0), window, 1)[5:-5, 5:-5]


def similarity(x, y):
    width = y.max() - y.min()
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    a, b = blur(x), blur(y)
    va, vb, vab = blur(x * x) - a * a, blur(y * y) - b * b, blur(x * y) - a * b
    return np.mean((2 * a * b + c1) * (2 * vab + c2) / ((a * a + b * b + c1) * (va + vb + c2)))


def test_structural_similarity_against_its_formula(dtype):
    x, truth = fields(0.3)
    expected = np.mean([similarity(a, b) for a, b in zip(x, truth, strict=True)])
    found = similar(jnp.asarray(x, dtype), jnp.asarray(truth, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert 0.05 < expected < 0.95


def test_critical_success_index_counts_hits(dtype):
    x, truth = fields(0.3)
    hits = total = 0
    for a, b in zip(x, truth, strict=True):
        threshold = np.quantile(b, 0.95)
        hits += ((a > threshold) & (b > threshold)).sum()
        total += ((a > threshold) | (b > threshold)).sum()
    found = critical_success(jnp.asarray(x, dtype), jnp.asarray(truth, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, hits / total, rtol=1e-6)


def test_of_the_truth_itself_both_are_one_and_of_the_ensemble_they_score_the_mean():
    x, truth = (np.asarray(field, "float32") for field in fields(0.2))
    other = 2 * truth - x  # the mean of both is the truth
    score = jax.jit(
        lambda x, truth: [SCORES[name](EnsembleState(x), truth, None) for name in ("csi", "ssim")]
    )
    np.testing.assert_allclose(score(jnp.asarray([x, other]), jnp.asarray(truth)), 1.0, atol=1e-2)
    assert np.less(score(jnp.asarray([x, x]), jnp.asarray(truth)), 0.95).all()


def test_states_that_are_no_fields_are_refused():
    with pytest.raises(ValueError, match=r"channels, ny, nx"):
        critical_success_index(jnp.ones(40), jnp.ones(40))
    with pytest.raises(ValueError, match="11 x 11"):
        structural_similarity(jnp.ones((2, 8, 8)), jnp.ones((2, 8, 8)))


def test_structural_similarity_far_from_zero():
    """Squares of float32 lose the variances of pressures: .790 where .963 is right."""
    x, truth = fields(0.1)
    expected = np.mean([similarity(a + 5e4, b + 5e4) for a, b in zip(x, truth, strict=True)])
    found = similar(*(jnp.asarray(field + 5e4, "float32") for field in (x, truth)))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_whole_numbers_are_scored_as_real_ones():
    x, truth = (np.round(40 * field + 120) for field in fields(0.1))
    for score in (structural_similarity, critical_success_index):
        np.testing.assert_array_equal(score(x.astype(np.uint8), truth.astype(np.uint8)), score(x, truth))


def test_points_that_are_missing_leave_the_others_in():
    """One NaN in the truth took its whole channel out: of one right and one wrong the score was 1."""
    truth = np.random.default_rng(0).normal(size=(2, 12, 12))
    x = truth * np.asarray([1.0, -1.0])[:, None, None]
    whole = critical_success_index(x, truth)
    truth[1, 0, 0] = np.nan
    np.testing.assert_allclose(critical_success_index(x, truth), whole, atol=0.05)
    assert float(whole) < 0.5
    with pytest.raises(ValueError, match=r"quantile must lie in \(0, 1\); got 95"):
        critical_success_index(x, truth, 95)


@pytest.mark.parametrize("score", [structural_similarity, critical_success_index])
def test_fields_of_other_shapes_are_refused(score):
    said = r"x and truth must have one shape; got \(1, 12, 12\) and \(2, 12, 12\)"
    with pytest.raises(ValueError, match=said):
        score(np.ones((1, 12, 12)), np.ones((2, 12, 12)))
