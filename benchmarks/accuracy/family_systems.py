"""A network of a family beside the one it began with, system by system, in runs of its own.

Each system of `family.py` that trains through cycles, in 4 runs of its practice: errors and scores of both
networks on the same runs, as their ratio, and spread/RMSE. `--system` takes one of them, `--keys` other runs.

    python benchmarks/accuracy/family_systems.py rings_four [--system 10] [--keys 1 2 3]
"""

from __future__ import annotations

import _path  # noqa: F401
import jax
import numpy as np
from suite.common import arguments, finish, header, table
from suite.ring_families import RING_FAMILIES

from masf_jax.amortised import load_amortised, pretrained_file
from masf_jax.masf.amortised.through_cycles import _deviation, _scored, _System
from masf_jax.masf.amortised.training import Course, prepared, with_network_of


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("family")
    parser.add_argument("--system", type=int)
    parser.add_argument("--keys", type=int, nargs="+", default=[77])
    args = parser.parse_args()
    given = RING_FAMILIES[args.family].courses()
    first = given[0].filter.prepare(given[0].dynamics, given[0].measurement)
    courses = prepared(Course(first, *given[0][1:]), given[1:], any_size=True)
    systems = [
        _System(
            course._replace(filter=with_network_of(first, course.filter)), interval, n, deviation, "gaussian"
        )
        for course in courses
        for deviation in [_deviation(course.filter)]
        for interval in course.practice.intervals
        for n in course.practice.ensemble_sizes
    ]
    begun = first.denoiser.params
    ended = load_amortised(pretrained_file(args.family), given[0].filter.base).denoiser.params
    rows = []
    for number, system in enumerate(systems):
        if args.system not in (None, number):
            continue
        for key in args.keys:
            runs = jax.random.fold_in(jax.random.key(key), number)
            before, after = (_scored(system, params, runs) for params in (begun, ended))
            ratios = [
                f"{float(getattr(after, each) / getattr(before, each)):.3f}" for each in ("rmse", "loss")
            ]
            spreads = [f"{float(each.spread / each.rmse):.2f}" for each in (before, after)]
            rows.append([str(number), type(system.course.dynamics).__name__, str(key), *ratios, *spreads])
            print("  ".join(rows[-1]), flush=True)
    head = ["system", "model", "key", "RMSE, ratio", "score, ratio", "s/R before", "s/R after"]
    mean = np.mean([float(row[3]) for row in rows])
    text = f"{header('A family, system by system')}\n{table(rows, head)}\nmean of the RMSE's ratio {mean:.3f}"
    finish(args, "family_systems", text, rows)


if __name__ == "__main__":
    main()
