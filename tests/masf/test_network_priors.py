"""Networks in the filter's cycle: pretrained, fine-tuned within the one compiled program, or both."""

from __future__ import annotations

from dataclasses import replace

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Linear, Lorenz96, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters.rivals.score_network import ScoreNetwork
from masf_jax.masf import MASF, Bridge, GaussianPrior, Guided, HybridPrior, MeasurementAware, NetworkPrior
from masf_jax.masf.priors.network import Architecture
from masf_jax.measurements import Gaussian, Identity, Linear as LinearOperator, Measurement, Observations
from masf_jax.training import FitConfig

N = 6
RING = Lorenz96(N)
WHOLE = Measurement(Identity(), Gaussian(0.8))
DENSE = Measurement(LinearOperator(np.random.default_rng(1).normal(size=(4, N))), Gaussian(0.8))
MEMBERS = np.random.default_rng(0).normal(2.0, 1.5, size=(5, N))
SHORT = FitConfig(steps=2, batch_size=4, validation_fraction=0.0)
NET = Architecture(width=8, depth=1)
SPREAD = Architecture(width=8, depth=1, variance_head=True)


def run(filter, seed=0, n_cycles=3, model=RING):
    values = np.random.default_rng(seed).normal(2.0, 3.0, size=(n_cycles, N))
    ensemble = jnp.asarray(MEMBERS, dtype=float)
    return assimilate(jax.random.key(seed), filter, model, WHOLE, Observations(values, 1), ensemble)


class Counted(GaussianPrior):
    """A Gaussian prior that counts how often it is traced."""

    def denoiser(self, ensemble, process):
        TRACES.append(1)
        return super().denoiser(ensemble, process)


TRACES: list[int] = []


@pytest.mark.slow
def test_a_run_with_training_in_it_is_one_program_traced_once():
    hybrid = HybridPrior(gaussian=Counted(members="fresh"), training=SHORT, architecture=NET)
    prepared = MASF(hybrid).prepare(RING, WHOLE)

    def filter(factor):
        return eqx.tree_at(lambda f: f.inflation, prepared, Inflation(multiplicative=factor))

    TRACES.clear()
    short = run(filter(1.1), n_cycles=2)
    per_run = len(TRACES)
    assert per_run > 0
    assert (np.asarray(short.info["training_steps"]) == 2).all()
    assert short.final.memory[1][1] is None, "every cycle starts anew"
    TRACES.clear()
    run(filter(1.1), n_cycles=7)
    assert len(TRACES) == per_run, "traces do not grow with the number of cycles"
    TRACES.clear()
    one, two = run(filter(1.1), seed=1, n_cycles=7), run(filter(1.3), seed=2, n_cycles=7)
    assert not TRACES, "another seed, other observations, another inflation: the same program"
    chex.assert_tree_all_finite((one.analysis, two.analysis))


@pytest.mark.slow
def test_training_can_go_on_where_the_last_cycle_left_it():
    training = FitConfig(batch_size=2, validation_fraction=0.2)
    prior = NetworkPrior(training=training, epochs=3, restart=False, architecture=SPREAD)
    filter = MASF(prior, sampler=Bridge(2)).prepare(RING, WHOLE)
    assert isinstance(filter.prior, NetworkPrior)
    assert filter.prior.denoiser is not None
    result = run(filter, n_cycles=2)
    assert (np.asarray(result.info["training_steps"]) == 3 * 2).all(), "four of five members, in pairs"
    moved = jax.tree.map(
        lambda a, b: jnp.abs(a - b).max(), result.final.memory[1][1], filter.prior.denoiser.params
    )
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
def test_training_makes_the_network_fit_the_forecast(key):
    shifted = 0.3 * jax.random.normal(key, (200, N)) + jnp.asarray([[1.0, -1.0] * 3])
    normalization = Normalization(affine=False)  # leaves the network the mean to learn

    training = FitConfig(steps=200, learning_rate=jnp.asarray(2e-2))
    prior = NetworkPrior(training=training, architecture=SPREAD, weighted=False)
    learning = MASF(prior, sampler=Bridge(3), normalization=normalization).prepare(RING, VAGUE)
    stuck = eqx.tree_at(lambda f: f.prior.training.learning_rate, learning, jnp.asarray(1e-9))

    @eqx.filter_jit
    def analysis(filter):
        return filter.analysis(key, filter.init(key, shifted), jnp.zeros(N), VAGUE)

    def error(filter):
        after, info = analysis(filter)
        chex.assert_tree_all_finite((after.ensemble, info))
        return float(jnp.abs(after.mean - shifted.mean(0)).mean())

    assert error(learning) < 0.3 * error(stuck)


VAGUE = Measurement(Identity(), Gaussian(30.0))
CLIMATE = ModelError(Linear(0.6 * np.eye(N)), 0.8)  # long run: N(0, 1)
PRETRAINED = FitConfig(steps=150, learning_rate=1e-2, batch_size=16)


@pytest.mark.slow
def test_pretraining_on_the_climatology():
    prior = NetworkPrior(
        pretraining=PRETRAINED,
        architecture=Architecture(width=16, depth=1, preconditioning="x0"),
        weighted=False,
    )
    filter = MASF(prior, climatology=400)
    prepared = filter.prepare(CLIMATE, WHOLE)
    assert isinstance(prepared.prior, NetworkPrior)
    history = prepared.prior.history
    assert history is not None
    losses = np.asarray(history.validation_loss)
    assert losses[0] == pytest.approx(1.0, abs=0.4), (
        "a fresh network knows the mean of normalised states only"
    )
    assert losses[history.best_round] < 0.7 * losses[0]
    again = prepared.prepare(CLIMATE, WHOLE)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(prepared), strict=True):
        assert one is other, "pretrained once"


@pytest.mark.slow
def test_a_network_pretrained_and_fine_tuned_in_the_papers_filter(x64):
    prior = NetworkPrior(
        pretraining=FitConfig(steps=3, batch_size=8),
        training=SHORT,
        architecture=Architecture(width=8, depth=1, noise_map=False, preconditioning="x0"),
        weighted=False,
    )
    units = Normalization("fixed")
    filter = MASF(prior, MeasurementAware(), Guided(5), normalization=units, climatology=20)
    result = run(filter, model=Lorenz96(N))
    assert result.analysis["mean"].dtype == jnp.float64
    chex.assert_tree_all_finite((result.analysis, result.info))


REFUSED = {
    "a dense H": (lambda: NetworkPrior(training=SHORT), DENSE, "a network alone works on the state's own"),
    "nothing learned": (NetworkPrior, WHOLE, "a fresh network knows nothing"),
    "a hybrid with two spreads": (
        lambda: HybridPrior(training=SHORT, architecture=SPREAD),
        WHOLE,
        "no variance_head",
    ),
    "a hybrid that learns nothing": (HybridPrior, WHOLE, "a fresh network knows nothing"),
    "no epochs": (lambda: NetworkPrior(training=SHORT, epochs=0), WHOLE, "epochs must be at least 1"),
    "climatology in the forecast's units": (
        lambda: NetworkPrior(pretraining=SHORT),
        WHOLE,
        'it needs the normalisation "fixed"',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, measurement, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        MASF(make(), normalization=Normalization("cycle")).prepare(RING, measurement)


def test_what_comes_before_prepare_says_so(key):
    prior = NetworkPrior(pretraining=SHORT)
    with pytest.raises(ValueError, match="call the filter's own prepare"):
        prior.prepare(RING, WHOLE)
    filter = MASF(NetworkPrior(training=SHORT))
    state = filter.init(key, jnp.asarray(MEMBERS, dtype=float))
    with pytest.raises(ValueError, match="the network is not there yet"):
        filter.analysis(key, state, jnp.zeros(N), WHOLE)


class NinePlaces(Lorenz96):
    """Nine variables at each of 16 places of a ring."""

    def __init__(self):
        super().__init__(16)
        self.state_shape = (9, 16)

    @property
    def coordinates(self):
        return Coordinates.grid((16,), (16.0,))


@pytest.mark.parametrize("of", ["network", "hybrid", "score"])
def test_nine_variables_at_each_place_are_no_field(of):
    model, net = NinePlaces(), Architecture(channels=8, multipliers=(1,))
    made = {
        "network": lambda: NetworkPrior(
            training=SHORT, architecture=replace(net, variance_head=True)
        ).prepare(model, WHOLE),
        "hybrid": lambda: HybridPrior(training=SHORT, architecture=net).prepare(model, WHOLE),
        "score": lambda: ScoreNetwork(architecture=net).prepare(model),
    }[of]()
    assert (made.denoiser.layout, made.denoiser.net.out_channels) == ("ring", 9)
