"""A spread too wide, or too small for the innovations, is told; of healthy runs nothing is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, filters, simulate
from masf_jax.dynamics import Function, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.measurements import Gaussian, Measurement, Subset
from masf_jax.metrics.outliers import outlying_cycles
from masf_jax.metrics.overconfidence import innovation_ratio, overconfident
from masf_jax.metrics.remarks import remarks
from masf_jax.metrics.width import lost, too_wide, widths

MODEL = Lorenz96(40, dt=0.05)
SENSOR = Measurement(Subset(np.arange(0, 40, 8)), Gaussian(0.5))


@pytest.fixture(scope="module")
def twin():
    return simulate(jax.random.key(0), MODEL, SENSOR, 200, 1)


@pytest.fixture(scope="module")
def members(twin):
    return np.asarray(twin.truth[0]) + np.random.default_rng(0).normal(size=(12, 40))


def test_healthy_runs_are_told_nothing(twin, members):
    sensor = Measurement(Subset(np.arange(0, 40, 2)), Gaussian(1.0))
    seen = simulate(jax.random.key(3), MODEL, sensor, 200, 1, x0=twin.truth[0])
    run = assimilate(
        jax.random.key(1), filters.LETKF(4.0, Inflation(1.04)), MODEL, sensor, seen.observations, members
    )
    assert remarks(run.info, run.forecast) == []
    assert innovation_ratio(run.info) == pytest.approx(1.0, abs=0.1)
    assert str(run).count("\n") == 2


@pytest.mark.slow
def test_an_ensemble_blown_up_between_few_sensors_is_told(twin, members):
    given = jax.random.key(1), filters.LETKF(2.0, Inflation(1.05)), MODEL, SENSOR
    run = assimilate(*given, twin.observations, members)
    spread = np.asarray(run.forecast["spread"])
    (late,), (level,) = widths(run.forecast["mean"], spread)
    assert late == pytest.approx(np.sqrt((spread[150::5] ** 2).mean()))
    assert level < 1.2 * np.std(np.asarray(twin.truth)) < late
    said = [text for text in remarks(run.info, run.forecast) if text.startswith("the ensemble is too wide")]
    assert f"is {late:.3g}, {late / level:.3g} times" in said[0]
    assert said[0] in str(run)
    flat = np.full((200, 40), 1.0)
    assert too_wide(flat, 3 * flat) == []
    wide = too_wide(flat, np.where(np.arange(200) > 0, 3.0, 1.0)[:, None] * flat)
    assert "3 times" in wide[0]
    given = flat, np.where(np.arange(200) > 0, 1.7, 1.0)[:, None] * flat
    assert too_wide(*given) == []
    assert len(too_wide(*given, truth=flat)) == 1
    varying = flat * np.where(np.arange(200) % 2, 2.0, -2.0)[:, None]
    assert too_wide(flat, np.where(np.arange(200) > 0, 3.0, 1.0)[:, None] * flat, truth=varying) == []
    blown = np.arange(200) >= 150
    spread = np.where(blown[:, None], np.nan, spread)
    mean = np.where(blown[:, None], np.nan, run.forecast["mean"])
    assert too_wide(mean, spread) == []
    (before,) = remarks({}, {"mean": mean, "spread": spread}, diverged=blown)
    assert before.startswith("the ensemble is too wide")


def test_a_lost_filter_is_told_to_be_overconfident(twin):
    far = np.random.default_rng(5).normal(2.3, 3.6, (1, 40))
    members = far + 1e-3 * np.random.default_rng(0).normal(size=(12, 40))
    sure = filters.ETKF(Inflation(multiplicative=0.9))  # a free run: one that is pulled about may blow up
    run = assimilate(jax.random.key(1), sure, MODEL, SENSOR, twin.observations, members)
    z, mean = np.asarray(twin.observations.values), np.asarray(run.forecast["mean"])[:, ::8]
    total = np.asarray(run.forecast["spread"])[:, ::8] ** 2 + 0.5**2
    of_cycle = np.sqrt((((z - mean) ** 2) / total).mean(1))
    np.testing.assert_allclose(run.info["innovation_ratio"], of_cycle, rtol=1e-3)
    assert innovation_ratio(run.info, 50) == pytest.approx(np.sqrt((of_cycle[50:] ** 2).mean()), rel=1e-3)
    ratio = np.sqrt((np.sort(of_cycle[100:])[:95] ** 2).mean())
    assert ratio > 3
    assert f"observation - forecast is {ratio:.3g} times" in overconfident(run.info)[0]
    assert overconfident(run.info)[0] in str(run)


def test_a_lost_filter_is_told_where_the_noise_hides_it():
    """Noise larger than the state varies: observation - forecast is 1.3 times what it should be, no more."""
    sensor = Measurement(Subset(np.arange(0, 40, 8)), Gaussian(6.0))
    seen = simulate(jax.random.key(0), MODEL, sensor, 60, 1)
    far = np.random.default_rng(5).normal(2.3, 3.6, (1, 40))
    members = far + 1e-3 * np.random.default_rng(0).normal(size=(12, 40))
    given = jax.random.key(1), filters.ETKF(), MODEL, sensor, seen.observations, members
    run = assimilate(*given, truth=seen.truth)
    assert overconfident(run.info) == []
    saved = run.forecast["mean"], run.forecast["spread"], seen.truth
    mean, spread, truth = (np.asarray(each)[45:] for each in saved)
    error, width = np.sqrt(np.mean((mean - truth) ** 2)), np.sqrt(np.mean(spread**2))
    (said,) = remarks(run.info, run.forecast, truth=seen.truth)
    assert said.startswith("the filter has lost the truth")
    assert f"error is {error:.3g}, where" in said
    assert f"its spread {width:.3g}:" in said
    assert said in str(run)
    assert remarks(run.info, run.forecast) == []


def test_of_a_filter_that_reports_no_innovations_nothing_is_said():
    """Of climatology, say; whatever its cycles are."""
    for skipped in (False, np.zeros(6, bool)):
        assert remarks({}, {}, skipped=skipped) == []
        assert len(outlying_cycles({}, 1, skipped)) == 0
        assert np.isnan(innovation_ratio({}, 1, skipped))


def test_of_which_variable_the_truth_is_lost():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 2, 500)) * np.array([1000.0, 1.0])[None, :, None]
    mean, spread = truth.copy(), np.full(truth.shape, 0.19)
    mean[30:, 1] += 1.0  # of the second, next to nothing of both together
    assert lost(mean, spread, truth) == []
    (said,) = lost(mean, spread, truth, ("p", "T"), ("Pa", "K"))
    assert "error of T is 1 K, where the truth varies by 0.995 K, and its spread 0.19 K" in said
    assert lost(mean, 1.1 * spread, truth, ("p", "T")) == []  # not sure of itself
    assert lost(truth + 1e-3 * (mean - truth), 1e-6 * spread, truth, ("p", "T")) == []  # near
    assert lost(mean[21:], spread[21:], truth[21:], ("p", "T")) == []  # too short to say


def test_variables_are_told_apart():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(40, 2, 5)) * np.array([1000.0, 1.0])[None, :, None]
    spread = np.ones((40, 2, 5))
    spread[20:, 1] = 9.0  # of the second, hidden by the first one's variation
    assert too_wide(mean, spread) == []
    (said,) = too_wide(mean, spread, ("p", "T"), ("Pa", "K"))
    assert "spread of T is 9 K" in said
    (said,) = too_wide(mean[:, 1], spread[:, 1], ("T",), ("K",) * 5)  # one variable at five places
    assert "spread of T is 9 K" in said
    assert too_wide(mean[:19], spread[:19], ("p", "T")) == []  # too short to say


def test_gross_errors_and_gaps_do_not_make_a_filter_overconfident():
    info = {"innovation_ratio": np.ones(200)}
    info["innovation_ratio"][[150, 160]] = 1e3
    info["innovation_ratio"][170:180] = np.nan
    assert innovation_ratio(info) == pytest.approx(np.sqrt((2e6 + 188) / 190))
    assert innovation_ratio(info, 0, info["innovation_ratio"] > 9) == pytest.approx(1.0)
    assert overconfident(info) == []
    assert overconfident({"innovation_ratio": np.full(30, 9.0)}) == []  # 15 late cycles
    assert len(overconfident({"innovation_ratio": np.full(40, 9.0)})) == 1
    assert np.isnan(innovation_ratio({}))


@pytest.mark.slow
def test_the_function_of_a_model_with_names_prints_its_variable():
    model = Function(lambda x: 1.2 * x, (2,), dt=1.0, variable_names=("a", "b"), variable_units=("m", "s"))
    sensor = Measurement(Subset(np.array([0])), Gaussian(0.1))
    twin = simulate(jax.random.key(0), model, sensor, 40, 1, x0=jnp.zeros(2))
    members = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    run = assimilate(jax.random.key(1), filters.EnSRF(), model, sensor, twin.observations, members)
    assert "the ensemble is too wide" in str(run)
    assert "spread of b is" in str(run)
