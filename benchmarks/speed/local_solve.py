"""The LETKF's local solver: conjugate gradients beat `eigh` on a CPU, at round-off accuracy.

A = I + S Sᵀ of each grid point from N members and k tapered neighbours; both give A⁻¹a and A^(-1/2)a of the
point's anomalies a. Timed inside a compiled scan; errors against eigh in float64, relative to |a|.

    python benchmarks/speed/local_solve.py
"""

from __future__ import annotations

from typing import Any

import _path  # noqa: F401
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, interleaved, looped, table

from masf_jax.ensemble.localization import gaspari_cohn
from masf_jax.ensemble.transforms import inverse_and_inverse_sqrt

SIZES = [(40, 7, 29, 0.2), (40, 20, 29, 0.2), (40, 20, 29, 1.0), (40, 20, 29, 10.0), (4096, 10, 98, 0.2)]
"""Columns, members N, neighbours k, forecast spread / observation error (0.2: Lorenz-96 sakov2008)."""


def by_eigh(key: Any, matrix: Any, a: Any) -> tuple[Any, Any]:
    values, vectors = jnp.linalg.eigh(matrix)
    along = jnp.einsum("bij,bi->bj", vectors, a)

    def back(power: float) -> Any:
        return jnp.einsum("bij,bj->bi", vectors, along * values**power)

    return back(-1.0), back(-0.5)


def by_cg(key: Any, matrix: Any, a: Any) -> tuple[Any, Any]:
    return inverse_and_inverse_sqrt(matrix, a)


def local_problems(columns: int, n_members: int, k: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrices and anomalies in float64, members correlated in space as on an attractor."""
    rng = np.random.default_rng(0)
    modes = rng.standard_normal((n_members, max(4, k // 2)))
    pattern = rng.standard_normal((columns, modes.shape[1], k)) / np.sqrt(modes.shape[1])
    s = spread * np.einsum("im,bmk->bik", modes, pattern)
    s = s - s.mean(1, keepdims=True)
    a = s[:, :, 0].copy()
    s *= np.sqrt(gaspari_cohn(np.linspace(0, 2, k))) / np.sqrt(n_members - 1)
    return np.eye(n_members) + s @ s.transpose(0, 2, 1), a


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    rows, numbers = [], []
    for columns, n_members, k, spread in SIZES:
        matrix, a = local_problems(columns, n_members, k, spread)
        values, vectors = np.linalg.eigh(matrix)
        along = np.einsum("bij,bi->bj", vectors, a)
        exact = [np.einsum("bij,bj->bi", vectors, along * values**power) for power in (-1.0, -0.5)]
        single = jnp.asarray(matrix, jnp.float32), jnp.asarray(a, jnp.float32)
        length = max(4, 8000 // columns)
        solvers = {"cg": by_cg, "eigh": by_eigh}
        runs = {name: looped(solver, *single, length=length) for name, solver in solvers.items()}
        seconds = interleaved(runs, args.repeats)
        error = {}
        for name, solver in solvers.items():
            got = solver(None, *single)
            error[name] = max(
                float((np.linalg.norm(g - e, axis=1) / np.linalg.norm(a, axis=1)).max())
                for g, e in zip(got, exact, strict=True)
            )
        us = {name: 1e6 * t / length for name, t in seconds.items()}
        rows.append(
            [
                f"{columns}, {n_members}, {k}",
                f"{spread:g}",
                f"{values.max():.3g}",
                *(f"{us[n]:.0f}" for n in us),
            ]
        )
        rows[-1] += [f"{us['eigh'] / us['cg']:.1f}", *(f"{error[n]:.0e}" for n in us)]
        numbers.append(
            {"size": [columns, n_members, k], "spread": spread, "microseconds": us, "error": error}
        )
    head = [
        "columns, N, k",
        "spread/σ",
        "largest eigenvalue",
        "cg μs",
        "eigh μs",
        "ratio",
        "error cg",
        "error eigh",
    ]
    text = header("Microseconds for all local solves of an analysis (float32)") + "\n" + table(rows, head)
    finish(args, "local_solve", text, numbers)


if __name__ == "__main__":
    main()
