"""`masf-jax train`: a network pretrained, kept, taken up by a run, and refused where it does not belong."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from masf_jax.amortised import pretrained_file
from masf_jax.cli.config.compose import compose
from masf_jax.cli.main import main
from masf_jax.cli.run.results import configuration_text
from masf_jax.dynamics import Lorenz63
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters import MASF
from masf_jax.measurements import Gaussian, Identity, Measurement
from masf_jax.training import fingerprint, inspect, load

PROBLEM = ["experiment=lorenz63_sakov2012", "filter=masf_paper", "n_cycles=2", "burn_in=0", "ensemble_size=4"]
SMALL = [
    "filter.n_steps=100",
    "filter.network.width=8",
    "filter.network.depth=1",
    "filter.pretraining.states=40",
]
SMALL += [
    "filter.pretraining.epochs=100",
    "filter.pretraining.learning_rate=0.01",
    "filter.training.epochs=2",
]
QUIET = ["figures=false", "scores=[rmse]"]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What training printed; the checkpoint is where it goes by itself."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(tmp_path_factory.mktemp("train"))
        assert main(["train", *PROBLEM, *SMALL]) == 0
        assert main(["train", *PROBLEM, *SMALL]) == 2, "it is there already"
    return out.getvalue()


def test_a_folder_is_refused_before_training(tmp_path, capsys):
    assert main(["train", *PROBLEM, *SMALL, f"output_dir={tmp_path}", "--overwrite"]) == 2
    assert f"output_dir={tmp_path}.safetensors" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(said):
    return said.split("Checkpoint: ")[1].split("\n")[0]


def mean(folder):
    with xr.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
        return data["analysis_mean"].values


def test_round_trip(trained, tmp_path, capsys):
    kept, again = tmp_path / "kept", tmp_path / "again"
    run = ["run", *PROBLEM, *SMALL, *QUIET]
    assert main([*run, f"output_dir={kept}", f"filter.checkpoint={trained}"]) == 0
    assert "pretrain" not in capsys.readouterr().out
    assert main([*run, f"output_dir={again}"]) == 0
    assert "seconds to pretrain" in capsys.readouterr().out
    assert np.isfinite(mean(again)).all()
    np.testing.assert_allclose(mean(kept), mean(again), rtol=1e-4, atol=1e-4)
    seconds = [json.loads((f / "metrics.json").read_text())["seconds_train"] for f in (kept, again)]
    assert seconds[0] == 0
    assert seconds[1] > 0


def test_it_says_what_was_trained_and_how_to_use_it(said, trained):
    assert trained.endswith("checkpoints/lorenz63_sakov2012-masf_paper.safetensors")
    line = f"Use it: masf-jax run {' '.join([*PROBLEM, *SMALL])} filter.checkpoint={trained}"
    assert line in said.replace("'", "")
    stored = inspect(trained)["fingerprint"]
    assert f"Training data: 40 states, 4 of other trajectories, fingerprint {stored['data']}" in said
    assert (stored["pretraining.states"], stored["pretraining.epochs"], stored["seed"]) == (40, 100, 1)
    before, after = (float(word) for word in said.split("trajectories ")[1].replace(",", "").split()[:3:2])
    assert after < 0.9 * before


def test_the_fingerprint_is_of_the_training_states(trained):
    """Made anew from the settings, the states are the same; of another seed they are not."""
    measurement = Measurement(Identity(), Gaussian(1.0))

    def states(seed):
        filter = MASF(normalization=Normalization("fixed"), climatology=40, seed=seed)
        climate = filter.climate(Lorenz63(), measurement)
        return fingerprint((climate.states, climate.validation))["data"], climate.moments

    stored = load(trained, normaliser=states(1)[1]._asdict())
    assert stored.fingerprint["data"] == states(1)[0] != states(2)[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("filter.network.depth=2 dynamics.rho=20", "net depth: stored 1, expected 2"),
        ("dynamics.rho=20", "fingerprint dynamics.rho: stored 28.0, expected 20.0"),
        ("measurement.noise.std=0.5", "fingerprint measurement.noise.std: stored"),
        ("filter.network.width=16", "net width: stored 8, expected 16"),
        ("dynamics=lorenz96", "state shape: stored (3,), expected (40,)"),
        ("filter.checkpoint=absent", "no checkpoint at"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(trained, override, message, tmp_path, capsys):
    checkpoint = f"filter.checkpoint={trained}"
    arguments = [*PROBLEM, *SMALL, checkpoint, *override.split(), f"output_dir={tmp_path}"]
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert "filter.checkpoint" in error
    assert message in error
    assert "rho=" not in override or "dynamics.rho: stored 28.0, expected 20.0" in error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["filter=letkf"], "has no network to pretrain"),
        (["filter=masf"], "has no network to pretrain"),
        (["filter=masf", "filter.denoiser=network", "filter.normalization=cycle"], 'normalisation "fixed"'),
        (["filter=masf_paper", "measurement=range_bearing"], "cannot be written as a state"),
        (["filter=masf", "filter.denoiser=network", "measurement=blur"], "use the hybrid denoiser"),
        (["filter=masf", "filter.checkpoint=x"], "checkpoint is of a network alone"),
        (["filter=masf_paper", "filter.training.epochs=-1"], "training.epochs must not be negative"),
        (["--overwrit"], "--overwrite"),
    ],
)
def test_what_cannot_be_trained(overrides, message, tmp_path, capsys):
    small = [] if overrides == ["filter=letkf"] else ["filter.pretraining.epochs=1"] * ("=" in overrides[0])
    assert main(["train", *overrides, *small, f"output_dir={tmp_path / 'x'}"]) == 2
    assert message in capsys.readouterr().err


def test_an_unfinished_training_of_other_settings_is_not_lost(tmp_path, capsys):
    given = [*PROBLEM, *SMALL, f"output_dir={tmp_path / 'x'}"]
    kept = tmp_path / "x.training"
    kept.mkdir()
    (kept / "partial.yaml").write_text(configuration_text(compose(given)))
    (kept / "training").write_text("hours of work")
    changed = ["train", *given, "filter.training.epochs=3"]
    assert main(changed) == 2
    said = capsys.readouterr().err
    assert "unfinished training of other settings (filter.training.epochs: 2 there, 3 here)" in said
    assert (kept / "training").read_text() == "hours of work"
    amortised = ["dynamics=lorenz63", "filter=masf_amortised", given[-1], "filter.training.steps=0"]
    (kept / "partial.yaml").write_text("# from=lorenz63_rounds\n" + configuration_text(compose(amortised)))
    for start, told in (([], "None"), (["from=lorenz63_sakov2012"], "lorenz63_sakov2012")):
        assert main(["train", *amortised, *start]) == 2
        assert f"(from: lorenz63_rounds there, {told} here)" in capsys.readouterr().err
    assert main([*changed, "resume=never"]) == 0
    assert not kept.exists()


def test_a_network_of_another_filter_is_refused_in_a_line(tmp_path, capsys):
    file = pretrained_file("lorenz63_rounds")
    assert main(["run", *PROBLEM, *SMALL, f"filter.checkpoint={file}", f"output_dir={tmp_path}"]) == 2
    assert "is a network of filter=masf_amortised" in capsys.readouterr().err


def test_an_edited_checkpoint_is_refused(trained, tmp_path, capsys):
    edited, content = tmp_path / "edited.safetensors", Path(trained).read_bytes()
    assert b"x0" in content
    edited.write_bytes(content.replace(b"x0", b"edm", 1))
    assert main(["run", *PROBLEM, *SMALL, f"filter.checkpoint={edited}", f"output_dir={tmp_path}"]) == 2
    assert "train again" in " ".join(capsys.readouterr().err.split())


def test_help(capsys):
    assert main(["train", "--help"]) == 0
    assert "--overwrite" in capsys.readouterr().out


RING_OF_MANY = """
import jax
import jax.numpy as jnp

from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Dynamics


class NineVariables(Dynamics):
    state_shape: tuple = (9, 16)
    dt: float = 0.1

    def __call__(self, state, time, key):
        return 0.9 * jnp.roll(state, 1, -1)

    def initial_state(self, key):
        return jax.random.normal(key, self.state_shape)

    @property
    def coordinates(self):
        return Coordinates.grid((16,), (16.0,))


ring = NineVariables()
"""


def test_the_checkpoint_of_a_ring_with_nine_variables_at_each_place_fits(tmp_path, monkeypatch, capsys):
    """By the shape alone (9, 16) is a field."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(RING_OF_MANY, encoding="utf-8")
    net = ["filter.network.channels=8", "filter.network.multipliers=[1]", "filter.network.attention=[]"]
    problem = ["dynamics=model.py:ring", "initial.mean=2", "initial.std=1", *net]
    problem += [*PROBLEM[1:], *(each for each in SMALL if "width" not in each and "depth" not in each)]
    assert main(["train", *problem, "output_dir=ring.safetensors"]) == 0
    capsys.readouterr()
    assert main(["run", *problem, *QUIET, "filter.checkpoint=ring.safetensors", "output_dir=run"]) == 0
    said = capsys.readouterr().out
    assert "seconds to pretrain" not in said
    assert "model.py:ring: masf_paper" in said, "names as they are, not as emoji codes"
    assert np.isfinite(mean(Path("run"))).all()
