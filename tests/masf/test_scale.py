"""A network on a model of other waves, or of more variables: at its own scale, channel by channel."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.amortised import Course, Practice, load_amortised, pretrained_file, train_on_policy
from masf_jax.coordinates import Coordinates
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Function, KuramotoSivashinsky, Lorenz96
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import LETKF
from masf_jax.masf.amortised.coarse import block_correlation
from masf_jax.masf.amortised.features import analysis_features
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.masf.amortised.scale import climate_states, matching_coarsening
from masf_jax.measurements import Gaussian, Identity, Measurement
from masf_jax.training import FitConfig


def waves(n, length, rng, count=200):
    """Sums of waves of about `length` points."""
    k = n / length * np.exp(0.2 * rng.normal(size=(count, 5, 1)))
    phase = rng.uniform(0, 2 * np.pi, (count, 5, 1))
    return jnp.asarray(np.cos(2 * np.pi * np.round(k) * np.arange(n) / n + phase).sum(1), jnp.float32)


@pytest.mark.slow
def test_correlation_is_that_of_one_wave():
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (4000, 1))
    x = jnp.asarray(np.cos(2 * np.pi * np.arange(24) / 12 + phase), jnp.float32)
    np.testing.assert_allclose(block_correlation(x, 1, 1), np.cos(2 * np.pi / 12), atol=2e-3)
    np.testing.assert_allclose(block_correlation(x, 2, 1), np.cos(2 * np.pi / 6), atol=2e-3)
    both = jnp.stack([x, 1e3 * jnp.roll(x, 3, -1)], 1)  # of two variables in other units
    np.testing.assert_allclose(block_correlation(both, 2, 1), np.cos(2 * np.pi / 6), atol=2e-3)
    both = jnp.stack([1e3 * x, jnp.zeros_like(x)], 1)
    np.testing.assert_allclose(block_correlation(both, 2, 1), np.cos(2 * np.pi / 6), atol=2e-3)
    field = jnp.broadcast_to(x[:, None, None], (4000, 2, 24, 24))  # of waves along one axis
    np.testing.assert_allclose(block_correlation(field, 2, 2), 0.5 * (1 + np.cos(np.pi / 3)), atol=2e-3)


@pytest.mark.slow
def test_waves_of_twice_as_many_points_take_blocks_twice_as_large():
    rng = np.random.default_rng(1)
    trained = float(block_correlation(waves(64, 6.0, rng), 1, 1))
    for factor in (1, 2, 4):
        states = waves(64 * factor, 6.0 * factor, rng)
        assert matching_coarsening(states, 1, trained) == factor
        assert matching_coarsening(10.0 + 1e3 * states, 1, trained) == factor  # in any units
    assert matching_coarsening(waves(60, 3.0, rng), 1, trained) == 1  # rougher than any of the training
    assert matching_coarsening(jnp.zeros((5, 32)), 1, trained) == 1  # nothing moves: no scale
    assert matching_coarsening(waves(36, 18.0, rng), 1, trained, 4) == 3  # 12 blocks; 2 would make 18


def test_a_file_says_how_its_cells_hang_together_and_a_model_is_seen_so():
    model = KuramotoSivashinsky(64, length=16 * np.pi)
    file = pretrained_file("lorenz96_masks")
    filter = load_amortised(file, LETKF(20.0), dynamics=model)
    assert filter.coarsening == 2
    assert filter.denoiser is not None
    assert filter.denoiser.features is not None
    assert filter.climate is not None
    assert filter.denoiser.features.shape[-1] == 32
    expected = climate_states(model, 1)
    np.testing.assert_allclose(filter.climate.mean, expected.mean(0), atol=1e-6)
    assert load_amortised(file, LETKF(20.0), dynamics=model, coarsening=1).coarsening == 1
    assert load_amortised(file, LETKF(4.0), dynamics=Lorenz96(48, forcing=9.0)).coarsening == 1


def two_rings(n=32):
    """Two rings of Lorenz-96 that know nothing of each other."""
    one = Lorenz96(n)
    return Function(
        lambda x, time: jax.vmap(lambda y: one(y, time, None))(x),
        (2, n),
        dt=0.05,
        climatology=lambda key: 8.0 + jax.random.normal(key, (2, n)),
        coordinates=Coordinates.grid((n,), (float(n),)),
    )


@pytest.mark.slow
def test_features_of_each_channel_are_those_it_has_alone(key):
    forecast, analysis = 3.0 * jax.random.normal(key, (2, 6, 2, 16))
    climate = Moments(
        *(jnp.stack([a * jnp.ones(16), b * jnp.ones(16)]) for a, b in ((1.0, -2.0), (4.0, 9.0)))
    )
    measurement = Measurement(Identity(), Gaussian(1.0))
    z, mask = forecast[0] + 1.0, jnp.arange(32).reshape(2, 16) % 3 > 0
    both = analysis_features(forecast, analysis, z, mask, measurement, climate, "ring", each_channel=True)
    for i in range(2):
        alone = Moments(climate.mean[i], climate.variance[i])
        parts = forecast[:, i], analysis[:, i], z[i], mask[i]
        np.testing.assert_allclose(
            both[i], analysis_features(*parts, measurement, alone, "ring"), rtol=1e-5, atol=1e-6
        )


def test_a_network_of_one_variable_analyses_two_as_each_alone(key):
    """With a base that looks at one variable at a time, the filter on both is the filter on each."""
    measurement = Measurement(Identity(), Gaussian(1.0))
    base, file = LETKF(4.0), pretrained_file("lorenz96_masks")
    climate = Moments(jnp.full(32, 2.3), jnp.full(32, 13.0))
    alone = load_amortised(file, base, state_shape=(32,), climate=climate)
    pair = load_amortised(
        file, base, state_shape=(2, 32), climate=Moments(*(jnp.stack([x, x]) for x in climate))
    )
    assert pair.each_channel
    assert pair.denoiser is not None
    assert alone.denoiser is not None
    features_of = eqx.filter_jit(AmortisedMASF.features)
    moments_of = eqx.filter_jit(lambda network, x, angle: network.moments(x, angle))
    blocks, one, z = 2.0 * jax.random.normal(key, (2, 2, 10, 32)), measurement, jnp.zeros(32)
    contexts = [features_of(alone, blocks[0][i], blocks[1][i], z, jnp.ones(32, bool), one) for i in range(2)]
    forecast, analysis = (jnp.moveaxis(x, 0, 1) for x in blocks)
    features = features_of(pair, forecast, analysis, jnp.zeros((2, 32)), jnp.ones((2, 32), bool), one)
    np.testing.assert_allclose(features, jnp.stack(contexts), rtol=1e-5, atol=1e-5)
    angle = jnp.full((2, 32), 0.5 * np.pi)
    found = moments_of(pair.denoiser.with_features(features), jnp.zeros((2, 32)), angle)
    for i in range(2):
        expected = moments_of(alone.denoiser.with_features(contexts[i]), jnp.zeros(32), angle[i])
        for of_pair, of_one in zip(found, expected, strict=True):
            assert of_pair is not None
            assert of_one is not None
            np.testing.assert_allclose(of_pair[i], of_one, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_network_for_each_channel_learns(key):
    """A fresh one, in blocks of two cells; and models that do not go together are refused."""
    network = Architecture(channels=4, multipliers=(1,), layout="ring")
    one = AmortisedMASF(LETKF(4.0), architecture=network, climatology=16)
    two = AmortisedMASF(LETKF(4.0), architecture=network, climatology=16, coarsening=2, each_channel=True)
    practice = Practice(runs=2, cycles=6, burn_in=2, ensemble_sizes=(5,), spread=0.5)
    sensor = Measurement(Identity(), Gaussian(1.0))
    config = FitConfig(learning_rate=1e-3, steps=2, batch_size=2)
    alone = Course(two, two_rings(32), sensor, practice)
    filter, rounds = train_on_policy(key, *alone, config, rounds=1, factors=(1.0,))
    assert filter.each_channel
    assert np.isfinite(rounds[-1].rmse)
    with pytest.raises(ValueError, match="must be of one shape"):
        train_on_policy(
            key,
            one,
            Lorenz96(32),
            sensor,
            practice,
            config,
            rounds=1,
            others=[Course(one, Lorenz96(30), sensor, practice)],
        )


@pytest.mark.slow
def test_two_rings_are_filtered(key):
    from masf_jax import assimilate, simulate

    model, measurement = two_rings(), Measurement(Identity(), Gaussian(1.0))
    filter = load_amortised(pretrained_file("lorenz96_masks"), LETKF(4.0), dynamics=model)
    twin = simulate(jax.random.key(5), model, measurement, 60, 2)
    members = twin.truth[:1] + jax.random.normal(key, (20, 2, 32))
    run = assimilate(key, filter, model, measurement, twin.observations, members, truth=twin.truth)
    assert float(run.analysis_scores["rmse"][20:].mean()) < 0.8
