"""The packages import in one direction: no circles, no arrow up (docs/design.md)."""

import ast
import functools
from pathlib import Path

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import masf_jax
from masf_jax.ensemble.inflation import multiplicative

ROOT = Path(masf_jax.__file__).parent
LEVELS = [
    {
        "_lazy",
        "progress",
        "arrays",
        "callables",
        "fill_values",
        "numbers",
        "coordinates",
        "processes",
        "derivatives",
        "loops",
    },
    {"ensemble", "dynamics", "measurements"},
    {"nn", "bases"},
    {"denoisers"},
    {"diffusion"},
    {"training"},
    {"filters"},
    {"masf"},
    {"metrics", "quality_control", "run_state", "twin"},
    {"record", "checks", "printed", "observations"},
    {"results"},
    {"plots"},
    {"cycles"},
    {"scan"},
    {"driver"},
    {f"masf.amortised.{name}" for name in ("practice", "training", "through_cycles", "files")}
    | {"amortised"},
    {"smoothers"},
    {"estimation"},
    {"cli", "__main__"},
]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in ROOT.rglob("*.py") if "configs" not in path.parts}


def imports(module):
    """Modules of the package that a module imports, in a function too; not for type checkers alone."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0 and node not in skipped:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield full if full in MODULES else ".".join(base)


@functools.cache
def graph():
    return {module: set(imports(module)) - {module} for module in MODULES}


def level(module):
    while module not in {"", *[name for names in LEVELS for name in names]}:
        module = module.rpartition(".")[0]
    return next((i for i, names in enumerate(LEVELS) if module in names), 0)


def test_no_arrow_goes_up():
    up = [
        f"{module} -> {other}"
        for module, others in graph().items()
        for other in others
        if other and level(other) > level(module)
    ]
    assert up == []


def test_there_are_no_circles():
    done, circles = set(), []

    def visit(module, path):
        if module in path:
            circles.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for other in sorted(graph()[module]):
                if other:
                    visit(other, [*path, module])
            done.add(module)

    for module in sorted(graph()):
        visit(module, [])
    assert circles == []


def test_the_library_does_not_import_what_runs_need():
    heavy = {"hydra", "omegaconf", "xarray", "matplotlib", "rich", "pydantic", "optuna", "h5netcdf"}
    found = []
    for module, path in MODULES.items():
        if module.split(".")[0] in ("cli", "__main__") or module.endswith("progress"):  # bars, when asked for
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = set()
        if module.split(".")[0] in (
            "results",
            "plots",
            "driver",
            "smoothers",
            "observations",
        ):  # inside functions, for types
            kinds = (ast.FunctionDef, ast.If)
            parts = [node for node in ast.walk(tree) if isinstance(node, kinds)]
            skipped = {inner for node in parts for inner in ast.walk(node)}
        for node in set(ast.walk(tree)) - skipped:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found += [f"{module}: {name}" for name in names if name.split(".")[0] in heavy]
    assert found == []


def test_shapes_are_checked_while_tests_run():
    with pytest.raises(TypeCheckError):
        multiplicative(jnp.zeros((3, 2)), jnp.ones(2))
