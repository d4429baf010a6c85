"""What the benchmark scripts share: the machine's description, the output files, timing of loop bodies."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


def processor() -> str:
    """Model name and number of cores of this machine's CPU."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {usable} cores"


def versions() -> str:
    """Versions of Python and of the packages that decide speed."""
    from importlib.metadata import PackageNotFoundError, version

    out = [f"python {platform.python_version()}"]
    for package in ("masf-jax", "jax", "jaxlib", "equinox", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            out.append(f"{package} {version(package)}")
    return ", ".join(out)


def header(title: str) -> str:
    """What was run (the command first), on what, when."""
    command = " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    load = f"load average {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    now = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z")
    first = f"{command}\n{title}\n" if title else f"{command}\n"
    return f"{first}{now}; {processor()}; {load}\n{versions()}\n"


def table(rows: list[list[Any]], head: list[str]) -> str:
    """Rows as aligned columns; the first column to the left."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        lines.append(
            "  ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            )
        )
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options every script has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as JSON")
    parser.add_argument("--no-save", action="store_true", help="leave benchmarks/results/ as it is")
    return parser


def finish(args: argparse.Namespace, name: str, text: str, numbers: Any) -> None:
    """Prints the text, keeps it as results/NAME.txt, and writes the numbers where asked."""
    print(text)
    if not args.no_save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.txt").write_text(text + "\n")
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1) + "\n")


def find_python(least: tuple[int, int]) -> str:
    """A Python of at least that version: this one, one on the PATH, or one of pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    names = [f"python3.{minor}" for minor in (12, 13, 14)] + ["python3"]
    found = [path for name in names if (path := shutil.which(name))]
    found += [str(p) for p in sorted(root.glob("versions/3.*/bin/python"))]
    test = f"import sys, venv; sys.exit(sys.version_info < {least})"
    for path in [sys.executable, *found]:
        try:
            if subprocess.run([path, "-c", test], capture_output=True, timeout=30).returncode == 0:
                return path
        except (OSError, subprocess.TimeoutExpired):
            continue
    raise SystemExit(f"no Python >= {least[0]}.{least[1]} found on the PATH or under {root}: install one.")


def peak_gb() -> float:
    """Peak resident memory of this process (Unix), 10⁹ bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6) * (1 if sys.platform == "darwin" else 1.024)


def looped(part: Callable[..., Any], *inputs: Any, length: int) -> Callable[[], Any]:
    """A compiled scan of `length` calls of part(key, *inputs), each depending on the one before.

    The whole output is carried, so nothing of the part can be left out; the inputs are shifted by
    zero times the last output, so nothing can be hoisted.
    """
    import jax
    import jax.numpy as jnp

    def shifted(out: Any, values: Any) -> Any:
        leaf = next(x for x in jax.tree.leaves(out) if jnp.issubdtype(x.dtype, jnp.inexact))
        zero = 0.0 * leaf.ravel()[0]

        def move(x: Any) -> Any:
            return x + zero.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x

        return jax.tree.map(move, values)

    @jax.jit
    def run(inputs: Any) -> Any:
        key = jax.random.key(0)
        first = jax.eval_shape(part, key, *inputs)
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), first)

        def body(out: Any, k: Any) -> tuple[Any, None]:
            return part(jax.random.fold_in(key, k), *shifted(out, inputs)), None

        return jax.lax.scan(body, start, jnp.arange(length, dtype=jnp.uint32))[0]

    compiled = run.lower(inputs).compile()
    return lambda: jax.block_until_ready(compiled(inputs))


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Best seconds of each, all of them in turn `repeats` times, so that noise meets all alike."""
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best
