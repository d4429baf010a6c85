"""Networks in bfloat16: near those in float32, in half the room; never trained so."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.amortised import pretrained_file
from masf_jax.denoisers import NetworkDenoiser, in_type
from masf_jax.filters import LETKF
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.nn import MLP
from masf_jax.training import FitConfig, fit, load, save


@pytest.fixture(scope="module")
def trained():
    return load(pretrained_file("lorenz96_partial"))


@pytest.mark.slow
def test_a_trained_network(trained):
    network = trained.denoiser
    half = in_type(network, jnp.bfloat16)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=trained.state_shape), jnp.float32)
    near = network.with_features(jnp.asarray(rng.normal(size=network.features.shape), jnp.float32))
    angle = jnp.full(x.shape, 1.0)
    moments = eqx.filter_jit(lambda network: network.moments(x, angle))
    full, found = moments(near), moments(half.with_features(near.features))
    for a, b in zip(full, found, strict=True):
        assert b.dtype == jnp.float32
        assert 0 < float(jnp.abs(a - b).max()) < 0.05
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(each.params)) for each in (network, half)]
    assert sizes[1] == sizes[0] // 2


def test_a_filter_and_its_file(trained, tmp_path):
    filter = dataclasses.replace(AmortisedMASF(LETKF(4.0)), denoiser=trained.denoiser)
    half = in_type(filter, jnp.bfloat16)
    assert half.denoiser.net.dtype == jnp.bfloat16
    assert jax.tree.leaves(half.calibration)[0].dtype == jnp.float32  # networks alone change
    save(tmp_path / "half", half.denoiser, trained.state_shape)
    again = load(tmp_path / "half").denoiser
    for a, b in zip(jax.tree.leaves(half.denoiser), jax.tree.leaves(again), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_refusals():
    denoiser = NetworkDenoiser.create(jax.random.key(0), MLP(3, width=4, depth=1), (3,))
    half = in_type(denoiser, jnp.bfloat16)
    data = jnp.zeros((8, 3))
    with pytest.raises(ValueError, match="parameters in bfloat16 lose the small steps"):
        fit(jax.random.key(0), lambda params, key, batch: 0.0, half.params, data, FitConfig())

    class Own:
        pass

    with pytest.raises(TypeError, match="Own has not"):
        dataclasses.replace(denoiser, net=Own()).in_type(jnp.bfloat16)
