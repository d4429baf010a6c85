"""Tuning: search spaces, a fixed number of trials, seeds apart, and the file that it leaves."""

from __future__ import annotations

import csv
import math

import pytest

from masf_jax.cli.compare import tune as command
from masf_jax.cli.compare.search_space import Choices, Interval, current_values, default_space, given_space
from masf_jax.cli.compare.seed_runs import SeedRuns
from masf_jax.cli.config.compose import choices, compose
from masf_jax.cli.config.filter_file import read_filter_file
from masf_jax.cli.config.overrides import split
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.run.problem import build_models
from masf_jax.filters import LETKF, EnSRF

pytest.importorskip("optuna")
OWN = """from masf_jax import dynamics, filters


class Mine(filters.ETKF):
    pass


def ring(n: int = 8):
    return dynamics.Lorenz96(n=n)
"""
SMALL = ["dynamics.n=8", "n_cycles=30", "burn_in=10", "ensemble_size=6"]


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune") / "deep"
    space = ["filter.inflation=interval(1.0,1.3)", "trials=5", "evaluation_seeds=2"]
    assert main(["tune", "filter=etkf", *space, *SMALL, f"output_dir={folder}"]) == 0
    return folder


def test_trials_and_the_best_of_them(tuned):
    trials = rows(tuned / "trials.csv")
    assert [row["trial"] for row in trials] == ["0", "1", "2", "3", "4"]
    assert float(trials[0]["filter.inflation"]) == 1.02, "the first trial has the values that are set"
    assert all(1.0 <= float(row["filter.inflation"]) <= 1.3 for row in trials)
    for row in trials:
        each = [float(row["rmse_seed_1000"]), float(row["rmse_seed_1001"])]
        assert float(row["score"]) == pytest.approx(sum(each) / 2)
    best = min(trials, key=lambda row: float(row["score"]))
    file = read_filter_file(str(tuned / "etkf_tuned.yaml"))
    assert file.filter["inflation"] == float(best["filter.inflation"])
    assert file.tuning is not None
    assert file.tuning.rmse == pytest.approx(float(best["score"]))
    assert (file.tuning.trials, file.tuning.seeds) == (5, (1000, 1001))
    head = (tuned / "etkf_tuned.yaml").read_text().splitlines()[:4]
    assert all(line.startswith("#") for line in head)
    assert "masf-jax tune filter=etkf" in head[1]


def test_the_file_is_a_filter_of_runs_and_comparisons(tuned, tmp_path, capsys):
    path = tuned / "etkf_tuned.yaml"
    file = read_filter_file(str(path))
    settings = compose([f"filter={path}"])
    assert (settings.filter["name"], settings.ensemble_size) == ("etkf", 6)
    assert settings.filter["inflation"] == file.filter["inflation"]
    assert (
        settings.experiment.tuning
        == "etkf_tuned.yaml: masf-jax tune, 5 trials × 2 seeds × 30 cycles of lorenz96"
    )
    other = compose(
        ["experiment=lorenz96_sakov2008", f"filter={path}", "ensemble_size=9", "filter.inflation=2"]
    )
    assert (other.filter["inflation"], other.ensemble_size, other.experiment.expected) == (2.0, 9, None)
    assert other.experiment.tuning.endswith("of lorenz96, for 6 members; given: inflation=2")
    arguments = ["compare", f"filters=[{path}]", *SMALL[:3], "seeds=2", "figures=false"]
    assert main([*arguments, f"output_dir={tmp_path}"]) == 0
    (row,) = rows(tmp_path / "comparison.csv")
    assert (row["filter"], row["ensemble_size"]) == ("etkf_tuned", "6")
    assert float(row["rmse_analysis"]) == pytest.approx(file.tuning.evaluated_rmse, rel=1e-3)
    assert float(row["rmse_analysis_se"]) == pytest.approx(file.tuning.evaluated_error, rel=1e-2)
    assert "5 trials × 2 seeds" in capsys.readouterr().out
    assert main(["compare", f"filters=[{path}]", *SMALL[:3], "seeds=[3,1001]"]) == 2
    assert "was tuned on seed(s) 1001" in capsys.readouterr().err


def test_tuning_and_evaluation_seeds_must_not_meet(capsys):
    assert main(["tune", "filter=etkf", "seeds=[7,3,5]", "evaluation_seeds=[5,6,7]"]) == 2
    assert "seed(s) 5, 7 would both tune and evaluate" in capsys.readouterr().err
    assert main(["tune", "filter=etkf", "seed=998"]) == 2
    assert "seed(s) 1000, 1001" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_with_nan_count_as_climatology(tmp_path):
    lost = ["initial.spread=1e5", "evaluation_seeds=0", "trials=3"]
    arguments = ["tune", "filter=etkf", "filter.inflation=1.0,1.1", *SMALL, *lost, f"output_dir={tmp_path}"]
    assert main(arguments) == 3
    tuning = read_filter_file(str(tmp_path / "etkf_tuned.yaml")).tuning
    assert tuning is not None
    for row in rows(tmp_path / "trials.csv"):
        assert row["runs_with_nan"] == "2"
        assert float(row["score"]) == pytest.approx(tuning.climatology)
    assert 2.5 < tuning.climatology < 4.5
    assert tuning.evaluated_rmse is None


def test_values_that_were_run_are_not_run_again(tmp_path, monkeypatch):
    """Of a filter and a model in a file of one's own."""
    calls = []
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    own = [f"filter={tmp_path}/mine.py:Mine", f"dynamics={tmp_path}/mine.py:ring"]

    def run(self, done=None):
        calls.append(float(self.filter.filter.inflation.multiplicative))
        return [{"seed": seed, "rmse_analysis": calls[-1]} for seed in self.problem.seeds]

    monkeypatch.setattr(SeedRuns, "__call__", run)
    arguments = ["tune", *own, "filter.inflation=1.5,1.25", "trials=6", "evaluation_seeds=0", *SMALL]
    assert main([*arguments, f"output_dir={tmp_path}"]) == 0
    assert sorted(set(calls)) == sorted(calls)
    assert len(rows(tmp_path / "trials.csv")) == 6
    file = read_filter_file(str(tmp_path / "Mine_tuned.yaml"))
    assert file.filter["inflation"] == min(calls)
    assert compose([f"filter={file.path}"]).filter == file.filter


@pytest.mark.parametrize(
    ("filter", "cls", "space"),
    [
        ("letkf", LETKF, ["filter.inflation=interval(1.0,1.3)", "filter.radius=interval(1,3.5)"]),
        ("ensrf", EnSRF, ["filter.radius=interval(1,3.5)"]),
    ],
)
@pytest.mark.slow
def test_one_program_for_all_trials(filter, cls, space, monkeypatch, tmp_path):
    traced, transform = [], cls.transform
    monkeypatch.setattr(cls, "transform", lambda *a: (traced.append(0), transform(*a))[1])
    problem = ["dynamics.n=9", "n_cycles=4", "burn_in=1", "ensemble_size=5", "evaluation_seeds=2"]
    arguments = ["tune", f"filter={filter}", *space, *problem, f"output_dir={tmp_path}"]
    assert main([*arguments, "trials=1"]) == 0
    assert traced
    traced.clear()
    assert main([*arguments, "trials=10"]) == 0
    assert len({row["score"] for row in rows(tmp_path / "trials.csv")}) > 5, "the values differ"
    assert not traced, "ten trials and the evaluation run the program of the first"


@pytest.mark.parametrize("space", ["2,4.5,3", "interval(1,4.5)", "inf,2"])
def test_neighbour_lists_reach_as_far_as_the_largest_radius(space, tmp_path):
    arguments = ["filter=letkf", f"filter.radius={space}", *SMALL, f"output_dir={tmp_path}"]
    task = command._task(arguments)
    largest = math.inf if "inf" in space.split(",") else 4.5
    assert task.entry(("filter.radius=2",)).settings.filter["reach"] == largest
    assert task.settings.filter["reach"] is None, "the file that is written has none"
    given = command._task([*arguments, "filter.reach=9"])
    assert given.entry(("filter.radius=2",)).settings.filter["reach"] == 9.0


def space_of(*overrides):
    return given_space(split(list(overrides), ())[1])


def test_spaces_in_hydras_grammar():
    space = space_of(
        "filter.a=interval(1,1.3)",
        "filter.b=2,4,6",
        "filter.c=tag(log,int(interval(2,9)))",
        "filter.d=range(1,7,step=2)",
        "filter.e.f=null,true,[1,2]",
    )
    assert space["filter.a"] == Interval(1.0, 1.3)
    assert space["filter.b"] == Choices((2, 4, 6), ("2", "4", "6"))
    assert space["filter.c"] == Interval(2, 9, log=True)
    assert space["filter.d"].ends() == ("1", "3", "5")
    assert space["filter.e.f"].ends() == ("null", "true", "[1,2]")
    assert str(space["filter.c"]) == "tag(log,int(interval(2,9)))"
    assert space["filter.a"].text(1.123456789) == "1.1235"
    for bad in ("seed=1,2", "filter=etkf,letkf", "filter.a=interval(2,1)", "filter.a=tag(log,interval(0,1))"):
        with pytest.raises(InputError):
            space_of(bad)


def test_where_the_present_values_lie_in_the_space():
    settings = compose(["filter=letkf", "filter.radius=4", "filter.inflation=1.04"])
    space = space_of("filter.radius=2,4.0,6", "filter.inflation=interval(1,1.2)")
    assert current_values(space, settings) == {"filter.radius": 1, "filter.inflation": 1.04}
    assert current_values(space_of("filter.radius=2,6"), settings) is None
    assert current_values(space_of("filter.rtps=interval(0,1)"), settings) is None


@pytest.mark.parametrize("name", choices("filter"))
def test_default_spaces(name):
    settings = compose([f"filter={name}"])
    dynamics, _ = build_models(settings)
    usual = {"inflation", "radius"} & set(settings.filter)
    if not usual and name not in ("three_d_var", "particle"):
        with pytest.raises(InputError, match="no keys that are tuned by default"):
            default_space(settings, dynamics)
        return
    space = default_space(settings, dynamics)
    assert {key.removeprefix("filter.") for key in space} <= set(settings.filter)
    radius = space.get("filter.radius")
    if radius is not None:
        assert settings.filter["radius"] in radius.values
        assert sum(math.isfinite(value) for value in radius.values) == 5


def test_mistakes_are_found_before_the_first_trial(monkeypatch, capsys):
    monkeypatch.setattr(command, "share", pytest.fail)
    mistakes = {
        "Did you mean 'filter.inflation'": ["filter.inflatoin=1,2"],
        "must be a number": ["filter.radius=2,big", "filter=letkf"],
        "one filter": ["filter=etkf,letkf"],
        "masf-jax train": ["filter=masf_paper"],
        "at least 1": ["trials=0"],
        "tuning needs at least one": ["seeds=0"],
    }
    for part, arguments in mistakes.items():
        assert main(["tune", *arguments]) == 2
        assert part in capsys.readouterr().err


def test_without_optuna_the_message_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert main(["tune", "filter=etkf"]) == 2
    assert "pip install 'masf-jax[tune]'" in capsys.readouterr().err


def test_a_bad_file_is_told_apart(tmp_path, capsys):
    path = tmp_path / "f.yaml"
    bad = {
        "name: etkf\nradius: 3\n": "It is a key of",
        "inflation: 1.1\n": "filter.name must be one of",
        "- 1\n": "holds no keys",
        "name: etkf\ntuning: {trials: 3}\n": "missing: tuning.seeds",
        "name: [": "cannot read",
    }
    for text, part in bad.items():
        path.write_text(text)
        with pytest.raises(InputError, match=part) as error:
            read_filter_file(str(path))
        assert str(path) in str(error.value)
    assert main(["run", "filter=absent.yaml"]) == 2
    assert "no such file" in capsys.readouterr().err
    path.write_text("name: letkf\nradius: 3.5\n")
    settings = compose([f"filter={path}"])
    assert settings.filter["radius"] == 3.5
    assert settings.filter["inflation"] == compose(["filter=letkf"]).filter["inflation"]
    assert settings.experiment.tuning == "f.yaml: given by hand"
    assert main(["run", "-m", f"filter=etkf,{path}", "seed=0"]) == 2
    assert "masf-jax compare" in capsys.readouterr().err
