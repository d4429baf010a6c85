"""What a command that computes sets for its process: threads, kept compilations, precision."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .compilations import keep_compilations

if TYPE_CHECKING:
    from .config.settings import Settings

__all__ = ["computing", "precision", "spare_threads", "state_size"]


_OF_OPENBLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GOTO_NUM_THREADS")
_OF_XLA = ("PJRT_NPROC", "NPROC")
_SMALL_MATRIX, _SMALL_ENSEMBLE = 1000, 4096
"""Values of a state up to which OpenBLAS, and of all members up to which XLA, gets one thread."""
_LAPACK_AT_ONCE, _SCHEDULER = 32, "xla_cpu_enable_concurrency_optimized_scheduler"
"""On CPUs jaxlib 0.10 may wait for ever for QRs of more matrices than that beside others of its kind."""


@contextlib.contextmanager
def computing(settings: Settings, runs_at_once: int = 1) -> Iterator[None]:
    """Inside, arrays have the settings' precision; threads and kept compilations stay set afterwards."""
    spare_threads(settings, runs_at_once)
    keep_compilations(settings.compilation_cache)
    with precision(settings.precision):
        yield


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
        size * settings.ensemble_size * runs_at_once <= _SMALL_ENSEMBLE and settings.layout.devices is None
    )
    if small and not any(name in os.environ for name in _OF_XLA):
        os.environ["PJRT_NPROC"] = "1"
    flags = os.environ.get("XLA_FLAGS", "")
    if runs_at_once > _LAPACK_AT_ONCE and _SCHEDULER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()


def state_size(settings: Settings) -> int:
    """Values of a state, from the model's keys alone: to build the model would start JAX."""
    keys = settings.dynamics
    if "shape" in keys:
        return 2 * math.prod(keys["shape"])
    return len(keys["matrix"]) if keys.get("matrix") is not None else keys.get("n", 3)
