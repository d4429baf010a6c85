"""Noise laws against scipy.stats: density, draws, whitening, missing values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    JointNoise,
    Laplace,
    Measurement,
    Scaled,
    StudentT,
    square,
)

RNG = np.random.default_rng(5)
RESIDUAL = RNG.normal(size=4)
MASK = np.asarray([True, False, True, True])
STD = np.asarray([0.5, 1.0, 2.0, 0.1])
FACTOR = RNG.normal(size=(4, 4))
R = FACTOR @ FACTOR.T + 0.5 * np.eye(4)

LAWS = {
    "gaussian": (lambda: Gaussian(0.7), lambda e: st.norm.logpdf(e, scale=0.7), np.full(4, 0.7)),
    "diagonal": (lambda: Gaussian(STD), lambda e: st.norm.logpdf(e, scale=STD), STD),
    "laplace": (lambda: Laplace(STD), lambda e: st.laplace.logpdf(e, scale=STD), np.sqrt(2) * STD),
    "student": (
        lambda: StudentT(5.0, 0.3),
        lambda e: st.t.logpdf(e, 5.0, scale=0.3),
        np.full(4, 0.3 * np.sqrt(5 / 3)),
    ),
}


@jax.jit
def of(noise, residual, mask):
    """Densities and whitened residuals, of all values and of those that are there."""
    return (
        noise.log_prob(residual),
        noise.log_prob(residual, mask),
        noise.whiten(residual),
        noise.whiten(residual, mask),
    )


@pytest.mark.parametrize(
    "law", [Gaussian, Laplace, lambda s: StudentT(5.0, s), lambda s: Scaled(Gaussian(0.3), s)]
)
def test_a_value_of_infinite_error_is_not_there(law):
    residual, mask = jnp.asarray([0.3, 5.0]), jnp.asarray([True, False])
    endless, finite = law([0.5, np.inf]), law([0.5, 1.0])
    expected = finite.log_prob(residual, mask)
    np.testing.assert_allclose(endless.log_prob(residual), expected, rtol=1e-6)
    scales = [endless.log_scale(residual, jnp.ones(2, bool)), finite.log_scale(residual, mask)]
    np.testing.assert_allclose(*scales, rtol=1e-6)
    slope = jax.grad(lambda r: endless.log_prob(r))(residual)
    np.testing.assert_allclose(slope, jax.grad(lambda r: finite.log_prob(r, mask))(residual), rtol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_density_and_whitening_of_independent_laws(name, dtype):
    make, log_density, std = LAWS[name]
    noise, residual = make(), jnp.asarray(RESIDUAL, dtype)
    expected = log_density(RESIDUAL)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    whole, masked, white, white_masked = of(noise, residual, jnp.asarray(MASK))
    np.testing.assert_allclose(whole, expected.sum(), rtol=rtol)
    assert masked.dtype == dtype
    np.testing.assert_allclose(masked, expected[MASK].sum(), rtol=rtol)
    np.testing.assert_allclose(white, RESIDUAL / std, rtol=rtol)
    np.testing.assert_allclose(white_masked, np.where(MASK, RESIDUAL / std, 0), rtol=rtol)
    assert noise.diagonal


@pytest.mark.parametrize("name", LAWS)
def test_missing_values_do_not_leak_nan_into_the_gradient(name):
    noise = LAWS[name][0]()
    residual = jnp.asarray(np.where(np.arange(4) == 1, 1e30, RESIDUAL), jnp.float32)
    mask = jnp.asarray(MASK)
    gradient = np.asarray(
        jax.jit(jax.grad(lambda r: noise.log_prob(jnp.where(mask, r, 0.0), mask)))(residual)
    )
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0.0


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_right_law(name, key):
    """Kolmogorov-Smirnov over 4000 draws of each component, whitened to a common scale."""
    make, _, std = LAWS[name]
    draws = np.asarray(jax.jit(jax.vmap(lambda k: make().sample(k, (4,))))(jax.random.split(key, 4000)))
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 5 / np.sqrt(4000)
    law = {"laplace": st.laplace(scale=1 / np.sqrt(2)), "student": st.t(5.0, scale=np.sqrt(3 / 5))}
    for column in (draws / std).T:
        assert st.kstest(column, law.get(name, st.norm()).cdf).pvalue > 1e-4


def test_correlated_gaussian_density_is_marginal_over_missing_values(dtype):
    noise, residual = CorrelatedGaussian(R), jnp.asarray(RESIDUAL, dtype)
    rtol = 1e-11 if dtype == "float64" else 1e-4
    whole = st.multivariate_normal(cov=R).logpdf(RESIDUAL)
    found, masked, *_ = of(noise, residual, jnp.asarray(MASK))
    np.testing.assert_allclose(found, whole, rtol=rtol)
    part = st.multivariate_normal(cov=R[np.ix_(MASK, MASK)]).logpdf(RESIDUAL[MASK])
    assert masked.dtype == dtype
    np.testing.assert_allclose(masked, part, rtol=rtol)
    none = of(noise, residual, jnp.asarray(np.zeros(4, bool)))[1]
    np.testing.assert_allclose(none, 0.0, atol=1e-12)
    assert not noise.diagonal


@pytest.mark.usefixtures("x64")
def test_correlated_gaussian_whitening():
    noise = CorrelatedGaussian(R)
    white = jax.jit(jax.vmap(lambda e: of(noise, e, jnp.asarray(MASK))[2:]))(jnp.asarray(np.eye(4)))
    w, masked = (np.asarray(rows).T for rows in white)  # R^{-1/2}
    np.testing.assert_allclose(w @ R @ w.T, np.eye(4), atol=1e-12)
    assert np.all(masked[:, ~MASK] == 0)
    assert np.all(masked[~MASK] == 0)
    inner = masked[np.ix_(MASK, MASK)]
    np.testing.assert_allclose(inner @ R[np.ix_(MASK, MASK)] @ inner.T, np.eye(3), atol=1e-12)


def test_correlated_gaussian_draws(key):
    noise = CorrelatedGaussian(R)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: noise.sample(k, (4,))))(jax.random.split(key, 8000)))
    scale = np.sqrt(np.outer(np.diag(R), np.diag(R)))
    assert np.abs((draws.T @ draws / 8000 - R) / scale).max() < 5 * np.sqrt(2 / 8000)
    assert np.abs(draws.mean(0) / np.sqrt(np.diag(R))).max() < 5 / np.sqrt(8000)


def test_measurement_joins_operator_and_noise(dtype, key):
    measurement = Measurement(square(), Gaussian(STD))
    x = jnp.asarray([1.0, -2.0, 0.5, 3.0])
    z = measurement.sample(key, x)
    assert z.dtype == dtype
    np.testing.assert_allclose(z - x**2, Gaussian(STD).sample(key, (4,)), rtol=1e-4)
    expected = st.norm.logpdf(np.asarray(z) - np.asarray(x) ** 2, scale=STD)
    np.testing.assert_allclose(measurement.log_prob(z, x), expected.sum(), rtol=1e-4)
    mask = jnp.asarray(MASK)
    np.testing.assert_allclose(measurement.log_prob(z, x, mask), expected[MASK].sum(), rtol=1e-4)
    white = measurement.whitened_innovation(z, x, mask)
    np.testing.assert_allclose(white, np.where(MASK, (z - x**2) / STD, 0), rtol=1e-4)
    assert measurement.output_shape((4,)) == (4,)


@pytest.mark.slow
def test_noise_made_in_single_precision_works_in_double(key):
    noises = [Gaussian(0.5), Laplace(0.5), StudentT(4.0, 0.5), CorrelatedGaussian(np.eye(3))]
    with jax.enable_x64(True):
        for noise in noises:
            z = Measurement(Identity(), noise).sample(key, jnp.zeros(3))
            assert z.dtype == jnp.float64
            assert noise.log_prob(z).dtype == jnp.float64
            assert noise.whiten(z).dtype == jnp.float64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Gaussian(-0.5),
            "std of the noise must be positive everywhere; got a smallest value of -0.5",
        ),
        (lambda: Gaussian([1.0, 0.0]), "std of the noise must be positive everywhere; got .* 0.0"),
        (lambda: Gaussian(float("nan")), "std of the noise must be positive everywhere; got .* nan"),
        (lambda: Laplace(0.0), "scale of the noise must be positive"),
        (
            lambda: StudentT(2.0, 1.0),
            r"df must exceed 2 \(no finite variance below\); the order is StudentT\(df, scale\); got 2.0",
        ),
        (lambda: StudentT(3.0, -1.0), "scale of the noise must be positive"),
        (lambda: CorrelatedGaussian(np.ones(3)), r"covariance must be square \(m, m\); got shape \(3,\)"),
        (lambda: CorrelatedGaussian(-np.eye(2)), "covariance of the noise is not positive definite"),
        (lambda: CorrelatedGaussian([[1.0, 0.9], [0.1, 1.0]]), "covariance of the noise is not symmetric"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def near_singular(n=30, nugget=1e-5):
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    return np.exp(-0.5 * (lag / 4.0) ** 2) + nugget * np.eye(n)


@pytest.mark.parametrize("gaps", [(), (3, 7, 20)])
def test_in_float32_ill_conditioned_correlations_lose_nothing_to_the_mask(gaps):
    """Of R itself float32 would keep too little: whitened values were off by 2.8 of 470."""
    r, there = near_singular(), ~np.isin(np.arange(30), gaps)
    residual = np.random.default_rng(1).normal(size=30).astype(np.float32)
    noise, part = CorrelatedGaussian(r), r[np.ix_(there, there)]
    white = np.linalg.solve(np.linalg.cholesky(part), residual[there].astype(float))
    log_prob = -0.5 * (white**2).sum() - 0.5 * np.linalg.slogdet(2 * np.pi * part)[1]
    found = np.asarray(noise.whiten(jnp.asarray(residual), jnp.asarray(there)))
    np.testing.assert_allclose(found[there], white, atol=1e-4 * np.abs(white).max())
    np.testing.assert_array_equal(found[~there], 0.0)
    np.testing.assert_allclose(noise.log_prob(jnp.asarray(residual), jnp.asarray(there)), log_prob, rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-21, 1e20])
def test_correlated_noise_in_any_unit(unit):
    """Its variances, of 1e-42 or 1e40, are beyond float32."""
    r, residual = np.asarray([[1.0, 0.5], [0.5, 1.0]]), jnp.asarray([1.0, 2.0])
    noise = CorrelatedGaussian(unit**2 * r)
    mask = jnp.ones(2, bool)
    np.testing.assert_allclose(
        noise.whiten(unit * residual, mask), CorrelatedGaussian(r).whiten(residual), rtol=1e-6
    )
    np.testing.assert_allclose(noise.standard_deviation(jnp.ones(2)), unit, rtol=1e-6)


def test_the_law_widened_adds_to_the_variances_alone(x64):
    """Also of a part of a joint law, and of another scale: covariances were stretched there."""
    r, added, residual = near_singular(3, 0.1), jnp.asarray([0.3, 0.0, 2.0]), jnp.asarray([1.0, -0.5, 0.3])
    r[2, :2] = r[:2, 2] = 0.0
    whole = CorrelatedGaussian(r)
    laws = [
        whole,
        Scaled(whole, 1.0),
        Scaled(CorrelatedGaussian(r / 4), 2.0),
        JointNoise([CorrelatedGaussian(r[:2, :2]), Gaussian(np.sqrt(r[2, 2]))], [(2,), (1,)]),
    ]
    expected = CorrelatedGaussian(r + np.diag(added)).log_prob(residual)
    for law in laws:
        np.testing.assert_allclose(law.widened(residual, added).log_prob(residual), expected, rtol=1e-12)


def test_a_joint_law_is_as_ill_conditioned_as_its_worst_part():
    part = CorrelatedGaussian(near_singular())
    joint = JointNoise([Gaussian(1.0), part], [(1,), (30,)])
    np.testing.assert_allclose(joint.condition, part.condition)
    assert float(joint.condition) > 1e4
