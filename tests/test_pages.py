"""Pages say what works: their blocks run, their command lines and keys are taken."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import sys
import textwrap
import types
from pathlib import Path

import jax
import pytest

from masf_jax.cli.config.compose import compose
from masf_jax.cli.config.settings import REGISTRIES

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the docs are not part of the installed package"
)


QUICK = (
    "docs/conventions.md",
    "docs/masf.md",
    "docs/measurements.md",
    "docs/observations.md",
    "CONTRIBUTING.md",
)
SLOW = ("README.md", *(f"docs/{name}.md" for name in ("amortised", "devices", "estimation", "gradients")))
SLOW += tuple(f"docs/{name}.md" for name in ("noise", "runs", "smoothers"))
OTHERS = {  # each has a test of its own
    "docs/extending.md": "tests/cli/test_extending.py",
    "docs/models.md": "tests/dynamics/test_models_page.py",
    "docs/online.md": "tests/test_online.py",
    "docs/results.md": "tests/results/test_results_page.py",
}


def blocks_of(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_every_page_with_a_block_is_run_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    having = {str(page.relative_to(ROOT)) for page in pages if blocks_of(page)}
    assert having == {*QUICK, *SLOW, *OTHERS}
    for page, test in OTHERS.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.quick_cases("docs/masf.md", "docs/measurements.md")
@pytest.mark.parametrize("page", [*QUICK, *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW)])
def test_blocks_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as a user runs them
        for number, block in enumerate(blocks_of(ROOT / page)):
            exec(compile(block, f"{page}, block {number}", "exec", dont_inherit=True), vars(module))


@pytest.mark.parametrize("page", ["choosing", "troubleshooting", "conventions", "kalman"])
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


def test_every_public_name_says_what_it_is():
    """Those of the API's pages (.ci/site.py, which needs mkdocs to be imported)."""
    tree = ast.parse((ROOT / ".ci" / "site.py").read_text(encoding="utf-8"))
    assigned = {
        str(ast.unparse(node.targets[0])): node.value for node in tree.body if isinstance(node, ast.Assign)
    }
    silent, seen = [], 0
    for package in ast.literal_eval(assigned["PACKAGES"]):
        module = importlib.import_module(package)
        public = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
        for name, value in public.items():
            kind = inspect.isclass(value) or inspect.isfunction(value)
            if kind and value.__module__.startswith("masf_jax") and "._" not in value.__module__:
                seen += 1
                said = value.__doc__ or ""  # dataclasses make one of their own
                silent += [] if said and not said.startswith(f"{value.__name__}(") else [f"{package}.{name}"]
                if inspect.isfunction(value):
                    body = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
                    silent += [f"{package}.{name}: {what}" for what in untold(body, said)]
    assert not silent
    assert seen > 150


def untold(function, said):
    """Arguments without a type (and so a shape), and errors that the docstring does not mention."""
    given = [*function.args.args, *function.args.kwonlyargs]
    found = [each.arg for each in given if each.annotation is None]
    raised = [node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc is not None]
    return found + ["errors"] * bool(raised and "Raises" not in said and "Error" not in said)
