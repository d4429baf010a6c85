"""What a command that computes sets for its process: threads, kept compilations, precision."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .compilations import keep_compilations
from .config.own_files import is_own
from .errors import InputError, RunError
from .exit_codes import ExitCode
from .xla_flags import known_flags

if TYPE_CHECKING:
    from .config.settings import Settings

__all__ = ["computing", "in_processes", "precision", "spare_threads", "state_size", "within_memory"]


_OF_OPENBLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GOTO_NUM_THREADS")
_OF_XLA = ("PJRT_NPROC", "NPROC")
_SMALL_MATRIX, _SMALL_ENSEMBLE = 1000, 4096
"""Values of a state up to which OpenBLAS, and of all members up to which XLA, gets one thread."""
_LAPACK_AT_ONCE, _SCHEDULER = 32, "xla_cpu_enable_concurrency_optimized_scheduler"
"""On CPUs jaxlib 0.10 may wait for ever for QRs of more matrices than that beside others of its kind."""


_EXHAUSTED = "RESOURCE_EXHAUSTED"
_UNKNOWN = 2**31
"""Values of a state that only the model itself knows."""


@contextlib.contextmanager
def computing(settings: Settings, runs_at_once: int = 1) -> Iterator[None]:
    """Inside, arrays have the settings' precision; threads and kept compilations stay set afterwards.

    Raises:
        InputError: settings of several processes, of a command that has one; out of memory.
    """
    if settings.layout.processes is not None:
        import jax

        if not jax.distributed.is_initialized():
            raise InputError(
                "layout.processes is of masf-jax run alone, without -m and --dry-run, on its command line."
            )
    spare_threads(settings, runs_at_once)
    keep_compilations(settings.compilation_cache)
    with precision(settings.precision), within_memory():
        yield


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Says as an `InputError` that sizes are beyond the memory of the machine or the device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and _EXHAUSTED not in str(error):
            raise
        what = (str(error).strip() or "no more to be had").splitlines()[0].removeprefix(f"{_EXHAUSTED}: ")
        raise InputError(
            f"out of memory: {what.rstrip('.')}. Fewer members (ensemble_size) or variables, or precision=float32, take "
            "less (masf-jax run … --dry-run: how much, by part)."
        ) from error


@contextlib.contextmanager
def in_processes(overrides: list[str]) -> Iterator[None]:
    """Inside, this process is one of those of `layout.processes`; all but the first say nothing but errors.

    Read from the overrides alone: to read all keys makes objects with numbers, which starts JAX's devices.

    Raises:
        InputError: processes that do not find each other.
    """
    from .config.settings import processes_asked

    layout = processes_asked(overrides)
    if layout.processes is None:
        yield
        return
    import jax

    number = None if layout.processes == "auto" else layout.processes
    try:
        jax.distributed.initialize(layout.coordinator, number, layout.process)
    except (ValueError, RuntimeError) as error:
        hint = "give layout.coordinator=HOST:PORT, layout.processes=NUMBER and layout.process=NUMBER"
        hint = (
            f"{hint}, or start it with srun or mpirun"
            if number is None
            else "see that HOST:PORT can be reached"
        )
        raise InputError(f"layout.processes={layout.processes}: {error} ({hint}).") from error
    try:
        with contextlib.ExitStack() as quiet:
            if jax.process_index() > 0:
                nowhere = quiet.enter_context(open(os.devnull, "w"))
                quiet.enter_context(contextlib.redirect_stdout(nowhere))
                quiet.enter_context(contextlib.redirect_stderr(nowhere))
            yield
    except BaseException as error:
        if jax.distributed.is_initialized():  # JAX would wait for the others, who may wait for this one
            atexit.register(_leave, error.exit_code if isinstance(error, RunError) else ExitCode.FAILED)
        raise


def _leave(exit_code: ExitCode) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """All arrays made inside are of this precision."""
    import jax

    # the context manager moved from jax.experimental to jax in version 0.8
    module = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    with module.enable_x64(name == "float64"):
        yield


def spare_threads(settings: Settings, runs_at_once: int = 1) -> None:
    """One thread where more would only wait for each other (docs/performance.md); what users set stays.

    JAX reads the one when it starts, the OpenBLAS of SciPy, whose LAPACK it calls, the other at the first
    factorisation: both after the settings are known.
    """
    size = state_size(settings)
    if size <= _SMALL_MATRIX and not any(name in os.environ for name in _OF_OPENBLAS):
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
    small = (
        size * settings.ensemble_size * runs_at_once <= _SMALL_ENSEMBLE
        and settings.layout.devices is None
        and settings.layout.processes is None
    )
    if small and not any(name in os.environ for name in _OF_XLA):
        os.environ["PJRT_NPROC"] = "1"
    flags = os.environ.get("XLA_FLAGS", "")
    if runs_at_once > _LAPACK_AT_ONCE and _SCHEDULER not in flags and known_flags([_SCHEDULER]):
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()


def state_size(settings: Settings) -> int:
    """Values of a state, from the model's keys alone: to build the model would start JAX."""
    keys = settings.dynamics
    if is_own(keys["name"]):
        return math.prod(keys["state_shape"]) if "state_shape" in keys else _UNKNOWN
    if "shape" in keys:
        return 2 * math.prod(keys["shape"])
    return len(keys["matrix"]) if keys.get("matrix") is not None else keys.get("n", 3)
