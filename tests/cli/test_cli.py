"""The command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import masf_jax
from masf_jax.cli.config.compose import GROUPS, choices
from masf_jax.cli.main import main


def test_help_and_version(capsys):
    assert main([]) == 0
    assert "masf-jax run" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"masf-jax {masf_jax.__version__}\n"
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(choice in text for group in GROUPS for choice in choices(group))
    for part in ("ensemble_size: 20", "Examples:", "--config", "Exit codes", "steps_per_cycle"):
        assert part in text


def test_every_command_has_help(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command, part in {
        "compare": "filters=[letkf,masf]",
        "tune": "filter.KEY=2,4,6",
        "train": "--overwrite",
    }.items():
        assert f"masf-jax {command} " in overview
        assert main([command, "--help"]) == 0
        assert part in capsys.readouterr().out


def test_list_shows_every_choice(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group in GROUPS:
        assert f"{group}=" in lines
        for choice in choices(group):
            (line,) = [line for line in lines if line.split()[:1] == [choice] and line.startswith("  ")][:1]
            assert len(line.split()) > 2, "a choice without a description"
    assert any("expected RMSE: etkf 0.18" in line for line in lines)
    assert main(["list", "filter"]) == 0
    assert "experiment=" not in capsys.readouterr().out
    assert main(["list", "observations"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("observations: # real observations")
    assert any(line.startswith("  withhold: [] # ") for line in lines)
    assert not any(line.startswith("estimate") for line in lines)


def test_bad_commands(capsys):
    assert main(["rum"]) == 2
    assert "'run'" in capsys.readouterr().err
    assert main(["list", "filtr"]) == 2
    assert "'filter'" in capsys.readouterr().err
    assert main(["run", "--config"]) == 2
    assert main(["run", "-m", "--config", "x"]) == 2
    assert main(["run", "--config=absent.yaml"]) == 2
    assert main(["run", "sead=1", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_as_a_process_a_mistake_ends_with_code_2_and_no_traceback():
    command = [sys.executable, "-m", "masf_jax.cli.main", "run", "filter=etfk"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "Did you mean 'etkf'?" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("option", ["", "--traceback"])
def test_a_warning_is_a_line_without_a_place_in_the_code(option):
    script = (
        "import sys, warnings\nfrom masf_jax.cli import main as cli\n"
        "cli._dispatch = lambda rest: warnings.warn('nothing was found') or 0\n"
        "code = cli.main(['run', *sys.argv[1:]])\n"
        "warnings.warn('from elsewhere')\nraise SystemExit(code)"
    )
    command = [sys.executable, "-c", script, *option.split()]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *rest = process.stderr.splitlines()
    assert (first == "masf-jax: warning: nothing was found") == (option == "")
    assert "UserWarning: from elsewhere" in " ".join(rest)


def test_help_loads_neither_hydra_nor_xarray_nor_matplotlib():
    code = "import sys; from masf_jax.cli.main import main; main(['--help']); "
    code += "assert not {'hydra', 'xarray', 'matplotlib', 'rich', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
