"""Checks every notebook, two at a time: the .ipynb matches its jupytext .py pair, and it runs to its end.

    python .ci/notebooks.py [NAME …]            # CI's check: all of them, some with fewer cycles or steps
    python .ci/notebooks.py [NAME …] --whole    # as they are
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
FEWER = {
    "amortised": (
        ("n_cycles=500", "n_cycles=120"),
        ("n_cycles=1000", "n_cycles=120"),
        ("cycles=120", "cycles=40"),
        ("steps=1000, batch_size=256", "steps=20, batch_size=64"),
        ("rounds=4", "rounds=1"),
        ("rounds=2", "rounds=1"),
    ),
    "differentiable_layer": (("range(200)", "range(40)"),),
    "estimate_parameter": (("9.5, 13", "9.5, 3"),),
    "fair_comparison": (
        ("cycles, burn_in = 250, 50", "cycles, burn_in = 60, 20"),
        ("(4.0, 7.0, 10.0), (1.05, 1.1)", "(4.0, 7.0), (1.05,)"),
    ),
    "masf_explained": (
        ("n_cycles=500", "n_cycles=100"),
        ("count=10_000", "count=2_000"),
        ("(1000,)", "(200,)"),
    ),
}
"""What CI's check runs less of."""
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


def shortened(notebook: nbformat.NotebookNode, name: str) -> None:
    for given, less in FEWER.get(name, ()):
        having = [cell for cell in notebook.cells if cell.cell_type == "code" and given in cell.source]
        if not having:
            raise SystemExit(f"{name}.py no longer says {given!r}: see FEWER in .ci/notebooks.py")
        for cell in having:
            cell.source = cell.source.replace(given, less)


def check(script: Path, whole: bool) -> str:
    notebook, pair = jupytext.read(script), jupytext.read(script.with_suffix(".ipynb"))
    again = f"run `python .ci/notebooks.py --write {script.stem}`"
    if sources(notebook) != sources(pair):
        raise SystemExit(f"{script.name} and its .ipynb differ: {again}")
    if sources(notebook)[:2] != head(script.stem):
        raise SystemExit(f"the first two cells of {script.name} are not those of .ci/notebooks.py: {again}")
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in pair.cells):
        raise SystemExit(f"{script.stem}.ipynb has no outputs: {again}")
    if not whole:
        shortened(notebook, script.stem)
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
    parser.add_argument("names", nargs="*", help="without .py; where none is given, all")
    parser.add_argument("--whole", action="store_true", help="as they are, with all cycles and steps")
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
        whole = [arguments.whole] * len(scripts)
        for line in pool.map(write if arguments.write else check, scripts, whole):
            print(line, flush=True)
