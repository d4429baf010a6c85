"""Checks every notebook, two at a time: the .ipynb matches its jupytext .py pair, and it runs to its end.

    python .ci/notebooks.py                     # CI's check, which does not run the SLOW ones
    python .ci/notebooks.py NAME …              # of these; --all: of all
    python .ci/notebooks.py --write [NAME …]    # runs them, and stores their outputs in the .ipynb

The first two cells, the badge and the installation in Colab, are the same in all of them and are written
here: with the address that pyproject.toml has as `Repository`, or without one from a wheel.
"""

import argparse
import concurrent.futures
import os
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import jupytext
import nbclient
import nbformat

from masf_jax.cli.xla_flags import known_flags

# Most of the time of a check is compilation, which these make quicker (tests/conftest.py).
FLAGS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}
ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NEEDS = {"real_data": " statsmodels"}
"""What a notebook needs beside the package."""
SLOW = ("amortised", "estimate_parameter", "fair_comparison")
"""Twenty CPU seconds and more each, most of it compilation: outside CI, as the slow tests are."""
COLAB = "https://colab.research.google.com/"
BADGE = "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link}){how}"
INSTALL = """\
import importlib.util

if importlib.util.find_spec("masf_jax") is None:  # in Colab
{check}    get_ipython().system("pip install -q {what}")"""
CHECK = """\
    from pathlib import Path

    if not list(Path().glob("masf_jax-*.whl")):
        raise SystemExit(
            "No wheel is beside this notebook. On your own machine, in a clone of the repository: "
            "pip install build; python -m build --wheel; then upload dist/masf_jax-*.whl here."
        )
"""


def head(name: str) -> list[tuple[str, str]]:
    """Kind and source of the first two cells of a notebook."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"].get("Repository", "").rstrip("/")
    if address:
        link = f"{COLAB}github{address.removeprefix('https://github.com')}/blob/main/notebooks/{name}.ipynb"
        how, what, check = "", f"git+{address}", ""
    else:
        link, what, check = COLAB, "masf_jax-*.whl", CHECK
        how = "\n\nIn Colab: upload this file, and the wheel of `python -m build --wheel` beside it."
    badge = BADGE.format(link=link, how=how)
    return [("markdown", badge), ("code", INSTALL.format(check=check, what=what + NEEDS.get(name, "")))]


def sources(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def run(notebook: nbformat.NotebookNode) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def check(script: Path, to_its_end: bool) -> str:
    notebook, pair = jupytext.read(script), jupytext.read(script.with_suffix(".ipynb"))
    again = f"run `python .ci/notebooks.py --write {script.stem}`"
    if sources(notebook) != sources(pair):
        raise SystemExit(f"{script.name} and its .ipynb differ: {again}")
    if sources(notebook)[:2] != head(script.stem):
        raise SystemExit(f"the first two cells of {script.name} are not those of .ci/notebooks.py: {again}")
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in pair.cells):
        raise SystemExit(f"{script.stem}.ipynb has no outputs: {again}")
    if not to_its_end:
        return f"{script.name}: its pair matches, not run"
    start = time.perf_counter()
    run(notebook)
    return f"{script.name}: ran in {time.perf_counter() - start:.0f} s"


def write(script: Path, _: bool) -> str:
    """Puts the first two cells in their place, runs all, and stores both files of the pair."""
    notebook = jupytext.read(script)
    own = [cell for cell in notebook.cells if not _is_head(cell)]
    first = [_cell(*each) for each in head(script.stem)]
    notebook.cells = first + own
    start = time.perf_counter()
    run(notebook)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{script.stem}-{number}"  # else random: another one in every version
        cell.metadata.pop("execution", None)
    jupytext.write(notebook, script)
    jupytext.write(notebook, script.with_suffix(".ipynb"))
    return f"{script.name}: ran in {time.perf_counter() - start:.0f} s"


def _is_head(cell: nbformat.NotebookNode) -> bool:
    return cell.source.startswith(("[![Colab](", INSTALL.split("{")[0]))


def _cell(kind: str, source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source) if kind == "markdown" else nbformat.v4.new_code_cell(source)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="without .py; where none is given, all but the slow ones")
    parser.add_argument("--all", action="store_true", help="run the slow ones, too")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if not arguments.write:
        os.environ["XLA_FLAGS"] = " ".join(f"--{name}={FLAGS[name]}" for name in known_flags(FLAGS))
    scripts = sorted(FOLDER.glob("*.py"))
    if not scripts:
        sys.exit(f"no notebooks in {FOLDER}")
    if arguments.names:
        scripts = [FOLDER / f"{name}.py" for name in arguments.names]
    with concurrent.futures.ProcessPoolExecutor(1 if arguments.write else 2) as pool:
        to_their_ends = [bool(arguments.names) or arguments.all or s.stem not in SLOW for s in scripts]
        for line in pool.map(write if arguments.write else check, scripts, to_their_ends):
            print(line, flush=True)
