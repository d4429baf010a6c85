"""`masf-jax plot` and `masf-jax report`: what they draw and write, and how they refuse."""

from __future__ import annotations

import html as html_module
import math
import re
import shutil

import pytest
import xarray as xr

from masf_jax.cli.main import main
from masf_jax.cli.pages import html
from masf_jax.cli.report import score_rows
from masf_jax.observations import dataset_files
from masf_jax.observations.errors import FileError

SMALL = ["dynamics.n=8", "n_cycles=30", "burn_in=10", "ensemble_size=6", "figures=false"]
OUTSIDE = re.compile(r"(?:src|href)\s*=\s*[\"'](?!data:)|url\(|@import|<script|<link|<iframe", re.IGNORECASE)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "<b>a & b"
    name = "experiment.description='<script>alert(1)</script> & more'"
    save = "save=[mean,spread,ensemble]"
    assert main(["run", *SMALL, "measurement=every_second", save, name, f"output_dir='{folder}'"]) == 0
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    filters = "filters={etkf: etkf, few: etkf}"
    assert main(["compare", filters, *SMALL, "few.ensemble_size=4", "seeds=3", f"output_dir={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_plot_draws_again_what_is_asked_for(run_dir, capsys):
    assert main(["plot", str(run_dir), "--dpi", "50"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.rpartition("/")[2] for line in lines} == {
        "error_spread.png",
        "states.png",
        "rank_histogram.png",
    }
    more = ["--dpi", "50", "series", "reliability", "--components", "0,7", "--last", "5"]
    assert main(["plot", str(run_dir / "result.nc"), *more]) == 0  # options before what, too
    assert all(
        (run_dir / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("series", "reliability")
    )


def test_a_report_is_one_file_and_escapes_what_it_is_given(run_dir, capsys):
    assert main(["report", str(run_dir), "--dpi", "40"]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    text = (run_dir / "report.html").read_text(encoding="utf-8")
    assert not OUTSIDE.search(text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert text.count("data:image/png;base64,") == 5
    for part in (
        "RMSE of the analysis",
        "masf-jax run dynamics.n=8",
        "ensemble_size: 6",
        "jaxlib",
        "viewport",
    ):
        assert part in text
    assert "No cycle was lost; nothing was flagged." in text


@pytest.mark.slow
def test_a_report_says_what_was_flagged(run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    with xr.open_dataset(run_dir / "result.nc", engine="h5netcdf") as data:
        data = data.load()
    data["repaired_members"][3], data["skipped"][4], data["faults"][4] = 2, 1, 4
    data.to_netcdf(tmp_path / "run" / "result.nc", engine="h5netcdf")
    (tmp_path / "run" / "metrics.json").unlink()
    assert main(["report", str(tmp_path / "run" / "result.nc"), "--dpi", "40"]) == 0
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "2 members were not finite and were replaced." in text
    assert text.count('class="alert"') == 2
    assert "nothing was flagged" not in text


def test_a_comparison_has_a_dataset_a_figure_and_a_report(compared, capsys):
    with xr.open_dataset(compared / "comparison.nc", engine="h5netcdf") as data:
        assert dict(data.sizes) == {"filter": 2, "seed": 3}
        assert data["seed"].values.tolist() == [0, 1, 2]
        mean = float(data["rmse_analysis"].sel(filter="few").mean())
    assert main(["plot", str(compared), "--dpi", "50"]) == 0
    assert main(["report", str(compared), "--dpi", "40"]) == 0
    assert capsys.readouterr().out.split() == [
        str(compared / "comparison.png"),
        str(compared / "report.html"),
    ]
    text = (compared / "report.html").read_text(encoding="utf-8")
    assert not OUTSIDE.search(text)
    for part in (f"{mean:.2f}", "masf-jax compare", "0, 1, 2", "few.yaml", "standard error"):
        assert part in text


def test_mistakes(run_dir, compared, tmp_path, capsys):
    (tmp_path / "comparison.nc").write_text("nothing of the kind")
    wrong = {
        ("plot",): "RUN is missing",
        ("plot", str(run_dir), "serie"): "Did you mean 'series'?",
        ("plot", str(run_dir), "vorticity"): "channels u and v",
        ("plot", str(run_dir), "series", "--components", "a"): "--components takes numbers",
        ("plot", str(run_dir), "series", "--components", "8"): "0 … 7",
        ("plot", str(run_dir), "--components", "1"): "--components is for the figure series",
        ("plot", str(run_dir), "--last", "0"): "--last must be at least 1",
        ("plot", str(compared), "states"): "of a comparison, which has one figure, comparison; got states",
        ("report", str(tmp_path / "absent")): "holds no result.nc",
        ("report", str(tmp_path)): "is damaged, or not of a comparison",
        ("reprt", str(run_dir)): "Did you mean 'report'?",
    }
    for arguments, part in wrong.items():
        assert main(list(arguments)) == 2, arguments
        message = capsys.readouterr().err
        assert part in message
        assert "Traceback" not in message


def test_a_file_is_read_through_once_while_it_stays_the_same(run_dir, tmp_path, monkeypatch):
    """In a process of its own (HDF5 may end it); never one that this process wrote."""
    read, header = [], dataset_files._header
    monkeypatch.setattr(dataset_files, "_header", lambda *given: (read.append(given[0]), header(*given))[1])
    dataset_files.check_readable(run_dir / "result.nc")
    assert not read, "written by a run of this process"
    copy = tmp_path / "copy.nc"
    shutil.copyfile(run_dir / "result.nc", copy)
    for _ in range(2):
        dataset_files.check_readable(copy)
    assert read == [copy]
    copy.write_bytes(copy.read_bytes()[:-1000])
    for count in (2, 3):
        with pytest.raises(FileError, match="cannot read"):
            dataset_files.check_readable(copy)
        assert len(read) == count


def test_control_characters_are_shown_as_such():
    assert html.escaped("a\x1b[31m<b>\u202e") == r"a\x1b[31m&lt;b&gt;\u202e"


def test_the_scores_have_a_row_for_each_variable():
    numbers = {"ensemble_size": 3, "n_cycles": 9, "burn_in": 0, "rmse_analysis": 1.0}
    own = {"rmse_analysis": 0.5, "spread_analysis": 0.25}
    lost = {"rmse_analysis": math.nan, "spread_analysis": math.nan}
    numbers["by_variable"] = {"h": own | {"units": "m"}, "u": own, "lost": lost}
    rows = dict(score_rows(numbers))
    assert rows["  h (m): RMSE | spread"] == rows["  u: RMSE | spread"] == "0.5 | 0.25"
    assert not [name for name in rows if "lost" in name]
    numbers["by_variable"] = {f"v{i}": own for i in range(11)}
    assert dict(score_rows(numbers))["  3 more variables"] == "in metrics.json"


@pytest.mark.slow
def test_an_ensemble_too_wide_is_told_by_the_run_and_on_its_page(tmp_path, capsys):
    of_filter = ["filter=letkf", "filter.radius=4", "filter.inflation=1.1", "ensemble_size=12"]
    few = ["measurement=subset", "measurement.indices=[0,8,16,24,32]", "n_cycles=120", "burn_in=20"]
    assert main(["run", *of_filter, *few, "figures=false", f"output_dir={tmp_path}"]) == 0
    error = capsys.readouterr().err
    (said,) = [line for line in error.splitlines() if "the ensemble is too wide" in line]
    assert main(["report", str(tmp_path), "--dpi", "40"]) == 0
    text = html_module.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert said.partition("the ensemble")[2] in text
