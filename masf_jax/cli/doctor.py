"""`masf-jax doctor`: what an installation computes with, and what is wrong with it, on one screen."""

from __future__ import annotations

import os
import platform
import shutil
import textwrap
from pathlib import Path

from .errors import InputError
from .exit_codes import ExitCode

__all__ = ["doctor"]

_NEEDED = ("jax", "jaxlib", "equinox", "diffrax", "optax", "numpy")
_EXTRAS = {"hydra-core": "run -m", "xarray": "results", "matplotlib": "figures", "optuna": "tune"}
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "PJRT_NPROC", "XLA_FLAGS")
_LEAST_MEMORY, _LEAST_DISK = 2.0, 1.0
"""In GB; less is said."""


def doctor(arguments: list[str]) -> ExitCode:
    """Prints versions, devices, threads, precision, caches, memory and disk; 1 where something is wrong.

    Raises:
        InputError: arguments; it takes none.
    """
    if arguments:
        raise InputError(f"masf-jax doctor takes no arguments; got {' '.join(arguments)}.")
    rows, wrong = _versions()
    for part in (_computing, _room):
        more, faults = part()
        rows, wrong = rows + more, wrong + faults
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        lines = textwrap.wrap(value, 78 - width)
        print(f"{name:<{width}}  " + ("\n" + " " * (width + 2)).join(lines))
    print("\n".join(textwrap.fill(f"! {fault}", 80) for fault in wrong) or "Nothing is wrong.")
    return ExitCode.FAILED if wrong else ExitCode.DONE


def _versions() -> tuple[list[tuple[str, str]], list[str]]:
    from importlib.metadata import PackageNotFoundError, version

    from .. import __version__

    rows, wrong = (
        [
            ("masf-jax", __version__),
            ("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ],
        [],
    )
    for name in (*_NEEDED, *_EXTRAS):
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            use = _EXTRAS.get(name)
            rows.append((name, "not installed" + (f" (needed by {use})" if use else "")))
            if name in _NEEDED:
                wrong.append(f"{name} is not installed: pip install --upgrade masf-jax")
    return rows, wrong


def _computing() -> tuple[list[tuple[str, str]], list[str]]:
    """Devices, threads, precision, cache; and whether a program compiles and gives the right number."""
    import jax
    import jax.numpy as jnp

    devices, wrong = jax.devices(), []
    rows = [("devices", f"{len(devices)} × {devices[0].device_kind} ({jax.default_backend()})")]
    rows.append(
        (
            "cores",
            f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} may be used"
            if hasattr(os, "sched_getaffinity")
            else f"{os.cpu_count()}",
        )
    )
    given = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    rows.append(("threads", ", ".join(given) or "nothing set: chosen for each run by its size"))
    double = jnp.zeros(0).dtype == jnp.float64
    rows.append(("precision", f"float{64 if double else 32} (precision=float64 for a run)"))
    rows.append(
        (
            "compile cache",
            str(jax.config.values["jax_compilation_cache_dir"] or "off (JAX_COMPILATION_CACHE_DIR)"),
        )
    )
    found = float(jax.jit(lambda x: (x @ x).sum())(jnp.ones((8, 8))))
    if found != 512.0:
        wrong.append(f"a product of matrices gives {found}, not 512: reinstall jax and jaxlib")
    cuda = shutil.which("nvidia-smi") is not None
    if cuda and jax.default_backend() == "cpu":
        wrong.append("there is an NVIDIA GPU, and JAX does not use it: pip install 'masf-jax[cuda]'")
    return rows, wrong


def _room() -> tuple[list[tuple[str, str]], list[str]]:
    """Memory and disk."""
    rows, wrong = [], []
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        rows.append(("memory", f"{free:.1f} GB free (--dry-run says what a run takes)"))
        if free < _LEAST_MEMORY:
            wrong.append(
                f"less than {_LEAST_MEMORY:g} GB of memory are free: compiling alone may need as much"
            )
    except (AttributeError, ValueError, OSError):  # not on this system
        rows.append(("memory", "cannot be told here"))
    disk = shutil.disk_usage(Path.cwd()).free / 1e9
    rows.append(("disk", f"{disk:.1f} GB free in this folder"))
    if disk < _LEAST_DISK:
        wrong.append(f"less than {_LEAST_DISK:g} GB are free here: give output_dir=… another place")
    if not os.access(Path.cwd(), os.W_OK):
        wrong.append("this folder cannot be written to: give output_dir=… another place")
    return rows, wrong
