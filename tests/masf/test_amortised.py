"""The amortised filter: its base filter where the network is zero, and the process it draws with."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, simulate
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Function, Lorenz63, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import ETKF, LETKF, IEnKF, ParticleFilter
from masf_jax.masf.amortised.features import analysis_features, member_features
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.measurements import Gaussian, Identity, Measurement, Pointwise, arctan

MLP = Architecture(width=8, depth=1)
RING = Architecture(channels=4, multipliers=(1,))


@functools.cache
def l63(moving=False, **arguments):
    measurement = Measurement(Identity(), Gaussian(2**0.5))
    architecture = dataclasses.replace(MLP, member_width=8 if moving else 0)
    filter = AmortisedMASF(
        ETKF(Inflation(1.05), rotation=True), architecture=architecture, climatology=64, **arguments
    )
    return Lorenz63(), measurement, filter.prepare(Lorenz63(), measurement)


@eqx.filter_jit
def forecast(key, dynamics, n=20):
    key_x, key_e = jax.random.split(key)
    x = dynamics.sample_climatology(key_x)
    return x[None] + jax.random.normal(key_e, (n, *dynamics.state_shape))


def cycle(filter, measurement, ensemble, key):
    """One update with a value .5 from the first member's."""
    return _cycle(filter, filter.init(key, ensemble), measurement, ensemble, key)


@eqx.filter_jit
def _cycle(filter, state, measurement, ensemble, key):
    z = measurement.operator(ensemble[0]) + 0.5
    return filter.update(key, state, z, jnp.ones(z.shape, bool), measurement)


@eqx.filter_jit
def drawn_by(filter, measurement, ensemble, key):
    """Context, members and mean factor of one analysis."""
    mask = jnp.ones(ensemble.shape[1:], bool)
    context, _ = filter.context(key, filter.init(key, ensemble), ensemble[0], mask, measurement)
    after, factor = filter.sample(key, context)
    return context, after.ensemble, factor


def test_a_fresh_network_leaves_the_base_filter_as_it_is(key):
    dynamics = Lorenz96(n=16)
    measurement = Measurement(arctan(), Gaussian(0.5))
    base = LETKF(3.0, Inflation(1.1), rotation=True)
    filter = AmortisedMASF(base, architecture=RING, climatology=32).prepare(dynamics, measurement)
    ensemble = forecast(key, dynamics)
    key_base, _ = jax.random.split(key)
    ours, info = cycle(filter, measurement, ensemble, key)
    theirs, _ = cycle(base.prepare(dynamics, measurement), measurement, ensemble, key_base)
    np.testing.assert_allclose(ours.ensemble, theirs.ensemble, atol=2e-5)
    assert float(info["spread_factor"]) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_base_that_needs_the_model_and_its_window(key):
    """The iterative filter keeps the start of the window: a run with a network of zeros is its run."""
    dynamics, measurement = Lorenz63(), Measurement(Identity(), Gaussian(2**0.5))
    base = IEnKF(Inflation(1.05), iterations=2)
    filter = AmortisedMASF(base, architecture=MLP, climatology=64)
    start = eqx.filter_jit(dynamics.sample_climatology)(key)
    twin = simulate(key, dynamics, measurement, 4, 20, x0=start)
    ensemble = forecast(key, dynamics)
    ours, theirs = (
        assimilate(key, each, dynamics, measurement, twin.observations, ensemble, scores=())
        for each in (filter, base)
    )
    np.testing.assert_allclose(ours.analysis["mean"], theirs.analysis["mean"], atol=2e-3)
    assert np.abs(ours.forecast["mean"][1:] - ours.analysis["mean"][1:]).min() > 2e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("members", "n_steps"), [("transported", 1), pytest.param("fresh", 3, marks=pytest.mark.slow)]
)
def test_a_fresh_network_draws_the_base_filters_gaussian(members, n_steps, key):
    dynamics, measurement, filter = l63(members=members, n_steps=n_steps, centred=False)
    ensemble = forecast(key, dynamics, 1000)
    context, drawn, factor = drawn_by(filter, measurement, ensemble, key)
    drawn = np.asarray(drawn)
    np.testing.assert_allclose(drawn.mean(0), context.analysis.mean, atol=0.1)
    np.testing.assert_allclose(drawn.std(0) / context.analysis.spread, 1.0, rtol=0.05)
    assert float(factor) == pytest.approx(1.0)


@pytest.mark.slow
def test_members_keep_their_deviations_and_the_calibration_scales_them(key):
    dynamics, measurement, filter = l63(calibration=1.5)
    ensemble = forecast(key, dynamics)
    context, drawn, _ = drawn_by(filter, measurement, ensemble, key)
    base, drawn = np.asarray(context.base.ensemble), np.asarray(drawn)
    np.testing.assert_allclose(drawn - drawn.mean(0), 1.5 * (base - base.mean(0)), atol=1e-5)


@pytest.mark.slow
def test_several_steps_keep_the_mean_of_the_first(key):
    dynamics, measurement, filter = l63(n_steps=3)
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(
        lambda p: jnp.asarray(p + 0.1 * rng.normal(size=p.shape).astype(p.dtype)), filter.denoiser.params
    )
    filter = eqx.tree_at(lambda f: f.denoiser.params, filter, noisy)
    ensemble = forecast(key, dynamics)
    context, drawn, _ = drawn_by(filter, measurement, ensemble, key)
    moments = eqx.filter_jit(filter.denoiser.with_features(context.features).moments)
    level = jnp.asarray(np.full(3, 0.5 * np.pi), jnp.float32)
    first, again = (np.asarray(moments(jnp.full(3, x), level)[0]) for x in (0.0, 1.0))
    np.testing.assert_allclose(first, again, atol=1e-5)  # at the start the noise says nothing
    wanted = np.asarray(context.analysis.mean) + np.asarray(context.analysis.spread) * first
    np.testing.assert_allclose(np.asarray(drawn).mean(0), wanted, atol=1e-4)
    assert np.abs(first).max() > 0.05


@pytest.mark.parametrize("operator", [Identity(), arctan()])
def test_features_turn_with_the_ring_and_tell_what_was_measured(operator, key):
    dynamics, measurement = Lorenz96(n=12), Measurement(operator, Gaussian(0.7))
    before, after = forecast(key, dynamics), forecast(jax.random.fold_in(key, 1), dynamics)
    told = jax.jit(jax.vmap(measurement.operator))(before)
    z, mask = jnp.asarray(np.asarray(told)[3]), jnp.asarray(np.arange(12) % 3 > 0)
    climate = Moments(jnp.full(12, 2.0), jnp.full(12, 9.0))

    def features(before, after, z, mask):
        return analysis_features(before, after, z, mask, measurement, climate, "ring")

    features = jax.jit(features)
    seen = np.asarray(features(before, after, z, mask))
    turned = features(*(jnp.asarray(np.roll(part, 5, -1)) for part in (before, after, z, mask)))
    np.testing.assert_allclose(np.roll(seen, 5, -1), turned, atol=1e-4)
    assert np.isfinite(seen).all()
    assert not seen[5:8, ::3].any()  # nothing is measured there
    mean, spread = np.asarray(after).mean(0), np.asarray(after).std(0, ddof=1)
    first, wide = np.asarray(before).mean(0), np.asarray(before).std(0, ddof=1)
    by_hand = (mean - first) / wide, np.log(wide / 3), np.log(spread / wide), (mean - 2) / 3
    np.testing.assert_allclose(seen[:4], by_hand, atol=1e-4)
    value_and_slope = jax.jit(jax.vmap(jax.value_and_grad(lambda x: measurement.operator(x[None])[0])))
    value, slope = map(np.asarray, value_and_slope(jnp.asarray(mean)))
    score = slope * (np.asarray(z) - value) / 0.7**2
    measured = np.arange(12) % 3 > 0
    np.testing.assert_allclose(np.sinh(seen[6])[measured], (spread * score)[measured], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_run_is_one_program_and_reports_its_factor(key):
    dynamics, measurement, filter = l63()
    twin = simulate(key, dynamics, measurement, 6, 25)
    ensemble = forecast(jax.random.fold_in(key, 1), dynamics)
    gaps = eqx.tree_at(lambda o: o.mask, twin.observations, twin.observations.mask.at[2].set(False))
    result = assimilate(key, filter, dynamics, measurement, gaps, ensemble, truth=twin.truth)
    assert np.isnan(result.info["spread_factor"][2])
    assert np.isfinite(np.asarray(result.analysis_scores["rmse"])).all()
    np.testing.assert_array_equal(result.forecast["mean"][2], result.analysis["mean"][2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": 0.0}, "calibration must be positive"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"climatology": 1}, "at least 2"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        AmortisedMASF(**arguments)


def test_it_must_be_prepared_and_its_base_have_equal_weights(key):
    measurement = Measurement(Identity(), Gaussian(1.0))
    ensemble = forecast(key, Lorenz63())
    with pytest.raises(ValueError, match=r"filter\.prepare"):
        cycle(AmortisedMASF(ETKF()), measurement, ensemble, key)
    with pytest.raises(ValueError, match="ParticleFilter is neither"):
        AmortisedMASF(ParticleFilter()).init(key, ensemble)


@pytest.mark.slow
def test_features_have_derivatives_where_one_member_has_all_the_weight(key):
    """Then the spread by the likelihood is 0, and its square root has no slope."""
    forecast = 5.0 * jax.random.normal(key, (6, 3))
    sensor = Measurement(Identity(), Gaussian(1e-2))
    climate = Moments(jnp.zeros(3), jnp.ones(3))

    def features(forecast):
        return analysis_features(
            forecast, 0.5 * forecast, forecast[0], jnp.ones(3, bool), sensor, climate, "vector"
        )

    assert np.isfinite(jax.jacrev(features)(forecast)).all()


def noisy(params):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(p + 0.3 * rng.normal(size=p.shape).astype(p.dtype)), params)


def test_a_network_that_sees_members_moves_each_by_its_own_state(key):
    """A fresh one moves none; a trained one each by a function of that member and of the set of all."""
    dynamics, measurement, fresh = l63(moving=True)
    filter = eqx.tree_at(lambda f: f.denoiser.params, fresh, noisy(fresh.denoiser.params))
    ensemble = forecast(key, dynamics)
    context, still, _ = drawn_by(fresh, measurement, ensemble, key)
    np.testing.assert_allclose(still, context.base.ensemble, atol=1e-5)
    context, drawn, factor = drawn_by(filter, measurement, ensemble, key)
    mean, spread, deviations = (np.asarray(each) for each in context.analysis)
    at_start = jnp.zeros(3), jnp.full(3, 0.5 * np.pi)

    def seen(members):
        network = filter.denoiser.with_features(context.features, jnp.asarray(members))
        return [np.asarray(each) for each in (*network.moments(*at_start), network.moves(*at_start))]

    members = np.asarray(context.members)
    centre, deviation, moves = seen(members)
    wanted = mean + spread * (centre[None] + deviation[None] * deviations + moves)
    np.testing.assert_allclose(drawn, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(moves).max() <= 3.0
    straight = np.linalg.lstsq(np.c_[np.ones(20), deviations], moves, rcond=None)[1]
    assert np.any(straight > 1e-3)  # no affine map
    order = np.random.default_rng(1).permutation(20)
    for found, before in zip(seen(members[order]), (centre, deviation, moves[order]), strict=True):
        np.testing.assert_allclose(found, before, atol=1e-4)
    doubled = seen(np.concatenate([members, members]))  # the set counts, not its size
    for found, before in zip(doubled, (centre, deviation, np.concatenate([moves] * 2)), strict=True):
        np.testing.assert_allclose(found, before, atol=1e-4)
    own = np.std(np.asarray(drawn) / spread, 0, ddof=1)
    assert float(factor) == pytest.approx(float(own.mean()), rel=1e-4)


def test_what_is_seen_of_members(key):
    """Of forecast and analysis: deviations of variance 1, log-likelihoods relative to the best."""
    ensemble = forecast(key, Lorenz63())
    sensor = Measurement(Identity(), Gaussian(0.5))
    z, mask = ensemble[3], jnp.array([True, False, True])
    climate = Moments(jnp.zeros(3), jnp.ones(3))
    seen = np.asarray(member_features(ensemble, 0.5 * ensemble, z, mask, sensor, climate, "vector"))
    np.testing.assert_allclose(seen[:, :3].std(0, ddof=1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(seen[:, 4:7], seen[:, :3], rtol=1e-3, atol=1e-3)
    away = np.asarray((ensemble - z[None])[:, [0, 2]])
    log = -0.5 * (away**2).sum(1) / 0.25
    np.testing.assert_allclose(seen[:, 3], log / (1 - log / 20), rtol=1e-4, atol=1e-4)
    assert seen[3, 3] == 0
    impossible = Measurement(Pointwise(lambda x: jnp.where(x < z[0], jnp.inf, x)), Gaussian(0.5))
    seen = np.asarray(member_features(ensemble, ensemble, z, mask, impossible, climate, "vector"))
    assert np.isfinite(seen).all()
    np.testing.assert_allclose(seen[:, 3].min(), -20.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((16,), {}),
        pytest.param((2, 16), {}, marks=pytest.mark.slow),
        pytest.param((2, 16), {"each_channel": True}, marks=pytest.mark.slow),
    ],
)
def test_on_a_ring_moves_turn_with_it_and_are_those_of_each_member(shape, options, key):
    """Of one channel, of two, and of two one by one."""
    architecture = Architecture(channels=4, multipliers=(1,), member_width=4)
    model = Function(lambda x: 0.9 * x, shape, 0.1, climatology=lambda key: jax.random.normal(key, shape))
    sensor = Measurement(Identity(), Gaussian(0.5))
    fresh = AmortisedMASF(ETKF(), architecture=architecture, climatology=32, **options).prepare(model, sensor)
    filter = eqx.tree_at(lambda f: f.denoiser.params, fresh, noisy(fresh.denoiser.params))
    ensemble = jax.random.normal(key, (6, *shape))
    z = jax.random.normal(jax.random.key(3), shape)
    mask = jnp.ones(shape, bool)

    @eqx.filter_jit
    def analysed(filter, ensemble, z):
        return filter.update(key, filter.init(key, ensemble), z, mask, sensor)[0].ensemble

    base, moved = (np.asarray(analysed(each, ensemble, z)) for each in (fresh, filter))
    np.testing.assert_allclose(base, analysed(fresh.base, ensemble, z), atol=1e-4)
    away = moved - base
    assert np.abs(away - away.mean(0)).max() > 0.05
    flat = eqx.tree_at(lambda f: f.climate, filter, Moments(jnp.zeros(shape), jnp.ones(shape)))
    straight, turned = (
        np.asarray(analysed(flat, *(jnp.roll(x, k, -1) for x in (ensemble, z)))) for k in (0, 5)
    )
    np.testing.assert_allclose(turned, np.roll(straight, 5, -1), atol=2e-3)
    order = np.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(analysed(flat, ensemble[order], z), straight[order], atol=2e-3)


def test_a_network_that_sees_members_is_of_the_amortised_filter():
    with pytest.raises(ValueError, match="AmortisedMASF alone"):
        Architecture(member_width=4).create(jax.random.key(0), (3,), members=jnp.zeros((2, 8)))
    with pytest.raises(ValueError, match="sees no members"):
        MLP.create(jax.random.key(0), (3,)).moves(jnp.zeros(3), jnp.zeros(3))
