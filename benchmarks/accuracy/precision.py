"""Analyses in float32 against double precision: filters × prior std / noise std × sensors.

Three strongly correlated components; 1 to 1000 sensors of one of them (redundant), of random combinations
(distinct), or those with correlated errors. Each cell: |mean - exact| in posterior standard deviations, what
the filter reports as its round-off after a slash, and the ratio of the spreads behind x where it is more than
1 % off (the worst component). Exact: the Gaussian posterior of the sample's own moments in double; of the
EnKF with its own perturbations. Of 4D-Var (three cycles, B = I) the error of x0 and the larger of round-off
and |∇J|. EnKF-N has another law and is compared with itself under x64 in tests/filters/test_precision.py.

    python benchmarks/accuracy/precision.py [FILTER …]
"""

from __future__ import annotations

import sys
from pathlib import Path

import _path  # noqa: F401
from suite.common import header
from suite.precision_cases import KINDS, case, errors, window_errors

from masf_jax.filters import ETKF, LETKF, MASF, EnKF, EnSRF, IEnKF, KalmanFilter

FILTERS = {
    "KalmanFilter": KalmanFilter(),
    "EnKF": EnKF(),
    "ETKF": ETKF(),
    "ETKF rotated": ETKF(rotation=True),
    "EnSRF": EnSRF(),
    "LETKF": LETKF(None),
    "LETKF eigh": LETKF(None, solver="eigh"),
    "IEnKF": IEnKF(),
    "MASF": MASF(),
}
WINDOWS = "4D-Var"
RATIOS = (1e-5, 1e-2, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
SENSORS = (1, 3, 30, 1000)
OUT = Path(__file__).resolve().parents[1] / "results" / "precision.txt"


def cell(mean: float, spread: float, rounding: float) -> str:
    off = f"x{spread:.2f}" if abs(spread - 1) > 0.01 else ""
    return f"{mean:.0e}/{rounding:.0e}{off}".replace("e-0", "e-").replace("e+0", "e+")


def main() -> None:
    everything = FILTERS | {WINDOWS: None}
    chosen = {name: filter for name, filter in everything.items() if not sys.argv[1:] or name in sys.argv[1:]}
    lines = [
        header("N = 20; the largest error of the whole table and its worst flag follow each filter."),
        "",
    ]
    lines.append(f"{'':14}{'sensors':17}" + "".join(f"{ratio:>16g}" for ratio in RATIOS))
    for name, filter in chosen.items():
        worst = 0.0
        wrong = silent = 0
        for kind in KINDS if filter is not None else KINDS[:2]:  # 4D-Var's noise is not correlated
            for m in SENSORS:
                cases = [case(kind, 20, m, ratio) for ratio in RATIOS]
                if filter is None:
                    rows = [(off, 1.0, max(flags)) for off, *flags in window_errors(cases)]
                else:
                    rows = errors(filter, cases)
                lines.append(f"{name:14}{kind:11}{m:5} " + "".join(f"{cell(*row):>16}" for row in rows))
                print(lines[-1], flush=True)
                bad = [row for row in rows if not (row[0] < 0.1 and abs(row[1] - 1) < 0.1)]
                worst = max(worst, *(row[0] for row in rows))
                wrong, silent = wrong + len(bad), silent + sum(not row[2] > 0.1 for row in bad)
        lines.append(
            f"{name:14}largest error {worst:.1e}; wrong by .1 std or 10 %: {wrong}, not flagged: {silent}"
        )
        print(lines[-1], flush=True)
    if not sys.argv[1:]:
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
