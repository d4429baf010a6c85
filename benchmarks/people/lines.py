"""Statements of the scripts in this folder, beside those with DAPPER and cuthbert: `python lines.py`.

A statement counts once, over however many lines it goes; comments, docstrings and blank lines do not. Imports
are counted apart. The model code that a persona has in any case (canal, tanks, ringnet, ring) lies in files
of its own and does not count.
"""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent
TASKS = {
    "student": "own shallow-water model, twin experiment, localised filter",
    "engineer": "NumPy model, CSV with dates and gaps",
    "researcher": "a network as model, gradient through the filter",
    "colab": "Lorenz-96, two filters, a figure",
    "forecaster": "NetCDF of stations between grid points, a day's forecast",
}


def counted(path: Path) -> tuple[int, int] | None:
    """Statements besides imports, and imports."""
    if not path.exists():
        return None
    nodes = list(ast.walk(ast.parse(path.read_text())))
    texts = [node for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    statements = [node for node in nodes if isinstance(node, ast.stmt)]
    return len(statements) - len(texts) - len(imports), len(imports)


def table() -> str:
    rows = ["python benchmarks/people/lines.py", "Statements + imports; -: no script"]
    rows.append(f"{'':12}{'masf_jax':>12}{'DAPPER':>12}{'cuthbert':>12}")
    for task, says in TASKS.items():
        found = [counted(FOLDER / f"{library}{task}.py") for library in ("", "dapper_", "cuthbert_")]
        cells = "".join(f"{'-' if each is None else f'{each[0]} + {each[1]}':>12}" for each in found)
        rows.append(f"{task:12}{cells}   {says}")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    (FOLDER.parent / "results" / "people_lines.txt").write_text(table())
    print(table(), end="")
