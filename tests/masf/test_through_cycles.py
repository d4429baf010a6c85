"""Training by derivatives through cycles finds the best filter where that is known."""

import dataclasses
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules as sr
from scipy.linalg import solve_discrete_are

from masf_jax import assimilate, simulate
from masf_jax.amortised import Course, Practice, load_amortised, save_amortised, train_through_cycles
from masf_jax.coordinates import Coordinates
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Dynamics, Linear, Lorenz96, ModelError
from masf_jax.filters import ETKF, AmortisedMASF, EnKF, Gate, IEnKF, ParticleFilter, ThreeDVar
from masf_jax.masf.amortised.through_cycles import SCORES, _System
from masf_jax.measurements import Gaussian, Identity, Measurement, Subset
from masf_jax.training import FitConfig

A, Q, R = 0.97 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]), 0.1, 0.5
MODEL = ModelError(Linear(A), std=Q)
SENSOR = Measurement(Identity(), Gaussian(R))
SMALL = Architecture(width=16, depth=1)
PRACTICE = Practice(runs=256, cycles=120, burn_in=40, spread=0.2, ensemble_sizes=(2,))
CONFIG = FitConfig(
    steps=300, batch_size=32, learning_rate=1e-2, weight_decay=0.0, ema_decay=0.98, validate_every=100
)


def one_run(scale=1.0):
    """3D-Var whose background covariance is not that of its errors, and a fresh network on it."""
    return AmortisedMASF(ThreeDVar(scale), architecture=SMALL, climatology=400)


def kalman_rmse(std=R):
    """Of the analysis in the steady state."""
    forecast = solve_discrete_are(A.T, np.eye(2), Q**2 * np.eye(2), std**2 * np.eye(2))
    gain = forecast @ np.linalg.inv(forecast + std**2 * np.eye(2))
    return np.sqrt(np.trace((np.eye(2) - gain) @ forecast) / 2)


@pytest.mark.parametrize("score", SCORES)
def test_the_loss_is_the_score_in_deviations_of_the_climate(score):
    members, truth = np.random.default_rng(0).normal(size=(2, 5, 3)), np.asarray([0.3, -1.0, 2.0])
    deviation = np.asarray([0.5, 2.0, 1.0])
    x, y = members[0] / deviation, truth / deviation
    expected = {
        "gaussian": sr.crps_normal(y, x.mean(0), x.std(0, ddof=1)).mean(),
        "crps": sr.crps_ensemble(y, x, m_axis=0, estimator="nrg").mean(),
        "energy": sr.es_ensemble(y, x, m_axis=0, v_axis=-1, estimator="nrg") / np.sqrt(3),
    }
    system = _System(None, 1, 5, jnp.asarray(deviation), score)
    state = ETKF().init(jax.random.key(0), jnp.asarray(members[0]))
    np.testing.assert_allclose(system.loss(state, jnp.asarray(truth)), expected[score], rtol=1e-5)


@pytest.fixture(scope="module")
def trained():
    return train_through_cycles(jax.random.key(1), one_run(), MODEL, SENSOR, PRACTICE, CONFIG, window=6)


def test_it_finds_the_kalman_filter(trained):
    """One run of a linear model: the best there is has the steady state's gain, and its deviation."""
    _, rounds = trained
    assert rounds[1].chosen
    assert rounds[0].samples == 300 * 32 * 6
    best = kalman_rmse()
    root_of_two = np.sqrt(np.pi) / 2  # E √((e₁² + e₂²)/2) of two normal errors
    assert rounds[0].rmse > 1.2 * root_of_two * best
    np.testing.assert_allclose(rounds[1].rmse, root_of_two * best, rtol=0.03)
    np.testing.assert_allclose(rounds[1].spread, best, rtol=0.02)
    history = rounds[0].history
    assert history.validation_loss[0] == 1
    assert history.validation_loss[-1] < 0.97
    assert (int(history.steps), int(history.skipped)) == (300, 0)


@pytest.mark.slow
def test_one_run_is_that_of_the_model(trained, tmp_path):
    """The forecast is the model's; the covariance has 3D-Var's correlations; a file keeps it all."""
    filter, _ = trained
    twin = simulate(jax.random.key(5), MODEL, SENSOR, 30)
    start = twin.truth[:1] + 0.1 * jax.random.normal(jax.random.key(9), (2, 2))
    run = assimilate(jax.random.key(6), filter, MODEL, SENSOR, twin.observations, start, truth=twin.truth)
    np.testing.assert_allclose(
        run.forecast["mean"][1:], run.analysis["mean"][:-1] @ A.T, rtol=1e-5, atol=1e-6
    )
    read = load_amortised(save_amortised(tmp_path / "one", filter), ThreeDVar(1.0))
    again = assimilate(jax.random.key(6), read, MODEL, SENSOR, twin.observations, start, truth=twin.truth)
    np.testing.assert_array_equal(run.analysis["mean"], again.analysis["mean"])


@pytest.mark.slow  # what a trained one leaves of 3D-Var is tested above
def test_a_fresh_network_leaves_3d_var_as_it_is():
    sensor = Measurement(Subset(range(0, 40, 2)), Gaussian(1.0))
    model = Lorenz96(n=40)
    base = ThreeDVar().prepare(model, sensor)
    twin = simulate(jax.random.key(0), model, sensor, 5)
    amortised = AmortisedMASF(base, architecture=SMALL, climatology=100)
    members = twin.truth[:1] + jax.random.normal(jax.random.key(2), (2, 40))
    runs = [
        assimilate(jax.random.key(1), each, model, sensor, twin.observations, members)
        for each in (base, amortised)
    ]
    for part in ("mean", "spread"):
        np.testing.assert_allclose(*(each.analysis[part] for each in runs), rtol=2e-4, atol=1e-5)


@pytest.mark.slow  # programs of its own; what is returned where training helps is tested above
@pytest.mark.parametrize("sizes", [(6,), (6, 9)], ids=str)
def test_a_training_that_finds_nothing_returns_the_start(sizes):
    practice = dataclasses.replace(PRACTICE, runs=16, cycles=12, burn_in=4, ensemble_sizes=sizes)
    config = dataclasses.replace(CONFIG, steps=4, learning_rate=0.0, batch_size=2, validate_every=None)
    start = AmortisedMASF(ETKF(), architecture=SMALL, climatology=100)
    with pytest.warns(UserWarning, match="nothing better than the start"):
        filter, rounds = train_through_cycles(
            jax.random.key(2), start, MODEL, SENSOR, practice, config, window=2
        )
    assert [each.chosen for each in rounds] == [True, False]
    assert rounds[0].rmse == rounds[1].rmse
    assert filter.network_is_zero
    twin = simulate(jax.random.key(5), MODEL, SENSOR, 3)
    members = jax.random.normal(jax.random.key(6), (6, 2))
    runs = [
        assimilate(jax.random.key(7), each, MODEL, SENSOR, twin.observations, members)
        for each in (ETKF(), filter)
    ]
    np.testing.assert_allclose(*(each.analysis["mean"] for each in runs), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORES)
def test_a_network_that_sees_six_members_finds_the_kalman_filter(score):
    """Begun 13 % behind it, as six members are; each may be moved by itself. Whatever score it learns by."""
    architecture = dataclasses.replace(SMALL, member_width=8)
    start = AmortisedMASF(ETKF(), architecture=architecture, climatology=400)
    practice = dataclasses.replace(PRACTICE, ensemble_sizes=(6,))
    config = dataclasses.replace(CONFIG, steps=1200)
    given = (jax.random.key(1), start, MODEL, SENSOR, practice, config)
    _, rounds = train_through_cycles(*given, window=6, score=score)
    best, root_of_two = kalman_rmse(), np.sqrt(np.pi) / 2
    assert rounds[1].chosen
    assert rounds[0].rmse > 1.1 * root_of_two * best
    np.testing.assert_allclose(rounds[1].rmse, root_of_two * best, rtol=0.04)
    np.testing.assert_allclose(rounds[1].spread, best, rtol=0.1)


@pytest.mark.slow
def test_one_network_for_two_systems():
    """Their sensors are three times apart; each ends near the Kalman filter of its own."""
    coarse = Measurement(Identity(), Gaussian(3 * R))
    practice = dataclasses.replace(PRACTICE, runs=512)
    other = Course(one_run(), MODEL, coarse, practice)
    config = dataclasses.replace(CONFIG, steps=1000)
    given = (jax.random.key(1), one_run(), MODEL, SENSOR, practice, config)
    filter, rounds = train_through_cycles(*given, window=6, others=[other])
    assert rounds[1].chosen
    for std, sensor in ((R, SENSOR), (3 * R, coarse)):
        twin = simulate(jax.random.key(5), MODEL, sensor, 4000)
        problem = (
            MODEL,
            sensor,
            twin.observations,
            twin.truth[:1] + 0.1 * jax.random.normal(jax.random.key(9), (2, 2)),
        )
        run = assimilate(
            jax.random.key(6), filter.prepare(MODEL, sensor), *problem, truth=twin.truth, save=()
        )
        error = float(jnp.sqrt(jnp.mean(run.analysis_scores["rmse"][50:] ** 2)))
        spread = float(jnp.sqrt(jnp.mean(run.analysis_scores["spread"][50:] ** 2)))
        np.testing.assert_allclose((error, spread), kalman_rmse(std), rtol=0.05)


class Around(Dynamics):
    """x_i ← .97 x_{i-1} + noise of Q on rings: every variable has the same, known steady state."""

    dt: jax.Array
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, *shape: int):
        self.dt, self.state_shape = jnp.ones(()), shape

    def __call__(self, x, time, key):
        return self.mean_step(x, time) + Q * jax.random.normal(key, x.shape, x.dtype)

    def mean_step(self, x, time):
        return 0.97 * jnp.roll(x, 1, -1)

    @property
    def coordinates(self):
        return Coordinates.grid(self.state_shape[-1:], (float(self.state_shape[-1]),))

    @property
    def spin_up_steps(self):
        return 100

    def initial_state(self, key):
        return jax.random.normal(key, self.state_shape)


@pytest.mark.slow
def test_one_network_for_rings_of_several_sizes_and_channels():
    """Its cycles end near the Kalman filter's on 16 and 24 variables, and on nine channels as on one."""
    forecast = solve_discrete_are(np.eye(1) * 0.97, np.eye(1), np.eye(1) * Q**2, np.eye(1) * R**2)[0, 0]
    best = R * np.sqrt(forecast / (forecast + R**2))
    ring = Architecture(channels=8, multipliers=(1,), blocks=1)

    def course(shape, **options):
        filter = AmortisedMASF(ThreeDVar(4.0), architecture=ring, climatology=400, **options)
        return Course(filter, Around(*shape), SENSOR, dataclasses.replace(PRACTICE, runs=64, cycles=60))

    others = [course((24,)), course((9, 16), each_channel=True)]
    config = FitConfig(3e-3, 0.0, 0.98, steps=300, batch_size=8, validate_every=100, optimiser="muon")
    given = (jax.random.key(1), *course((16,)), config)
    filter, rounds = train_through_cycles(*given, window=6, others=others)
    assert rounds[1].chosen
    unit = Q / np.sqrt(1 - 0.97**2)  # of the climate
    np.testing.assert_allclose(rounds[1].rmse, best / unit, rtol=0.03)
    np.testing.assert_allclose(rounds[1].spread, best / unit, rtol=0.1)
    assert rounds[0].rmse > 1.15 * best / unit
    for each in others:
        own = dataclasses.replace(each.filter, denoiser=filter.denoiser).prepare(each.dynamics, SENSOR)
        twin = simulate(jax.random.key(5), each.dynamics, SENSOR, 400)
        first = jnp.stack([twin.truth[0], twin.truth[0] + 0.1])
        problem = (each.dynamics, SENSOR, twin.observations, first)
        run = assimilate(jax.random.key(6), own, *problem, truth=twin.truth, save=())
        np.testing.assert_allclose(run.analysis_scores["rmse"][50:].mean(), best, rtol=0.08)
    with pytest.raises(ValueError, match=r"one shape for the network: \(0,\) and \(9, 0\)"):
        train_through_cycles(*given, window=6, others=[course((9, 16))])


@pytest.mark.slow
def test_on_a_base_that_runs_the_model_again():
    """Whose analyses have loops of their own, and forecasts of a length that is traced."""
    filter = AmortisedMASF(IEnKF(iterations=3), architecture=SMALL, climatology=400)
    practice = dataclasses.replace(
        PRACTICE, runs=16, cycles=20, burn_in=5, ensemble_sizes=(4,), intervals=(3,)
    )
    config = dataclasses.replace(CONFIG, steps=20, batch_size=4, learning_rate=1e-3, validate_every=20)
    given = (jax.random.key(1), filter, MODEL, SENSOR, practice, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # so few steps need not better anything
        _, rounds = train_through_cycles(*given, window=3)
    history = rounds[0].history
    assert history.skipped == 0
    assert np.isfinite(history.loss).all()
    assert np.isfinite([rounds[1].rmse, rounds[1].spread]).all()


def test_what_it_cannot_be_is_told():
    given = (jax.random.key(0), one_run(), MODEL, SENSOR, PRACTICE, CONFIG)
    with pytest.raises(ValueError, match="at least one cycle; got 0"):
        train_through_cycles(*given, window=0)
    with pytest.raises(ValueError, match="score must be one of gaussian, crps, energy; got 'mean'"):
        train_through_cycles(*given, score="mean")
    with pytest.raises(ValueError, match="score='energy' is one of members, and ThreeDVar has none"):
        train_through_cycles(*given, score="energy")
    of_members, no_members = AmortisedMASF(ETKF()), Course(*given[1:5])
    with pytest.raises(ValueError, match="score='crps' is one of members, and ThreeDVar has none"):
        train_through_cycles(given[0], of_members, *given[2:], score="crps", others=[no_members])
    with pytest.raises(ValueError, match="n_steps must be 1"):
        AmortisedMASF(ThreeDVar(), n_steps=2)
    with pytest.raises(TypeError, match="must be an ensemble filter"):
        Gate(AmortisedMASF(ThreeDVar()), EnKF())
    with pytest.raises(ValueError, match="equally weighted members, or be a ThreeDVar"):
        AmortisedMASF(ParticleFilter(), climatology=100).init(jax.random.key(0), jnp.zeros((4, 2)))


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    from masf_jax.training import trees

    class Killed(BaseException):
        pass

    class KilledWhileKeeping(trees.Kept):
        def write(self, tree, about, last=False):
            super().write(tree, about, last=True)
            raise Killed

    given = (jax.random.key(1), one_run(), MODEL, SENSOR, PRACTICE, CONFIG)
    monkeypatch.setattr("masf_jax.masf.amortised.through_cycles.Kept", KilledWhileKeeping)
    with pytest.raises(Killed):
        train_through_cycles(*given, window=6, kept=tmp_path / "kept")
    monkeypatch.undo()
    filter, _ = train_through_cycles(*given, window=6, kept=tmp_path / "kept")
    whole, again = (jax.tree.leaves(each.denoiser.params) for each in (trained[0], filter))
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert eqx.tree_equal(trained[0].calibration, filter.calibration)
