"""Every filter × every fault of tests/filters/test_faults.py: what became of it.

right:   finite, right, and nothing said
mended:  right after broken members were replaced
skipped: flagged, and the forecast stands
flagged: flagged (round-off), and kept
(…):     neither right nor flagged, by construction; why is said below the table

python benchmarks/accuracy/faults.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import _path  # noqa: F401
import numpy as np
from suite.common import header

TESTS = Path(__file__).resolve().parents[2] / "tests" / "filters"
OUT = Path(__file__).resolve().parents[1] / "results" / "faults.txt"


def main() -> None:
    sys.path.insert(0, str(TESTS))
    import test_faults as table

    width = max(map(len, table.FAULTS)) + 2
    lines = [header("24 filters, 3 cycles each; float32"), ""]
    names = list(table.FILTERS)
    for first in range(0, len(names), 8):
        some = names[first : first + 8]
        lines.append(" " * width + "".join(f"{name:>16}" for name in some))
        for fault, (how, right) in table.FAULTS.items():
            lines.append(
                f"{fault:{width}}" + "".join(f"{cell(table, n, fault, how, right):>16}" for n in some)
            )
            print(lines[-1], flush=True)
        lines.append("")
    reasons = sorted({(name, reason) for (name, _), reason in table.EXCEPTIONS.items()})
    lines += [f"({name}): {reason}" for name, reason in reasons]
    OUT.write_text("\n".join(lines) + "\n")


def cell(table, name: str, fault: str, how: dict, right) -> str:
    if name in table.MEMBERLESS and right is table.one_replaced:
        return "no members"
    if (name, fault) in table.EXCEPTIONS:
        return "(…)"
    out, kinds, z = table.run(name, **how)
    if not (table.is_finite(out) and right(out, kinds, z)):
        return "WRONG"
    if np.asarray(out.skipped).any():
        return "skipped"
    if np.asarray(out.repaired).any():
        return "mended"
    return "flagged" if np.asarray(out.faults).any() else "right"


if __name__ == "__main__":
    main()
