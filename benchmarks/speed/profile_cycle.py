"""Where a cycle's time goes: the parts of an ETKF and a LETKF cycle timed alone, next to the whole.

Lorenz-96 sakov2008 (n = 40, all observed): ETKF with rotation N = 24, LETKF with rotation N = 7 and 20.
Each part runs alone in a compiled scan; the cost of the empty scan is taken off. Fused into the whole
cycle parts cost less or more, so they need not add up.

    python benchmarks/speed/profile_cycle.py
"""

from __future__ import annotations

from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
from masf_jax.filters.repair import repair
from suite.common import arguments, finish, header, interleaved, looped, table
from suite.sakov2008 import CASES, RADIUS, Run, make_filter, problem, twin

import masf_jax as mj
from masf_jax.dynamics.rollout import advance, spun_up_ensemble
from masf_jax.ensemble.localization import localize, taper_matrix
from masf_jax.ensemble.statistics import anomalies
from masf_jax.ensemble.transforms import (
    helmert,
    inverse_and_inverse_sqrt,
    mean_preserving_rotation,
    random_orthogonal,
)
from masf_jax.filters.base import EnsembleState
from masf_jax.metrics.cycle import DEFAULT_SCORES, cycle_scores

LENGTH, REPEATS = 1000, 7


def parts(n_members: int, filter: Any, dynamics: Any, measurement: Any) -> dict[str, tuple]:
    """Name -> (function of key and inputs, inputs)."""
    x = spun_up_ensemble(dynamics, jax.random.key(1), 1) + 0.2 * jax.random.normal(
        jax.random.key(2), (n_members, 40)
    )
    truth = x[0] + 0.1
    z = truth + jax.random.normal(jax.random.key(3), (40,))
    mask = jnp.ones(40, bool)
    filter = filter.prepare(dynamics, measurement)
    d_members = jax.vmap(measurement.whitened_innovation, (None, 0, None))(z, x, mask)
    d, s = anomalies(d_members)
    s = -s / (n_members - 1) ** 0.5
    zero = jnp.asarray(0, jnp.int32)
    out: dict[str, tuple] = {
        "empty scan": (lambda key, x: x, x),
        "forecast (RK4 step of all members)": (lambda key, x: advance(dynamics, x, zero, key, 1), x),
        "check for broken members": (lambda key, x: repair(key, EnsembleState(x))[0].ensemble, x),
        "analysis, all of it": (
            lambda key, x: filter.analysis(key, EnsembleState(x), z, measurement, mask)[0].ensemble,
            x,
        ),
        "analysis: innovations, anomalies": (
            lambda key, x: (
                anomalies(jax.vmap(measurement.whitened_innovation, (None, 0, None))(z, x, mask)),
                anomalies(x),
            ),
            x,
        ),
        "analysis: inflation": (lambda key, x: filter.inflation.after(key, x, x), x),
        "scores, forecast and analysis": (
            lambda key, x, y: (
                cycle_scores(DEFAULT_SCORES, EnsembleState(x), truth, None),
                cycle_scores(DEFAULT_SCORES, EnsembleState(y), truth, None),
            ),
            x,
            x + 0.1,
        ),
        "mean and spread, twice": (
            lambda key, x, y: (EnsembleState(x).moments(), EnsembleState(y).moments()),
            x,
            x + 0.1,
        ),
        "three keys of a cycle": (
            lambda key, x: (x, jax.random.uniform(jax.random.split(jax.random.fold_in(key, 3), 3)[2])),
            x,
        ),
    }
    if isinstance(filter, mj.filters.ETKF):
        basis = jnp.asarray(helmert(n_members), x.dtype)
        reduced = basis.T @ s
        eye = jnp.eye(n_members - 1)
        lower = jnp.linalg.cholesky(eye + reduced @ reduced.T)
        out |= {
            "analysis: gram": (lambda key, s: eye + (basis.T @ s) @ (basis.T @ s).T, s),
            "analysis: solver (Cholesky)": (lambda key, a: jnp.linalg.cholesky(a), lower @ lower.T),
            "analysis: solver (two triangular solves)": (
                lambda key, lower, b: (
                    jax.scipy.linalg.cho_solve((lower, True), b[:, 0]),
                    jax.scipy.linalg.solve_triangular(lower, b, lower=True, trans=1),
                ),
                lower,
                eye + 0.1,
            ),
            "analysis: rotation (QR of a Gaussian matrix)": (
                lambda key, x: random_orthogonal(key, n_members - 1, x.dtype),
                x,
            ),
            "analysis: transform applied": (lambda key, t, x: (basis @ t @ basis.T) @ x, lower, x),
        }
        return out
    place = dynamics.coordinates
    lists = localize(place, place, RADIUS)
    neighbours, weights = lists.neighbours, lists.sqrt_weights.astype(x.dtype)
    taper = jnp.asarray(taper_matrix(place, place, RADIUS), x.dtype)
    columns = anomalies(x)[1].T

    def listed(key: Any, s: Any, d: Any) -> Any:
        local = s[:, neighbours] * weights[None]
        gram = jnp.einsum("ibk,jbk->bij", local, local)
        return jnp.eye(n_members)[None] + gram, jnp.einsum("ibk,bk->bi", local, d[neighbours] * weights)

    def dense(key: Any, s: Any, d: Any) -> Any:
        products = s[:, None, :] * jnp.concatenate([s, d[None]])[None]
        both = (taper @ products.reshape(-1, 40).T).reshape(40, n_members, n_members + 1)
        return jnp.eye(n_members)[None] + both[:, :, :-1], both[:, :, -1]

    matrix = jax.jit(dense)(None, s, d)[0]
    out |= {
        "analysis: normal matrices (dense taper)": (dense, s, d),
        "analysis: normal matrices (neighbour lists instead)": (listed, s, d),
        "analysis: solver (cg)": (lambda key, a, b: inverse_and_inverse_sqrt(a, b), matrix, columns),
        "analysis: solver (eigh instead)": (
            lambda key, a: jnp.linalg.eigh(a),
            matrix,
        ),
        "analysis: rotation": (lambda key, x: mean_preserving_rotation(key, n_members, x.dtype) @ x, x),
    }
    return out


WHOLE = {
    "whole cycle, statistics off": dict(scores=(), save=()),
    "whole cycle, default scores": dict(save=()),
    "whole cycle, default scores, mean and spread saved": dict(),
}


def main() -> None:
    args = arguments(__doc__).parse_args()
    dynamics, measurement = problem()
    data = twin(LENGTH)
    columns: dict[str, dict[str, float]] = {}
    for name, (n_members, _) in CASES.items():
        pieces = parts(n_members, make_filter(name), dynamics, measurement)
        runs = {p: looped(f, *inputs, length=LENGTH) for p, (f, *inputs) in pieces.items()}
        runs |= {whole: Run(name, data, **kept) for whole, kept in WHOLE.items()}
        seconds = interleaved(runs, REPEATS)
        empty = seconds["empty scan"]
        columns[name] = {
            p: 1e6 * (t - (0 if p.startswith("whole") or p == "empty scan" else empty)) / LENGTH
            for p, t in seconds.items()
        }
    names = list(dict.fromkeys(p for c in columns.values() for p in c))
    names.sort(key=lambda p: (p.startswith("whole"), p.startswith("analysis: ")))
    rows = [[p, *(f"{c[p]:.1f}" if p in c else "" for c in columns.values())] for p in names]
    text = header(f"Microseconds per cycle and part (best of {REPEATS} runs of {LENGTH} cycles)")
    finish(args, "profile_cycle", text + "\n" + table(rows, ["part", *columns]), columns)


if __name__ == "__main__":
    main()
