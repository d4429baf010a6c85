"""Member batches and members spread over devices change no result; no communication in a forecast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.dynamics import (
    Kolmogorov,
    Linear,
    Lorenz63,
    Lorenz96,
    MemberLayout,
    ModelError,
    advance,
    spun_up_ensemble,
)
from masf_jax.filters import ParticleFilter
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

ZERO = jnp.asarray(0, jnp.int32)
forecast = eqx.filter_jit(advance)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_batches_change_no_result_of_a_random_flow(key):
    model = Kolmogorov(16, forcing_waves=2, n_inner=2, random_forcing=0.1, stepper="etdrk2")
    x = jax.random.normal(key, (5, *model.state_shape))
    whole = forecast(model, x, ZERO, key, 2)
    assert float(jnp.abs(whole[0] - whole[1]).max()) > 0.1
    np.testing.assert_allclose(forecast(model, x, ZERO, key, 2, MemberLayout(2)), whole, atol=1e-13)


@pytest.mark.quick_cases("9-4")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("size", "n_steps"), [(1, 4), (3, 1), (3, "traced"), (9, 4)])
def test_noise_of_a_member_does_not_depend_on_its_batch(size, n_steps, key):
    """Batches of one, that do not divide the members, of more than all."""
    model = ModelError(Linear(np.eye(4)), 0.3)
    x = jnp.zeros((7, 4))
    n_steps = jnp.asarray(4) if n_steps == "traced" else n_steps
    whole = forecast(model, x, ZERO, key, n_steps)
    assert np.unique(np.asarray(whole)).size == whole.size
    batched = forecast(model, x, ZERO, key, n_steps, MemberLayout(size))
    np.testing.assert_allclose(batched, whole, rtol=1e-14, atol=1e-15)


def test_members_that_a_cpu_caches_are_batched_by_themselves(key):
    """What does not fit into the cache together goes in even batches, through all steps each."""
    x = jax.random.normal(key, (6, 2**17))
    model = ModelError(Lorenz96(x.shape[1]), 0.0)
    assert model.cached_members == 4
    program = jax.make_jaxpr(lambda x, layout: advance(model, x, ZERO, key, 2, layout), static_argnums=1)
    assert program(x, MemberLayout()).pretty_print() == program(x, MemberLayout(3)).pretty_print()
    assert program(x, MemberLayout()).pretty_print() != program(x, MemberLayout(6)).pretty_print()


@pytest.mark.parametrize(("members", "size"), [(6, 3), (4, 4), (3, 3), (7, 4), (13, 4), (10, 2)])
def test_members_without_an_even_share_do_not_go_one_by_one(members, size):
    """A prime number of members: full batches, and a last one that is smaller."""
    model = Lorenz96(2**17)
    assert model.cached_members == 4
    x = jax.ShapeDtypeStruct((members, 2**17), jnp.float32)
    program = jax.make_jaxpr(
        lambda x, layout: advance(model, x, ZERO, jax.random.key(0), 1, layout), static_argnums=1
    )
    assert program(x, MemberLayout()).pretty_print() == program(x, MemberLayout(size)).pretty_print()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_spin_up_in_batches(key):
    model = ModelError(Linear(0.5 * np.eye(3), initial_mean=2.0), 0.1)
    np.testing.assert_allclose(
        spun_up_ensemble(model, key, 5, MemberLayout(2)), spun_up_ensemble(model, key, 5), rtol=1e-14
    )


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_assimilation_in_batches(key):
    model = Lorenz63()
    ensemble = 20 + jax.random.normal(key, (5, 3))
    observations = Observations(jax.random.normal(key, (4, 3)), 2)
    problem = (key, ParticleFilter(), model, Measurement(Identity(), Gaussian(2.0)), observations, ensemble)
    whole, batched = assimilate(*problem), assimilate(*problem, layout=MemberLayout(2))
    np.testing.assert_allclose(batched.analysis["mean"], whole.analysis["mean"], rtol=1e-9)
    np.testing.assert_allclose(batched.final.ensemble, whole.final.ensemble, rtol=1e-9)


@pytest.mark.slow
def test_batches_bound_the_memory(key):
    """Work space of one batch, and nothing that grows with the number of members."""
    model = Kolmogorov(32, n_inner=2, stepper="etdrk2")

    def work(n, size):
        layout = MemberLayout(size)
        x = jax.ShapeDtypeStruct((n, *model.state_shape), jnp.float32)
        compiled = jax.jit(lambda x: forecast(model, x, ZERO, key, 1, layout)).lower(x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert work(32, 4) < 0.4 * work(32, None)
    assert work(64, 4) - work(32, 4) < 1.1 * (4 * 2 * 32**2) * (64 - 32)  # one state per member more


@pytest.mark.slow
def test_gradients_go_through_batches(key):
    model = Lorenz63()
    x = jax.random.normal(key, (4, 3))

    def loss(x, layout):
        return (forecast(model, x, ZERO, key, 2, layout) ** 2).mean()

    whole, batched = (jax.grad(loss)(x, layout) for layout in (MemberLayout(), MemberLayout(2)))
    np.testing.assert_allclose(batched, whole, atol=1e-6 * float(jnp.abs(whole).max()))


def test_impossible_layouts_are_refused(key):
    with pytest.raises(ValueError, match="batch_size must be at least 1, or None for all; got 0"):
        MemberLayout(0)
    device = jax.devices()[0]
    for devices in ((), (device, device)):
        with pytest.raises(ValueError, match="devices must name different devices, at least one"):
            MemberLayout(devices=devices)


_FOUR_DEVICES = """
import functools, json, re
import jax, jax.numpy as jnp, numpy as np
from masf_jax import assimilate
from masf_jax.dynamics import Kolmogorov, MemberLayout, advance
from masf_jax.filters import ETKF
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset, grid_stride

jax.config.update("jax_enable_x64", True)
key, zero = jax.random.key(3), jnp.asarray(0, jnp.int32)
model = Kolmogorov(16, forcing_waves=2, n_inner=2, random_forcing=0.1, stepper="etdrk2")
x = jax.random.normal(key, (8, *model.state_shape))
devices = jax.devices()
found = {"devices": len(devices)}

@functools.partial(jax.jit, static_argnums=1)
def forecast(x, layout):
    return advance(model, x, zero, key, 2, layout)

def collectives(x, layout, function=forecast):
    text = function.lower(x, layout).compile().as_text()
    return sorted(set(re.findall(r" (all-[a-z]+|collective-[a-z]+|reduce-scatter)(?:-start)?[(]", text)))

whole = forecast(x, MemberLayout())
spread = MemberLayout(devices=devices)
mean = jax.jit(lambda x, layout: x.mean(0), static_argnums=1)
found["mean"] = collectives(spread.place(x), MemberLayout(), mean)
for name, layout in {"all": spread, "batches": MemberLayout(1, devices)}.items():
    found[name] = collectives(spread.place(x), layout)
    y = forecast(spread.place(x), layout)
    found[name + " kept"] = y.sharding.is_equivalent_to(layout.place(x).sharding, y.ndim)
    found[name + " error"] = float(abs(np.asarray(y) - np.asarray(whole)).max())
try:
    advance(model, x[:6], zero, key, 2, spread)
except ValueError as error:
    found["uneven"] = str(error)
measurement = Measurement(Subset.from_mask(grid_stride(model.state_shape, 4)), Gaussian(0.3))
z = jax.vmap(measurement.sample, (0, None))(jax.random.split(key, 3), x[0])
problem = (key, ETKF(), model, measurement, Observations(z, 1), x)
one = assimilate(*problem)
four = assimilate(*problem, layout=MemberLayout(1, devices), chunk=2, timed=True)
found["assimilate error"] = float(abs(np.asarray(four.analysis["mean"]) - one.analysis["mean"]).max())
found["assimilate devices"] = len(four.final.ensemble.sharding.device_set)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def four_devices():
    """What a process with four CPU devices finds: an ensemble spread over them against one device."""
    environment = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", _FOUR_DEVICES], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", "batches"])
def test_members_spread_over_devices(four_devices, name):
    """The same results, members where they were, and no communication, which their mean does need.

    (Plain `jit` of the forecast, without a layout, gathers all members with jaxlib 0.10, not with 0.12.)
    """
    assert four_devices[f"{name} error"] < 1e-13
    assert four_devices[f"{name} kept"]
    assert four_devices[name] == []
    assert "all-reduce" in four_devices["mean"]


@pytest.mark.slow
def test_assimilation_on_several_devices(four_devices):
    assert four_devices["assimilate error"] < 1e-10
    assert four_devices["assimilate devices"] == 4


@pytest.mark.slow
def test_members_that_cannot_be_spread_are_refused(four_devices):
    message = "6 members cannot be spread evenly over 4 devices: use 3 of them, or a multiple of 4 members."
    assert four_devices["uneven"] == message
