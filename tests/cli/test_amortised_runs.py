"""`masf-jax train filter=masf_amortised`: trained on simulated cycles, kept, taken up by runs, or refused."""

from __future__ import annotations

import contextlib
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from masf_jax.amortised import load_amortised, pretrained_file, pretrained_folder, pretrained_names
from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.run import pretrained
from masf_jax.cli.run.away import differences
from masf_jax.cli.run.pretrained import climate_and_coarsening
from masf_jax.cli.run.problem import build_filter, build_models
from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Function
from masf_jax.ensemble.normalization import Moments
from masf_jax.filters import EnSRF, Gate
from masf_jax.masf.amortised import AmortisedMASF
from masf_jax.masf.amortised.resample import resampled
from masf_jax.training import files, inspect, load

PROBLEM = ["experiment=lorenz63_sakov2012", "filter=masf_amortised", "ensemble_size=8", "n_cycles=4"]
PROBLEM += ["burn_in=0", "figures=false", "filter.base=ensrf", "filter.network.width=8"]
TRAINING = ["filter.practice.runs=16", "filter.practice.cycles=12", "filter.practice.burn_in=2"]
TRAINING += ["filter.training.rounds=1", "filter.training.steps=20", "filter.training.factors=[1.0]"]
TRAINING += [
    "filter.training.window=0",
    "filter.training.score=gaussian",
    "filter.network.member_width=0",
    "filter.training.batch_size=512",
    "filter.practice.ensemble_sizes=null",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file, and what training printed."""
    file, out = tmp_path_factory.mktemp("amortised") / "checkpoint", io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["train", *PROBLEM, *TRAINING, f"output_dir={file}"]) == 0
    return file, out.getvalue()


def test_training_says_what_it_found_and_how_to_use_it(trained):
    file, said = trained
    assert "base filter: RMSE" in said
    assert f"filter.checkpoint={file}" in said
    about = inspect(file)["fingerprint"]
    assert about["trained_on"]["practice"]["ensemble_sizes"] == [8]
    assert about["trained_on"]["practice"]["intervals"] == [25]
    assert len(about["rounds"]) == 2
    assert np.isfinite([found["rmse"] for found in about["rounds"]]).all()


@pytest.mark.slow
def test_a_network_of_zeros_is_said_to_be_its_base(tmp_path, capsys):
    """Such large steps do no good (the training's last word is the base), and every run with it says so."""
    file = tmp_path / "checkpoint"
    steps = "filter.training.learning_rate=1e3"
    assert main(["train", *PROBLEM, *TRAINING, steps, f"output_dir={file}"]) == 0
    said = capsys.readouterr().out
    assert "is one of its base filter alone" in said
    assert "Use it" not in said
    run = ["run", *PROBLEM, f"filter.checkpoint={file}", f"output_dir={tmp_path / 'run'}"]
    assert main(run) == 0
    assert "its network is zero" in capsys.readouterr().out
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())["network"]
    assert told.endswith("the filter equals its base, EnSRF")
    problem = [word for word in PROBLEM if not word.startswith("filter")]
    own = [
        f"zero.checkpoint={file}",
        "zero.base=ensrf",
        "zero.network.width=8",
        f"output_dir={tmp_path / 'cmp'}",
    ]
    both = "filters={base: ensrf, zero: masf_amortised}"
    assert main(["compare", both, *problem, *own, "seeds=1"]) == 0
    assert "zero: its network is zero" in capsys.readouterr().out
    with xr.open_dataset(tmp_path / "cmp" / "comparison.nc", engine="h5netcdf") as data:
        assert json.loads(data.attrs["said_of"])["zero"] == "network is zero"


@pytest.mark.slow
def test_a_run_takes_it_up_for_other_noise_and_members_too(trained, tmp_path):
    file, _ = trained
    run = ["run", *PROBLEM, f"filter.checkpoint={file}", f"output_dir={tmp_path / 'run'}"]
    run += ["measurement.noise.std=0.5", "ensemble_size=6", "steps_per_cycle=10", "filter.n_steps=2"]
    assert main(run) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "NaN" not in json.dumps(metrics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["dynamics=lorenz96", "filter.base=letkf"], "cannot run on states of shape (40,)"),
        (["filter.checkpoint=nowhere"], "unknown network 'nowhere'"),
        (["filter.practice.noise=[1.0]"], None),
    ],
)
def test_what_does_not_fit_is_refused(trained, tmp_path, changes, message, capsys):
    file, _ = trained
    run = ["run", *PROBLEM, f"filter.checkpoint={file}", f"output_dir={tmp_path / 'run'}", *changes]
    code = main(run)
    if message is None:  # practice is for training only
        assert code == 0
        assert main(["train", *PROBLEM, *TRAINING, *changes, f"output_dir={tmp_path / 'other'}"]) == 2
        assert "lowest and highest" in capsys.readouterr().err
        return
    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_another_base_is_said(trained, tmp_path, capsys):
    file, _ = trained
    run = ["run", *PROBLEM, f"filter.checkpoint={file}", f"output_dir={tmp_path / 'run'}", "filter.base=etkf"]
    assert main(run) == 0
    assert "filter.base=ensrf; this run's base is etkf" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_network_on_a_ring_runs_on_another_size_and_model(tmp_path, capsys):
    """The package's, without an experiment: it sees the climate of the model it runs with."""
    model = ["dynamics=lorenz96", "dynamics.n=20", "dynamics.forcing=6", "measurement=every_second"]
    model += ["steps_per_cycle=4"]
    run = ["run", *model, "filter=masf_amortised", "n_cycles=6", "burn_in=0", "figures=false"]
    pretrained._say.cache_clear()  # said once in a process
    assert main([*run, f"output_dir={tmp_path / 'run'}"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "lorenz96_masks.safetensors was trained on another model" in said
    assert "n 40 there, 20 here" in said
    assert "forcing 8.0 there, 6.0 here" in said
    assert "its base filter runs beside it" in said
    settings = compose([*run[1:], "filter.checkpoint=lorenz96_masks"])
    gate = built(settings)
    assert isinstance(gate, Gate)
    assert isinstance(gate.filter, AmortisedMASF)
    np.testing.assert_allclose(gate.filter.climate.mean, 2.0, atol=0.3)  # of 20 variables, forcing 6
    assert gate.trusted is gate.filter.base
    info = xr.load_dataset(tmp_path / "run" / "result.nc")["gate"]
    assert ((info > 0) & (info < 1)).all()


def built(settings):
    return build_filter(settings, build_models(settings)[0])


HALF = ["experiment=lorenz96_masks", "filter=masf_amortised"]
MASKS = "the network of lorenz96_masks.safetensors was trained"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], None),
        (["measurement=every_second", "measurement.noise.std=2", "steps_per_cycle=6"], None),
        (["measurement.noise.std=3"], f"{MASKS} with measurement.noise.std of 0.5 to 2, here 3."),
        (
            ["ensemble_size=40", "steps_per_cycle=8"],
            f"{MASKS} with ensemble_size of 10 to 20, here 40; steps_per_cycle of 2 to 6, here 8.",
        ),
        (["measurement=arctan"], f"{MASKS} with another measurement (identity)."),
        (["measurement.noise.law=laplace"], f"{MASKS} with another measurement (identity)."),
        (["filter.base=etkf"], f"{MASKS} on analyses of filter.base=letkf; this run's base is etkf."),
        (["dynamics.forcing=9"], f"{MASKS} on another model (forcing 8.0 there, 9.0 here)"),
    ],
)
def test_away_from_its_training_a_network_runs_beside_its_base(changes, said):
    settings = compose([*HALF, "filter.checkpoint=lorenz96_masks", *changes])
    lines = differences(pretrained_file("lorenz96_masks"), settings, (40,))
    assert [line for line in lines if said is not None and line.startswith(said)] == lines
    assert isinstance(built(settings), AmortisedMASF if said is None else Gate)


RANGES = {"name": "lorenz96", "n": 40, "forcing": {"between": [6.0, 10.0]}}


@pytest.mark.parametrize(("forcing", "said"), [(10, None), (5.9, "forcing 6 to 10 there, 5.9 here")])
def test_a_network_of_many_models_has_seen_what_is_between_them(tmp_path, forcing, said):
    """And is given the climate of the run's, not the one it has of its first."""
    about, arrays = files.read(pretrained_file("lorenz96_masks"))
    about.pop("format")
    about["fingerprint"]["trained_on"]["dynamics"] = RANGES
    path = tmp_path / "many.safetensors"
    files.write(path, about, arrays)
    settings = compose([*HALF, f"filter.checkpoint={path}", f"dynamics.forcing={forcing}"])
    lines = differences(path, settings, (40,))
    assert len(lines) == (said is not None)
    assert all(said in line for line in lines)
    climate, _ = climate_and_coarsening(path, settings, DYNAMICS.build(settings.dynamics), 1)
    assert climate != "stored"


FLOW = ["dynamics=kolmogorov_64", "measurement=grid_mask", "measurement.stride=8", "filter=masf_amortised"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ([], "kolmogorov_masks"),
        (["dynamics=kolmogorov_128"], "kolmogorov_masks"),
        (["dynamics.reynolds=700", "dynamics.forcing_waves=5"], "flows"),
        (["dynamics.reynolds=300"], "flows"),
    ],
)
def test_a_flow_of_other_numbers_takes_the_network_of_many_flows(changes, name):
    settings = compose([*FLOW, *changes])
    assert pretrained._nearest(settings, DYNAMICS.build(settings.dynamics)).stem == name


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (["experiment=ks_bocquet2019"], "ks_bocquet2019"),
        (["experiment=ks_bocquet2019", "measurement=every_second"], "rings_four"),
        (["experiment=ks_bocquet2019", "steps_per_cycle=4"], "rings_four"),
        (["experiment=lorenz96_sakov2008", "steps_per_cycle=12", "ensemble_size=20"], "lorenz96_nonlinear"),
        (["experiment=ks_bocquet2019", "dynamics.length=60"], "ks_bocquet2019"),
        (["experiment=lorenz96_sakov2008", "steps_per_cycle=4"], "lorenz96_masks"),
        (["experiment=lorenz96_sakov2008", "ensemble_size=30"], "rings_four"),
        (["experiment=lorenz96_masks", "dynamics.forcing=10"], "lorenz96_masks"),
        (["experiment=lorenz96_sakov2008", "measurement=arctan"], "lorenz96_masks"),
        (["dynamics=kolmogorov_64", "measurement=grid_mask", "measurement.stride=6"], "kolmogorov_masks"),
    ],
)
def test_of_several_networks_of_a_model_the_one_trained_for_such_measurements(changes, name):
    settings = compose([*changes, "filter=masf_amortised"])
    assert pretrained._nearest(settings, DYNAMICS.build(settings.dynamics)).stem == name


def test_a_family_says_which_of_its_models_this_one_is():
    settings = compose(["dynamics=lorenz96", "dynamics.forcing=7", "filter=masf_amortised"])
    (first, *_) = differences(pretrained_file("rings_four"), settings, (40,))
    assert "a family of models, lorenz96 of forcings 5.5, 6, 8, 10, 12 among them" in first
    settings = compose(["dynamics=lorenz63", "filter=masf_amortised"])
    assert (
        "dynamics rings there, lorenz63 here" in differences(pretrained_file("rings_four"), settings, (3,))[0]
    )


HOMES = sorted(
    set(pretrained_names())
    - {
        "flows",
        "rings",
        "rings_cycles",
        "rings_four",
        "lorenz63_rounds",
        "lorenz96_nonlinear",
        "lorenz96_one_run",
    }
)


@pytest.mark.parametrize("name", HOMES)
def test_in_its_own_experiment_a_network_runs_alone(name):
    settings = compose([f"experiment={name}", "filter=masf_amortised"])
    shape = build_models(settings)[0].state_shape
    assert differences(pretrained_file(name), settings, shape) == []


@pytest.mark.parametrize("gate", [True, False])
def test_the_gate_is_as_asked_for(gate):
    model = ["dynamics=kuramoto_sivashinsky", "measurement=identity", "filter=masf_amortised"]
    settings = compose([*model, f"filter.gate={str(gate).lower()}"])
    assert isinstance(built(settings), Gate if gate else AmortisedMASF)


def test_a_gate_by_regions():
    found = built(compose([*HALF, "filter.gate=true", "filter.gate_radius=12"]))
    assert isinstance(found, Gate)
    assert found.radius == 12


def test_a_network_that_sees_members_wants_them_rotated_as_in_its_training():
    """It sees where each was before the analysis: one that is rotated was nowhere."""
    home = ["experiment=lorenz63_sakov2012", "filter=masf_amortised"]
    assert isinstance(built(compose(home)), AmortisedMASF)
    other = built(compose([*home, "filter.rotation=true", "filter.gate=false"]))
    assert isinstance(other, AmortisedMASF)
    assert not other.denoiser.has_members, "another of the package"
    path = pretrained_file("lorenz63_sakov2012")
    asked = compose([*home, "filter.rotation=true", "filter.checkpoint=lorenz63_sakov2012"])
    assert "trained with filter.rotation=false: give that" in " ".join(differences(path, asked, (3,)))
    assert isinstance(built(asked), Gate)
    with pytest.warns(UserWarning, match="base with rotation=False; this one has rotation=True"):
        load_amortised(path, EnSRF(rotation=True))


def test_a_state_that_no_network_fits_is_refused():
    cube = Function(lambda x, t: x, (4, 5, 6), 1.0)
    with pytest.raises(InputError, match=r"none of the package fits states of shape \(4, 5, 6\)") as refused:
        build_filter(compose(["dynamics=lorenz96", "filter=masf_amortised"]), cube)
    assert "masf-jax train filter=masf_amortised" in str(refused.value)
    ring = Function(lambda x, t: x, (12,), 1.0, coordinates=Coordinates.grid((12,), (12.0,)))
    with pytest.raises(InputError, match="sees the climate of its model, and lorenz96 says no state"):
        build_filter(compose(["dynamics=lorenz96", "dynamics.forcing=9", "filter=masf_amortised"]), ring)


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        (["dynamics.shape=[64,64]"], 1),
        (["dynamics=kolmogorov_128"], 2),
        (["dynamics=kolmogorov_256"], 4),
        (["dynamics.shape=[96,192]"], 2),
        (["dynamics=kolmogorov_128", "dynamics.length=12.566370614359172"], 1),
        (["dynamics=kolmogorov_128", "filter.n_steps=2"], 1),
        (["dynamics=kolmogorov_128", "filter.coarsening=4"], 4),
    ],
)
def test_a_finer_flow_is_seen_in_blocks_of_the_cells_of_the_training(given, cells):
    settings = compose(["experiment=kolmogorov_masks", "filter=masf_amortised", *given])
    dynamics = DYNAMICS.build(settings.dynamics)
    file = pretrained_file("kolmogorov_masks")
    assert climate_and_coarsening(file, settings, dynamics, 1)[1] == cells


@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 96, 80), (2, 32, 64)])
def test_the_climate_of_a_flow_goes_to_another_grid(shape):
    stored = load(pretrained_file("kolmogorov_masks")).normaliser
    moments = Moments(stored["mean"], stored["variance"])
    found = resampled(moments, shape[1:])
    assert found.mean.shape == found.variance.shape == shape
    for a, b in zip(found, moments, strict=True):
        np.testing.assert_allclose(a.mean((1, 2)), b.mean((1, 2)), rtol=1e-3, atol=1e-6)
    y, x = (2 * np.pi * np.arange(n) / n for n in shape[1:])
    wave = np.cos(3 * y)[:, None] + np.sin(2 * x)[None]
    yy = 2 * np.pi * np.arange(64) / 64
    given = np.cos(3 * yy)[:, None] + np.sin(2 * yy)[None]
    np.testing.assert_allclose(
        resampled(Moments(jnp.asarray(given), jnp.asarray(given)), shape[1:]).mean, wave, atol=1e-6
    )


@pytest.mark.slow
def test_a_checkpoint_is_trained_further(trained, tmp_path, capsys):
    file, _ = trained
    further = ["train", *PROBLEM, *TRAINING, "from=lorenz63_rounds", "filter.training.rounds=2"]
    assert main([*further, f"output_dir={tmp_path / 'more'}"]) == 0
    said, warned = capsys.readouterr()
    assert "as it was: RMSE" in said
    assert "the network of from=lorenz63_rounds keeps its form; not used: filter.network." in warned
    before, after = (inspect(each)["fingerprint"] for each in (file, tmp_path / "more"))
    assert len(after["rounds"]) == 3
    assert after["trained_on"]["from"] == "lorenz63_rounds"
    assert before["rounds"][0]["rmse"] != after["rounds"][0]["rmse"], "not of the base filter"
    known = load(pretrained_file("lorenz63_rounds")).normaliser, load(tmp_path / "more").normaliser
    np.testing.assert_array_equal(known[0]["mean"], known[1]["mean"])


TWO_CHANNELS = """
import jax
import jax.numpy as jnp

from masf_jax.dynamics import Function


def waves(n: int = 16):
    def step(x):
        return jnp.roll(x, 1, -1) + 0.1 * jnp.sin(x[::-1])

    return Function(step, (2, n), 0.1, climatology=lambda key: jax.random.normal(key, (2, n)))
"""


@pytest.mark.slow
def test_a_network_of_one_channel_trained_further_on_two_is_taken_up_by_runs(tmp_path, monkeypatch, capsys):
    """At home, on more places, and from there on one channel."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(TWO_CHANNELS, encoding="utf-8")
    problem = ["dynamics=mine.py:waves", "initial.mean=0", "initial.std=1", "filter=masf_amortised"]
    problem += ["filter.base=etkf", "ensemble_size=8", "n_cycles=4", "burn_in=0", "figures=false"]
    training = ["filter.training.window=2", "filter.training.steps=4", "filter.training.batch_size=2"]
    training += TRAINING[:3]
    assert main(["train", *problem, *training, "from=rings_cycles", "output_dir=two.safetensors"]) == 0
    given = "filter.checkpoint=two.safetensors", "output_dir=run", "overwrite=true"
    for more in ([], ["dynamics.n=32"], ["dynamics=lorenz96"]):
        assert main(["run", *problem, *more, *given]) == 0, more
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_one_run_of_the_model_trained_through_its_cycles(tmp_path, capsys):
    file, one = tmp_path / "one", [*PROBLEM, "filter.base=three_d_var", "filter.network.depth=1"]
    steps = ["filter.training.window=2", "filter.training.steps=6", "filter.training.batch_size=2"]
    steps += ["filter.practice.ensemble_sizes=null"]
    assert main(["train", *one, *TRAINING[:3], *steps, f"output_dir={file}"]) == 2
    assert "score='energy' is one of members, and ThreeDVar has none" in capsys.readouterr().err
    steps += ["filter.training.score=gaussian"]
    assert main(["train", *one, *TRAINING[:3], *steps, f"output_dir={file}"]) == 0
    assert "in simulated cycles: RMSE" in capsys.readouterr().out
    about = inspect(file)["fingerprint"]
    assert about["trained_on"]["filter"]["training"]["window"] == 2
    assert [set(each) for each in about["rounds"]] == [{"rmse", "spread"}] * 2
    used = [*one, f"filter.checkpoint={file}", f"output_dir={tmp_path / 'run'}"]
    assert main(["run", *used]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["n_cycles"] == 4
    capsys.readouterr()
    assert main(["run", *used, "filter.gate=true", "overwrite=true"]) == 2
    assert "filter.base=three_d_var has none" in capsys.readouterr().err
    assert main(["run", *one]) == 2
    assert "filter.base=three_d_var (rings" in capsys.readouterr().err


def test_what_cannot_be_trained_further(trained, tmp_path, capsys):
    file, _ = trained
    further = ["train", *PROBLEM, *TRAINING, "from=lorenz63_sakov2012"]
    scored = ["train", *PROBLEM, *TRAINING, "filter.training.score=crps", f"output_dir={tmp_path / 'none'}"]
    assert main(scored) == 2
    assert "filter.training.score=crps is of a training through cycles" in capsys.readouterr().err
    assert main(["train", "filter=masf_paper", "dynamics=lorenz63", f"from={file}"]) == 2
    assert "only filter=masf_amortised is trained further" in capsys.readouterr().err
    assert main([*further, "from=lorenz96_masks", f"output_dir={tmp_path / 'none'}"]) == 2
    assert "from is given 2 times" in capsys.readouterr().err
    assert main([*further[:-1], "from=lorenz96_masks", f"output_dir={tmp_path / 'none'}"]) == 2
    assert "cannot run on states of shape (3,) (layout vector)" in capsys.readouterr().err
    unknown = "from=lorenz63_sakov2021", "filter.checkpoint=lorenz63_sakov2021"
    for command in ([*further[:-1], unknown[0]], ["run", *PROBLEM, "filter=masf_amortised", unknown[1]]):
        assert main([*command, f"output_dir={tmp_path / 'none'}"]) == 2
        said = capsys.readouterr().err
        assert "Did you mean 'lorenz63_sakov2012'? Nor is there a checkpoint at that path" in said


@pytest.mark.parametrize("name", pretrained_names())
def test_the_packages_checkpoints_are_small_and_say_where_they_come_from(name):
    file = pretrained_file(name)
    assert file.stat().st_size < 5e6
    about = inspect(file)["fingerprint"]
    assert about["rounds"][-1]["rmse"] < about["rounds"][0]["rmse"]
    assert {"measurement", "dynamics", "filter", "practice", "seed"} <= set(about["trained_on"])


def test_python_takes_up_a_checkpoint(trained):
    file, _ = trained
    filter = load_amortised(file, EnSRF(), n_steps=2, calibration=1.2)
    assert filter.denoiser is not None
    assert float(filter.calibration) == pytest.approx(1.2)
    with pytest.raises(FileNotFoundError, match="no trained filter 'nowhere'"):
        pretrained_file("nowhere")
    assert pretrained_folder is pretrained_file
