"""Comparisons: same problems for all filters, one table, and what happens where a filter fails."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from often import often
from rich.console import Console

from masf_jax.cli.compare import compare as command
from masf_jax.cli.compare.by_variable import averages_by_variable, lines_by_variable, scores_by_variable
from masf_jax.cli.compare.comparison import AVERAGED, Comparison, Result
from masf_jax.cli.compare.differences import difference_lines
from masf_jax.cli.compare.entries import Entry
from masf_jax.cli.compare.seed_runs import SeedRuns, share
from masf_jax.cli.config.compose import compose
from masf_jax.cli.errors import InputError
from masf_jax.cli.main import main
from masf_jax.cli.run.problem import build_case, build_models
from masf_jax.dynamics import Function
from masf_jax.filters import ETKF, EnsembleState
from masf_jax.metrics.summary import with_error

SMALL = ["dynamics.n=8", "n_cycles=30", "burn_in=10", "ensemble_size=6"]


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "deep"
    filters = "filters={etkf: etkf, few: etkf}"
    more = ["few.ensemble_size=4", "etkf.inflation=1.1", "seeds=3", "seed=2", f"output_dir={folder}"]
    assert main(["compare", filters, *SMALL, *more]) == 0
    return folder


@pytest.mark.slow
def test_a_run_is_that_of_masf_jax_run(finished, tmp_path):
    run = ["run", "filter=etkf", "filter.inflation=1.1", *SMALL, "seed=3", "figures=false"]
    assert main([*run, f"output_dir={tmp_path}"]) == 0
    alone = json.loads((tmp_path / "metrics.json").read_text())
    (compared,) = [r for r in rows(finished / "runs.csv") if (r["filter"], r["seed"]) == ("etkf", "3")]
    for name in ("rmse_analysis", "rmse_forecast", "spread_skill_ratio", "crps_analysis", "spread_forecast"):
        assert float(compared[name]) == pytest.approx(alone[name], rel=1e-3)


def test_files(finished):
    names = {
        "comparison.csv",
        "comparison.nc",
        "comparison.png",
        "comparison.tex",
        "runs.csv",
        "etkf.yaml",
        "few.yaml",
        "parts",
    }
    assert {path.name for path in finished.iterdir()} == names
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG")
    tex = (finished / "comparison.tex").read_text()
    assert r"\begin{tabular}{lrrrrrrr}" in tex
    assert tex.count(r"\boldmath") == 1
    assert tex.count(" & ") == 3 * 7
    assert r"etkf: defaults; given: inflation=1.1" in tex.split(r"\bottomrule")[1]
    settings = compose([*SMALL, "filter=etkf"])
    repeat = (finished / "few.yaml").read_text()
    assert "ensemble_size: 4" in repeat
    assert settings.filter["name"] in repeat


def test_a_filter_is_compared_with_the_first_seed_by_seed(finished):
    runs = {(row["filter"], row["seed"]): float(row["rmse_analysis"]) for row in rows(finished / "runs.csv")}
    apart = np.array([runs["few", seed] - runs["etkf", seed] for seed in "234"])
    first, few = rows(finished / "comparison.csv")
    assert (float(first["rmse_analysis_difference"]), float(first["rmse_analysis_difference_se"])) == (0, 0)
    assert float(few["rmse_analysis_difference"]) == pytest.approx(apart.mean())
    assert float(few["rmse_analysis_difference_se"]) == pytest.approx(apart.std(ddof=1) / math.sqrt(3))
    told = (finished / "comparison.tex").read_text()
    assert "minus that of etkf, seed by seed" in told
    assert "beyond ± 4.3 standard errors" in told  # Student's t of 2 degrees of freedom
    shown = with_error(apart.mean(), apart.std(ddof=1) / math.sqrt(3))
    assert f"few: {shown} (lower in {(apart < 0).sum()} of 3 seeds)" in told


def test_summary_has_mean_standard_error_and_origin(finished):
    runs = [float(row["rmse_analysis"]) for row in rows(finished / "runs.csv") if row["filter"] == "few"]
    (row,) = [row for row in rows(finished / "comparison.csv") if row["filter"] == "few"]
    assert len(runs) == 3
    assert float(row["rmse_analysis"]) == pytest.approx(np.mean(runs))
    assert float(row["rmse_analysis_se"]) == pytest.approx(np.std(runs, ddof=1) / math.sqrt(3))
    assert (row["ensemble_size"], row["runs"], row["diverged"]) == ("4", "3", "0")
    assert float(row["seconds_per_cycle"]) > 0
    assert [row["tuning"] for row in rows(finished / "comparison.csv")] == [
        "defaults; given: inflation=1.1",
        "defaults",
    ]


@pytest.mark.parametrize("spread", often(["0.1", "null"], ["null"]))
def test_fewer_members_are_the_first_ones(spread):
    few, many = (
        build_case(settings, *build_models(settings)).ensemble
        for settings in (
            compose(["dynamics=lorenz63", f"initial.spread={spread}", f"ensemble_size={n}"]) for n in (3, 7)
        )
    )
    np.testing.assert_array_equal(few, many[:3])


def test_one_program_for_all_seeds_and_several_at_once_change_nothing(monkeypatch):
    traced, transform = [], ETKF.transform
    monkeypatch.setattr(ETKF, "transform", lambda *a: (traced.append(0), transform(*a))[1])
    problem, one = share(compose(SMALL), (0, 1, 2)), share(compose(SMALL), (1,))

    def runs(problem, at_once):
        traced.clear()
        filter = ETKF().prepare(problem.dynamics, problem.measurement)
        made = SeedRuns(problem, filter, 6, at_once)
        made.trace()
        return made

    runs(one, 1)
    assert traced
    apart, together = runs(problem, 1)(), runs(problem, 2)()
    runs(problem, 1)
    assert not traced, "three seeds run the program of one"
    assert [run["seed"] for run in together] == [0, 1, 2]
    for first, second in zip(apart, together, strict=True):
        assert first["rmse_analysis"] == pytest.approx(second["rmse_analysis"], rel=1e-3)
    assert len({run["rmse_analysis"] for run in apart}) == 3


@pytest.mark.slow
def test_five_seeds_and_other_numbers_share_a_program(monkeypatch, tmp_path):
    traced, transform = [], ETKF.transform
    monkeypatch.setattr(ETKF, "transform", lambda *a: (traced.append(0), transform(*a))[1])
    filters = ["filters={a: etkf, b: etkf}", "a.inflation=1.1", "seeds=5", "figures=false"]
    problem = ["dynamics.n=7", "n_cycles=4", "burn_in=1", "ensemble_size=5", f"output_dir={tmp_path}"]
    assert main(["compare", "filters=[etkf]", "seeds=1", "figures=false", *problem]) == 0
    assert traced
    traced.clear()
    assert main(["compare", *filters, *problem]) == 0
    assert len(rows(tmp_path / "runs.csv")) == 10
    assert not traced


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Runs that return the inflation as every score; b runs out of memory after a look at what is on disk."""
    seen = []

    def run(self, done):
        value = float(self.filter.filter.inflation.multiplicative)
        if value == 1.5:
            seen.append(rows(tmp_path / "comparison.csv"))
            raise MemoryError("out of memory\nlong story")
        scores = dict.fromkeys(AVERAGED, value if value < 2 else math.nan)
        return [
            {"seed": seed, **scores, "repaired_members": 0, "skipped_cycles": 0, "seconds_per_cycle": 1.0}
            for seed in self.problem.seeds
        ]

    monkeypatch.setattr(SeedRuns, "__call__", run)
    return seen


def test_a_filter_that_fails_takes_no_results_along(scripted, tmp_path, capsys):
    values = ["a.inflation=1.25", "b.inflation=1.5", "c.inflation=1.75", "d.inflation=2"]
    arguments = ["compare", "filters={a: etkf, b: etkf, c: etkf, d: etkf}", *values, *SMALL, "seeds=2"]
    assert main([*arguments, f"output_dir={tmp_path}"]) == 1
    assert [row["filter"] for row in scripted.pop()] == ["a"]
    found = rows(tmp_path / "comparison.csv")
    assert [row["status"].split(":")[0] for row in found] == ["done", "failed", "done", "done"]
    assert [row["rmse_analysis"] for row in found] == ["1.25", "nan", "1.75", "nan"]
    assert [row["diverged"] for row in found] == ["0", "0", "0", "2"]
    assert "Traceback" in (tmp_path / "b.error.txt").read_text()
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "b failed: MemoryError: out of memory (b.error.txt)" in shown
    assert "2/2" in shown
    assert main(["compare", "filters={b: etkf}", *SMALL, "figures=false", f"output_dir={tmp_path}"]) == 0
    assert not (tmp_path / "b.error.txt").exists()
    assert not (tmp_path / "comparison.png").exists()


def test_each_variable_has_its_error_where_there_are_several():
    model = Function(lambda x: x, (2, 3), variable_names=["h", "u"], variable_units=["m", "1"])
    (score,) = scores_by_variable(model).values()
    assert scores_by_variable(Function(lambda x: x, (3,), variable_names=["T"])) == {}
    members, truth = np.zeros((2, 4, 2, 3), np.float32), np.zeros((2, 2, 3), np.float32)
    truth[0, 0], truth[1, 0], truth[1, 1, 2] = 3.0, 4.0, 6.0  # two cycles
    each = [score(EnsembleState(jnp.asarray(members[k])), jnp.asarray(truth[k]), None) for k in range(2)]
    found = averages_by_variable({"squares_by_variable": np.stack(each)}, model, 0)
    expected = {"rmse_analysis_of_h": math.sqrt((9 + 16) / 2), "rmse_analysis_of_u": math.sqrt(36 / 3 / 2)}
    assert found == pytest.approx(expected)
    assert averages_by_variable({}, model, 0) == {}
    runs = {"a": [{"rmse_analysis": 1.0} | found], "lost": [{"rmse_analysis": math.nan} | found], "old": []}
    assert lines_by_variable(runs, model)[1:] == ["  a: h 3.536 m, u 2.449"]


def test_a_run_no_better_than_the_climatology_has_diverged():
    problem = share(compose(SMALL), (0, 1, 2))
    cases = ((0.9, 1.0), (1.1, 1.0), (math.nan, math.nan), (0.97, 0.07), (0.4, 0.07), (0.97, math.nan))
    runs = [
        {"rmse_analysis": factor * problem.climatology, "spread_skill_ratio": ratio}
        for factor, ratio in cases
    ]
    of_etkf = [False, True, True, True, False, False]  # the fourth is sure of itself, and near the climate
    for name, lost in (("etkf", of_etkf), ("climatology", [False, False, True, False, False, False])):
        entry = Entry(name, compose([f"filter={name}"]), None)
        comparison = Comparison(entry.settings, problem, 1, "", [])
        assert comparison.lost(Result(entry, runs)) == lost
    assert 3.0 < problem.climatology < 4.3


@pytest.mark.parametrize(
    ("width", "left_out"), [(120, []), (100, ["RMSE forecast"]), (80, ["RMSE forecast", "CRPS"])]
)
def test_a_table_keeps_to_the_terminal(width, left_out):
    head = ["filter", "N", "RMSE analysis", "RMSE forecast", "spread/RMSE", "CRPS", "s/cycle", "diverged"]
    score = "0.5837 ± 0.0030"
    rows = [["masf_amortised", "20", *[score] * 4, "4.5e-04", "0/5"]]
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    table, without = command.fitting("lorenz96_partial: 4 filters, 5 seeds", head, rows, console)
    assert without == left_out
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines) <= width
    assert len(lines) == 6  # nothing is folded
    assert lines[4].count(score) == 4 - len(left_out)


def test_cells_show_the_error_to_two_digits():
    lost = [{"seed": seed, "rmse_analysis": math.nan} for seed in range(3)]
    sound = [{"seed": seed, "rmse_analysis": 0.2 + 0.01 * seed} for seed in range(3)]
    (line,) = difference_lines({"lost": lost, "sound": sound})
    assert line == "  sound: no difference, as there is no seed in which it and lost have an RMSE"
    head, line = difference_lines({"sound": sound, "lost": lost, "same": sound})[::2]
    assert head.startswith("RMSE of the analysis minus that of sound")
    assert line.startswith("  same: 0")
    assert with_error(0.21956, 0.00213) == "0.2196 ± 0.0021"
    assert with_error(3.5871, 0.0291) == "3.587 ± 0.029"
    assert with_error(1234.5, 12.0) == "1234 ± 12"
    assert with_error(0.5, math.nan) == "0.5"
    assert with_error(2.1956e-7, 2.13e-9) == "2.196e-07 ± 2.1e-09"
    assert with_error(-1.5e9, 2.0e9) == "-1.5e+09 ± 2.0e+09"
    assert with_error(0.0, 0.013) == "0.000 ± 0.013"
    assert with_error(math.nan, math.nan) == "nan"


MISTAKES = {
    "which filters?": [],
    "Did you mean 'letkf'": ["filters=[etkf,letfk]"],
    "Did you mean 'etkf'": ["filters=[etkf]", "etfk.inflation=1"],
    "Did you mean 'filter.inflation'": ["filters=[etkf]", "etkf.inflatoin=1"],
    "Did you mean 'seed'": ["filters=[etkf]", "sead=1"],
    "etkf: unknown key (of filter etkf) 'filter.radius'. It is a key of": [
        "filters=[letkf,etkf]",
        "filter.radius=3",
    ],
    "filter.radius is given to all filters here; to one of them: letkf.radius=": [
        "filters=[letkf,etkf]",
        "filter.radius=3",
    ],
    "two filters are called etkf": ["filters=[etkf,etkf]"],
    "one list": ["filters=[etkf]", "filter=letkf"],
    "no such file": ["filters=[./absent.yaml]"],
    "a seed stands there twice": ["filters=[etkf]", "seeds=[1,1]"],
    "at least one": ["filters=[etkf]", "seeds=0"],
    "names the seeds": ["filters=[etkf]", "seeds=[1,2]", "seed=0"],
    "must be an integer": ["filters=[etkf]", "seeds_at_once=0"],
    "given twice": ["filters=[etkf]", "seeds=1", "seeds=2"],
    "have one each": ["filters=[etkf]", "n_cycles=10,20"],
    "expected filters by name": ["filters={dynamics: etkf}"],
}


@pytest.mark.parametrize("part", MISTAKES)
def test_mistakes_are_found_before_anything_is_run(part, monkeypatch, capsys):
    monkeypatch.setattr(command, "share", pytest.fail)
    assert main(["compare", *MISTAKES[part]]) == 2
    assert part in capsys.readouterr().err


def test_a_filter_that_does_not_fit_is_found_before_any_is_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(SeedRuns, "__call__", pytest.fail)
    bad = ["filters=[masf,etkf]", "masf.process=measurement_aware", "measurement=arctan", *SMALL]
    assert main(["compare", *bad, f"output_dir={tmp_path}/new"]) == 2
    assert "masf: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_comparison_needs_a_truth_and_its_error():
    with pytest.raises(InputError, match="no truth"):
        share(compose(["experiment=nile"]), (0,))
    with pytest.raises(InputError, match="must have rmse"):
        share(compose(["scores=[crps]"]), (0,))


def test_origin_of_the_values_is_told():
    tuned = compose(["experiment=lorenz96_sakov2008", "filter=letkf"])
    assert tuned.experiment.tuning == "preset lorenz96_sakov2008"
    other = compose(["experiment=lorenz96_sakov2008", "filter=letkf", "ensemble_size=20", "filter.radius=5"])
    assert other.experiment.tuning == "preset lorenz96_sakov2008, for 7 members; given: radius=5"
    assert compose(["experiment=lorenz96_sakov2008", "filter=kalman"]).experiment.tuning == "defaults"
