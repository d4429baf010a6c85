"""Checks every notebook: the .ipynb matches its jupytext .py pair, and it runs from top to bottom."""

import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbclient

folder = Path(__file__).resolve().parents[1] / "notebooks"
scripts = sorted(folder.glob("*.py"))
if not scripts:
    sys.exit(f"no notebooks in {folder}")
for script in scripts:
    notebook = jupytext.read(script)
    pair = jupytext.read(script.with_suffix(".ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in nb.cells] for nb in (notebook, pair)]
    if cells[0] != cells[1]:
        sys.exit(f"{script.name} and its .ipynb differ: run `jupytext --sync {script}`")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    print(f"{script.name}: ran in {time.perf_counter() - start:.0f} s")
