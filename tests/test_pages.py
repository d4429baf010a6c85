"""Pages say what works: their blocks run, their command lines and keys are taken."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from masf_jax.cli.config.compose import compose
from masf_jax.cli.config.settings import REGISTRIES

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the docs are not part of the installed package"
)


@pytest.mark.parametrize(("page", "count"), [("docs/conventions.md", 1), ("CONTRIBUTING.md", 2)])
def test_blocks_run(page, count, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == count
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec", dont_inherit=True), vars(module))


@pytest.mark.parametrize("page", ["choosing", "troubleshooting", "conventions"])
def test_what_is_typed_is_taken(page):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for line in re.findall(r"^masf-jax run ([^#\n]+)", text, re.MULTILINE):
        assert compose(shlex.split(line)) is not None
    known = {
        f"{group}.{key}"
        for group, all_of in REGISTRIES.items()
        for name in all_of.entries
        for key in all_of.keys(name)
    }
    typed = set(re.findall(r"`(?:[^`\n]* )?((?:filter|dynamics|measurement)\.[\w.]*\w)(?==)", text))
    own = {"dynamics.coordinates", "dynamics.climatology"}  # of functions from a file
    assert typed <= known | own, typed - known
    for key, value in re.findall(r"`(filter|smoother|experiment|dynamics)=([a-z_0-9]+)`", text):
        assert compose([f"{key}={value}"]) is not None
