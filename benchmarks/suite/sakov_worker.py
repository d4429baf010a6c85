"""Runs the problem of sakov2008.py and answers requests, one JSON object a line (see against_dapper.py).

    {"do": "twin", "cycles", "path"}                        truth, observations and members: a file
    {"do": "check", "path"}                                 our statistics of an ensemble, by DAPPER's names
    {"do": "run", "name", "mode", "path", "scored"}         CPU seconds a cycle, RMSE of these
    {"do": "seeds", "name", "path", "cycles", "seeds"}      CPU seconds a cycle of so many, vmapped

In the precision that JAX has (JAX_ENABLE_X64).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import jax.numpy as jnp
import numpy as np
from suite.sakov2008 import Run, twin
from suite.same_statistics import SAVE, same_statistics

from masf_jax.filters.base import EnsembleState

RUNS: dict[tuple[str, str], Run] = {}
NAMES = {"gaussian_score": "gscore", "mean_absolute_deviation": "mad", "skewness": "skew", "kurtosis": "kurt"}
NAMES |= {"mean": "mu", "error": "err", "rank": "rh", "singular_values": "svals"}
NAMES |= {"error_in_singular_directions": "umisf", "crps": "crps", "spread": "spread"}


def loaded(path: str) -> dict[str, Any]:
    with np.load(path) as held:
        return {name: np.asarray(jnp.asarray(held[name], float)) for name in held}


def make(request: dict[str, Any]) -> dict[str, Any]:
    np.savez(request["path"], **twin(request["cycles"]))
    return {}


def check(request: dict[str, Any]) -> dict[str, Any]:
    data = loaded(request["path"])
    state = EnsembleState(jnp.asarray(data["ensemble"]))
    found = same_statistics(True)["statistics"](state, jnp.asarray(data["truth"][0]), None)
    found |= {"mean": state.mean, "spread": jnp.sqrt(state.variance)}
    return {theirs: np.asarray(found[mine], float).tolist() for mine, theirs in NAMES.items()}


def cpu(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def run(request: dict[str, Any]) -> dict[str, Any]:
    name, mode = request["name"], request["mode"]
    if (name, mode) not in RUNS:
        extra = same_statistics(trace=name.startswith("ETKF")) if mode == "same" else None
        keep: dict[str, Any] = {"save": SAVE, "extra_scores": extra} if mode == "same" else {"save": ()}
        RUNS[name, mode] = Run(name, loaded(request["path"]), scores=(), **keep)
    now = RUNS[name, mode]
    cycles = len(loaded(request["path"])["truth"])
    out: dict[str, Any] = {"seconds": min(cpu(now) for _ in range(3)) / cycles}
    if mode == "same":
        error = np.asarray(now.result.analysis_scores["statistics"]["error"], float)
        out["rmse"] = float(np.sqrt((error**2).mean(1))[slice(*request["scored"])].mean())
    return out


def seeds(request: dict[str, Any]) -> dict[str, Any]:
    data, cycles = loaded(request["path"]), request["cycles"]
    short = {k: v[:cycles] if k in ("truth", "observations") else v for k, v in data.items()}
    many = Run(request["name"], short, seeds=request["seeds"], save=(), scores=())
    return {"seconds": min(cpu(many) for _ in range(4)) / (request["seeds"] * cycles)}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    jobs = {"twin": make, "check": check, "run": run, "seeds": seeds}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(jobs[request.pop("do")](request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
