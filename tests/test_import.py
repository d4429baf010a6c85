"""`import masf_jax` is quick, quiet and leaves no trace. Each check runs in a fresh interpreter."""

import os
import subprocess
import sys

import pytest

PREAMBLE = "import json, sys, time; import jax; "


def python(code, cwd, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_takes_less_than_a_second_and_a_half_beyond_jax(tmp_path):
    code = PREAMBLE + "t = time.perf_counter(); import masf_jax; print(time.perf_counter() - t)"
    seconds = []
    for _ in range(3):  # best of three: other processes may share the machine
        seconds.append(float(python(code, tmp_path)))
        if seconds[-1] < 1.5:
            break
    assert min(seconds) < 1.5, seconds


def test_writes_no_files(tmp_path):
    home, cwd, temporary = tmp_path / "home", tmp_path / "cwd", tmp_path / "tmp"
    for folder in (home, cwd, temporary):
        folder.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {name: "" for name in os.environ if name.startswith("XDG_")}
    python("import masf_jax", cwd, **environment)
    assert [path for folder in (home, cwd, temporary) for path in folder.rglob("*")] == []


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return python(
        "import masf_jax, sys; masf_jax.filters.LETKF, masf_jax.MASF; print(*sys.modules)",
        tmp_path_factory.mktemp("cwd"),
    ).split()


@pytest.mark.parametrize(
    "module", ["hydra", "omegaconf", "matplotlib", "xarray", "rich", "scipy.spatial", "chex"]
)
def test_leaves_heavy_modules_alone(module, loaded):
    assert "masf_jax" in loaded
    assert module not in loaded


def test_starts_no_backend_and_changes_no_configuration(tmp_path):
    code = (
        "import jax; before = dict(jax.config.values); import masf_jax; "
        "from jax._src import xla_bridge; "
        "print(xla_bridge.backends_are_initialized(), dict(jax.config.values) == before, len(before) > 50)"
    )
    assert python(code, tmp_path) == "False True True"


def test_no_module_starts_a_backend(tmp_path):
    """Of the command line too: threads and processes are set before devices are there."""
    code = (
        "import importlib, pkgutil, masf_jax; from jax._src import xla_bridge; "
        "names = [m.name for m in pkgutil.walk_packages(masf_jax.__path__, 'masf_jax.')]; "
        "[importlib.import_module(n) for n in names if not n.endswith('__main__')]; "
        "print(xla_bridge.backends_are_initialized(), len(names) > 200)"
    )
    assert python(code, tmp_path) == "False True"


def test_the_public_names_are_there(tmp_path):
    names = "assimilate simulate Coordinates FilterDivergedWarning GrossErrorCheck Twin MASF AmortisedMASF "
    names += (
        "amortised denoisers diffusion dynamics ensemble filters masf measurements metrics smoothers training"
    )
    code = f"import masf_jax; print([n for n in '{names}'.split() if not hasattr(masf_jax, n)])"
    assert python(code, tmp_path) == "[]"


def test_a_star_brings_the_public_names(tmp_path):
    code = "names = {}; exec('from masf_jax%s import *', names); print(*sorted({'lazy', %s} & names.keys()))"
    assert python(code % (".masf", "'MASF', 'paper_masf'"), tmp_path) == "MASF paper_masf"
    assert python(code % ("", "'assimilate', 'filters'"), tmp_path) == "assimilate filters"
