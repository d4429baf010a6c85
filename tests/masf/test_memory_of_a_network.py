"""A network that gives itself something for the next cycle."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import RunState, assimilate, begin
from masf_jax.amortised import Practice, load_amortised, save_amortised, train_on_policy, train_through_cycles
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Function, ModelError
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import ETKF, AdaptiveNoise, AmortisedMASF, Gate, ThreeDVar
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations
from masf_jax.training import FitConfig

KEY = jax.random.key(3)
SENSOR = Measurement(Identity(), Gaussian(0.5))


def model(*shape):
    return Function(lambda x: 0.9 * x, shape, 0.1, climatology=lambda key: jax.random.normal(key, shape))


def noisy(filter):
    rng = np.random.default_rng(0)

    def change(p):
        return jnp.asarray(p + 0.3 * rng.normal(size=p.shape).astype(p.dtype))

    return eqx.tree_at(lambda f: f.denoiser.params, filter, jax.tree.map(change, filter.denoiser.params))


def remembering(base, shape, architecture, **options):
    """Fresh, and with some parameters."""
    filter = AmortisedMASF(base, architecture=architecture, climatology=32, **options)
    fresh = filter.prepare(model(*shape), SENSOR)
    return fresh, noisy(fresh)


def values(shape, cycles):
    return np.random.default_rng(1).normal(size=(cycles, *shape)).astype("f4")


SMALL = Architecture(8, 1, memory=3)
BASES = {"members": ETKF(), "one run": ThreeDVar(0.1)}


@pytest.mark.quick_cases("one run")
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_it_sees_in_the_next_cycle_what_it_gave(base, tmp_path):
    """Cycles one by one, through a file, are those of one call; without what was remembered they are not."""
    fresh, filter = remembering(base, (4,), SMALL)
    members = jax.random.normal(KEY, (5, 4))
    z = values((4,), 4)

    def run(filter, z, start):
        given = (filter, model(4), SENSOR, Observations(z, 1), None)
        return assimilate(None, *given, start=start)

    first = begin(KEY, filter, model(4), SENSOR, members)
    assert first.state.memory.network.shape == (3,)
    assert not np.any(first.state.memory.network)
    whole, now, emptied = run(filter, z, first), first, first
    for k in range(4):
        one = run(filter, z[k : k + 1], now)
        one.end.save(tmp_path / "now.safetensors")
        now = RunState.load(tmp_path / "now.safetensors", first)
        np.testing.assert_array_equal(one.analysis["mean"][0], whole.analysis["mean"][k])
        alone = run(filter, z[k : k + 1], emptied)
        end = alone.end
        state = dataclasses.replace(
            end.state, memory=end.state.memory._replace(network=first.state.memory.network)
        )
        emptied = dataclasses.replace(end, state=state)
        same = np.array_equal(alone.analysis["mean"][0], whole.analysis["mean"][k])
        assert same == (k == 0)
    assert 0 < np.abs(now.state.memory.network).max() <= 1
    theirs = assimilate(KEY, base, model(4), SENSOR, Observations(z, 1), members)
    begun = run(fresh, z, begin(KEY, fresh, model(4), SENSOR, members))
    np.testing.assert_allclose(begun.analysis["mean"], theirs.analysis["mean"], atol=1e-4)


@pytest.mark.quick_cases("*options1")
@pytest.mark.parametrize(
    ("shape", "options"),
    [((16,), {}), ((2, 16), {"each_channel": True}), ((2, 16), {}), ((8, 8), {}), ((32,), {"coarsening": 2})],
)
def test_on_rings_and_fields_it_turns_with_them(shape, options):
    architecture = Architecture(channels=4, multipliers=(1,), memory=2, member_width=4)
    _, filter = remembering(ETKF(), shape, architecture, **options)
    filter = eqx.tree_at(lambda f: f.climate, filter, Moments(jnp.zeros(shape), jnp.ones(shape)))
    members, z = jax.random.normal(KEY, (5, *shape)), values(shape, 2)

    @eqx.filter_jit
    def run(filter, members, z):
        state = filter.init(KEY, members)
        for one in z:
            state, _ = filter.update(KEY, state, one, jnp.ones(shape, bool), SENSOR)
        return state

    straight, turned = (run(filter, *(jnp.roll(x, k, -1) for x in (members, z))) for k in (0, 6))
    np.testing.assert_allclose(turned.ensemble, jnp.roll(straight.ensemble, 6, -1), atol=3e-3)
    blocks = options.get("coarsening", 1)
    kept = straight.memory.network
    np.testing.assert_allclose(turned.memory.network, jnp.roll(kept, 6 // blocks, -1), atol=3e-3)
    of_each = shape[:1] if options.get("each_channel") else ()
    grid = shape if shape[0] > 2 else shape[1:]
    assert kept.shape == (*of_each, 2, *grid[:-1], grid[-1] // blocks)


def test_a_file_keeps_it_and_a_state_without_it_begins_empty(tmp_path):
    _, filter = remembering(ETKF(), (4,), SMALL)
    read = load_amortised(save_amortised(tmp_path / "one", filter), ETKF())
    members = jax.random.normal(KEY, (5, 4))
    state = filter.init(KEY, members)
    own = dataclasses.replace(state, memory=None)
    given = jnp.asarray(values((4,), 1)[0]), SENSOR
    with jax.numpy_dtype_promotion("standard"):
        ours, _ = read.analysis(KEY, state, *given)
        theirs, _ = filter.analysis(KEY, filter.take(state, jnp.arange(5)), *given)
    np.testing.assert_array_equal(ours.ensemble, theirs.ensemble)
    np.testing.assert_array_equal(ours.memory.network, theirs.memory.network)
    assert filter.completed(own).memory.network.shape == (3,)


@pytest.mark.parametrize("around", [lambda f: Gate(f, ETKF()), AdaptiveNoise], ids=["gate", "noise"])
def test_filters_around_it_keep_it(around):
    _, filter = remembering(ETKF(), (4,), SMALL)
    members = jax.random.normal(KEY, (5, 4))
    run = assimilate(KEY, around(filter), model(4), SENSOR, Observations(values((4,), 3), 1), members)
    assert np.isfinite(run.analysis["mean"]).all()
    (kept,) = [leaf for leaf in jax.tree.leaves(run.end.state) if leaf.shape == (3,)]
    assert np.abs(kept).max() > 0


def test_only_the_amortised_filter_has_one_and_it_is_trained_through_cycles():
    with pytest.raises(ValueError, match=r"memory \(3\) is of AmortisedMASF alone"):
        SMALL.create(KEY, (4,))
    filter = AmortisedMASF(ETKF(), architecture=SMALL, climatology=32)
    with pytest.raises(ValueError, match=r"has a memory is trained through cycles.*window=8"):
        train_on_policy(KEY, filter, model(4), SENSOR, Practice(), FitConfig(steps=1))


class Gusts(ModelError):
    """Model error in every second step only."""

    def __call__(self, x, time, key):
        gust = jnp.where(jnp.round(time) % 2 == 0, self.std, 0.0).astype(x.dtype)
        return self.mean_step(x, time) + gust * jax.random.normal(key, x.shape, x.dtype)


@pytest.mark.slow
def test_it_finds_the_kalman_filter_where_errors_have_a_period():
    """Neither 3D-Var nor the state says when the last gust was; the innovations before do."""
    factor, noise, std = 0.95, 1.0, 0.5
    linear = Function(
        lambda x: factor * x, (2,), 1.0, climatology=lambda key: 2.3 * jax.random.normal(key, (2,))
    )
    given = Gusts(linear, noise), Measurement(Identity(), Gaussian(std))
    variance, deviations = 1.0, []
    for k in range(200):
        variance = factor**2 * variance + (noise**2 if k % 2 == 0 else 0.0)
        variance = variance * std**2 / (variance + std**2)
        deviations.append(np.sqrt(variance))
    best = np.mean(deviations[-2:]) * np.sqrt(np.pi) / 2  # E √((e₁² + e₂²)/2) of two normal errors
    practice = Practice(runs=256, cycles=120, burn_in=40, spread=0.2, ensemble_sizes=(2,))
    config = FitConfig(
        steps=1500, batch_size=32, learning_rate=1e-2, weight_decay=0.0, ema_decay=0.98, validate_every=100
    )
    behind = {}
    for memory in (0, 4):
        architecture = Architecture(16, 1, memory=memory)
        start = AmortisedMASF(ThreeDVar(0.1), architecture=architecture, climatology=400)
        _, rounds = train_through_cycles(jax.random.key(1), start, *given, practice, config, window=8)
        behind[memory] = rounds[1].rmse / best - 1
    assert behind[4] < 0.02
    assert behind[0] > behind[4] + 0.03
