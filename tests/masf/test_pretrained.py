"""The trained filters in the package are what was trained: pretrained.csv is of their first, older files.

Its `arrays` is the digest of weights, normaliser, features and history, bit for bit; its means and
deviations are predictions, which another processor or compiler may round otherwise.
"""

import csv
import runpy
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import assimilate, simulate
from masf_jax.amortised import (
    load_amortised,
    pretrained_file,
    pretrained_names,
    save_amortised,
)
from masf_jax.coordinates import Coordinates
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Function, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.filters import ETKF, LETKF
from masf_jax.masf import AmortisedMASF
from masf_jax.measurements import Gaussian, Identity, Measurement, Subset
from masf_jax.nn import MLP
from masf_jax.training import CheckpointError, fingerprint, inspect, load

with Path(__file__).with_name("pretrained.csv").open(newline="") as file:
    TRAINED = {row["name"]: row for row in csv.DictReader(file)}


ROOT = Path(__file__).parents[2]


def test_all_are_there():
    assert pretrained_names() == sorted(TRAINED)


def test_together_they_are_small():
    """Of the package; the features of a field, which each cycle replaces, are in no file."""
    files = [pretrained_file(name) for name in pretrained_names()]
    assert sum(file.stat().st_size for file in files) < 15e6
    flows = load(pretrained_file("flows")).denoiser.features
    assert flows is not None
    assert flows.shape[1:] == (64, 64)
    assert not np.any(flows)


def test_their_cards_are_what_the_files_say():
    cards = runpy.run_path(str(ROOT / "benchmarks" / "suite" / "model_cards.py"))
    assert cards["page"]() == (ROOT / "docs" / "networks.md").read_text(), "run the script"


@pytest.mark.parametrize("name", TRAINED)
def test_weights_are_those_of_the_training(name):
    stored = load(pretrained_file(name))
    denoiser, history = stored.denoiser, stored.history
    assert history is not None
    arrays = {"params": denoiser.params, "normaliser": stored.normaliser}
    arrays |= {"features": {"values": denoiser.features}, "history": dict(vars(history))}
    assert fingerprint(jax.tree.map(np.asarray, arrays))["data"] == TRAINED[name]["arrays"]


@pytest.mark.quick_cases("lorenz63_sakov2012")
@pytest.mark.parametrize("name", often(TRAINED, ("lorenz63_sakov2012", "lorenz96_one_run", "rings", "flows")))
def test_predictions_are_those_of_the_training(name):
    """Often a vector's that sees members, two rings' and a field's."""
    stored = load(pretrained_file(name))
    denoiser = stored.denoiser
    assert denoiser.features is not None
    rng = np.random.default_rng(17)
    x, angle = rng.normal(size=stored.state_shape), rng.uniform(0, np.pi / 2, stored.state_shape)
    features, members = rng.normal(size=denoiser.features.shape), None
    if denoiser.has_members:
        seen = denoiser.params["params"]["member_first"]["kernel"].shape[0]
        members = jnp.asarray(rng.normal(size=(5, seen)), jnp.float32)
    x, angle, features = (jnp.asarray(array, jnp.float32) for array in (x, angle, features))
    network = denoiser.with_features(features, members)
    predicted = eqx.filter_jit(lambda network: network.moments(x, angle))(network)
    for kind, found in zip(("mean", "deviation"), predicted, strict=True):
        some = np.linspace(0, x.size - 1, 8).astype(int)
        expected = [float(TRAINED[name][f"{kind}_{i}"]) for i in range(8)]
        np.testing.assert_allclose(np.ravel(found)[some], expected, rtol=2e-5, atol=2e-5)


def test_what_a_file_is_older_than_has_its_default():
    """A file of before an argument existed is that of a network without it."""
    path = pretrained_file("lorenz63_rounds")
    assert "member_width" not in inspect(path)["net"]
    net = MLP(3, 96, 3, second_head=3)
    assert load(path, net=net).denoiser.net == net


def test_nine_variables_at_each_place_of_a_ring():
    """Are seen one by one; nine rows of a grid are none of a network on rings."""
    ring, grid = (Coordinates.grid(points, tuple(map(float, points))) for points in ((16,), (9, 16)))
    fresh = Architecture()
    assert [fresh.at(each, (9, 16)).form((9, 16)) for each in (ring, grid)] == [
        ("ring", 1, 9),
        ("field", 2, 1),
    ]
    rings, base = pretrained_file("rings"), LETKF(3.0)
    made = load_amortised(rings, base, state_shape=(9, 16), climate=None, coordinates=ring)
    assert made.each_channel
    assert made.denoiser.features.shape[0] == 9
    with pytest.raises(CheckpointError, match=r"cannot run on states of shape \(9, 16\)"):
        load_amortised(rings, base, state_shape=(9, 16), climate=None, coordinates=grid)


@pytest.mark.parametrize(
    ("name", "shape"), [("rings", (3,)), ("flows", (3,)), ("flows", (40,)), ("lorenz63_rounds", (40,))]
)
def test_a_few_variables_are_no_ring(name, shape):
    with pytest.raises(CheckpointError, match=r"on states of shape \(\d+,\) \(layout (vector|ring)\)"):
        load_amortised(pretrained_file(name), LETKF(3.0), state_shape=shape, climate=None)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "ahead"), [(40, 0.96), (41, 0.96), (15, 1.0)])
def test_a_ring_of_any_size_is_one(n, ahead):
    """Half observed, as the network has seen, and on rings that cannot be halved as on one that can."""
    model = Lorenz96(n=n)
    sensor, key = Measurement(Subset(range(0, n, 2)), Gaussian(1.0)), jax.random.key(n)
    start = model.initial_state(jax.random.key(5))
    members = start[None] + jax.random.normal(key, (20, n))
    truth, observations = simulate(jax.random.key(1), model, sensor, 300, 2, start)
    base, scores = LETKF(5.0, Inflation(multiplicative=1.06), rotation=True), []
    network = load_amortised(pretrained_file("rings_four"), base, dynamics=model)
    for filter in (base, network):
        run = assimilate(jax.random.key(2), filter, model, sensor, observations, members, truth=truth)
        scores.append(float(run.analysis_scores["rmse"][50:].mean()))
    assert scores[1] < ahead * scores[0]


@pytest.mark.slow
def test_a_field_of_any_size_is_one(key):
    shape = (2, 30, 27)
    model = Function(lambda x: 0.9 * x, shape, 0.1, climatology=lambda key: jax.random.normal(key, shape))
    sensor = Measurement(Identity(), Gaussian(0.5))
    filter = load_amortised(pretrained_file("flows"), ETKF(), dynamics=model).prepare(model, sensor)
    ensemble, z = jax.random.normal(key, (6, *shape)), jax.random.normal(jax.random.key(3), shape)
    state = filter.update(key, filter.init(key, ensemble), z, jnp.ones(shape, bool), sensor)[0]
    assert np.isfinite(np.asarray(state.ensemble)).all()


@pytest.mark.quick_cases("9-4")
@pytest.mark.parametrize("member_width", [0, 4])
@pytest.mark.parametrize("channels", [2, 9])
def test_a_network_that_sees_channels_one_by_one_is_read_as_it_was_written(
    channels, member_width, key, tmp_path
):
    """At home; and it runs on more places, on other numbers of channels, and on one alone."""
    file, net = tmp_path / "one.safetensors", Architecture(channels=4, multipliers=(1,), layout="ring")
    net = replace(net, member_width=member_width)
    sensor = Measurement(Identity(), Gaussian(0.5))

    def model(*shape):
        return Function(lambda x: 0.9 * x, shape, 0.1, climatology=lambda key: jax.random.normal(key, shape))

    given = AmortisedMASF(ETKF(), architecture=net, climatology=64, each_channel=True)
    fresh = given.prepare(model(channels, 16), sensor)
    params = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), fresh.denoiser.params
    )
    filter = eqx.tree_at(lambda f: f.denoiser.params, fresh, params)
    save_amortised(file, filter)

    def analysed(filter, shape):
        ensemble, z = jax.random.normal(key, (6, *shape)), jax.random.normal(jax.random.key(3), shape)
        ready = filter.prepare(model(*shape), sensor)
        state = ready.update(key, ready.init(key, ensemble), z, jnp.ones(shape, bool), sensor)[0]
        return np.asarray(state.ensemble)

    home = (channels, 16)
    again = load_amortised(file, ETKF())
    assert again.each_channel
    np.testing.assert_allclose(analysed(again, home), analysed(filter, home), atol=1e-5)
    ring = Coordinates.grid((16,), (16.0,))
    for shape in ((channels, 32), (3, 16), (16,)):
        other = load_amortised(file, ETKF(), state_shape=shape, climate=None, coordinates=ring)
        assert other.each_channel == (len(shape) == 2)
        assert np.isfinite(analysed(other, shape)).all()
    with pytest.raises(CheckpointError, match="cannot run on states of shape"):
        load_amortised(file, ETKF(), state_shape=(16, 16))
