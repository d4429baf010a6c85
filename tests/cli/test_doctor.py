"""`masf-jax doctor`: one screen of what a run computes with, and exit code 1 where something is wrong."""

import shutil

import jax
import pytest

from masf_jax.cli import doctor
from masf_jax.cli.main import main


def test_all_is_said_within_80_columns_and_nothing_is_wrong(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    names = [line.split()[0] for line in said.splitlines()[:-1]]
    assert {
        "masf-jax",
        "python",
        "jax",
        "jaxlib",
        "devices",
        "threads",
        "precision",
        "memory",
        "disk",
    } <= set(names)
    assert jax.__version__ in said
    assert said.splitlines()[-1] == "Nothing is wrong."
    assert max(map(len, said.splitlines())) <= 80


def test_what_is_wrong_has_a_remedy(capsys, monkeypatch):
    full = shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(doctor, "_NEEDED", ("no-such-package",))
    assert main(["doctor"]) == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("!")]
    assert wrong == [
        "! no-such-package is not installed: pip install --upgrade masf-jax",
        "! less than 1 GB are free here: give output_dir=… another place",
    ]


def test_arguments_are_refused(capsys):
    assert main(["doctor", "now"]) == 2
    assert "takes no arguments; got now" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "list"])
def test_help(capsys, command):
    assert main([command, "--help"]) == 0
    assert f"masf-jax {command}" in capsys.readouterr().out
