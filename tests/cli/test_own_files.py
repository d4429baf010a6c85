"""`dynamics=FILE.py:NAME` and its like: what is taken, what it says when it is not."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import xarray as xr
import yaml

from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.builders.filters import FILTERS
from masf_jax.cli.config.builders.measurement import MEASUREMENTS
from masf_jax.cli.config.builders.model_options import model_options
from masf_jax.cli.config.compose import compose, repeat, with_file
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.run import cost, train
from masf_jax.coordinates import Coordinates

MODEL = '''
import functools

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.coordinates import Coordinates
from masf_jax import dynamics, filters, measurements


def step(x, time, forcing=8.0, wind: str = "none", dt=0.01):
    """Lorenz-96 by Euler.

    Args:
        forcing: F.
    """
    return x + dt * ((jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + forcing)


def half(x, factor=1.0):
    return factor * x[::2]


def keep(key, members, innovations, gain=0.0):
    return members + gain


def host(states, time):
    if time > 0.25:
        raise RuntimeError("the solver blew up")
    states *= 0.9  # in place
    return states


def box(n: int = 8, dt=0.1):
    """A program on the host.

    Args:
        n: components.
    """
    return dynamics.BlackBox(host, (n,), dt)


def damped(x, time):
    return 0.9 * x + missing_name


def decayed(states):
    return 0.9 * states


def cut(states):
    return states[:, :1]


def first(x):
    return x[:1]


solver = dynamics.BlackBox(decayed, (4,), dt=0.5)
cutter = dynamics.BlackBox(cut, (4,), dt=0.5)
scalar = dynamics.Function(lambda x: 0.9 * x, (), dt=0.5)


def wrong():
    return 3


def wrong_draw(key):
    return jnp.zeros(3)


class Mine(dynamics.Lorenz96):
    """Another name."""


def drawn(key):
    return 8 + jax.random.normal(key, (8,))


ring = dynamics.Lorenz96(n=12)
places = Coordinates.grid((8,), (4.0,))
doubles = jnp.ones(3)
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(0.5))
number = 3
'''
QUIET = ["n_cycles=6", "burn_in=0", "figures=false", "ensemble_size=4", "compilation_cache=false"]
NORMAL = ["initial.mean=2", "initial.std=1"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    return tmp_path


def refused(capsys, *arguments):
    assert main(["run", *QUIET, *arguments]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_run_of_functions_names_their_file(capsys, folder):
    own = ["dynamics=model.py:step", "dynamics.state_shape=[8]", "dynamics.forcing=7", "filter=model.py:keep"]
    command = ["run", *QUIET, *NORMAL, *own, "measurement=model.py:half", "measurement.noise.std=0.5"]
    assert main(command) == 0
    out = folder / "outputs" / "step-keep-seed0"
    kept = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert kept["dynamics"]["name"] == "model.py:step"
    assert kept["dynamics"]["forcing"] == 7.0
    assert kept["dynamics"]["dt"] == 0.01, "the function's own default"
    assert len(kept["dynamics"]["sha256"]) == 64
    assert kept["filter"]["gain"] == 0.0
    with xr.open_dataset(out / "result.nc", engine="h5netcdf") as data:
        assert data["observation"].shape == (6, 4)
        np.testing.assert_allclose(data["time"], 0.01 * np.arange(1, 7))
        assert data.attrs["title"] == "model.py:step; filter keep"
        np.testing.assert_array_equal(data["analysis_mean"], data["forecast_mean"])
    capsys.readouterr()
    assert main(command) == 0
    assert "nothing was computed" in capsys.readouterr().err

    (folder / "model.py").write_text(MODEL + "\n# changed\n", encoding="utf-8")
    assert "file of dynamics=model.py:step has changed since" in refused(capsys, *command[1:])
    config = str(out / "config.yaml")
    said = refused(capsys, "--config", config, "output_dir=again")
    assert "the file has changed since" in said
    assert "sha256=null" in said
    pinned = [f"{group}.sha256=null" for group in ("dynamics", "measurement", "filter")]
    assert main(["run", "--config", config, "output_dir=again", *pinned]) == 0


def test_what_a_name_may_be(folder):
    def built(group, **section):
        return group.build(group.check(section))

    assert built(DYNAMICS, name="model.py:ring").state_shape == (12,)
    assert built(DYNAMICS, name=f"{folder}/model.py:Mine", n=9, forcing=7).state_shape == (9,)
    assert built(DYNAMICS, name="model.py:box", n=5).state_shape == (5,)
    assert type(built(FILTERS, name="model.py:filters.ETKF", inflation=1.1)).__name__ == "ETKF"
    whole = MEASUREMENTS.build(MEASUREMENTS.check({"name": "model.py:sensor"}), (8,), None).measurement
    assert float(whole.noise.std) == 0.5
    keys = DYNAMICS.keys("model.py:step")
    assert (keys["forcing"].kind, keys["forcing"].doc) == (float, "F.")
    assert keys["wind"].kind is str


def test_a_function_gets_places_a_climatology_and_names(folder):
    step = {"name": "model.py:step", "state_shape": [8], "variable_names": list("abcdefgh")}

    def built(**keys):
        return DYNAMICS.build(DYNAMICS.check(step | keys))

    model = built(coordinates="ring", climatology="drawn")
    assert model.coordinates == Coordinates(np.arange(8), (8.0,))
    assert model.variable_names == tuple("abcdefgh")
    about = built(variable_units=["m"] * 8, time_units="s", length_units="km")
    assert (about.variable_units, about.time_units, about.length_units) == (("m",) * 8, "s", "km")
    assert float(model.sample_climatology(jax.random.key(0)).mean()) == pytest.approx(8, abs=1)
    one = built(variable_names=["T"], variable_units=["K"])
    assert (one.variable_names, one.variable_units) == (("T",), ("K",) * 8)
    assert built(coordinates="line").coordinates.period == (0.0,)
    assert built(coordinates="places").coordinates.positions[1, 0] == 0.5
    for keys, said in {
        ("coordinates", "number"): "must be ring, line, or the name of",
        ("coordinates", "rign"): "the file has no 'rign'",
        ("climatology", "number"): "must be a function of a random key; it is a int",
        ("climatology", "wrong_draw"): r"must return a state of shape \(8,\); it returns \(3,\)",
    }.items():
        with pytest.raises(InputError, match=said):
            built(**dict([keys]))
    with pytest.raises(InputError, match=r"of states of shape \[n\]; these have \[2, 4\]"):
        model_options("model.py:step", (2, 4), coordinates="ring")


def test_arrays_of_a_file_have_the_run_s_precision(folder):
    from masf_jax.cli.config.own_files import load_own
    from masf_jax.cli.process import precision

    for name in ("float32", "float64"):
        with precision(name):
            assert load_own("model.py:doubles").found.dtype == name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["dynamics=modle.py:step"], "modle.py: there is no such file. Did you mean model.py?"),
        (["dynamics=model.py:stp"], "no 'stp'. Did you mean 'step'?"),
        (["dynamics=model.py"], "model.py:NAME"),
        (["dynamics=model:step"], "dynamics=FILE.py:NAME"),
        (["dynamics=model.py:number"], "must be a model"),
        (["dynamics=model.py:sensor"], "must be a model"),
        (["dynamics=model.py:wrong"], "it made an int"),
        (["dynamics=model.py:step"], "missing: dynamics.state_shape"),
        (["dynamics=model.py:step", "dynamics.state_shape=[8]", "dynamics.forcng=9"], "'dynamics.forcing'?"),
        (["dynamics=model.py:step", "dynamics.state_shape=[8]"], "initial.mean=… and initial.std=…"),
        (["smoother=model.py:step"], "unknown smoother"),
        (["filter=model.py:half"], "must be f(key, members, innovations)"),
        (["measurement=model.py:keep"], "keep takes 3 arguments; write it as h(x)"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_is_not_taken(capsys, given, said):
    assert said in refused(capsys, *given)


@pytest.mark.parametrize(
    "filter", ["three_d_var", "masf_paper", "masf filter.normalization=fixed filter.radius=inf"]
)
def test_a_filter_of_climates_says_what_the_model_lacks(capsys, filter):
    own = ["dynamics=model.py:step", "dynamics.state_shape=[8]"]
    said = refused(capsys, *NORMAL, *own, *f"filter={filter}".split())
    assert "dynamics.climatology=NAME" in said


def test_an_error_in_the_file_has_its_line(capsys, folder):
    line = MODEL.splitlines().index("    return 0.9 * x + missing_name") + 1
    said = refused(capsys, *NORMAL, "dynamics=model.py:damped", "dynamics.state_shape=[4]")
    assert f"model.py, line {line}: NameError" in said
    assert "return 0.9 * x + missing_name" in said
    said = refused(capsys, *NORMAL, "dynamics=model.py:box")
    assert "RuntimeError: the solver blew up" in said
    assert "model.py, line" in said
    (folder / "model.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    assert "model.py, line 1: ModuleNotFoundError" in refused(capsys, "dynamics=model.py:step")
    (folder / "model.py").write_text("def step(x:\n", encoding="utf-8")
    assert "model.py, line 1: SyntaxError" in refused(capsys, "dynamics=model.py:step")


@pytest.mark.slow
def test_numbers_of_a_function_are_estimated(folder):
    own = ["dynamics=model.py:step", "dynamics.state_shape=[8]", "estimate.forcing={prior:[7,1]}"]
    assert main(["run", *QUIET, *NORMAL, *own, "output_dir=out"]) == 0
    metrics = json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["estimated_forcing"] != 7.0
    assert 0 < metrics["estimated_forcing_std"] < 1


def test_a_file_is_run_where_it_is_named_only(folder):
    (folder / "other.py").write_text("open('ran', 'w').close()\n", encoding="utf-8")
    settings = compose(["dynamics=model.py:ring"])
    assert settings.dynamics["name"] == "model.py:ring"
    assert not (folder / "ran").exists()


@pytest.mark.slow
def test_compare_and_dry_run_and_list(capsys, folder, monkeypatch):
    own = ["dynamics=model.py:ring", "measurement=model.py:half"]
    assert main(["run", *QUIET, *own, "--dry-run"]) == 0
    assert main(["list", "dynamics", "model.py:step"]) == 0
    assert "dynamics.state_shape=…" in capsys.readouterr().out
    filters = "filters=[model.py:keep,etkf]"
    for limit in ("_WORTH_COUNTING", "_LARGE_OPERATIONS"):
        monkeypatch.setattr(cost, limit, 0)
    lines = ["dynamics: model.py:ring", "measurement: model.py:half", "filter: letkf", "filter.radius: 3"]
    (folder / "run.yaml").write_text("\n".join([*lines, "output_dir: x"]), encoding="utf-8")
    assert main(["compare", filters, "seeds=1", "--config", "run.yaml", *QUIET, "output_dir=cmp"]) == 0
    said = capsys.readouterr().err
    assert all(
        f"masf-jax: {name}: 4 members of 12 numbers, 6 measured, 6 cycles of" in said
        for name in ("keep", "etkf")
    )
    assert (folder / "cmp" / "keep.yaml").exists()


def test_train_takes_them(folder, monkeypatch, capsys):
    given = {}

    def pretrain(settings, file, kept, overwrite, filter, dynamics, measurement):
        given.update(file=file, dynamics=dynamics, measurement=measurement)
        return file

    monkeypatch.setattr(train, "_pretrain", pretrain)
    own = ["dynamics=model.py:ring", "measurement=model.py:half", "filter=masf_paper"]
    assert main(["train", *own]) == 0
    assert given["file"].name == "ring-masf_paper.safetensors"
    assert given["dynamics"].state_shape == (12,)
    assert given["measurement"].output_shape((12,)) == (6,)
    assert "masf-jax run dynamics=model.py:ring measurement=model.py:half" in capsys.readouterr().out


def test_a_class_may_be_of_one_of_the_library_s(folder):
    """Whose arguments have types by names that this file does not have."""
    (folder / "filter.py").write_text("from masf_jax import filters\n\nclass Mine(filters.ETKF):\n    pass\n")
    keys = FILTERS.keys("filter.py:Mine")
    assert {"inflation", "rtps", "rotation"} <= set(keys)
    assert keys["rotation"].kind is bool


def test_a_file_by_hand_of_tune_and_compare(folder, capsys):
    (folder / "run.yaml").write_text(
        "filter: letkf\nfilter.radius: 3\nseed: 4\noutput_dir: x\n", encoding="utf-8"
    )
    given = ["--config=run.yaml", "filter.radius=2,4", "trials=3"]
    assert with_file(given, ("output_dir",)) == [
        "filter='letkf'",
        "filter.radius=3",
        "seed=4",
        *given[1:],
    ]
    assert with_file(given, ("filter", "seed", "output_dir")) == given[1:]
    assert with_file(["seeds=3"]) == ["seeds=3"]
    (folder / "saved.yaml").write_text("filter: {name: letkf}\n", encoding="utf-8")
    for command in ("compare", "tune"):
        assert main([command, "--config", "saved.yaml"]) == 2
        assert "saved.yaml: a saved configuration is of one run" in capsys.readouterr().err


def test_a_file_by_hand_is_a_command_line(folder):
    lines = ["dynamics: model.py:step", "dynamics.state_shape: [8]", "filter: letkf", "filter.radius: 2.5"]
    lines += ["initial: {mean: 2, std: 1}", "output_dir: it's here", "observations.valid_range: [-1.5, 9]"]
    (folder / "mine.yaml").write_text("\n".join(lines), encoding="utf-8")
    given = ["dynamics=model.py:step", "dynamics.state_shape=[8]", "filter=letkf", "filter.radius=2.5"]
    given += ["initial.mean=2", "initial.std=1", "output_dir='it\\'s here'", "seed=3"]
    expected = compose([*given, "observations.valid_range=[-1.5,9]"])
    assert repeat("mine.yaml", ["seed=3"]) == expected


def test_a_comparison_without_a_climatology(capsys):
    """A run takes such a model with initial.mean and std; to compare and tune with it was a traceback."""
    common = [*QUIET, *NORMAL, "dynamics=model.py:solver"]
    assert main(["compare", "filters=[etkf,enkf]", *common, "seeds=2", "output_dir=c"]) == 0
    assert "diverged" in capsys.readouterr().out
    with xr.open_dataset("c/comparison.nc", engine="h5netcdf") as data:
        assert 0.1 < data.attrs["climatology"] < 3
    assert main(["tune", "filter=etkf", *common, "trials=1", "evaluation_seeds=0", "output_dir=t"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dynamics=model.py:cutter"], r"must return shape (1, 4) (members, *state_shape)"),
        (["dynamics=model.py:solver", "filter=kalman"], "a BlackBox runs outside JAX and has no derivative"),
        (
            ["dynamics=model.py:scalar"],
            "a measurement needs an axis, and that of a state of shape () has none",
        ),
        (
            ["dynamics=model.py:ring", "measurement=model.py:first", "measurement.noise.std=[1,2]"],
            "Gaussian noise does not fit a measurement of shape (1,): ",
        ),
    ],
    ids=["shape", "derivative", "scalar", "noise"],
)
def test_what_does_not_suit_is_one_message(capsys, arguments, message):
    assert message in refused(capsys, *NORMAL, *arguments)
