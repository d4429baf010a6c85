"""Checkpoints come back as they were, or not at all."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.denoisers.network import NetworkDenoiser
from masf_jax.nn import MLP, UNet
from masf_jax.training import (
    CheckpointError,
    FitConfig,
    denoising_loss,
    fingerprint,
    fit,
    inspect,
    load,
    save,
    uniform_angle,
)

NET = MLP(3, width=8, depth=1, second_head=3)
PRINT = {"dynamics": "lorenz63", "dt": 0.01, "seed": 3}


@pytest.fixture(scope="module")
def trained():
    key = jax.random.key(7)
    data = jax.random.normal(key, (20, 3))
    denoiser = NetworkDenoiser.create(key, NET, (3,), variance_head=True, features=jnp.arange(2.0))
    loss = denoising_loss(denoiser, uniform_angle())
    params, history = jax.jit(lambda p, x: fit(key, loss, p, x, FitConfig(steps=4, batch_size=8)))(
        denoiser.params, data
    )
    return denoiser.with_params(params), history, data


@pytest.fixture
def written(trained, tmp_path, monkeypatch):
    denoiser, history, data = trained
    monkeypatch.chdir(tmp_path)
    save(
        "runs/one",  # relative, in a directory that is not there yet
        denoiser,
        (3,),
        normaliser={"mean": jnp.ones(3), "scale": jnp.asarray(2.0)},
        fingerprint=fingerprint(data, **PRINT),
        history=history,
    )
    return tmp_path / "runs/one"


def test_round_trip(written, trained, key):
    denoiser, history, data = trained
    got = load(written, net=NET, state_shape=(3,), fingerprint=fingerprint(data, **PRINT))
    chex.assert_trees_all_equal(got.denoiser, denoiser)
    chex.assert_trees_all_equal(got.history, history)
    chex.assert_trees_all_equal(got.normaliser, {"mean": jnp.ones(3), "scale": jnp.asarray(2.0)})
    assert got.state_shape == (3,)
    assert got.fingerprint["dynamics"] == "lorenz63"
    x, angle = jax.random.normal(key, (3,)), jnp.full(3, 0.4)
    np.testing.assert_array_equal(got.denoiser.sample(key, x, angle), denoiser.sample(key, x, angle))


def test_relative_path(written):
    assert load("runs/one").state_shape == (3,)


def test_bare(tmp_path, key):
    net = MLP(8, width=4, depth=1, embedding=4, dtype=jnp.bfloat16)
    denoiser = NetworkDenoiser.create(key, net, (8,))
    save(tmp_path / "bare", denoiser, (8,))
    got = load(tmp_path / "bare", net=net)
    chex.assert_trees_all_equal(got.denoiser.params, denoiser.params)
    assert got.denoiser.net == net
    assert got.normaliser == {}
    assert got.history is None


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"net": MLP(3, width=16, depth=1, second_head=3)}, "net width: stored 8, expected 16"),
        ({"net": UNet(3)}, "net class: stored 'MLP', expected 'UNet'"),
        ({"state_shape": (4,)}, r"state shape: stored \(3,\), expected \(4,\)"),
        ({"fingerprint": {"dynamics": "lorenz96"}}, "dynamics: stored 'lorenz63', expected 'lorenz96'"),
        ({"fingerprint": {"seed": 4}}, "seed: stored 3, expected 4"),
        ({"fingerprint": {"measurement": "mask"}}, "measurement: stored nothing, expected 'mask'"),
        ({"fingerprint": fingerprint(np.zeros(3))}, "fingerprint data: stored"),
        ({"normaliser": {"scale": np.asarray(2.5)}}, "normaliser scale: differs by up to 0.5"),
        ({"normaliser": {"mean": np.ones(4)}}, r"mean: stored shape \(3,\), expected shape \(4,\)"),
        ({"normaliser": {"variance": np.ones(3)}}, "normaliser variance: stored nothing"),
    ],
)
def test_refuses_another(written, expected, message):
    with pytest.raises(CheckpointError, match=message):
        load(written, **expected)


def test_names_every_difference(written):
    with pytest.raises(CheckpointError) as caught:
        load(
            written,
            state_shape=(4,),
            normaliser={"mean": np.ones(3), "scale": np.zeros(())},
            fingerprint={"dynamics": "lorenz63", "dt": 0.02, "seed": 5},
        )
    assert all(word in str(caught.value) for word in ("state shape", "dt", "seed", "normaliser scale"))
    assert "mean" not in str(caught.value)
    assert "dynamics" not in str(caught.value)


def test_refuses_arrays_of_another_checkpoint(written, trained, tmp_path):
    other = save(tmp_path / "other", trained[0], (3,), normaliser={"mean": jnp.zeros(3)})
    shutil.rmtree(written / "arrays")
    shutil.copytree(other / "arrays", written / "arrays")
    with pytest.raises(CheckpointError, match="arrays: not those that were saved"):
        load(written)


def test_inspect_tells_what_was_trained_on(written, trained):
    about = inspect(written)
    assert about["fingerprint"] == fingerprint(trained[2], **PRINT)
    assert about["net"]["width"] == 8
    assert about["state_shape"] == [3]


def test_refuses_what_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no checkpoint of masf_jax"):
        load(tmp_path)


def test_overwriting(written, trained):
    denoiser = trained[0]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save(written, denoiser, (3,))
    save(written, denoiser, (3,), fingerprint={"seed": 9}, overwrite=True)
    assert load(written).fingerprint == {"seed": 9}


def test_fingerprint_sees_values_shapes_and_description():
    base = fingerprint(np.zeros((2, 3)), seed=1)
    assert base == fingerprint(np.zeros((2, 3)), seed=1)
    assert base["data"] != fingerprint(np.zeros((3, 2)), seed=1)["data"]
    assert base["data"] != fingerprint(np.ones((2, 3)), seed=1)["data"]
    assert base != fingerprint(np.zeros((2, 3)), seed=2)
