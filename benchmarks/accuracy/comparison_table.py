"""Every filter on every system, all tuned with the same budget: `masf-jax tune`, then `masf-jax compare`.

    python benchmarks/accuracy/comparison_table.py run SYSTEM [--filters …]  # into outputs/comparison_table
    python benchmarks/accuracy/comparison_table.py table SYSTEM … --out FILE  # of all that was run

Systems and filters with what is tuned: `suite/comparison_systems.py`. For each filter as many trials as the
system says on the seeds 1000 and 1001, the best of them on the seeds 0 … 4: the same truths, observations
and first members for all. What was run is not run again; --again does.
"""

from __future__ import annotations

import csv
import math
import shutil
import sys
import time
from pathlib import Path

import _path  # noqa: F401
from suite.common import arguments, header, table
from suite.comparison_systems import FILTERS, SYSTEMS, System

ROOT = Path("outputs/comparison_table")
TUNING_SEEDS = (1000, 1001)
SEEDS = 5


def run(name: str, system: System, label: str) -> None:
    """Tunes and compares one filter; its files lie in ROOT/SYSTEM/LABEL."""
    from masf_jax.cli.compare.compare import compare
    from masf_jax.cli.compare.tune import tune

    folder = ROOT / name / label
    shutil.rmtree(folder, ignore_errors=True)
    fixed, space = FILTERS[label]
    problem = [*system.overrides, f"ensemble_size={system.members}"]
    space = system.space.get(label, space)
    print(f"{name}, {label}", flush=True)
    start = time.process_time()
    tune([
        *problem, *fixed, *space, f"n_cycles={system.tuning[0]}", f"burn_in={system.tuning[1]}",
        f"trials={system.trials}", f"seeds=[{','.join(map(str, TUNING_SEEDS))}]", "evaluation_seeds=[]",
        f"seeds_at_once={min(system.at_once, len(TUNING_SEEDS))}", f"output_dir={folder}",
    ])  # fmt: skip
    middle = time.process_time()
    (tuned,) = folder.glob("*_tuned.yaml")
    compare([
        f"filters={{{label}: {tuned}}}", *problem, f"n_cycles={system.cycles[0]}",
        f"burn_in={system.cycles[1]}", f"seeds={SEEDS}", f"seeds_at_once={system.at_once}", "figures=false",
        f"output_dir={folder}",
    ])  # fmt: skip
    (folder / "seconds").write_text(f"{middle - start:.0f} + {time.process_time() - middle:.0f}")


def rows(name: str) -> list[list[str]]:
    """By RMSE; a filter that has none, or was lost, at the end."""
    found = []
    for label in FILTERS:
        folder = ROOT / name / label
        if not (folder / "seconds").exists():
            continue
        with (folder / "comparison.csv").open() as file:
            (result,) = csv.DictReader(file)
        lost, rmse = int(result["diverged"]), float(result["rmse_analysis"])
        cells = [
            mean_and_error(float(result[key]), float(result[f"{key}_se"]))
            for key in ("rmse_analysis", "rmse_forecast", "spread_skill_ratio", "crps_analysis")
        ]
        seconds = [f"{float(result['seconds_per_cycle']):.2g}", (folder / "seconds").read_text()]
        found.append(((lost, rmse), [label, *cells, f"{lost}/{SEEDS}", *seconds, best(folder)]))
    return [row for _, row in sorted(found, key=lambda pair: (pair[0][0] > 0, pair[0][1]))]


def mean_and_error(mean: float, error: float) -> str:
    """Without an error where only one run ended without NaN."""
    return f"{mean:.3f}" + (f" ± {error:.3f}" if math.isfinite(error) else "")


def best(folder: Path) -> str:
    """The tuned values."""
    with (folder / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    trial = min(trials, key=lambda trial: float(trial["score"]))
    return " ".join(
        f"{key.removeprefix('filter.')}={value}" for key, value in trial.items() if key.startswith("filter.")
    )


def text(name: str, system: System) -> str:
    head = [
        "", "RMSE analysis", "RMSE forecast", "spread/RMSE", "CRPS", "lost", "s/cycle",
        "CPU s (tuning + run)", "tuned",
    ]  # fmt: skip
    title = (
        f"{name}: {system.title}. N = {system.members}; {system.cycles[0]} cycles, the first "
        f"{system.cycles[1]} not scored; {system.trials} trials of {system.tuning[0]} cycles, the first "
        f"{system.tuning[1]} not scored"
    )
    found = rows(name)
    last = [f"{label}: {why}" for label, why in system.left_out.items() if label in system.only]
    missing = [label for label in system.filters if label not in {row[0] for row in found}]
    last += [f"Not run: {', '.join(missing)}"] if missing else []
    return "\n".join([title, " ".join(system.overrides), table(found, head), *last])


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("systems", nargs="+", choices=SYSTEMS)
    parser.add_argument("--filters", nargs="+", choices=FILTERS, help="default: all of the system")
    parser.add_argument("--again", action="store_true", help="also what was run before")
    parser.add_argument("--out", type=Path, help="of `table`")
    args = parser.parse_args()
    if args.what == "run":
        for name in args.systems:
            system = SYSTEMS[name]
            for label in args.filters or system.filters:
                if args.again or not (ROOT / name / label / "seconds").exists():
                    run(name, system, label)
        return 0
    whole = [header("Filters tuned with the same budget (masf-jax tune) and compared (masf-jax compare)")]
    whole += [f"{text(name, SYSTEMS[name])}\n" for name in args.systems]
    print("\n".join(whole))
    if args.out:
        args.out.write_text("\n".join(whole))
    return 0


if __name__ == "__main__":
    sys.exit(main())
