"""Training on simulated cycles: the pairs are those of real runs, and what is learnt helps."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, simulate
from masf_jax.amortised import Practice, Round, practise, train_on_policy
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Lorenz63, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import LETKF, EnSRF
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.masf.amortised.practice import Simulated
from masf_jax.masf.amortised.training import Course, _collect
from masf_jax.measurements import Gaussian, Identity, Laplace, Measurement
from masf_jax.training import FitConfig
from masf_jax.training.trees import Kept

MODEL = Lorenz63()
MEASUREMENT = Measurement(Identity(), Gaussian(2**0.5))
PRACTICE = Practice(runs=32, cycles=60, burn_in=10, intervals=(25,), ensemble_sizes=(10,))


def fresh(inflation=1.1, **arguments):
    filter = AmortisedMASF(
        EnSRF(Inflation(inflation), rotation=True),
        architecture=Architecture(width=32, depth=1),
        climatology=200,
        **arguments,
    )
    return filter.prepare(MODEL, MEASUREMENT)


@pytest.fixture(scope="module")
def simulated():
    return jax.device_get(
        eqx.filter_jit(practise)(jax.random.key(1), fresh(), MODEL, MEASUREMENT, PRACTICE, 25, 10)
    )


@pytest.mark.slow
def test_simulated_cycles_are_those_of_a_run(simulated):
    """Error and spread of a fresh filter's cycles agree with `assimilate` of its base filter."""

    def run(key):
        keys = jax.random.split(key, 3)
        start = MODEL.sample_climatology(keys[0])
        twin = simulate(keys[0], MODEL, MEASUREMENT, 60, 25, x0=start)
        ensemble = start[None] + jax.random.normal(keys[1], (10, 3))
        base = EnSRF(Inflation(1.1), rotation=True)
        result = assimilate(keys[2], base, MODEL, MEASUREMENT, twin.observations, ensemble, truth=twin.truth)
        return result.analysis_scores["rmse"], result.analysis_scores["spread"]

    rmse, spread = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), 32))
    for ours, theirs in ((simulated.rmse, rmse), (simulated.spread, spread)):
        ours, theirs = (np.asarray(part)[:, 10:].mean(1) for part in (ours, theirs))
        error = np.hypot(ours.std(), theirs.std()) / np.sqrt(32)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
    normal = np.sqrt((simulated.truth[:, 10:] ** 2).mean((2,))) * np.sqrt(3)
    assert 0.5 < np.median(normal) < 2.5  # truths in units of the analysis spread


@pytest.mark.slow
def test_what_is_learnt_helps():
    config = FitConfig(steps=500, batch_size=128, learning_rate=3e-3, ema_decay=0.99)
    told = []
    practice = dataclasses.replace(PRACTICE, runs=96)
    filter, rounds = train_on_policy(
        jax.random.key(3), fresh(), MODEL, MEASUREMENT, practice, config, rounds=2, factors=(0.9, 1.0),
        report=lambda number, found: told.append(number),
    )  # fmt: skip
    assert told == [0, 1, 2]
    assert rounds[-1].rmse < 0.93 * rounds[0].rmse
    assert float(filter.calibration) in (pytest.approx(0.9), pytest.approx(1.0))
    for found in rounds[:-1]:
        losses = np.asarray(found.history.validation_loss)
        assert np.nanmin(losses) < losses[0]


class Killed(BaseException):
    """Nothing in the library catches this."""


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """In each round's fit, and between rounds; the state is written after each validation here."""
    config = FitConfig(steps=12, batch_size=32, validate_every=4)
    practice = dataclasses.replace(PRACTICE, runs=16, cycles=15)

    def train(kept=None):
        return train_on_policy(
            jax.random.key(3), fresh(), MODEL, MEASUREMENT, practice, config, rounds=2, factors=(1.0,),
            kept=kept,
        )  # fmt: skip

    (whole, rounds), write, count = train(), Kept.write, 0

    def often(self, *arguments, **named):
        nonlocal count
        self.seconds, count = 0.0, count + 1
        write(self, *arguments, **named)
        if count in (2, 5, 7):
            raise Killed

    monkeypatch.setattr(Kept, "write", often)
    ended = 0
    while True:
        try:
            filter, again = train(tmp_path)
            break
        except Killed:
            ended += 1
    assert (ended, count) == (3, 8)  # no round of a fit was made twice
    for a, b in zip(jax.tree.leaves((whole, rounds)), jax.tree.leaves((filter, again)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_training_that_does_harm_is_not_kept(capsys):
    practice = dataclasses.replace(PRACTICE, runs=16, cycles=20)
    config = FitConfig(steps=5, batch_size=8, learning_rate=100.0, validation_fraction=0.0, clip=None)
    start = fresh(calibration=3.0)
    told = r"no round was better than the base filter \(RMSE (\S+); after the last round (\S+), on the same"
    with pytest.warns(UserWarning, match=told) as said:
        filter, rounds = train_on_policy(
            jax.random.key(3), start, MODEL, MEASUREMENT, practice, config, rounds=1, factors=(8.0,),
            progress=True,
        )  # fmt: skip
    assert "Round 0: 16 runs are simulated, after 1 compilation." in capsys.readouterr().out
    assert rounds[-1].rmse > rounds[0].rmse
    base, last = next(found.groups() for each in said if (found := re.search(told, str(each.message))))
    assert float(base) < float(last)
    assert rounds[0].chosen
    assert "best_round" not in str(rounds)
    assert float(filter.calibration) == 1.0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(filter.denoiser.params))


def test_rounds_are_printed_in_short():
    assert str(Round(0.123456, 0.2, 0, None, True)) == "Round(rmse=0.1235, spread=0.2, chosen)"


@pytest.mark.slow
def test_runs_have_their_own_noise_and_gaps():
    practice = Practice(
        runs=4,
        cycles=3,
        burn_in=0,
        intervals=(25,),
        ensemble_sizes=(10,),
        noise=(0.1, 10.0),
        density=(0.2, 0.9),
    )
    made = eqx.filter_jit(practise)(jax.random.key(5), fresh(), MODEL, MEASUREMENT, practice, 25, 10)
    sensitivity = np.asarray(made.features)[:, :, 21:24]  # asinh of b Jᵀ1: zero where nothing is measured
    missing = sensitivity == 0
    assert missing.any()
    assert not missing.all()
    np.testing.assert_array_equal(missing, np.broadcast_to(missing[:, :1], missing.shape))
    other = Measurement(Identity(), Laplace(1.0))
    with pytest.raises(ValueError, match="scales Gaussian noise only"):
        practise(jax.random.key(5), fresh(), MODEL, other, practice, 25, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runs": 1}, "at least 2 runs"),
        ({"burn_in": 200}, "burn_in"),
        ({"noise": (0.0, 1.0)}, "lowest"),
        ({"intervals": (1, 0)}, r"intervals of at least 1, one or more of them; got \(1, 0\)"),
        ({"intervals": ()}, "intervals of at least 1"),
        ({"ensemble_sizes": ()}, "ensemble_sizes of at least 1"),
        ({"spread": -1.0}, "must not be negative; got -1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        Practice(**arguments)


def test_one_member_is_for_a_base_without_an_ensemble():
    practice = dataclasses.replace(PRACTICE, ensemble_sizes=(1,))
    with pytest.raises(ValueError, match="EnSRF has no spread with 1"):
        train_on_policy(jax.random.key(3), fresh(), MODEL, MEASUREMENT, practice, FitConfig(steps=1))


def test_a_climate_of_another_size_is_refused():
    ready = fresh().prepare(MODEL, MEASUREMENT)
    with pytest.raises(ValueError, match=r"climate is of states of shape .* give load_amortised the model"):
        ready.prepare(Lorenz96(11), MEASUREMENT)


def test_a_filter_that_diverges_everywhere_is_an_error():
    practice = dataclasses.replace(PRACTICE, runs=2, cycles=4, burn_in=1)
    with pytest.raises(ValueError, match="diverged in every run"):
        train_on_policy(
            jax.random.key(3),
            fresh(inflation=1e30),
            MODEL,
            MEASUREMENT,
            practice,
            FitConfig(steps=1),
            rounds=1,
        )


def test_a_network_that_sees_members_is_trained_through_cycles():
    moving = AmortisedMASF(EnSRF(), architecture=Architecture(8, 1, member_width=4), climatology=20)
    with pytest.raises(ValueError, match=r"trained through cycles.*window=8"):
        train_on_policy(jax.random.key(3), moving, MODEL, MEASUREMENT, PRACTICE, FitConfig(steps=1))


def test_a_run_that_blew_up_teaches_nothing_and_counts_as_lost():
    """Two runs, 10⁹ off from their third cycle on; the first is held back for validation."""
    off = np.ones((2, 5), np.float32)
    off[:, 2:] = 1e9
    truth, features = np.zeros((2, 5, 4), np.float32), np.broadcast_to(off[..., None], (2, 5, 3))
    filter = AmortisedMASF(LETKF(4.0), climate=Moments(jnp.zeros(4), jnp.full(4, 9.0)))
    course = Course(filter, Lorenz96(4), MEASUREMENT, Practice(runs=2, cycles=5, burn_in=0))
    made = Simulated(*map(jnp.asarray, (truth, features, off, off)))
    pairs, _, rmse, spread = _collect(lambda *_: made, jax.random.key(0), filter, [course])
    assert len(pairs[1]) == 2
    assert pairs[1].max() == 1
    np.testing.assert_allclose((rmse, spread), (2 * 1 + 3 * 6) / 5, rtol=1e-6)


@pytest.mark.slow
def test_every_second_run_has_ensembles_of_another_width():
    """A fresh filter is its base: the spread of a run is that of its analysis times the run's own factor."""
    wide = dataclasses.replace(PRACTICE, runs=6, cycles=4, burn_in=0, widths=(3.0, 3.0))
    found, as_it_is = (
        jax.device_get(eqx.filter_jit(practise)(jax.random.key(1), fresh(), MODEL, MEASUREMENT, each, 25, 10))
        for each in (wide, dataclasses.replace(wide, widths=None))
    )
    ratio = found.spread[:, 0] / as_it_is.spread[:, 0]
    np.testing.assert_allclose(ratio, [1, 3, 1, 3, 1, 3], rtol=1e-4)
    with pytest.raises(ValueError, match="widths must be"):
        Practice(widths=(0.0, 1.0))
