"""The page on models says what works: its files are models, and one of its commands runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import NoDerivativeError, assimilate, dynamics, filters, masf, measurements, smoothers
from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the docs are not part of the installed package")
NAMES = ("numpy_model", "torch_model", "program_model", "jax_model")


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """By file, the arguments of its command; the files lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    assert tuple(name for name, _ in blocks) == NAMES
    for name, block in blocks:
        (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
    lines = re.findall(r"^masf-jax (run dynamics=(\w+)\.py:.*)$", text, re.MULTILINE)
    assert {name for _, name in lines} == set(NAMES)
    return {name: shlex.split(line)[1:] for line, name in lines}


@pytest.mark.quick_cases("torch_model")
@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_each(commands, name):
    if name == "torch_model" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed: pip install masf-jax[torch]")
    settings = compose(commands[name])
    model = DYNAMICS.build(settings.dynamics)
    states = np.ones((3, *model.state_shape), np.float32)
    out = jax.vmap(lambda x: model.mean_step(x, 0.0))(states)
    assert out.shape == states.shape
    assert np.isfinite(out).all()
    if name == "program_model":
        np.testing.assert_allclose(out, 0.9 * states)


@pytest.mark.slow
def test_the_command_of_numpy_runs(commands, capsys):
    few = ["n_cycles=4", "burn_in=0", "figures=false", "compilation_cache=false"]
    given = [each for each in commands["numpy_model"] if not each.startswith("n_cycles")]
    assert main(["run", *given, *few]) == 0
    assert "RMSE of the analysis" in capsys.readouterr().out


def test_what_needs_a_derivative_refuses_a_black_box():
    model = dynamics.BlackBox(
        lambda states: states, (2,), climatology=lambda key: jax.random.normal(key, (2,))
    )
    assert model.sample_climatology(jax.random.key(0)).shape == (2,)
    sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(1.0))
    observations = measurements.Observations(np.ones((2, 2), np.float32), 1)
    with pytest.raises(NoDerivativeError, match=r"write the model in jax\.numpy"):
        smoothers.FourDVar(1.0)(jnp.zeros(2), model, sensor, observations)


@pytest.mark.slow
def test_the_network_has_derivatives_and_every_filter_runs():
    block = re.findall(r"```python\n(import equinox.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(block, names)  # as users run it
        value, slope, net = names["value"], names["slope"], names["model"].function.net
        moved = jax.tree.map(lambda w, g: w - g if eqx.is_inexact_array(w) else w, net, slope)
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(slope)) > 1e-3
        assert names["loss"](moved) < value
        few = measurements.Observations(names["twin"].observations.values[:2], 1)
        local = filters.MASF(masf.GaussianPrior(3.0))
        key, model, sensor, members = jax.random.key(0), names["model"], names["sensor"], names["members"]
        run = assimilate(key, local, model, sensor, few, members, scores=())
        assert np.isfinite(run.analysis["mean"]).all()
        assert np.isfinite(model.sample_climatology(key)).all()


@pytest.mark.slow
def test_logarithms_stay_positive_where_the_quantity_itself_does_not():
    block = re.findall(
        r"```python\n([^`]*def of_logarithms.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )[0]
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(block, names)  # as users run it
        assert float(names["q"].min()) > 0
        truth = jnp.exp(names["twin"].truth)
        assert float(jnp.sqrt(((names["q"].mean(1) - truth) ** 2).mean())) < 0.7 * float(truth.std())

        def of_itself(q, time, key):
            return jnp.exp(names["of_logarithms"](jnp.log(q), time, key))

        model = dynamics.Function(of_itself, (8,))
        sensor = measurements.Measurement(measurements.Subset(range(0, 8, 2)), measurements.Gaussian(0.1))
        seen, members = names["twin"].observations, jnp.exp(names["start"][1:])
        stopped = assimilate(
            jax.random.key(2), filters.ETKF(), model, sensor, seen, members, save=("ensemble",)
        )
    assert np.nanmin(stopped.analysis["ensemble"]) < 0
    assert int(np.sum(stopped.repaired)) > 0  # whose logarithm is NaN
