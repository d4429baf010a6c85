"""The driver: chunks, times, compilations, what is saved, members that blow up."""

import dataclasses
import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import FilterDivergedWarning, assimilate, simulate
from masf_jax.dynamics import Climatology as Moments, Function, Linear, ModelError, advance
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, LETKF, EnKF, KalmanFilter, ParticleFilter, ThreeDVar
from masf_jax.filters.faults import FaultPolicy
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset

N, STATE, CYCLES = 5, 6, 10
MODEL = np.eye(STATE) * 0.9 + np.eye(STATE, k=1) * 0.2


def setup(noise=0.3):
    """A small stochastic linear problem, its twin and first ensemble, in the precision of the moment."""
    return _setup(noise, jax.config.jax_enable_x64)


@functools.cache
def _setup(noise, x64):
    dynamics = ModelError(Linear(MODEL), noise) if noise else Linear(MODEL)
    measurement = Measurement(Subset([0, 2, 3]), Gaussian(0.5))
    twin = simulate(jax.random.key(1), dynamics, measurement, CYCLES, 2, x0=jnp.ones(STATE))
    return dynamics, measurement, twin, jax.random.normal(jax.random.key(2), (N, STATE))


def is_key(x):
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def same(a, b):
    a, b = (jax.tree.leaves(eqx.filter(tree, eqx.is_array_like)) for tree in (a, b))
    a, b = ([jax.random.key_data(x) if is_key(x) else x for x in leaves] for leaves in (a, b))
    return len(a) == len(b) and all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "filter",
    [
        ETKF(Inflation(adaptive=True), rotation=True),
        pytest.param(ParticleFilter(), marks=pytest.mark.slow),
    ],
    ids=["etkf", "particle"],
)
def test_chunks_change_no_bit(filter, key):
    """Chunks that fit (5), that need padding (4), larger than the run; with and without progress."""
    dynamics, measurement, twin, ensemble = setup()
    problem = (key, filter, dynamics, measurement, twin.observations, ensemble)
    options = {"truth": twin.truth, "save": ("spread", "ensemble"), "scores": ("rmse",)}
    whole = assimilate(*problem, **options)
    assert np.isfinite(np.asarray(whole.analysis_scores["rmse"])).all()
    for chunk in (4, 5, 100) if isinstance(filter, ETKF) else (4,):
        assert same(whole, assimilate(*problem, **options, chunk=chunk)), chunk
    assert same(whole, assimilate(*problem, **options, progress=True, chunk=5))


def test_every_cycle_and_member_draws_its_own_noise(key):
    """A standing model, useless measurements, additive inflation: no increment occurs twice."""
    dynamics = Linear(np.eye(STATE))
    measurement = Measurement(Identity(), Gaussian(1e9))
    observations = Observations(np.zeros((CYCLES, STATE)), 1)
    filter = ETKF(Inflation(additive=1.0))

    def increments(key):
        problem = (dynamics, measurement, observations, jnp.zeros((N, STATE)))
        out = assimilate(key, filter, *problem, save=("ensemble",), scores=())
        return np.asarray(out.analysis["ensemble"]) - np.asarray(out.forecast["ensemble"])

    draws = np.round([increments(key), increments(jax.random.key(0))], 4).ravel()
    assert np.unique(draws).size > 0.95 * draws.size  # chance takes 1 %; a repeated key, more than half


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_vmapped_seeds_equal_single_runs():
    """Over keys, first ensembles and observations at once."""
    dynamics, measurement, twin, _ = setup(noise=0.0)

    def run(seed):
        key_ensemble, key_z, key = jax.random.split(jax.random.key(seed), 3)
        z = twin.observations.values + jax.random.normal(key_z, (CYCLES, 3))
        ensemble = jax.random.normal(key_ensemble, (N, STATE))
        problem = (key, EnKF(), dynamics, measurement, Observations(z, 2), ensemble)
        out = assimilate(*problem, truth=twin.truth, scores=("rmse",))
        return out.analysis_scores["rmse"], out.final.ensemble

    seeds = jnp.arange(3)
    batch, single = jax.jit(jax.vmap(run))(seeds), jax.jit(run)
    for i in range(3):
        for one, many in zip(single(seeds[i]), batch, strict=True):
            np.testing.assert_allclose(many[i], one, rtol=1e-10)
    assert np.unique(np.asarray(batch[0][:, -1])).size == 3


@pytest.mark.quick_cases("float32")
def test_types_follow_the_ensemble(dtype, key):
    dynamics, measurement, twin, ensemble = setup()
    out = assimilate(key, ETKF(), dynamics, measurement, twin.observations, ensemble, truth=twin.truth)
    floats = [x for x in jax.tree.leaves(out) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert len(floats) > 8
    assert {x.dtype.name for x in floats} == {dtype}


@pytest.mark.slow
def test_a_single_precision_ensemble_stays_so(key):
    """In double precision too, whatever the types of truth and observations."""
    dynamics, measurement, twin, ensemble = setup()
    out = assimilate(key, ETKF(), dynamics, measurement, twin.observations, ensemble, truth=twin.truth)
    with jax.enable_x64(True):
        single = assimilate(
            key,
            ETKF(),
            dynamics,
            measurement,
            Observations(np.asarray(twin.observations.values, np.float64), 2),
            jnp.asarray(np.asarray(ensemble, np.float32)),
            truth=np.asarray(twin.truth, np.float64),
        )
    assert single.final.ensemble.dtype == np.float32
    np.testing.assert_allclose(single.analysis["mean"], out.analysis["mean"], atol=1e-4)
    np.testing.assert_allclose(single.analysis_scores["crps"], out.analysis_scores["crps"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_irregular_times_equal_regular_ones_with_masked_cycles(key):
    """Observations at steps 2, 6, 8 = every 2 steps with the second masked (no randomness in this run)."""
    dynamics, measurement, _, ensemble = setup(noise=0.0)
    z = np.random.default_rng(0).normal(size=(4, 3))
    regular = Observations(z, 2, mask=[True, False, True, True])
    irregular = Observations(z[[0, 2, 3]], [2, 6, 8])
    a = assimilate(key, ETKF(), dynamics, measurement, regular, ensemble, scores=())
    b = assimilate(key, ETKF(), dynamics, measurement, irregular, ensemble, scores=())
    np.testing.assert_allclose(a.final.ensemble, b.final.ensemble, rtol=1e-12)
    np.testing.assert_allclose(a.analysis["mean"][np.asarray([0, 2, 3])], b.analysis["mean"], rtol=1e-12)
    np.testing.assert_array_equal(a.analysis["mean"][1], a.forecast["mean"][1])
    np.testing.assert_array_equal(b.steps, [2, 6, 8])
    # an observation at step 0, and two at the same time, need no model step
    now = assimilate(key, ETKF(), dynamics, measurement, Observations(z[:2], [0, 0]), ensemble, scores=())
    np.testing.assert_allclose(now.forecast["mean"][0], ensemble.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(now.forecast["mean"][1], now.analysis["mean"][0])


@pytest.mark.slow
def test_model_time_is_the_step_times_dt(key):
    """x' = time: after each cycle's last step the members hold the time that step started at."""
    model = Function(lambda x, time: jnp.zeros_like(x) + time, (2,), dt=0.25)
    measurement = Measurement(Identity(), Gaussian(1e6))
    for steps in (3, [3, 6, 9]):
        observations = Observations(np.zeros((3, 2)), steps)
        out = assimilate(key, KalmanFilter(), model, measurement, observations, jnp.zeros((3, 2)), scores=())
        np.testing.assert_allclose(out.forecast["mean"][:, 0], [0.5, 1.25, 2.0], rtol=1e-5)
    moved = assimilate(key, ETKF(), model, measurement, observations, jnp.zeros((3, 2)), scores=())
    np.testing.assert_allclose(moved.forecast["mean"][:, 0], [0.5, 1.25, 2.0], rtol=1e-5)


class Counter:
    """A model that counts how often it is traced."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, time):
        self.count += 1
        return 0.9 * x


def test_one_compilation_a_run_and_none_for_new_numbers(key):
    """Inflation value, seed, values, mask and truth change without a trace; chunks share one."""
    counter = Counter()
    dynamics = Function(counter, (STATE,))
    z = np.random.default_rng(3).normal(size=(CYCLES, STATE))
    x = jax.random.normal(key, (N, STATE))

    def run(seed=0, inflation=1.1, std=0.5, mask=None, scale=1.0, **options):
        before = counter.count
        assimilate(
            jax.random.key(seed),
            ETKF(Inflation(multiplicative=inflation)),
            dynamics,
            Measurement(Identity(), Gaussian(std)),
            Observations(scale * z, 2, mask=mask),
            scale * x,
            truth=jnp.asarray(scale * z, jnp.float32),
            **options,
        )
        return counter.count - before

    traces = run()
    assert 1 <= traces <= 3  # the body of one scan; JAX may trace a loop's body more than once
    changes = (
        {"seed": 1},
        {"inflation": 1.3},
        {"std": 0.1},
        {"mask": np.arange(CYCLES) % 2 == 0},
        {"scale": 2.0},
    )
    for change in changes:
        assert run(**change) == 0, change
    assert run(chunk=5) <= traces  # two equal chunks: one program
    assert run(chunk=5, seed=3) == 0
    assert 1 <= run(chunk=4) <= 3 * traces  # padding: one more program, its shapes evaluated too
    assert run(chunk=4, inflation=1.2) == 0


def test_save_policies(key):
    dynamics, measurement, twin, ensemble = setup()
    problem = (key, ETKF(), dynamics, measurement, twin.observations, ensemble)
    nothing = assimilate(*problem, save=(), scores=())
    assert nothing.forecast == nothing.analysis == nothing.forecast_scores == {}
    # what is left does not grow with members × cycles × state
    assert nothing.given.observation is twin.observations.values  # what it was given is not copied
    left = dataclasses.replace(nothing, given=None)
    assert sum(x.size for x in jax.tree.leaves(left)) <= N * STATE + 9 * CYCLES
    everything = assimilate(*problem, save=("ensemble", "mean", "spread"), scores=())
    members = np.asarray(everything.analysis["ensemble"])
    assert members.shape == (CYCLES, N, STATE)
    np.testing.assert_allclose(everything.analysis["mean"], members.mean(1), atol=1e-5)
    np.testing.assert_allclose(everything.analysis["spread"], members.std(1, ddof=1), atol=1e-5)
    np.testing.assert_array_equal(members[-1], everything.final.ensemble)
    np.testing.assert_array_equal(nothing.members, members[-1])
    oracle = assimilate(key, KalmanFilter(), *problem[2:], save=("ensemble", "mean"), scores=())
    assert set(oracle.analysis) == {"mean"}  # a Gaussian state has no members
    with pytest.raises(ValueError, match=r"run\.final\.mean and run\.final\.covariance"):
        _ = oracle.members


def test_members_of_unequal_weights_are_not_given_as_equals(key):
    dynamics, measurement, twin, ensemble = setup()
    problem = (dynamics, measurement, twin.observations, ensemble)
    run = assimilate(key, ParticleFilter(), *problem, save=(), scores=())
    resampled = eqx.tree_at(lambda run: run.end.state.log_weights, run, jnp.full(N, -np.log(N)))
    np.testing.assert_array_equal(resampled.members, run.final.ensemble)
    unequal = eqx.tree_at(lambda run: run.end.state.log_weights, run, jnp.linspace(-5.0, -1.0, N))
    with pytest.raises(ValueError, match=r"unequal weights(.|\n)*run\.final\.log_weights"):
        _ = unequal.members


@pytest.mark.slow
def test_a_forecast_from_where_a_run_ended(key):
    """At the times that follow: steps 3, 4, 5 and 6 of x ← x + time."""
    model, measurement = Function(lambda x, time: x + time, (2,)), Measurement(Identity(), Gaussian(0.5))
    ensemble = jax.random.normal(key, (N, 2))
    run = assimilate(key, ETKF(), model, measurement, np.ones((3, 2)), ensemble)
    later = advance(model, run.members, run.end.step, key, 4)
    np.testing.assert_allclose(later, run.members + 18.0, rtol=1e-5)


@pytest.mark.slow
def test_scores_against_saved_fields(key):
    dynamics, measurement, twin, ensemble = setup()
    out = assimilate(
        key,
        ETKF(),
        dynamics,
        measurement,
        twin.observations,
        ensemble,
        truth=twin.truth,
        scores=("rmse", "spread"),
        extra_scores={"bias": lambda state, truth, where: (state.mean - truth).mean()},
    )
    for stage, scores in ((out.forecast, out.forecast_scores), (out.analysis, out.analysis_scores)):
        error = np.asarray(stage["mean"]) - np.asarray(twin.truth)
        np.testing.assert_allclose(scores["rmse"], np.sqrt((error**2).mean(1)), rtol=1e-5)
        np.testing.assert_allclose(
            scores["rmse_observed"], np.sqrt((error[:, [0, 2, 3]] ** 2).mean(1)), rtol=1e-5
        )
        np.testing.assert_allclose(scores["bias"], error.mean(1), atol=1e-6)
        spread = np.sqrt((np.asarray(stage["spread"]) ** 2)[:, [1, 4, 5]].mean(1))
        np.testing.assert_allclose(scores["spread_unobserved"], spread, rtol=1e-5)


def exploding(threshold):
    """Members beyond the threshold blow up in the next step."""
    return Function(lambda x, time: jnp.where(jnp.abs(x) > threshold, jnp.inf, x), (2,))


def test_members_that_blow_up_are_replaced_and_counted(key):
    ensemble = jnp.asarray([[0.0, 0.1], [0.2, -0.3], [9.0, 0.0], [0.5, 0.4], [0.0, -9.0]])
    measurement = Measurement(Identity(), Gaussian(1.0))
    observations = Observations(np.zeros((3, 2)), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = assimilate(
            key, ETKF(), exploding(5.0), measurement, observations, ensemble, save=("ensemble",), scores=()
        )
    np.testing.assert_array_equal(out.repaired, [2, 0, 0])
    assert not np.asarray(out.diverged).any()
    forecast = np.asarray(out.forecast["ensemble"])[0]
    healthy = np.asarray(ensemble)[[0, 1, 3]]
    np.testing.assert_array_equal(forecast[[0, 1, 3]], healthy)
    for i in (2, 4):  # copies of survivors
        assert (forecast[i] == healthy).all(1).any()
    assert np.isfinite(np.asarray(out.final.ensemble)).all()


@pytest.mark.parametrize("chunk", [None, 2])
def test_divergence_warns_and_leaves_nan(chunk, key):
    ensemble = jnp.asarray([[0.0, 0.1], [9.0, 0.0], [0.0, -9.0]])
    measurement = Measurement(Identity(), Gaussian(1.0))
    observations = Observations(np.zeros((4, 2)), [0, 1, 2, 3])
    with pytest.warns(
        FilterDivergedWarning, match="fewer than two finite members after the forecast of cycle"
    ):
        out = assimilate(
            key,
            ETKF(Inflation(multiplicative=30.0)),
            exploding(5.0),
            measurement,
            observations,
            ensemble,
            scores=("rmse",),
            truth=np.zeros((4, 2)),
            chunk=chunk,
        )
    first = int(np.argmax(out.diverged))
    assert first >= 1
    assert np.isfinite(np.asarray(out.analysis["mean"])[:first]).all()
    assert np.isnan(np.asarray(out.analysis["mean"])[first:]).any(1).all()
    assert np.isnan(np.asarray(out.analysis_scores["rmse"])[first:]).all()


def test_a_diverged_oracle_warns_too(key):
    measurement = Measurement(Identity(), Gaussian(1.0))
    model = Function(lambda x, time: 1e30 * x * jnp.abs(x), (2,))
    with pytest.warns(FilterDivergedWarning):
        assimilate(
            key,
            KalmanFilter(),
            model,
            measurement,
            Observations(np.ones((5, 2)), 1),
            jnp.ones((3, 2)),
            scores=(),
        )


@pytest.mark.slow
def test_timing_is_reported_on_request(key):
    dynamics, measurement, twin, ensemble = setup()
    problem = (key, ETKF(), dynamics, measurement, twin.observations, ensemble)
    for chunk in (None, 4):
        plain = assimilate(*problem, scores=(), chunk=chunk)
        timed = assimilate(*problem, scores=(), chunk=chunk, timed=True)
        assert plain.seconds_compile is None
        assert timed.seconds_compile > 0
        assert timed.seconds_assimilate > 0
        assert same(plain.analysis, timed.analysis)


@pytest.mark.slow
def test_a_filter_may_be_an_argument_of_jit(key):
    """The whole run jitted by the user, numbers of filter and noise traced."""
    dynamics, measurement, twin, ensemble = setup()

    @eqx.filter_jit
    def run(filter, measurement, ensemble):
        return assimilate(key, filter, dynamics, measurement, twin.observations, ensemble, scores=())

    moments = Moments(jnp.zeros(STATE), jnp.eye(STATE))
    for filter in (ThreeDVar(moments=moments), LETKF(np.inf, Inflation(rtps=0.5))):
        inside = run(filter, measurement, ensemble)
        outside = assimilate(key, filter, dynamics, measurement, twin.observations, ensemble, scores=())
        np.testing.assert_allclose(inside.analysis["mean"], outside.analysis["mean"], rtol=1e-4, atol=1e-5)


KEYS: list[tuple[int, ...]] = []


def noted(key):
    jax.debug.callback(lambda data: KEYS.append(tuple(data.tolist())), jax.random.key_data(key))


class NotedFilter(ETKF):
    """Notes the keys that it is given."""

    def forecast(self, key, *rest):
        noted(key)
        return super().forecast(key, *rest)

    def analysis(self, key, *rest):
        noted(key)
        return super().analysis(key, *rest)


class NotedPolicy(FaultPolicy):
    def after_forecast(self, key, *rest):
        noted(key)
        return super().after_forecast(key, *rest)

    def after_analysis(self, key, *rest):
        noted(key)
        return super().after_analysis(key, *rest)


def test_no_two_stages_or_cycles_share_a_key(key):
    dynamics, measurement = Linear(np.eye(STATE)), Measurement(Identity(), Gaussian(1.0))
    observations, ensemble = Observations(np.zeros((2, STATE)), 1), jnp.asarray(np.eye(N, STATE))
    KEYS.clear()
    problem = (NotedFilter(), dynamics, measurement, observations, ensemble)
    jax.block_until_ready(assimilate(key, *problem, policy=NotedPolicy(), scores=()))
    jax.effects_barrier()
    assert len(KEYS) == len(set(KEYS)) == 2 * 4
