"""What the command line costs before and around the assimilation: imports, compilations, threads.

    python benchmarks/speed/start_up.py [commands] [runs] [threads] [--before TREE=MODULE]

`commands`: CPU seconds of help, lists and imports. `runs`: whole runs with an empty and with a filled cache
of compiled programs, and how many programs they compile. `threads`: an assimilation with and without the
threads that the command line spares. `--before` measures an earlier version too, in turn with this one: its
folder, and the module of its command line (/tmp/base=masf_jax.experiments.cli). CPU seconds are those of all
threads.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _path  # noqa: F401
from suite.common import arguments, finish, header, table

THREADS = ("OPENBLAS_NUM_THREADS", "PJRT_NPROC")
OURS = Path(__file__).resolve().parents[2], "masf_jax.cli.main"
COMMANDS = (["--help"], ["--version"], ["list"], ["list", "filter"], ["run", "--help"])
JOBS = {
    "etkf": ["run", "experiment=lorenz96_sakov2008", "filter=etkf", "n_cycles=1000"],
    "letkf": ["run", "experiment=lorenz96_sakov2008", "filter=letkf", "n_cycles=1000"],
    "README": ["run", "-m", "experiment=lorenz96_partial", "filter=letkf,masf_amortised"],
}
RUN = """
import importlib, sys
import jax.monitoring
ends = ["backend_compile_duration", "compile_time_saved_sec"]  # those taken from the cache are in both
found = [0, 0]
def listen(event, seconds, **_):
    for i, end in enumerate(ends):
        found[i] += event.endswith(end)
jax.monitoring.register_event_duration_secs_listener(listen)
code = importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print("compiled", found[0] - found[1])
sys.exit(code)
"""
PROBLEMS = {
    "EnKF, n = 40, N = 20": (2000, ["filter=enkf"]),
    "EnSF, n = 40, N = 20": (20, ["filter=ensf"]),
    "amortised, n = 40, N = 20": (200, ["experiment=lorenz96_partial", "filter=masf_amortised"]),
    "MASF, arctan, n = 40, N = 20": (20, ["filter=masf", "measurement=arctan"]),
    "MASF, arctan, n = 396, N = 20": (2, ["filter=masf", "measurement=arctan", "dynamics.n=396"]),
    "Kalman, n = 396": (10, ["filter=kalman", "dynamics.n=396"]),
    "Kalman, n = 1000": (3, ["filter=kalman", "dynamics.n=1000"]),
    "ETKF, n = 1000, N = 40": (100, ["filter=etkf", "dynamics.n=1000", "ensemble_size=40"]),
    "LETKF, n = 1000, N = 20": (20, ["filter=letkf", "dynamics.n=1000"]),
}
ASSIMILATE = """
import json, sys, time
import jax
from masf_jax import assimilate
from masf_jax.cli.config.compose import compose
from masf_jax.cli.run.problem import build
n = int(sys.argv[1])
problem = build(compose([*sys.argv[2:], f"n_cycles={n}", "burn_in=0"]))
filter = problem.filter.prepare(problem.dynamics, problem.measurement)
def go():
    jax.block_until_ready(assimilate(problem.key, filter, problem.dynamics, problem.measurement,
                                     problem.observations, problem.ensemble, truth=problem.truth))
go()
for _ in range(2):
    wall, cpu = time.perf_counter(), time.process_time()
    go()
    print(json.dumps([(time.perf_counter() - wall) / n, (time.process_time() - cpu) / n]))
"""


def child(tree: Path, command: list[str], folder: str, **environment: str) -> tuple[float, float, str]:
    """CPU and wall seconds of a fresh Python, and what it printed."""
    own = ("JAX_COMPILATION_CACHE_DIR", *THREADS)
    env = {name: value for name, value in os.environ.items() if name not in own}
    env |= {"PYTHONPATH": str(tree), **environment}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, done.stdout


def commands(versions: dict, repeats: int, folder: str) -> tuple[str, dict]:
    rows, numbers = [], {}
    for words in (*COMMANDS, "import jax", "import jax, masf_jax"):
        name = words if isinstance(words, str) else "masf-jax " + " ".join(words)
        seconds = {version: [] for version in versions}
        for _ in range(repeats):
            for version, (tree, module) in versions.items():
                command = ["-c", words] if isinstance(words, str) else ["-m", module, *words]
                seconds[version].append(child(tree, command, folder)[0])
        numbers[name] = {version: statistics.median(each) for version, each in seconds.items()}
        rows.append([name, *(f"{value:.2f}" for value in numbers[name].values())])
    return table(rows, ["CPU seconds, median", *versions]), numbers


def runs(versions: dict, repeats: int, folder: str) -> tuple[str, dict]:
    rows, numbers = [], {}
    for name, words in JOBS.items():
        for kind in ("empty", "filled"):
            found: dict = {version: [] for version in versions}
            for number in range(repeats):  # each with a cache folder of its own
                for version, (tree, module) in versions.items():
                    cache = f"{folder}/{version}-{name}-{number}"
                    out = f"output_dir={folder}/out"
                    cpu, wall, said = child(
                        tree, ["-c", RUN, module, *words, out], folder, XDG_CACHE_HOME=cache
                    )
                    found[version].append((cpu, wall, int(said.rsplit("compiled", 1)[1])))
            for version, each in found.items():
                best = [min(values) for values in zip(*each, strict=True)]
                numbers[f"{name}, {kind} cache, {version}"] = best
                rows.append([f"{name}, {kind} cache", version, f"{best[0]:.2f}", f"{best[1]:.2f}", best[2]])
    return table(rows, ["least of each", "", "CPU s", "wall s", "programs compiled"]), numbers


def threads(repeats: int, folder: str) -> tuple[str, dict]:
    settings = {"as many as cores": {}, "OpenBLAS 1": THREADS[:1], "XLA 1": THREADS[1:], "both 1": THREADS}
    rows, numbers = [], {}
    for name, (n_cycles, overrides) in PROBLEMS.items():
        found: dict = {setting: [] for setting in settings}
        for _ in range(repeats):
            for setting, names in settings.items():
                command = ["-c", ASSIMILATE, str(n_cycles), *overrides]
                said = child(OURS[0], command, folder, **dict.fromkeys(names, "1"))[2]
                found[setting] += [json.loads(line) for line in said.splitlines()]
        for setting, each in found.items():
            wall, cpu = zip(*each, strict=True)
            numbers[f"{name}, {setting}"] = (min(wall), statistics.median(wall), min(cpu))
            shown = (f"{1e3 * value:.3g}" for value in numbers[f"{name}, {setting}"])
            rows.append([name, setting, *shown])
    return table(rows, ["milliseconds a cycle", "threads", "wall", "median", "CPU"]), numbers


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="commands, runs, threads (all)")
    parser.add_argument("--before", metavar="TREE=MODULE")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    versions = {"now": OURS}
    if args.before:
        tree, module = args.before.split("=")
        versions = {"before": (Path(tree), module)} | versions
    texts, numbers = [header("The command line before and around the assimilation")], {}
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts or ("commands", "runs", "threads"):
            measure = {"commands": commands, "runs": runs}.get(part)
            text, numbers[part] = (
                threads(args.repeats, folder) if measure is None else measure(versions, args.repeats, folder)
            )
            texts.append(text)
    finish(args, "start_up", "\n\n".join(texts), numbers)


if __name__ == "__main__":
    main()
