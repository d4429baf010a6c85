"""Checkpoints come back as they were, or not at all."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save as save_tensors

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
from masf_jax.training.files import read
from masf_jax.training.orbax_folder import convert

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


def test_features_of_zeros_are_kept_as_a_shape(tmp_path, key):
    """Each cycle replaces them; of a field they were a quarter of the file."""
    net = UNet(1, channels=8, multipliers=(1,), blocks=1, space=1)
    denoiser = NetworkDenoiser.create(key, net, (512,), layout="ring", features=jnp.zeros((9, 512)))
    path = save(tmp_path / "one.safetensors", denoiser, (512,))
    found = load(path).denoiser.features
    assert (found.shape, found.dtype) == ((9, 512), jnp.float32)
    assert not found.any()
    sizes = sum(leaf.nbytes for leaf in jax.tree.leaves(denoiser.params))
    assert path.stat().st_size < sizes + found.nbytes


@pytest.mark.slow
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


@pytest.mark.parametrize("where", [0.0, 0.001, 0.2, 0.5, 0.9, 0.9999])
def test_refuses_a_changed_byte(written, where):
    content = bytearray(written.read_bytes())
    content[int(where * len(content))] ^= 1
    written.write_bytes(content)
    for reader in (load, inspect):
        with pytest.raises(CheckpointError, match="copy it again, or train again"):
            reader(written)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (rb"\"preconditioning\": \"edm\"", rb"\"preconditioning\": \"x0\" "),
        (rb"\"noise_map\": true", rb"\"noise_map\": null"),
        (rb"\"seed\": 3", rb"\"seed\": 4"),
        (rb"\"state_shape\": [3]", rb"\"state_shape\": [1]"),
        (rb'"params/params/Dense_0/bias"', rb'"params/params/Dense_1/bias"'),
    ],
)
def test_refuses_a_head_edited_by_hand(written, before, after):
    content = written.read_bytes()
    assert before in content
    written.write_bytes(content.replace(before, after))
    with pytest.raises(CheckpointError, match=r"changed since it was written|a damaged one"):
        load(written)


def test_the_same_network_gives_the_same_bytes(written, trained, tmp_path):
    denoiser, history, data = trained
    parts = {"normaliser": {"mean": jnp.ones(3), "scale": jnp.asarray(2.0)}, "history": history}
    again = save(tmp_path / "again", denoiser, (3,), fingerprint=fingerprint(data, **PRINT), **parts)
    assert again.read_bytes() == written.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "runs"], "no file left over"


def test_types_survive(tmp_path, trained, x64):
    arrays = {
        "double": jnp.asarray([1.0, 1e-300]),
        "single": jnp.float32(0.1),
        "half": jnp.asarray([1.5, -2.0], jnp.bfloat16),
        "number": jnp.asarray(3),
        "none of it": jnp.zeros((2, 0)),
        "transposed": np.arange(6.0).reshape(2, 3).T,
    }
    stored = load(save(tmp_path / "types", trained[0], (3,), normaliser=arrays)).normaliser
    for name, value in arrays.items():
        assert stored[name].dtype == value.dtype
        np.testing.assert_array_equal(stored[name], value)


def folder_of_orbax(where, about, arrays):
    """As the version before one file each wrote it."""
    import orbax.checkpoint as ocp

    items = {"about": ocp.args.JsonSave(about), "arrays": ocp.args.StandardSave(arrays)}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(where, ocp.args.Composite(**items))
    return where


def test_a_folder_of_an_older_version(written, trained, tmp_path):
    about, arrays = read(written)
    old = {**about, "format": 2, "arrays": fingerprint(arrays)["data"]}
    folder = folder_of_orbax(tmp_path / "folder", old, arrays)
    chex.assert_trees_all_equal(load(folder, net=NET).denoiser, trained[0])
    convert(str(folder), str(tmp_path / "new.safetensors"))
    assert (tmp_path / "new.safetensors").read_bytes() == written.read_bytes()
    with pytest.raises(FileExistsError, match="another path"):
        convert(str(folder), str(written))
    with pytest.raises(FileExistsError, match=r"name it .*folder\.safetensors"):
        save(folder, trained[0], (3,), overwrite=True)
    other = folder_of_orbax(tmp_path / "other", old, jax.tree.map(lambda x: x + 1, arrays))
    with pytest.raises(CheckpointError, match="arrays are not those that were saved"):
        load(other)
    with pytest.raises(CheckpointError, match="format 1, but this version of masf_jax reads 2: train again"):
        load(folder_of_orbax(tmp_path / "older", {**old, "format": 1}, arrays))


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
    other = tmp_path / "other.safetensors"
    for content in (save_tensors({"x": np.zeros(3)}), b"", b"PK", json.dumps([1]).encode()):
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match="no checkpoint of masf_jax"):
            load(other)
    with other.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(CheckpointError, match="not a file of at most"):
        load(other)


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
