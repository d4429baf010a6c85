"""Checks every notebook, two at a time: the .ipynb matches its jupytext .py pair, and it runs to its end."""

import concurrent.futures
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbclient

# Most of the time is compilation: emitters without MLIR, and one LLVM module a program, take less of it.
os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
folder = Path(__file__).resolve().parents[1] / "notebooks"
scripts = sorted(folder.glob("*.py"))
if not scripts:
    sys.exit(f"no notebooks in {folder}")


def check(script: Path) -> str:
    notebook = jupytext.read(script)
    pair = jupytext.read(script.with_suffix(".ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in nb.cells] for nb in (notebook, pair)]
    if cells[0] != cells[1]:
        raise SystemExit(f"{script.name} and its .ipynb differ: run `jupytext --sync {script}`")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return f"{script.name}: ran in {time.perf_counter() - start:.0f} s"


with concurrent.futures.ProcessPoolExecutor(2) as pool:
    for line in pool.map(check, scripts):
        print(line)
