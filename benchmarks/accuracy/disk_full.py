"""Disks that fill up at any write: python disk_full.py OUT [SIZES_A_COMMAND] (Linux, as root: mounts tmpfs)

Each command runs in a tmpfs of its own, of sizes that grow until it fits, one process for all sizes of a
command, so that a process taken down by a library shows. Where the disk was full: exit code 1, one sentence
that names a file there and says what to do, no traceback; a file of another run beside it is whole, and no
temporary file is left. Then the tmpfs is made larger, and the same command must end with the results of one
that was never short of room, bit for bit (but for seconds). States are written twenty times a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from killed_runs import PRACTICE, results

SMALL = ["dynamics.n=12", "burn_in=10", "ensemble_size=6", "figures=false", "compilation_cache=false"]
COMMANDS = {
    "run": ["run", *SMALL, "n_cycles=3000", "filter=etkf", "chunk=300"],
    "run with figures": ["run", *SMALL[:3], "figures=true", "n_cycles=300", "filter=etkf", "chunk=300"],
    "compare": ["compare", "filters=[etkf,enkf]", "seeds=2", *SMALL, "n_cycles=300"],
    "tune": ["tune", "filter=etkf", "trials=4", "evaluation_seeds=2", *SMALL, "n_cycles=300"],
    "sweep": ["run", "-m", "seed=0,1", *SMALL, "n_cycles=1000"],
    "train": [
        *("train", "experiment=lorenz63_sakov2012", "filter=masf_amortised", "ensemble_size=10"),
        *(
            "filter.training.window=0",
            "filter.training.score=gaussian",
            "filter.network.member_width=0",
            "filter.training.rounds=2",
            "filter.training.steps=100",
        ),
        "filter.training.batch_size=32",
        *(f"filter.practice.{each}" for each in PRACTICE),
    ],
}
ROOM = 256 * 2**20


@contextlib.contextmanager
def disk(size: int, folder: Path) -> Iterator[Path]:
    """An empty one of so many bytes at that place, which networks name."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def call(name: str, folder: Path) -> tuple[int, str]:
    """Exit code, and what was said on stderr."""
    import jax

    from masf_jax.cli.main import main

    jax.clear_caches()  # every compiled program takes memory maps
    place = folder / "network.safetensors" if name == "train" else folder / "out"
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([*COMMANDS[name], f"output_dir={place}"])
    return code, said.getvalue()


def faults(folder: Path, code: int, said: str) -> list[str]:
    """What is wrong with how the command ended."""
    found = []
    if code != 1:
        found.append(f"exit code {code}")
    if "Traceback" in said or said.count("masf-jax: ") - said.count("masf-jax: warning") != 1:
        found.append("not one sentence")
    if str(folder) not in said or "No space left" not in said:
        found.append("neither the file nor the reason")
    if not re.search("make room|output_dir=", said):
        found.append("nothing on what to do")
    if (folder / "other").read_bytes() != b"results of another run":
        found.append("another run's results lost")
    left = [str(path) for path in folder.rglob("*") if path.suffix == ".part" or ".masf-" in path.name]
    return found + [f"left {path}" for path in left if not path.endswith(".masf-lock")]


def child(name: str, sizes: int, place: Path) -> dict[str, object]:
    from masf_jax.cli.run.folder import Stoppable
    from masf_jax.training.trees import Kept

    Stoppable.every = Kept.every = 0.05
    with disk(ROOM, place) as folder:
        code, said = call(name, folder)
        assert code == 0, said
        expected = results(folder)
        most = int(subprocess.check_output(["du", "-s", "-B1", str(folder)]).split()[0])
    step = -(-int(1.5 * most) // sizes // 4096) * 4096
    size, full, wrong, told = 4096, 0, [], set()
    while True:
        with disk(size, place) as folder:
            (folder / "other").write_bytes(b"results of another run")
            code, said = call(name, folder)
            if code == 0:
                break
            full += 1
            what = [fault + f" ({said.strip()})" for fault in faults(folder, code, said)]
            told.add(re.sub(r"/tmp/\S+?/|\d+|\.masf-\w+", "…", said.strip().splitlines()[-1]))
            subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(folder)], check=True)
            code, said = call(name, folder)
            found = results(folder)
            found.pop("other", None)
            apart = [key for key in found | expected if found.get(key) != expected.get(key)]
            if code or apart:
                what.append(f"then exit code {code}, different: {apart[:5]} {said.strip()}")
            wrong += [f"{size} bytes: {each}" for each in what]
        size += step
    return {
        "full": full,
        "from": 4096,
        "to": size,
        "results": len(expected),
        "wrong": wrong,
        "told": sorted(told),
    }


def main(out: str | None, sizes: int) -> None:
    lines = ["python benchmarks/accuracy/disk_full.py benchmarks/results/disk_full.txt", ""]
    for name in COMMANDS:
        done = subprocess.run(
            [sys.executable, __file__, "child", name, str(sizes)], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{name}: ended with {done.returncode}\n{done.stderr[-3000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        wrong = "all told truly and bit-equal afterwards" if not found["wrong"] else "WRONG:"
        lines.append(
            f"{name}: {found['full']} disks of {found['from']} to {found['to']} bytes filled up, "
            f"{found['results']} results each, {wrong}"
        )
        lines += [f"  {each}" for each in found["wrong"]] + [f'  "{each}"' for each in found["told"]]
        print("\n".join(lines[-1 - len(found["wrong"]) - len(found["told"]) :]), flush=True)
    if out:
        Path(out).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(child(sys.argv[2], int(sys.argv[3]), Path(place))))
    else:
        main(*sys.argv[1:2] or [None], int((*sys.argv[2:], 20)[0]))
