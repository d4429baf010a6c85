"""`--quiet`, `--log-file`, exit codes."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from masf_jax.cli import errors
from masf_jax.cli.exit_codes import ExitCode, ended_by
from masf_jax.cli.main import main
from masf_jax.cli.output import spoken

RUN = ["run", "dynamics.n=8", "n_cycles=6", "burn_in=0", "figures=false", "ensemble_size=4"]
RUN += ["compilation_cache=false"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_quiet_run_says_nothing_and_its_log_everything(capsys, tmp_path):
    assert main([*RUN, "--quiet", "--log-file", "run.log", "progress=true"]) == ExitCode.DONE
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert (tmp_path / "outputs" / "lorenz96-etkf-seed0" / "result.nc").exists()
    first = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert re.match(r"# \d{4}-\d\d-\d\dT[\d:+-]+ masf-jax run dynamics.n=8", first)
    assert "RMSE of the analysis" in first
    assert main([*RUN, "--log-file=run.log"]) == ExitCode.DONE
    said = capsys.readouterr()
    second = (tmp_path / "run.log").read_text(encoding="utf-8").removeprefix(first)
    assert second.split("\n", 1)[1] == said.err + said.out or set(second.splitlines()[1:]) == set(
        (said.out + said.err).splitlines()
    )
    assert "nothing was computed" in second


def test_errors_are_said_and_logged(capsys, tmp_path):
    assert main([*RUN, "--quiet", "--log-file", "run.log", "filter=etfk"]) == ExitCode.BAD_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    assert "Did you mean 'etkf'?" in said.err
    assert said.err in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert main([*RUN, "--log-file", "no/such/folder/run.log"]) == ExitCode.FAILED
    assert "--log-file no/such/folder/run.log cannot be written: No such file" in capsys.readouterr().err
    assert main([*RUN, "--log-file"]) == ExitCode.BAD_INPUT
    assert "--log-file needs a file" in capsys.readouterr().err
    assert main(["list", "--quiet"]) == ExitCode.BAD_INPUT


def test_a_fault_of_ours_is_logged_with_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError), spoken(["run", "--log-file", "run.log"]):
        1 / 0  # noqa: B018
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "Traceback" in log
    assert log.endswith("ZeroDivisionError: division by zero\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_of_a_bar_the_log_has_the_last_line(tmp_path, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("TERM", "xterm")
    with spoken(["run", "--log-file", "run.log"]), Progress(console=Console()) as bar:
        task = bar.add_task("cycles", total=3)
        for _ in range(3):
            bar.advance(task)
            bar.refresh()
    print("after")
    assert shown.getvalue().count("cycles") > 3
    assert "after" in shown.getvalue()
    log = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert log.count("cycles") == 1
    assert "100%" in log
    assert "\x1b" not in log


def test_a_full_disk_ends_the_log_and_not_the_run(capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with spoken(["run", "--log-file", "/dev/full"]):
        print("one\ntwo")
        print("three")
    said = capsys.readouterr()
    assert said.out == "one\ntwo\nthree\n"
    assert sys.stdout is not None


def test_a_run_goes_on_when_nobody_reads_it(monkeypatch, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        command = ["run", "-m", "dynamics.n=8", "n_cycles=4", "burn_in=1", "figures=false", "seed=0,1"]
        assert main([*command, f"output_dir={tmp_path}"]) == ExitCode.DONE
    assert (tmp_path / "1" / "result.nc").exists()
    assert (tmp_path / "summary.csv").exists()


def test_a_full_disk_takes_no_words(monkeypatch, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["list"]) == ExitCode.FAILED
    assert capsys.readouterr().err == "masf-jax: what was printed is not whole: No space left on device.\n"


def test_closed_streams_and_few_letters(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list"]) == ExitCode.DONE
    few = io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", few)
    monkeypatch.setattr(sys, "stderr", few)
    assert main(["run", "seed=½"]) == ExitCode.BAD_INPUT
    assert main(["list", "dynamics"]) == ExitCode.DONE
    said = raw.getvalue().decode("ascii")
    assert "'seed=?'" in said
    assert "lorenz96" in said


def test_exit_codes_are_those_of_the_page():
    page = Path(__file__).parents[2] / "docs" / "terminal.md"
    if not page.is_file():
        pytest.skip("the docs are not part of the installed package")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(str(code.value), code.meaning) for code in ExitCode]
    assert (ended_by(signal.SIGINT), ended_by(signal.SIGTERM)) == (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    assert errors.WriteError.exit_code is ExitCode.FAILED


def test_each_command_ends_with_an_exit_code(capsys):
    for given, code in {
        ("--version",): ExitCode.DONE,
        ("list", "filter"): ExitCode.DONE,
        ("doctor", "now"): ExitCode.BAD_INPUT,
        ("plot", "nowhere"): ExitCode.BAD_INPUT,
        ("init", "a", "b"): ExitCode.BAD_INPUT,
    }.items():
        assert main(given) is code, given
    capsys.readouterr()
