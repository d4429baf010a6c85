"""kill -9 at random moments of every command, until it ends: python killed_runs.py OUT [KILLS_A_COMMAND]

Each command is started again and again with the same arguments and killed after a random time, so many
times, then left to end; its results must be those of a call that was not killed, bit for bit (but for
seconds). States are written as often as the loops allow (not each 5 or 30 s), so that kills meet writes.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = ["dynamics.n=12", "burn_in=10", "ensemble_size=6", "figures=false"]
TRAINING = ["rounds=2", "steps=400", "batch_size=64"]
PRACTICE = ["runs=16", "cycles=30", "burn_in=5"]
COMMANDS = {
    "run": ["run", *SMALL, "n_cycles=60000", "filter=letkf"],
    "compare": ["compare", "filters=[etkf,enkf,letkf,masf]", "seeds=3", *SMALL, "n_cycles=4000"],
    "tune": ["tune", "filter=etkf", "trials=12", "evaluation_seeds=2", *SMALL, "n_cycles=8000"],
    "sweep": ["run", "-m", "filter=etkf,enkf", "seed=0,1", *SMALL, "n_cycles=15000"],
    "train": [
        *("train", "experiment=lorenz63_sakov2012", "filter=masf_amortised", "ensemble_size=10"),
        "filter.training.window=0",
        "filter.training.score=gaussian",
        "filter.network.member_width=0",
        *(f"filter.training.{each}" for each in TRAINING),
        *(f"filter.practice.{each}" for each in PRACTICE),
    ],
}


def child(arguments: list[str]) -> int:
    """The command line with states written all the time."""
    from masf_jax.cli.main import main
    from masf_jax.cli.run.folder import Stoppable
    from masf_jax.training.trees import Kept

    Stoppable.every = Kept.every = 0.05
    return main(arguments)


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    place = folder / "network.safetensors" if arguments[0] == "train" else folder
    command = [sys.executable, __file__, "child", *arguments, f"output_dir={place}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(name: str, process: subprocess.Popen) -> None:
    """In good order; a checkpoint that is there already is not made again."""
    said, _ = process.communicate()
    if process.returncode and not (name == "train" and "exists: add --overwrite" in said):
        raise SystemExit(f"{name}: exit {process.returncode}\n{said}")


def results(folder: Path) -> dict[str, object]:
    """Everything a command leaves, but for times, paths and the run's history."""
    found: dict[str, object] = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and "parts" not in each.parts):
        name = str(path.relative_to(folder))
        if path.suffix == ".nc":
            import xarray as xr

            with xr.open_dataset(path, engine="h5netcdf") as data:
                found |= {f"{name}/{key}": values.values.tobytes() for key, values in data.variables.items()}
        elif path.suffix == ".csv":
            with path.open() as file:
                rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(file)]
            found[name] = rows
        elif path.suffix == ".safetensors":
            from masf_jax.training.files import read

            about, arrays = read(path)
            found[name] = json.dumps(timeless(about))
            found |= {f"{name}/{key}": array.tobytes() for key, array in flat(arrays)}
        elif path.name.startswith((".", "metrics")) or path.suffix in (".yaml", ".tex"):
            continue  # times, the folder's own name
        else:
            found[name] = path.read_bytes()
    return found


def timeless(tree: object) -> object:
    """Without what took how long."""
    if not isinstance(tree, dict):
        return tree
    return {key: timeless(leaf) for key, leaf in tree.items() if key != "seconds"}


def flat(tree: dict, path: str = "") -> list[tuple[str, object]]:
    return [
        pair
        for key, leaf in tree.items()
        for pair in (flat(leaf, f"{path}{key}/") if isinstance(leaf, dict) else [(f"{path}{key}", leaf)])
    ]


def main(out: str, kills: int) -> None:
    draw, lines = (
        random.Random(0),
        ["python benchmarks/accuracy/killed_runs.py benchmarks/results/killed_runs.txt", ""],
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COMMANDS.items():
            where, killed = Path(folder) / name, Path(folder) / name / "killed"
            for _ in range(2):  # the second time its programs are compiled
                shutil.rmtree(where, ignore_errors=True)
                begun = time.monotonic()
                ended(name, start(arguments, where / "whole"))
                seconds = time.monotonic() - begun
            expected, reached, ends = results(where / "whole"), 0, 0
            while reached < kills or ends == 0:
                process = start(arguments, killed)
                try:
                    process.wait(draw.uniform(0.3, 0.9) * seconds if reached < kills else None)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    reached += 1
                    continue
                ended(name, process)
                found, ends = results(killed), ends + 1
                apart = [key for key in found | expected if found.get(key) != expected.get(key)]
                if apart:
                    raise SystemExit(f"{name}: DIFFERENT after {reached} kills: {apart}")
                shutil.rmtree(killed)
            lines.append(
                f"{name}: {reached} kills, {ends} ends, {len(expected)} results each, all bit-equal "
                f"({seconds:.0f} s not killed)"
            )
            print(lines[-1], flush=True)
    Path(out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "child":
        sys.exit(child(sys.argv[2:]))
    main(sys.argv[1], int((*sys.argv[2:], 10)[0]))
