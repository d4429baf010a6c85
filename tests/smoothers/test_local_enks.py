"""Localised ensemble smoothers: limits of the taper, the filter at lag 0, and Lorenz-96 with few members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_enks import EVERY, MEASUREMENT, A, exact, measured

from masf_jax import Coordinates, assimilate, simulate
from masf_jax.dynamics import Linear, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, LETKF, EnSRF, IEnKF
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset
from masf_jax.smoothers import enks, ienks

WIDE = 1e9
"""A radius at which all weights are 1 by rounding."""


class Placed(Linear):
    """A linear model whose components lie on a line."""

    @property
    def coordinates(self):
        return Coordinates(np.arange(3.0)[:, None], (0.0,))


def problem(key, n_members, n_cycles):
    model, measurement = Lorenz96(40, dt=0.05), Measurement(Subset(range(0, 40, 2)), Gaussian(1.0))
    keys = jax.random.split(key, 3)
    start = model.sample_climatology(keys[0])
    twin = simulate(keys[1], model, measurement, n_cycles, 1, start)
    ensemble = start[None] + 0.5 * jax.random.normal(keys[2], (n_members, 40))
    return (model, measurement, twin.observations, ensemble), twin.truth


@pytest.mark.quick_cases("ensrf")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("filter", [LETKF(None), EnSRF()], ids=["letkf", "ensrf"])
def test_without_a_radius_it_is_the_exact_smoother(filter):
    """As `enks` with ETKF is."""
    ensemble = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)))
    prior = np.asarray(ensemble.mean(0)), np.cov(np.asarray(ensemble).T)
    observations = Observations(measured(), EVERY)
    run = enks(jax.random.key(0), filter, Linear(A), MEASUREMENT, observations, ensemble, scores=())
    mean, variance = exact(*prior, 0.0)
    np.testing.assert_allclose(run.smoothed["mean"], mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(run.smoothed["spread"] ** 2, variance, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_taper_of_ones_changes_nothing(key):
    given, _ = problem(key, 60, 12)
    run = {
        name: enks(key, filter, *given, lag=4, scores=(), save=("ensemble",)).smoothed["ensemble"]
        for name, filter in (
            ("etkf", ETKF()), ("letkf", LETKF(WIDE)), ("ensrf", EnSRF()), ("wide ensrf", EnSRF(radius=WIDE)),
        )
    }  # fmt: skip
    np.testing.assert_allclose(run["letkf"], run["etkf"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(run["wide ensrf"], run["ensrf"], rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("filter", [pytest.param(LETKF, marks=pytest.mark.slow), EnSRF])
def test_at_lag_0_it_is_the_filter(key, filter):
    given, _ = problem(key, 20, 8)
    local = filter(radius=4.0, inflation=Inflation(1.02))
    wanted = assimilate(key, local, *given, scores=()).analysis["mean"]
    run = enks(key, local, *given, lag=0, scores=())
    np.testing.assert_allclose(run.analysis["mean"], wanted, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(run.smoothed["mean"], run.analysis["mean"])


@pytest.mark.slow
def test_values_out_of_reach_move_no_past_state(key):
    """One value, measured in the last cycle only."""
    (model, _, _, ensemble), _ = problem(key, 20, 3)
    z = np.full((4, 1), np.nan)
    z[3] = 5.0
    measurement = Measurement(Subset([10]), Gaussian(1.0))
    run = enks(key, EnSRF(radius=2.0), model, measurement, Observations(z, 1), ensemble, scores=())
    moved = np.abs(run.smoothed["mean"] - run.analysis["mean"])[0]
    near = np.abs(np.arange(40) - 10) < 4
    assert (moved[near] > 1e-3).all()
    np.testing.assert_allclose(moved[~near], 0.0, atol=1e-6)


@pytest.mark.slow
def test_with_few_members_only_the_localised_one_stays_with_the_truth():
    """N = 10, half of Lorenz-96 measured: the other loses the truth; lag 5 is better than the filter."""

    def rmse(filter, seed):
        given, truth = problem(jax.random.key(seed), 10, 150)
        run = enks(jax.random.key(1), filter, *given, lag=5, truth=truth, scores=("rmse",), save=())
        return [float(s["rmse"][50:-5].mean()) for s in (run.analysis_scores, run.smoothed_scores)]

    kept = np.mean([rmse(LETKF(4.0, Inflation(1.06), rotation=True), seed) for seed in range(2)], axis=0)
    lost = np.mean([rmse(ETKF(Inflation(1.06), rotation=True), seed) for seed in range(2)], axis=0)
    assert kept[1] < 0.8 * kept[0] < 0.5
    assert lost.min() > 2.0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_taper_of_ones_leaves_the_iterative_smoother(key):
    """To round-off, where the model is linear."""
    ensemble = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)))
    given = Placed(A), MEASUREMENT, Observations(measured(), EVERY), ensemble
    one, local = (
        ienks(jax.random.key(0), IEnKF(radius=radius), *given, lag=3, scores=(), save=("ensemble",))
        for radius in (np.inf, WIDE)
    )
    for stage in ("smoothed", "analysis"):
        wanted = getattr(one, stage)["ensemble"]
        np.testing.assert_allclose(getattr(local, stage)["ensemble"], wanted, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_iterative_smoother_of_lag_1_is_the_filter_and_few_members_do(key):
    """N = 10, half of Lorenz-96 measured."""
    given, truth = problem(key, 10, 120)
    filter = IEnKF(Inflation(1.04), rotation=True, radius=4.0, iterations=3)
    wanted = assimilate(key, filter, *given, truth=truth, scores=("rmse",))
    run = ienks(key, filter, *given, truth=truth, lag=1, scores=("rmse",))
    np.testing.assert_allclose(run.analysis["mean"][:5], wanted.analysis["mean"][:5], atol=1e-3)
    before, after = (s["rmse"][40:-1].mean() for s in (run.analysis_scores, run.smoothed_scores))
    assert after < 0.95 * before < 0.6


def test_what_it_cannot_do_it_says(key):
    given = MEASUREMENT, Observations(measured(), EVERY), jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"radius 2.0 needs coordinates, and Linear has none"):
        enks(key, LETKF(radius=2.0), Linear(A), *given)
    with pytest.raises(ValueError, match=r"radius 2.0 needs coordinates, and Linear has none"):
        enks(key, EnSRF(radius=2.0), Linear(A), *given)
    with pytest.raises(ValueError, match=r"radius 2.0 needs coordinates, and Linear has none"):
        ienks(key, IEnKF(radius=2.0), Linear(A), *given, lag=1)
    with pytest.raises(ValueError, match="inflation of the forecast"):
        enks(key, LETKF(None, Inflation(prior=1.1)), Linear(A), *given)
    with pytest.raises(ValueError, match=r"lag .None: all cycles. must be at least 0"):
        enks(key, EnSRF(), Linear(A), *given, lag=-2)
