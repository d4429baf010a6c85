"""Analyses in float32 against double precision: filters × prior std / noise std × sensors.

Three strongly correlated components; 1 to 1000 sensors of one of them (redundant), of random combinations
(distinct), or those with correlated errors. Each cell: |mean - exact| in posterior standard deviations, what
the filter reports as its round-off after a slash, and the ratio of the spreads behind x where it is more than
1 % off (the worst component). Exact: the Gaussian posterior of the sample's own moments in double; of the
EnKF with its own perturbations. Of 4D-Var (three cycles, B = I) the error of x0 and the larger of round-off
and |∇J|. EnKF-N has another law and is compared with itself under x64 in tests/filters/test_precision.py.

MASF beyond the Gaussian of a linear measurement is compared with itself in float64, member by member with the
same random numbers: the largest |x - x of float64| in posterior standard deviations. "N < n": 20 components,
10 members. "local": 1200 places on a ring, by conjugate gradients.

    python benchmarks/accuracy/precision.py [FILTER …]
"""

from __future__ import annotations

import sys
from pathlib import Path

import _path  # noqa: F401
from suite.common import header
from suite.precision_cases import KINDS, N_STATE, against_itself, case, errors, local_case, window_errors

from masf_jax.filters import ETKF, LETKF, MASF, EnKF, EnSRF, IEnKF, KalmanFilter
from masf_jax.masf import ConditionalKernel, GaussianPrior, KernelPrior, Linearized

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
WINDOWS, FEWER, LOCAL = "4D-Var", "MASF N < n", "MASF local"
OF_ITSELF = {
    "MASF kernel": MASF(KernelPrior()),
    "MASF tangents": MASF(route=Linearized()),
    "MASF tangent": MASF(route=Linearized("mean")),
    "MASF condit.": MASF(route=ConditionalKernel()),
    LOCAL: MASF(GaussianPrior(6.0)),
}
RATIOS = (1e-5, 1e-2, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6)
SENSORS = (1, 3, 30, 1000)
OUT = Path(__file__).resolve().parents[1] / "results" / "precision.txt"


def cell(mean: float, spread: float, rounding: float) -> str:
    off = f"x{spread:.2f}" if abs(spread - 1) > 0.01 else ""
    return f"{mean:.0e}/{rounding:.0e}{off}".replace("e-0", "e-").replace("e+0", "e+")


def rows_of(name: str, kind: str, m: int) -> list[tuple[float, float, float]]:
    """Of each ratio the error, the spreads' ratio and the flag."""
    if name == LOCAL:
        cases = [local_case(20, 1200, m, ratio) for ratio in RATIOS]
    else:
        n_members, n = (10, 20) if name == FEWER else (20, N_STATE)
        cases = [case(kind, n_members, m, ratio, n=n) for ratio in RATIOS]
    if name == WINDOWS:
        return [(off, 1.0, max(flags)) for off, *flags in window_errors(cases)]
    if name in OF_ITSELF:
        return [(off, 1.0, flag) for off, flag in against_itself(OF_ITSELF[name], cases)]
    return errors(MASF() if name == FEWER else FILTERS[name], cases)


def kinds(name: str) -> tuple[str, ...]:
    """Noise is correlated for whole filters alone; places of the ring are measured once."""
    if name == LOCAL:
        return KINDS[1:2]
    return KINDS[:2] if name == WINDOWS or name in OF_ITSELF else KINDS


def main() -> None:
    everything = [*FILTERS, WINDOWS, FEWER, *OF_ITSELF]
    chosen = [name for name in everything if not sys.argv[1:] or name in sys.argv[1:]]
    lines = [
        header("N = 20; the largest error of the whole table and its worst flag follow each filter."),
        "",
    ]
    lines.append(f"{'':14}{'sensors':17}" + "".join(f"{ratio:>16g}" for ratio in RATIOS))
    for name in chosen:
        worst = 0.0
        wrong = silent = over = 0
        for kind in kinds(name):
            for m in SENSORS:
                rows = rows_of(name, kind, m)
                lines.append(f"{name:14}{kind:11}{m:5} " + "".join(f"{cell(*row):>16}" for row in rows))
                print(lines[-1], flush=True)
                bad = [row for row in rows if not (row[0] < 0.1 and abs(row[1] - 1) < 0.1)]
                worst = max(worst, *(row[0] for row in rows))
                wrong, silent = wrong + len(bad), silent + sum(not row[2] > 0.1 for row in bad)
                over += sum(row[2] > 0.1 for row in rows if row not in bad)
        lines.append(
            f"{name:14}largest error {worst:.1e}; wrong by .1 std or 10 %: {wrong}, not flagged: {silent}; "
            f"right, but flagged: {over}"
        )
        print(lines[-1], flush=True)
    if not sys.argv[1:]:
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
