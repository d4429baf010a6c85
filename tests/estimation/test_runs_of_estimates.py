"""The run that comes with an estimate is one of the states; filters of filters; where members come from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import filters, simulate, smoothers
from masf_jax.dynamics import Linear, Lorenz96, ModelError
from masf_jax.estimation import EM, AugmentedState, Gradient, LogNormal, Normal, estimate
from masf_jax.measurements import Gaussian, Identity, Measurement, Subset

KEY = jax.random.key(0)
MODEL = Lorenz96(8, forcing=6.0)
SENSOR = Measurement(Subset(range(0, 8, 2)), Gaussian(1.0))
FORCING = {"forcing": Normal(6.0, 1.0)}
A = np.asarray([[0.9, 0.1], [0.0, 0.8]])
NOISY, WHOLE = ModelError(Linear(A), 0.3), Measurement(Identity(), Gaussian(1.0))
MATRIX = {"dynamics.dynamics.matrix": Normal(A, 0.1)}


class Mine(filters.KalmanFilter):
    """Another name: a subclass stays one."""


@pytest.fixture(scope="module")
def twin():
    return simulate(jax.random.key(1), Lorenz96(8), SENSOR, 20)


@pytest.fixture(scope="module")
def members(twin):
    return twin.truth[:1] + jax.random.normal(jax.random.key(2), (12, 8))


@pytest.mark.parametrize("filter", [filters.LETKF(3.0), filters.ETKF()], ids=["local", "whole"])
@pytest.mark.parametrize("known", [True, False])
def test_the_run_of_an_estimate_is_one_of_the_states(twin, members, filter, known):
    """What it was given had the parameters too: to print or to convert it ended in a ValueError of shapes."""
    truth = twin.truth if known else None
    options = {"unknown": FORCING, "truth": truth, "save": ("ensemble",)}
    run = estimate(KEY, filter, MODEL, SENSOR, twin.observations, members, **options).run
    assert str(run).startswith("Assimilation: Lorenz96, 20 cycles, 12 members")
    data = run.to_xarray()
    assert data["analysis_ensemble"].shape == (20, 12, 8)
    assert ("truth" in data) == known
    assert run.members.shape == (12, 8)
    np.testing.assert_array_equal(data["analysis_ensemble"][-1], run.members)


def test_what_the_engine_does_to_parameters_reaches_both_filters_of_a_gate(twin, members):
    """They went on from members of their own, and floor and relaxation were of the output alone."""
    gate = filters.Gate(filters.ETKF(), filters.EnSRF(), calibrated=False)
    engine = AugmentedState(relaxation=0.9, floor=0.3)

    def found(filter):
        return estimate(
            KEY, filter, MODEL, SENSOR, twin.observations, members, unknown=FORCING, engine=engine
        )

    one, both = found(filters.ETKF()), found(gate)
    np.testing.assert_allclose(both.mean["forcing"], one.mean["forcing"], atol=0.05)
    np.testing.assert_allclose(both.std["forcing"], one.std["forcing"], rtol=0.05)
    assert float(one.std["forcing"]) > 0.5


@pytest.mark.parametrize(
    "given",
    [{"mean": 5.0}, {"mean": [5.0, 5.0]}, {"mean": 5.0, "covariance": np.eye(2)}, {"covariance": np.eye(2)}],
    ids=["number", "mean", "both", "covariance"],
)
def test_a_kalman_filters_own_gaussian_is_of_the_state(given):
    """A number as the mean was that of the parameters too, five deviations from their prior."""
    rng = np.random.default_rng(0)
    z = 5.0 + rng.normal(size=(6, 2))
    members = rng.normal(size=(50, 2))
    members = 5 + np.linalg.qr(members - members.mean(0))[0] * 7.0  # mean 5, covariance 1
    options = {"unknown": MATRIX, "engine": AugmentedState(relaxation=0.0)}
    known = estimate(KEY, Mine(**given), NOISY, WHOLE, z, members, **options)
    sampled = estimate(KEY, filters.KalmanFilter(), NOISY, WHOLE, z, members, **options)
    for name in MATRIX:
        np.testing.assert_allclose(known.course_mean[name], sampled.course_mean[name], atol=0.02)
    with pytest.raises(ValueError, match=r"must be 2 × 2 for states of shape \(2,\); got \(3, 3\)"):
        estimate(KEY, filters.KalmanFilter(covariance=np.eye(3)), NOISY, WHOLE, z, members, **options)


@pytest.mark.parametrize("engine", [EM(steps=2), Gradient(steps=2), AugmentedState()], ids=type)
@pytest.mark.filterwarnings("ignore:.*steps")
def test_a_kalman_filter_with_its_own_gaussian_needs_no_members(engine):
    z = np.random.default_rng(0).normal(size=(6, 2))
    kalman = filters.KalmanFilter(mean=np.zeros(2), covariance=np.eye(2))
    unknown = MATRIX if isinstance(engine, AugmentedState) else {"measurement.noise.std": LogNormal(1.0)}
    found = estimate(KEY, kalman, NOISY, WHOLE, z, unknown=unknown, engine=engine)
    assert all(np.isfinite(value).all() for value in found.mean.values())
    with pytest.raises(ValueError, match=r"(give|either) the first ensemble"):
        estimate(KEY, filters.ETKF(), NOISY, WHOLE, z, unknown=unknown, engine=engine)


def test_members_may_be_a_list():
    members = np.random.default_rng(1).normal(size=(6, 2))
    z, model = np.random.default_rng(0).normal(size=(3, 2)), Linear(A)
    for run in (
        lambda x: smoothers.enks(KEY, filters.ETKF(), model, WHOLE, z, x),
        lambda x: smoothers.ienks(KEY, filters.IEnKF(), model, WHOLE, z, x, lag=1),
        lambda x: estimate(KEY, filters.ETKF(), NOISY, WHOLE, z, x, unknown=MATRIX).run,
    ):
        one, other = run(members.tolist()), run(jnp.asarray(members))
        np.testing.assert_array_equal(one.analysis["mean"], other.analysis["mean"])
