"""CPU microseconds a cycle of this masf_jax against those of another checkout, call by call in turn.

Two processes stay alive, one with each folder first on its path (`git worktree add --detach FOLDER COMMIT`
makes one); BLAS has one thread. Each case is compiled by both, then both run it in turn; the ratio is the
median of those of the turns, its error their median absolute deviation over √turns.

    python benchmarks/speed/against_version.py FOLDER [--rounds 21] [--only ETKF …]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from suite.common import arguments, finish, header, table
from suite.version_worker import names

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A process with the masf_jax of a folder."""

    def __init__(self, folder: Path):
        one = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}
        script = str(ROOT / "benchmarks" / "suite" / "version_worker.py")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen([sys.executable, "-u", script], env=os.environ | one, **pipes)
        found = self._line()
        if not Path(found).resolve().is_relative_to(folder.resolve()):
            raise SystemExit(f"{folder} has no masf_jax: its worker imported {found}.")

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended: see above.")
        return line.strip()

    def ask(self, *words: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def commit(folder: Path) -> str:
    told = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return told.stdout.strip() or "no commit"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folder", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", nargs="*", default=[], help="cases whose names contain one of these")
    args = parser.parse_args()
    workers = [Worker(args.folder), Worker(ROOT)]
    rows, numbers = [], {}
    for name in names():
        if args.only and not any(part in name for part in args.only):
            continue
        n_cycles = workers[1].ask("cycles", name)
        for worker in workers:
            worker.ask("make", name, n_cycles)
        turns = []
        for turn in range(args.rounds):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            times = {which: float(workers[which].ask("run")) / int(n_cycles) for which in order}
            turns.append((times[0], times[1]))
        other, this = 1e6 * np.median(turns, axis=0)
        ratios = np.array([b / a for a, b in turns])
        ratio = float(np.median(ratios))
        error = float(np.median(np.abs(ratios - ratio)) / len(ratios) ** 0.5)
        numbers[name] = {
            "cycles": int(n_cycles),
            "other": other,
            "this": this,
            "ratio": ratio,
            "error": error,
        }
        rows.append([name, n_cycles, f"{other:.1f}", f"{this:.1f}", f"{ratio:.3f}", f"{error:.3f}"])
        print(*rows[-1], file=sys.stderr, flush=True)
    for worker in workers:
        worker.close()
    title = f"CPU microseconds a cycle: {commit(args.folder)} and {commit(ROOT)}, {args.rounds} turns each"
    head = ["case", "cycles a turn", "other", "this", "ratio", "+-"]
    finish(args, "against_version", header(title) + "\n" + table(rows, head), numbers)


if __name__ == "__main__":
    main()
