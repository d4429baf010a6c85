"""The paper's four Kolmogorov experiments as presets, at its four sizes."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.cli import groups
from masf_jax.cli.config import compose as composing
from masf_jax.cli.config.builders.measurement import MEASUREMENTS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.main import main
from masf_jax.measurements import Subset

PRESETS = ["grid", "center", "sigmoid", "speed"]
MEMBERS = {64: 10, 128: 10, 256: 100, 512: 40}
STRIDES = {64: 10, 128: 10, 256: 15, 512: 20}


@pytest.mark.parametrize("size", MEMBERS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_size_has_the_papers_members_and_protocol(preset, size):
    settings = compose([f"experiment=kolmogorov_{preset}", f"dynamics=kolmogorov_{size}"])
    assert settings.dynamics["shape"] == (size, size)
    assert settings.ensemble_size == MEMBERS[size]
    assert (settings.steps_per_cycle, settings.n_cycles, settings.burn_in) == (10, 6, 1)
    assert settings.initial.spread is None
    assert settings.measurement["noise"]["std"] == 0.1
    assert settings.filter["name"] == "letkf"
    if preset == "grid":
        assert settings.measurement["stride"] == STRIDES[size]


def test_what_the_user_gives_wins_over_what_the_size_brings():
    settings = compose(
        ["experiment=kolmogorov_grid", "dynamics=kolmogorov_256", "ensemble_size=20", "measurement.stride=8"]
    )
    assert (settings.ensemble_size, settings.measurement["stride"]) == (20, 8)


def test_expected_numbers_hold_for_the_size_and_protocol_they_were_found_with():
    assert compose(["experiment=kolmogorov_grid"]).experiment.expected is not None
    assert compose(["experiment=kolmogorov_grid", "dynamics=kolmogorov_512"]).experiment.expected is None
    long = ["experiment=kolmogorov_grid", "n_cycles=200", "burn_in=20"]
    assert compose(long).experiment.expected is None
    assert compose(["experiment=kolmogorov_grid", "filter=enkf"]).experiment.expected is None


def test_a_size_with_its_own_tuning_takes_it(tmp_path, monkeypatch):
    """The mechanism itself, on a preset of two lines."""
    import shutil

    shutil.copytree(composing.config_folder(), tmp_path / "configs")
    text = """# @package _global_
n_cycles: 300
experiment:
  name: two
  tuned: {etkf: {inflation: 1.5, expected: 1.0}, enkf: {inflation: 1.6, expected: 2.0}}
  by_dynamics:
    lorenz63: {burn_in: 7, experiment: {tuned: {etkf: {inflation: 1.7, expected: 3.0}}}}
"""
    (tmp_path / "configs" / "experiment" / "two.yaml").write_text(text)
    for module in (composing, groups):
        monkeypatch.setattr(module, "config_folder", lambda: tmp_path / "configs")
    own = compose(["experiment=two"])
    assert (own.burn_in, own.filter["inflation"], own.experiment.expected) == (200, 1.5, 1.0)
    other = compose(["experiment=two", "dynamics=lorenz63"])
    assert (other.burn_in, other.filter["inflation"], other.experiment.expected) == (7, 1.7, 3.0)
    inherited = compose(["experiment=two", "dynamics=lorenz63", "filter=enkf"])
    assert (inherited.filter["inflation"], inherited.experiment.expected) == (1.6, None)
    unforeseen = compose(["experiment=two", "dynamics=kuramoto_sivashinsky"])
    assert (unforeseen.burn_in, unforeseen.filter["inflation"], unforeseen.experiment.expected) == (
        200,
        1.5,
        None,
    )


def test_the_measurements_are_the_papers():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 64)), jnp.float32)
    u, v = x

    def observed(preset):
        section = compose([f"experiment=kolmogorov_{preset}"]).measurement
        return MEASUREMENTS.build(section, x.shape, None).measurement.operator

    np.testing.assert_allclose(observed("sigmoid")(x), 1 / (1 + np.exp(-2 * x)), rtol=1e-5)
    np.testing.assert_allclose(observed("speed")(x), 1 / (1 + np.exp(3 - u**2 - v**2)), rtol=1e-4)
    np.testing.assert_array_equal(observed("grid")(x), np.asarray(x)[:, ::10, ::10].ravel())
    hole = observed("center")
    assert isinstance(hole, Subset)
    mask = np.asarray(hole.observed(x.shape))
    assert not mask[:, 16:48, 16:48].any()
    assert mask.sum() == 2 * (64**2 - 32**2)


@pytest.mark.parametrize(
    ("preset", "filter"),
    [
        ("grid", "letkf"),
        pytest.param("grid", "enkf", marks=pytest.mark.slow),
        *(pytest.param(p, "letkf", marks=pytest.mark.slow) for p in PRESETS[1:]),
    ],
)
def test_a_tiny_run_of_each(preset, filter, tmp_path):
    small = ["dynamics.shape=[16,16]", "dynamics.reynolds=100", "ensemble_size=4", "figures=false"]
    small += ["n_cycles=2", "steps_per_cycle=2", "scores=[rmse,spread]", "save=[]"]
    if preset == "grid":
        small.append("measurement.stride=5")
    command = ["run", f"experiment=kolmogorov_{preset}", f"filter={filter}", *small]
    assert main([*command, f"output_dir={tmp_path}"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ensemble_size"] == 4
    assert 0 < metrics["rmse_analysis"] < 3
    assert np.isfinite(metrics["rmse_forecast"])
    assert not metrics["diverged"]
