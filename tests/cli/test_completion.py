"""What the terminal completes, and the script that bash asks it by."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from masf_jax.cli import help_texts
from masf_jax.cli.completion import candidates
from masf_jax.cli.main import _COMMANDS, _ELSEWHERE, main


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("masf-jax re", ["report"]),
        ("masf-jax run filter=letk", ["letkf"]),
        ("masf-jax compare filters=[etkf,letk", ["[etkf,letkf"]),
        ("masf-jax compare filters={a:letk", ["letkf"]),
        ("masf-jax run n_", ["n_cycles="]),
        ("masf-jax run layout.d", ["layout.devices="]),
        ("masf-jax run --q", ["--quiet"]),
        ("masf-jax train --o", ["--overwrite"]),
        ("masf-jax run precision=", ["float32", "float64"]),
        ("masf-jax tune obj", ["objective="]),
        ("masf-jax run experiment=ni", ["nile"]),
        ("masf-jax list dyn", ["dynamics"]),
        ("masf-jax list filter enkf", ["enkf", "enkf_n"]),
        ("masf-jax run --config ", []),
        ("masf-jax report out", []),
        ("masf-jax", []),
    ],
)
def test_what_a_line_may_go_on_with(line, found):
    assert candidates(line) == found


def test_keys_of_a_choice_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert candidates("masf-jax run filter=letkf filter.rad") == ["filter.radius="]
    assert "filter.rtps=" in candidates("masf-jax run filter.")
    assert (tmp_path / "masf_jax" / "keys.json").is_file()
    assert candidates("masf-jax run filter=no filter.") == []
    monkeypatch.setitem(sys.modules, "masf_jax.cli.config.compose", None)  # not asked again
    assert candidates("masf-jax run filter=letkf filter.rad") == ["filter.radius="]


def test_all_commands_are_completed():
    known = {name for name in (*_COMMANDS, *_ELSEWHERE) if not name.startswith("-")}
    assert set(candidates("masf-jax ")) >= known
    assert known >= set(help_texts.LONG)


def test_the_script_in_bash(tmp_path, monkeypatch, capsys):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["--install-completion", "bash"]) == 0
    path = tmp_path / "bash-completion" / "completions" / "masf-jax"
    assert str(path) in capsys.readouterr().out
    line = "masf-jax list filter en"
    lines = [
        f'masf-jax() {{ {sys.executable} -m masf_jax "$@"; }}',
        f"source {path}",
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; _masf_jax",
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p masf-jax',
    ]
    done = subprocess.run([bash, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    *found, registered = done.stdout.splitlines()
    assert found == ["enff", "enkf", "enkf_n", "ensf", "ensf_lr", "ensrf"]
    assert registered == "complete -o default -F _masf_jax masf-jax"
    assert main(["--install-completion", "tcsh"]) == 2


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("masf-jax run filter=letk", "filter=letkf"),
        ("masf-jax compare 'filters=[etkf,letk", "filters=[etkf,letkf"),
        ("masf-jax compare filters={a:letk", "filters={a:letkf"),
        ("masf-jax run n_cyc", "n_cycles="),
        ("masf-jax doc", "doctor"),
    ],
)
def test_zsh_and_fish_are_given_whole_words(line, word, capsys):
    assert main(["--complete-words", line]) == 0
    assert capsys.readouterr().out.split() == [word]


@pytest.mark.parametrize(
    ("shell", "place"), [("zsh", "zsh/site-functions/_masf_jax"), ("fish", "fish/completions/masf-jax.fish")]
)
def test_the_script_lies_where_the_shell_looks(shell, place, tmp_path, monkeypatch, capsys):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert main(["--install-completion"]) == 0
    assert str(tmp_path / place) in capsys.readouterr().out
    assert "--complete-words" in (tmp_path / place).read_text()
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", tmp_path / place], check=True)
