"""`import masf_jax` takes less than 1.5 s beyond `import jax` (median of five fresh processes).

python benchmarks/speed/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import _path  # noqa: F401
from suite.common import arguments, finish, header, table

CODE = """
import time
start = time.perf_counter()
import jax
middle = time.perf_counter()
import masf_jax
print(middle - start, time.perf_counter() - middle)
"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    times = []
    for _ in range(args.repeats + 1):  # the first fills the disk cache
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        times.append([float(t) for t in done.stdout.split()])
    names = ("import jax", "import masf_jax beyond it")
    columns = dict(zip(names, zip(*times[1:], strict=True), strict=True))
    rows = [[n, f"{statistics.median(t):.2f}", f"{min(t):.2f}", f"{max(t):.2f}"] for n, t in columns.items()]
    text = (
        header("Seconds to import (limit: 1.5 beyond jax)")
        + "\n"
        + table(rows, ["", "median", "least", "most"])
    )
    finish(args, "import_time", text, {name: statistics.median(t) for name, t in columns.items()})


if __name__ == "__main__":
    main()
