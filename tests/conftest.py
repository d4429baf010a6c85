"""What every test runs under: strict promotion, runtime-checked shapes, and both precisions on request."""

from __future__ import annotations

import gc
import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path

# Matrices as small as here only make OpenBLAS's threads wait for one another, up to 50 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before the imports that load it

import absl.logging
import jax
import pytest
from jaxtyping import install_import_hook

gc.disable()  # until the tests are collected, below: what imports make stays

# Shapes and types of arrays are checked at run time in the library's core. `cli` is left out: it handles
# files and configurations, and is what users run (so its tests take the unchecked path).
_CHECKED = (
    "amortised",
    "cycles",
    "driver",
    "bases",
    "coordinates",
    "denoisers",
    "diffusion",
    "dynamics",
    "ensemble",
    "filters",
    "masf",
    "measurements",
    "metrics",
    "nn",
    "progress",
    "quality_control",
    "results",
    "scan",
    "smoothers",
    "training",
    "twin",
)
install_import_hook([f"masf_jax.{name}" for name in _CHECKED], "shape_checks.arrays_only")

# absl (of Chex and Orbax) logs to what is sys.stderr at its import, and closes it when a Hydra launcher
# configures logging: let that not be the file that pytest captures into.
absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)

# Compiled programs stay between runs, and the workers of one run share them, in a folder of the checkout.
# JAX_COMPILATION_CACHE_DIR, if set, wins, and JAX_ENABLE_COMPILATION_CACHE=false does without: as CI does,
# whose folder is empty (to write each program takes longer than it saves within one run).
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).resolve().parents[1] / ".cache" / "xla")
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
for name, value in (("min_compile_time_secs", 0.0), ("min_entry_size_bytes", -1)):
    os.environ.setdefault(f"JAX_PERSISTENT_CACHE_{name.upper()}", str(value))
    jax.config.update(f"jax_persistent_cache_{name}", value)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_traceback_in_locations_limit", 0)  # of every operation; errors keep theirs


# Emitters without MLIR, and one LLVM module a program, compile in some 60 % of the time. XLA ends the process
# for a flag that it does not know, so each is looked up first.
_QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}


def pytest_configure(config):
    """A filter that diverges is an error (not said in pyproject.toml: pytest would import the library for it
    before the hook above).

    The quick tests' time is compilation, of programs that then run for milliseconds: so optimise none.

    Slow validation and benchmarks run what users run; XLA_FLAGS, if set, wins.
    """
    config.addinivalue_line("filterwarnings", "error::masf_jax.FilterDivergedWarning")
    if config.option.markexpr == "not slow":
        from masf_jax.cli.xla_flags import known_flags  # after the hook above

        known = known_flags(_QUICK_TO_COMPILE)
        os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={_QUICK_TO_COMPILE[name]}" for name in known))


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out the slow ones
def pytest_collection_modifyitems(config, items):
    """Of a parametrised test all cases but those of `quick_cases`, or those of `slow_cases`, are slow."""
    cases = {}
    for item in items:
        for name in ("quick_cases", "slow_cases"):
            for mark in item.iter_markers(name):
                named = [pattern for pattern in mark.args if fnmatchcase(item.callspec.id, pattern)]
                cases.setdefault((item.nodeid.split("[")[0], mark.args), set()).update(named)
                if bool(named) == (name == "slow_cases"):
                    item.add_marker(pytest.mark.slow)
    if any("::" in argument for argument in config.args) or config.getoption("lf", False):
        return  # not all cases of a test are there
    for (test, patterns), found in cases.items():
        if unknown := set(patterns) - found:
            raise pytest.UsageError(f"{test} has no case {', '.join(sorted(unknown))}")


def pytest_collection_finish():
    """Garbage is looked for among what tests make, not in modules and tests themselves again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # tracing makes so many objects that looking at every 700 takes 3 to 6 %
    gc.enable()


_MAPS = Path("/proc/self/maps")
_MOST_MAPS = 40_000  # of the 65 530 memory maps that Linux lets a process have


@pytest.fixture(scope="module", autouse=True)
def _room_for_compiled_programs():
    """Every compiled program takes some memory maps; XLA crashes where the kernel has no more to give."""
    yield
    if _MAPS.exists() and _MAPS.read_text().count("\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Double precision inside the test; nothing of it leaks into the next one."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Both precisions, one after the other; the value is the name of the default float type."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def key():
    return jax.random.key(20_240_611)
