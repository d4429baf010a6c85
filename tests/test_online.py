"""Cycles one call at a time are those of one call, bit for bit; a run goes on in another process."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import RunState, assimilate, begin, filters
from masf_jax.arrays import model_step
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Climatology, Function, Lorenz63, advance, rollout
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters.rivals.score_network import ScoreNetwork
from masf_jax.filters.rivals.ssls import LangevinSampler
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset
from masf_jax.training import CheckpointError, FitConfig

KEY = jax.random.key(4)
MODEL = Function(lambda x, t: 0.97 * x + 0.2 * (1 + jnp.sin(t / 3)), (4,))  # its time must go on
SENSOR = Measurement(Subset([0, 1, 2]), Gaussian(0.5))
VALUES = np.random.default_rng(0).normal(size=(6, 3)).astype("f4")
MEMBERS = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)
NETWORK = ScoreNetwork(
    training=FitConfig(steps=2, validation_fraction=0.0), restart=False, architecture=Architecture(8, 1)
)
FILTERS = {
    "an inflation": filters.ETKF(Inflation(adaptive=True), rotation=True),
    "a window": filters.IEnKF(),
    "weights": filters.ParticleFilter(),
    "the last analysis": filters.EnFF(n_steps=5, path="f2p"),
    "moments": filters.KalmanFilter(),
    "a network": filters.SSLS(network=NETWORK, sampler=LangevinSampler(n_steps=2)),
}


def numbers(tree):
    keys = (jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(tree))
    leaves = zip(jax.tree.leaves(tree), keys, strict=True)
    return [np.asarray(jax.random.key_data(leaf) if is_key else leaf) for leaf, is_key in leaves]


def run(filter, first, last, start=None, key=KEY, steps=2):
    z = Observations(VALUES[first:last], steps)
    return assimilate(key, filter, MODEL, SENSOR, z, MEMBERS if start is None else None, start=start)


@pytest.mark.quick_cases("weights")
@pytest.mark.parametrize("remembering", often(FILTERS, [name for name in FILTERS if name != "a network"]))
def test_cycles_one_by_one_are_those_of_one_call(remembering, tmp_path):
    """Through a file after each cycle; what a filter remembers goes on too."""
    filter = FILTERS[remembering]
    whole = run(filter, 0, 6)
    now, analyses, steps = begin(KEY, filter, MODEL, SENSOR, MEMBERS), [], []
    for k in range(6):
        one = run(filter, k, k + 1, now, key=None)
        one.end.save(tmp_path / "now.safetensors")
        now = RunState.load(tmp_path / "now.safetensors", begin(KEY, filter, MODEL, SENSOR, MEMBERS))
        analyses.append(one.analysis)
        steps += one.steps.tolist()
    assert steps == whole.steps.tolist() == [2, 4, 6, 8, 10, 12]
    for name, array in whole.analysis.items():
        np.testing.assert_array_equal(np.concatenate([each[name] for each in analyses]), array)
    for a, b in zip(numbers(now), numbers(whole.end), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (int(now.step), int(now.cycle)) == (12, 6)


@pytest.mark.slow
def test_step_numbers_are_those_of_the_whole_run():
    filter, steps = FILTERS["an inflation"], np.array([1, 2, 4, 4, 7, 9])
    whole = run(filter, 0, 6, steps=steps)
    first = run(filter, 0, 2, steps=steps[:2])
    rest = run(filter, 2, 6, first.end, key=None, steps=steps[2:])
    np.testing.assert_array_equal(rest.analysis["mean"], np.asarray(whole.analysis["mean"])[2:])
    with pytest.raises(ValueError, match="the run has done 2 steps, and the first observation is of step 1"):
        run(filter, 0, 2, first.end, steps=steps[:2])


def test_one_program_serves_every_call():
    filter = FILTERS["an inflation"]
    from masf_jax.scan import _scan

    now = run(filter, 0, 1).end
    before = _scan._cached._cache_size()
    for k in range(1, 4):
        now = run(filter, k, k + 1, now).end
    assert _scan._cached._cache_size() == before


def test_what_does_not_fit_is_refused(tmp_path):
    filter, path = FILTERS["an inflation"], tmp_path / "now.safetensors"
    end = run(filter, 0, 1).end
    with pytest.raises(ValueError, match="give either the first ensemble, or start"):
        assimilate(KEY, filter, MODEL, SENSOR, Observations(VALUES, 1))
    with pytest.raises(ValueError, match="a run needs a random key"):
        assimilate(None, filter, MODEL, SENSOR, Observations(VALUES, 1), MEMBERS)
    with pytest.raises(ValueError, match="those of Lorenz63 have"):
        assimilate(None, filter, Lorenz63(), SENSOR, Observations(VALUES, 1), start=end)
    end.save(path)
    with pytest.raises(CheckpointError, match=r"of another filter, model, ensemble or precision: it has"):
        RunState.load(path, begin(KEY, filter, MODEL, SENSOR, MEMBERS[:3]))
    with pytest.raises(CheckpointError, match=r"of another filter"):
        RunState.load(path, begin(KEY, filters.IEnKF(), MODEL, SENSOR, MEMBERS))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        RunState.load(path, end)


OTHERS = {
    "members for moments": ("moments", "an inflation", "it has members, and KalmanFilter a mean and a"),
    "moments for members": ("an inflation", "moments", "it has a mean and a covariance, and ETKF members"),
    "weights": ("an inflation", "weights", "its members have weights"),
    "no weights": ("weights", "an inflation", "its members have no weights"),
    "no window": ("a window", "an inflation", "what it remembers is not what IEnKF does, with its settings"),
    "a window": ("the last analysis", "a window", "what it remembers is not what EnFF does"),
}


@pytest.mark.quick_cases("moments for members", "a window", "weights")
@pytest.mark.parametrize("case", OTHERS)
def test_the_state_of_another_filter_is_refused_with_the_way_on(case):
    """It ended in tracebacks of what each filter makes of another's memory, or ran with what was lost."""
    name, other, difference = OTHERS[case]
    end = run(FILTERS[other], 0, 2).end
    with pytest.raises(ValueError, match=rf"start holds the state of another filter: {difference}.*step=run"):
        run(FILTERS[name], 2, 6, end)


@pytest.mark.parametrize("step", [1.5, -3, True, np.arange(2), 2**31])
def test_a_step_that_is_none_is_refused(step):
    """1.5 was taken for 1."""
    with pytest.raises(ValueError, match="step must be"):
        model_step(step)
    assert model_step(np.int64(3)).dtype == jnp.int32
    for ahead in (
        lambda: begin(KEY, FILTERS["an inflation"], MODEL, SENSOR, MEMBERS, step=-3),
        lambda: advance(MODEL, MEMBERS, -3, KEY, 2),
        lambda: rollout(MODEL, MEMBERS[0], KEY, 2, step=-3),
    ):
        with pytest.raises(ValueError, match="step must be 0 to"):
            ahead()


def test_another_filter_begins_from_the_members_at_their_step():
    """The model's time goes on: the driver's cycles are those of a loop by hand."""
    first, filter = run(FILTERS["an inflation"], 0, 3), filters.ETKF()
    now = begin(KEY, filter, MODEL, SENSOR, first.members, step=first.end.step)
    rest = run(filter, 3, 6, now, key=None)
    state = now.state
    for k in range(3):
        key_forecast, key_analysis = jax.random.split(jax.random.fold_in(KEY, k))
        state = filter.forecast(key_forecast, state, MODEL, jnp.asarray(6 + 2 * k), 2)
        state, _ = filter.analysis(key_analysis, state, jnp.asarray(VALUES[3 + k]), SENSOR)
    np.testing.assert_allclose(rest.members, state.ensemble, rtol=1e-4, atol=1e-5)
    assert rest.steps.tolist() == [8, 10, 12]


REMEMBERS = {"climate": Moments(jnp.zeros(4), jnp.ones(4)), "architecture": Architecture(8, 1, memory=3)}
AROUND = {
    "a network's memory": filters.AmortisedMASF(filters.ETKF(), **REMEMBERS),
    "a network's memory, one run": filters.AmortisedMASF(
        filters.ThreeDVar(moments=Climatology(jnp.zeros(4), jnp.eye(4))), **REMEMBERS
    ),
    "the noise's size": filters.AdaptiveNoise(filters.ETKF(), start=1e6),
}


@pytest.mark.slow_cases("a network's memory")
@pytest.mark.parametrize("name", AROUND)
def test_a_filter_around_another_goes_on_from_that_ones_run(name):
    """A network of zeros, and a noise that is known for long, leave the filter within as it is."""
    filter = AROUND[name]
    end = run(filter.inner, 0, 3).end
    np.testing.assert_allclose(
        run(filter, 3, 6, end).analysis["mean"], run(filter.inner, 3, 6, end).analysis["mean"], rtol=1e-4
    )


class OnTheHost(filters.ETKF):
    """A filter of the user's own that begins with NumPy."""

    def init(self, key, ensemble):
        return super().init(key, jnp.asarray(np.clip(np.asarray(ensemble), -1e3, 1e3)))


def test_a_filter_that_begins_on_the_host_goes_on():
    end = run(OnTheHost(), 0, 3).end
    whole, rest = run(OnTheHost(), 0, 6), run(OnTheHost(), 3, 6, end)
    np.testing.assert_array_equal(rest.analysis["mean"], np.asarray(whole.analysis["mean"])[3:])


@pytest.mark.slow
def test_the_example_follows_a_growing_file(tmp_path):
    """docs/online.md: two processes after each other, with lines added between them, are one run."""
    script = os.path.join(os.path.dirname(__file__), "..", "docs", "examples", "online.py")
    lines = [f"{value:.3f}" for value in VALUES[:, 0]]
    for name, parts in (("whole", [6]), ("parts", [3, 6])):
        for n in parts:
            (tmp_path / f"{name}.txt").write_text("\n".join(lines[:n]) + "\n")
            command = [sys.executable, script, f"{name}.txt", f"{name}.safetensors", f"{name}.out", "once"]
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "parts.out").read_text() == (tmp_path / "whole.out").read_text()
    assert len((tmp_path / "whole.out").read_text().splitlines()) == 6
