"""The score-based filter: equal to known filters where it should be, and the same in every costume."""

from __future__ import annotations

import dataclasses

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import assimilate
from masf_jax.denoisers import Denoiser, ensemble_gaussian, ensemble_kernel
from masf_jax.diffusion import vp_bridge
from masf_jax.dynamics import Linear, Lorenz96, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Moments, Normalization
from masf_jax.filters import ETKF, EnKF, EnsembleState
from masf_jax.masf import (
    MASF,
    Automatic,
    Bridge,
    ConditionalKernel,
    GaussianPrior,
    Guided,
    KernelPrior,
    MeasurementAware,
)
from masf_jax.masf.routes.base import draws
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear as LinearOperator,
    Measurement,
    Observations,
    Subset,
    square,
)

N = 6
RING = Lorenz96(N)
WHOLE = Measurement(Identity(), Gaussian(0.8))
HALF = Measurement(Subset(range(0, N, 2)), Gaussian(0.8))
DENSE = Measurement(LinearOperator(np.random.default_rng(1).normal(size=(4, N))), Gaussian(0.8))
MEMBERS = np.random.default_rng(0).normal(2.0, 1.5, size=(5, N))
MANY = np.random.default_rng(2).normal(size=(8_000, N)) @ (np.eye(N) + 0.5 * np.eye(N, k=1)) + np.linspace(
    -1, 2, N
)

FILTERS = {
    "coupled": lambda: MASF(
        GaussianPrior(2.0, "perturbed"), sampler=Bridge(2), inflation=Inflation(multiplicative=1.1)
    ),
    "transported": lambda: MASF(GaussianPrior(2.0, rotation=True)),
    "kernel": lambda: MASF(KernelPrior(), inflation=Inflation(rtps=0.3)),
    "moving": lambda: MASF(normalization=Normalization("moving")),
    "fixed": lambda: MASF(normalization=Normalization("fixed", affine=False), climatology=20),
    "guided": lambda: MASF(process=MeasurementAware(), sampler=Guided()),
    "guided, scales 1": lambda: MASF(sampler=Guided(100, "uniform", paper_scales=False)),
}


@eqx.filter_jit
def _analyse(filter, key, state, z, measurement):
    return filter.analysis(key, state, z, measurement)


def analyse(filter, key, measurement, z, members=MEMBERS, dynamics=RING):
    filter = filter.prepare(dynamics, measurement)
    state = filter.init(key, jnp.asarray(members, dtype=float))
    after, info = _analyse(filter, key, state, jnp.asarray(z, dtype=float), measurement)
    assert isinstance(after, EnsembleState)
    assert isinstance(state, EnsembleState)
    return state, after, info


def moments(x):
    x = np.asarray(x, np.float64)
    return x.mean(0), np.cov(x.T)


GIVEN = Normalization("fixed", moments=Moments(jnp.full(N, 3.0), jnp.full(N, 9.0)))


@pytest.mark.quick_cases("fresh draws, 2 steps, gaps")
@pytest.mark.parametrize(
    ("filter", "measurement", "missing"),
    [
        (MASF(GaussianPrior(members="perturbed")), DENSE, []),
        (
            MASF(GaussianPrior(members="perturbed"), sampler=Bridge(3), normalization=GIVEN),
            HALF,
            [],
        ),
        (MASF(sampler=Bridge(2), normalization=Normalization("moving", affine=False)), WHOLE, [1, 4]),
    ],
    ids=["coupled, 1 step", "coupled, 3 steps", "fresh draws, 2 steps, gaps"],
)
def test_a_gaussian_denoiser_gives_the_analysis_of_the_enkf(filter, measurement, missing, key):
    z = np.linspace(1.0, -1.0, measurement.output_shape((N,))[0])
    z[missing] = np.nan
    mean, covariance = moments(analyse(filter, key, measurement, z, MANY)[1].ensemble)
    wanted_mean, wanted = moments(analyse(EnKF(), key, measurement, z, MANY)[1].ensemble)
    np.testing.assert_allclose(mean, wanted_mean, atol=0.03)
    np.testing.assert_allclose(covariance, wanted, atol=0.04)


@pytest.mark.parametrize(
    ("measurement", "missing", "inflation"),
    [
        pytest.param(DENSE, [], Inflation(), marks=pytest.mark.slow),
        pytest.param(HALF, [1], Inflation(), marks=pytest.mark.slow),
        (HALF, [1], Inflation(1.2, rtps=0.3)),
    ],
)
def test_transported_members_are_those_of_the_symmetric_etkf(measurement, missing, inflation, key, x64):
    """In any coordinates and with gaps, member by member; a rotation keeps their mean and covariance."""
    z = np.linspace(1.0, -1.0, measurement.output_shape((N,))[0])
    z[missing] = np.nan
    expected = analyse(ETKF(inflation), key, measurement, z)[1].ensemble
    got = analyse(MASF(inflation=inflation), key, measurement, z)[1].ensemble
    np.testing.assert_allclose(got, expected, atol=1e-4)
    if inflation.rtps is None:
        turned = analyse(MASF(GaussianPrior(rotation=True), inflation=inflation), key, measurement, z)[
            1
        ].ensemble
        assert np.abs(turned - got).max() > 0.1
        for mine, theirs in zip(moments(turned), moments(got), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-9)


@pytest.mark.parametrize("name", often(("coupled", "transported", "kernel"), ("coupled", "transported")))
def test_without_a_valid_value_the_analysis_is_the_forecast_bit_for_bit(name, key):
    before, after, _ = analyse(FILTERS[name](), key, WHOLE, np.full(N, np.nan))
    chex.assert_trees_all_equal(after, before)


@pytest.mark.quick_cases("transported")
@pytest.mark.parametrize("name", often(["fixed", "transported", "guided"], ("transported", "guided")))
def test_analysis_in_double_precision(name, key, x64):
    z = np.full(N, 2.5)
    before, after, info = analyse(FILTERS[name](), key, WHOLE, z, dynamics=Lorenz96(N))
    assert after.ensemble.dtype == jnp.float64
    chex.assert_tree_all_finite((after.ensemble, info))
    assert np.abs(after.mean - 2.5).mean() < np.abs(before.mean - 2.5).mean()


def problem(n_cycles=3):
    values = np.random.default_rng(3).normal(2.0, 3.0, size=(n_cycles, N))
    values[1, :4] = np.nan
    return Observations(values, 1), jnp.asarray(MEMBERS, dtype=float)


@pytest.mark.slow
def test_a_run_is_the_same_as_one_of_a_batch():
    observations, ensemble = problem()
    filter = FILTERS["coupled"]().prepare(RING, WHOLE)

    def run(key):
        return assimilate(key, filter, RING, WHOLE, observations, ensemble).analysis["mean"]

    keys = jax.random.split(jax.random.key(5), 2)
    plain = run(keys[1])
    chex.assert_tree_all_finite(plain)
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(keys)[1], plain, rtol=1e-3, atol=1e-3)


@pytest.mark.quick_cases("guided, scales 1")
@pytest.mark.parametrize("name", ["moving", "guided, scales 1"])
def test_a_run_stays_finite_and_near_what_is_measured(name):
    observations, ensemble = problem()
    run = assimilate(jax.random.key(6), FILTERS[name](), RING, WHOLE, observations, ensemble)
    chex.assert_tree_all_finite(run.analysis)
    distance = [
        np.abs(stage["mean"] - observations.values)[np.asarray(observations.mask)].mean()
        for stage in (run.forecast, run.analysis)
    ]
    assert distance[1] < distance[0]


@pytest.mark.slow
def test_a_fixed_normalisation_is_made_of_the_models_climatology():
    model = ModelError(Linear(0.2 * np.eye(N)), np.sqrt(0.96))  # long run: N(0, 1)
    filter = MASF(normalization=Normalization("fixed"), climatology=2000).prepare(model, WHOLE)
    known = filter.normalization.moments
    assert known is not None
    np.testing.assert_allclose(known.mean, 0.0, atol=0.12)
    np.testing.assert_allclose(known.variance, 1.0, atol=0.15)
    again = filter.prepare(model, WHOLE).normalization.moments
    assert again is not None
    assert again.mean is known.mean, "prepared once"


@pytest.mark.slow
def test_a_moving_normalisation_remembers(key):
    filter = MASF(normalization=Normalization("moving", rate=0.25)).prepare(RING, WHOLE)
    state = filter.init(key, jnp.zeros((5, N)) + jnp.asarray([-1.0, 0.0, 1.0, 2.0, 3.0])[:, None])
    shifted = dataclasses.replace(state, ensemble=state.ensemble + 4.0)
    after, _ = _analyse(filter, key, shifted, jnp.full(N, 4.0), WHOLE)
    np.testing.assert_allclose(after.memory[1][0].mean, 2.0, rtol=1e-6)
    np.testing.assert_allclose(after.memory[1][0].variance, 2.5, rtol=1e-6)


class Leaky(Denoiser):
    """As a network is: pure noise changes its mean by half of it."""

    def __call__(self, x, angle):
        return 1.0 + 0.5 * x


def test_the_centre_of_a_network_is_the_mean_over_the_members_own_noise(key):
    """One draw of noise would give all members an error of std 0.5; N of them leave 0.5/√N."""
    process = vp_bridge(HALF, jnp.zeros(N // 2), jnp.ones(N // 2, bool), jnp.zeros(N), jnp.ones(N))
    members = jnp.zeros((400, N))

    @jax.jit
    def sample(key):
        samplers = (Bridge(corrected=False, centred=centred) for centred in (True, False))
        return tuple(draws(key, process, Leaky(), members, sampler) for sampler in samplers)

    centred, plain = sample(key)
    np.testing.assert_allclose(centred, plain, atol=1e-6)
    np.testing.assert_allclose(centred[:, ::2], 1.0, atol=1e-6)
    np.testing.assert_allclose(centred[:, 1::2].mean(0), 1.0, atol=4 * 0.5 / 20)
    np.testing.assert_allclose(centred[:, 1::2].std(0), 0.5, rtol=0.15)


@pytest.mark.parametrize("fit", [ensemble_gaussian, ensemble_kernel])
def test_closed_forms_ignore_pure_noise(fit, key):
    denoiser = fit(jnp.asarray(MEMBERS, dtype=float))
    assert denoiser.ignores_noise
    angle = jnp.where(jnp.arange(N) % 2 == 0, 0.7, 0.5 * jnp.pi)
    x, noise = jnp.linspace(-1.0, 1.0, N), jax.random.normal(key, (N,))
    other = jnp.where(jnp.arange(N) % 2 == 0, x, noise)
    np.testing.assert_allclose(denoiser(other, angle), denoiser(x, angle), rtol=1e-5)
    assert jnp.abs(denoiser(x + 1.0, angle) - denoiser(x, angle)).max() > 0.05


REFUSED = {
    "nonlinear for the paper's process": (
        lambda: MASF(process=MeasurementAware()),
        Measurement(square(), Gaussian(1.0)),
        "needs a linear measurement",
    ),
    "nonlinear for the guided sampler": (
        lambda: MASF(sampler=Guided(64)),
        Measurement(square(), Gaussian(1.0)),
        "needs a linear measurement",
    ),
    "a kernel density, linearised for each member": (
        lambda: MASF(KernelPrior()),
        Measurement(square(), Gaussian(1.0)),
        "have no forecast member to linearise",
    ),
    "correlated noise without Fourier": (
        lambda: MASF(process=MeasurementAware()),
        Measurement(LinearOperator(np.diag(np.r_[2.0, np.ones(N - 1)])), CorrelatedGaussian(np.eye(N))),
        "every eigenvalue of H in",
    ),
    "dense for the paper's process": (
        lambda: MASF(process=MeasurementAware()),
        DENSE,
        "Use the VP bridge",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_prepare_refuses(case):
    make, measurement, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make().prepare(RING, measurement)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Guided(first=1.0), "no score at diffusion time 1"),
        (lambda: Guided(2), "guided sampler diverges in 1 or 2 steps"),
        (lambda: Bridge(0), "n_steps must be at least 1"),
        (lambda: MASF(climatology=1), "climatology must be at least 2"),
        (lambda: MASF(GaussianPrior(), route=ConditionalKernel()), "it takes no prior"),
        (lambda: Automatic(ConditionalKernel()), "give it as the route itself"),
    ],
)
def test_impossible_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"process": "ddpm"}, "process must be a ProcessFamily .* got 'ddpm'"),
        ({"sampler": "heun"}, "sampler must be a Sampler .* got 'heun'"),
        ({"prior": ETKF()}, "prior must be a Prior"),
        ({"prior": ConditionalKernel()}, "prior must be a Prior"),
        ({"route": Linear}, r"got the class Linear; make one, Linear\(\)"),
        ({"inflation": 1.04}, r"inflation of MASF must be masf_jax\.ensemble\.Inflation\(1\.04\); got float"),
        ({"normalization": "fixed"}, "normalization must be a Normalization"),
        ({"n_steps": 3}, r"give sampler=Bridge\(n_steps=…\)"),
        ({"rotation": True}, r"give prior=GaussianPrior\(rotation=…\)"),
        ({"steps": 3}, "MASF has no argument steps"),
    ],
)
def test_parts_of_another_kind(arguments, message):
    with pytest.raises(TypeError, match=message):
        MASF(**arguments)


def test_a_fixed_normalisation_without_moments_says_so(key):
    filter = MASF(normalization=Normalization("fixed"))
    state = filter.init(key, jnp.asarray(MEMBERS, dtype=float))
    with pytest.raises(ValueError, match="a fixed normalisation needs moments"):
        filter.analysis(key, state, jnp.zeros(N), WHOLE)
    localised = MASF(GaussianPrior(radius=2.0))
    state = localised.init(key, jnp.asarray(MEMBERS, dtype=float))
    with pytest.raises(ValueError, match="needs its taper"):
        localised.analysis(key, state, jnp.zeros(N), WHOLE)


@pytest.mark.parametrize("model", [Linear(np.eye(2))], ids=["linear"])
def test_a_radius_needs_coordinates(model):
    with pytest.raises(ValueError, match="needs coordinates"):
        MASF(GaussianPrior(radius=2.0)).prepare(model, WHOLE)


@pytest.mark.parametrize("shrink", [True, False])
def test_a_kernel_prior_is_the_ensembles_kernel_denoiser(shrink, key):
    process = vp_bridge(WHOLE, jnp.zeros(N), jnp.ones(N, bool), jnp.zeros(N), jnp.ones(N))
    members = jnp.asarray(MEMBERS, dtype=float)
    made = KernelPrior(0.4, shrink)(key, members, process, None)[0]
    chex.assert_trees_all_close(made, jax.jit(ensemble_kernel, static_argnums=(1, 2))(members, 0.4, shrink))
