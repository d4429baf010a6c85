"""Configuration: groups, overrides, presets, and errors that name the mend."""

from __future__ import annotations

import json
import os
import typing

import pytest
from omegaconf import OmegaConf

from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.builders.filters import FILTERS
from masf_jax.cli.config.builders.measurement import MEASUREMENTS, Network
from masf_jax.cli.config.builders.smoothers import SMOOTHERS
from masf_jax.cli.config.compose import choices, compose, config_folder, repeat
from masf_jax.cli.config.settings import Settings, read_settings, write_settings
from masf_jax.cli.errors import InputError
from masf_jax.cli.report import expected_range
from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Kolmogorov
from masf_jax.filters import Filter
from masf_jax.metrics import SCORES

REGISTRIES = {
    "dynamics": DYNAMICS,
    "measurement": MEASUREMENTS,
    "filter": FILTERS,
    "smoother": SMOOTHERS,
}
FILES = [(group, choice) for group in REGISTRIES for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), FILES)
def test_presets_hold_only_what_differs_from_the_constructor(group, choice):
    section = OmegaConf.to_container(OmegaConf.load(config_folder() / group / f"{choice}.yaml"))
    assert isinstance(section, dict)
    text = str(OmegaConf.load(config_folder() / group / f"{choice}.yaml"))
    if "${" in text:  # of another group
        return
    checked = REGISTRIES[group].check(section)
    keys = REGISTRIES[group].keys(section["name"], section)
    assert set(flat(checked)) == {"name", *keys}, "a checked section has all keys"
    for path in set(flat(section)) - {"name"}:
        assert flat(checked)[path] != keys[path].default, path


def flat(section, prefix=""):
    """By dotted path."""
    found = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("group", REGISTRIES)
def test_every_builder_has_a_configuration_file(group):
    names = {OmegaConf.load(config_folder() / group / f"{choice}.yaml")["name"] for choice in choices(group)}
    assert names == set(REGISTRIES[group].entries)


def test_score_names_are_those_of_the_library():
    names = typing.get_args(typing.get_args(typing.get_type_hints(Settings)["scores"])[0])
    assert set(names) == set(SCORES)


@pytest.mark.parametrize(
    "choice", [name for name in choices("measurement") if name not in ("speed", "vorticity")]
)
def test_every_measurement_builds_and_samples(choice, key):
    import jax.numpy as jnp

    settings = compose([f"measurement={choice}"])
    network = MEASUREMENTS.build(settings.measurement, (40,), Coordinates.grid((40,), (40.0,)))
    assert isinstance(network, Network)
    z = network.measurement.sample(key, jnp.ones(40))
    assert z.shape == network.measurement.output_shape((40,))


@pytest.mark.parametrize("choice", choices("filter"))
def test_every_filter_builds(choice):
    assert isinstance(FILTERS.build(compose([f"filter={choice}"]).filter), Filter)


@pytest.mark.parametrize("choice", choices("dynamics"))
def test_every_model_builds(choice):
    settings = compose([f"dynamics={choice}", "dynamics.model_error=0.5"])
    assert DYNAMICS.build(settings.dynamics).step_noise_variance is not None


@pytest.mark.parametrize("n", [64, 128, 256, 512])
def test_kolmogorov_presets_are_the_paper_flow(n):
    model = DYNAMICS.build(compose([f"dynamics=kolmogorov_{n}"]).dynamics)
    assert isinstance(model, Kolmogorov)
    assert model.state_shape == (2, n, n)
    assert (model.viscosity, model.drag, model.forcing, model.forcing_waves) == (1e-3, 0.1, 1.0, 4)
    assert float(model.dt) == pytest.approx(0.2)


def test_kolmogorov_takes_two_sides():
    model = DYNAMICS.build(
        compose(["dynamics=kolmogorov_64", "dynamics.shape=[32,48]", "dynamics.length=[1,2.5]"]).dynamics
    )
    assert isinstance(model, Kolmogorov)
    assert (model.state_shape, model.length) == ((2, 32, 48), (1.0, 2.5))
    with pytest.raises(InputError, match=r"dynamics\.shape must be an integer or a list of 2, each item an"):
        DYNAMICS.build(compose(["dynamics=kolmogorov_64", "dynamics.shape=[32]"]).dynamics)


@pytest.mark.parametrize("choice", choices("experiment"))
def test_presets_compose_and_say_what_they_are(choice):
    settings = compose([f"experiment={choice}"])
    assert settings.experiment.name == choice
    assert settings.experiment.description
    assert settings.experiment.reference
    comment = (config_folder() / "experiment" / f"{choice}.yaml").read_text()
    assert "expect" in comment or "No published RMSE" in comment


def test_a_preset_tunes_the_chosen_filter_and_user_overrides_win():
    letkf = compose(["experiment=lorenz96_sakov2008", "filter=letkf"])
    assert (letkf.ensemble_size, letkf.filter["inflation"], letkf.filter["radius"]) == (7, 1.04, 7.28)
    assert letkf.experiment.expected == 0.22
    own = compose(["experiment=lorenz96_sakov2008", "filter=letkf", "ensemble_size=9"])
    assert own.ensemble_size == 9
    assert own.experiment.expected is None, "the published number does not hold for another ensemble size"
    assert compose(["experiment=lorenz96_sakov2008", "seed=3"]).experiment.expected == 0.18


def test_the_range_of_what_is_expected_is_of_the_preset_alone():
    """Of its filter's values and its number of cycles."""
    preset = ["experiment=lorenz96_sakov2008", "filter=letkf"]
    assert compose([*preset, "seed=3"]).experiment.expected_std == 0.005
    long, other = (
        compose([*preset, "n_cycles=5000"]).experiment,
        compose([*preset, "filter.radius=3"]).experiment,
    )
    assert (long.expected, long.expected_std) == (0.22, None)
    assert (other.expected, other.expected_std) == (None, None)
    measured = {"expected_rmse_analysis": 0.22, "expected_rmse_std": 0.005}
    assert expected_range(measured) == "0.22 ± 0.005 over seeds"
    assert expected_range({"expected_rmse_analysis": 0.22}) == "0.22 (range over seeds: n/a)"
    assert expected_range({"expected_rmse_analysis": None}) == ""


def test_order_of_overrides_does_not_matter():
    settings = compose(["filter.radius=3", "filter=letkf"])
    assert settings.filter["radius"] == 3.0


@pytest.mark.parametrize(
    ("text", "value"), [("3e-4", 3e-4), ("1E3", 1e3), ("5", 5.0), ("inf", float("inf")), ("1_0.5", 10.5)]
)
def test_numbers_are_numbers(text, value):
    radius = compose(["filter=letkf", f"filter.radius={text}"]).filter["radius"]
    assert isinstance(radius, float)
    assert radius == value


def test_whole_floats_are_integers_where_integers_are_due():
    settings = compose(["n_cycles=1e3"])
    assert settings.n_cycles == 1000
    assert isinstance(settings.n_cycles, int)


def test_saved_settings_read_back_the_same(tmp_path):
    settings = compose(["experiment=lorenz96_arctan", "filter=ensrf", "filter.radius=inf", "seed=7"])
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(write_settings(settings))))
    assert repeat(str(path), []) == settings
    assert read_settings(write_settings(settings)) == settings


def test_repeat_renames_only_an_automatic_output_folder(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(write_settings(compose(["seed=1"])))))
    assert repeat(str(path), ["seed=2"]).output_dir == "outputs/lorenz96-etkf-seed2"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(write_settings(compose(["output_dir=here"])))))
    assert repeat(str(path), ["seed=2"]).output_dir == "here"


BAD = {
    "filter=etfk": ("unknown filter 'etfk'", "'etkf'", "letkf"),
    "dynamics=lorenz69": ("unknown dynamics", "'lorenz6"),
    "experiment=nil": ("unknown experiment", "'nile'"),
    "sead=3": ("unknown key 'sead'", "'seed'", "burn_in"),
    "filter.infaltion=1.1": ("filter.infaltion", "'filter.inflation'", "filter.rtps"),
    "filter.radius=3": ("filter.radius", "a key of: ensrf, ienkf, letkf"),
    "measurement.noise.lav=laplace": ("measurement.noise.lav", "'measurement.noise.law'"),
    "measurement.noise.law=cauchy": ("gaussian or laplace or student_t", "cauchy"),
    "initial.spreed=1": ("initial.spreed", "'initial.spread'"),
    "n_cycles=many": ("n_cycles must be an integer or null", "'many'"),
    "seed=1.5": ("seed must be an integer", "1.5"),
    "seed=true": ("seed must be an integer", "True"),
    "figures=1": ("figures must be true or false",),
    "filter.inflation=[1]": ("filter.inflation must be a number or null",),
    "filter.inflation.x=1": ("filter.inflation",),
    "measurement.noise=1": ("measurement.noise must be a mapping",),
    "seed": ("KEY=VALUE", "'seed'"),
    "--sede=3": ("unknown option",),
    "--overwrite": ("no option of this command: write overwrite=true",),
    "filter=etkf,enkf": ("run -m",),
    "~filter": ("KEY=VALUE",),
    "filter=[etkf": ("cannot read",),
    "seed=${nothing}": ("references are not read",),
    "ensemble_size=1": ("ensemble_size must be at least 2",),
    "layout.batch_size=0": ("layout.batch_size must be at least 1, or null; got 0",),
    "seed=-1": ("seed must be at least 0",),
    "burn_in=1000": ("burn_in (1000)",),
    "n_cycles=null": ("observations.path",),
    "initial.mean=0": ("initial.std",),
    "initial.spread=0": ("initial.spread must be positive",),
    "scores=[rmse,psnr]": ("scores", "energy_score", "psnr"),
    "save=all": ("save", "ensemble"),
    "measurement.noise.std=null": (),
}


@pytest.mark.parametrize("override", BAD)
def test_bad_overrides_name_the_mend(override):
    if override == "measurement.noise.std=null":
        settings = compose([override])
        with pytest.raises(InputError, match="std"):
            MEASUREMENTS.build(settings.measurement, (40,), None)
        return
    with pytest.raises(InputError) as error:
        compose([override])
    for part in BAD[override]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["measurement.noise.std=-1"], "std of the noise must be positive"),
        (["measurement=subset", "measurement.indices=[0,40]"], "index 40 is outside"),
        (["measurement=every_second", "measurement.start=50"], "start 50"),
        (["measurement=speed"], "velocity"),
        (["measurement=moving", "measurement.width=41"], "width"),
    ],
)
def test_bad_networks_are_refused(overrides, part):
    with pytest.raises(InputError, match=part):
        MEASUREMENTS.build(compose(overrides).measurement, (40,), None)


@pytest.mark.parametrize("law", ["gaussian", "laplace", "student_t"])
def test_std_is_the_standard_deviation_whatever_the_law(law):
    import jax.numpy as jnp

    settings = compose([f"measurement.noise.law={law}", "measurement.noise.std=0.5"])
    noise = MEASUREMENTS.build(settings.measurement, (40,), None).measurement.noise
    assert float(noise.whiten(jnp.asarray([0.5]))[0]) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "part"),
    [("- 1\n- 2\n", "no keys"), ("a: [", "not a valid YAML"), ("sead: 1\n", "'seed'"), ("", "missing")],
)
def test_bad_saved_configurations(tmp_path, text, part):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=part):
        repeat(str(path), [])
    with pytest.raises(InputError, match="cannot read"):
        repeat(str(tmp_path / "absent.yaml"), [])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &x [1, 1]\nb: [*x, *x]\n", "line 2: anchors and aliases"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "more than 40 levels"),
        ("experiment: {description: '${oc.env:HOME}'}\n", "line 1: references"),
        ("seed: 1\nseed: 2\n", "duplicate key"),
        ("a: !!python/object/apply:os.system [ls]\n", "not a valid YAML"),
        ("# " + "x" * 1_000_001, "at most 1000000"),
        (b"seed: \xff\n", "cannot read"),
    ],
)
def test_hostile_configurations_are_refused_at_once(tmp_path, text, part):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=part):
        repeat(str(path), [])
    filter_path = tmp_path / "filter.yaml"
    path.rename(filter_path)
    with pytest.raises(InputError, match=part):
        compose([f"filter={filter_path}"])


def test_a_configuration_is_an_ordinary_file_and_leads_nowhere_else(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, part in ((tmp_path / "pipe.yaml", "not an ordinary file"), (tmp_path, "not an ordinary file")):
        with pytest.raises(InputError, match=part):
            repeat(str(path), [])
    with pytest.raises(InputError, match="names the output folder"):
        compose(["experiment.name=../elsewhere"])
    saved = write_settings(compose(["output_dir=../elsewhere"]))
    (tmp_path / "saved.yaml").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="leads out of its folder"):
        repeat(str(tmp_path / "saved.yaml"), [])
    assert repeat(str(tmp_path / "saved.yaml"), ["output_dir=here"]).output_dir == "here"


@pytest.mark.parametrize("text", ["seed=" + "[" * 600, "x" * 20_000 + "=1", "experiment.name=\x1b[31m"])
def test_hostile_overrides_are_refused_at_once(text):
    with pytest.raises(InputError) as caught:
        compose([text])
    assert len(str(caught.value)) < 2_000


def test_a_file_of_observations_means_all_its_times_unless_said_otherwise():
    """Last of all: what the user says; a preset with a file of its own keeps its numbers."""
    settings = compose(["observations.path=sensors.csv"])
    assert (settings.n_cycles, settings.burn_in) == (None, 0)
    settings = compose(["burn_in=7", "observations.path=sensors.csv", "n_cycles=50"])
    assert (settings.n_cycles, settings.burn_in) == (50, 7)
    settings = compose(["observations.path=null"])
    assert (settings.n_cycles, settings.burn_in) == (1000, 200)
    assert compose(["experiment=nile"]).n_cycles == compose(["experiment=nile", "seed=1"]).n_cycles


@pytest.mark.parametrize("folder", ["dü", "a/b=c", "(a"])
def test_a_value_that_cannot_be_read_is_named_with_its_remedy(folder):
    with pytest.raises(InputError) as found:
        compose(["dynamics=lorenz63", f"output_dir={folder}"])
    assert f"cannot read 'output_dir={folder}'" in str(found.value)
    quoted = f"output_dir='{folder}'"
    assert f'"{quoted}"' in str(found.value)
    assert str(compose(["dynamics=lorenz63", quoted]).output_dir) == folder
