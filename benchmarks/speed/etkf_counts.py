"""XLA's counts of the ETKF against the formulas of docs/devices.md: operations, and arrays of the ensemble.

Operations of `ETKF.transform` (its branch in single precision) against 2N²(n + m) + 6Nn; temporary arrays,
given and results of the compiled cycle (forecast, analysis, looked at for faults), in units of the ensemble's
N n numbers of its precision, and what it would hold if the state before a chunk were donated to it. In
single precision the cycle has a branch in double, which counts as if taken. Nothing is run.

    python benchmarks/speed/etkf_counts.py
"""

from __future__ import annotations

from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, driver
from masf_jax.dynamics import Lorenz96
from masf_jax.filters import ETKF
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset

SIZES = [(16, 8000), (40, 8000), (20, 1_000_000)]
"""Members N, components n; a tenth of them is measured."""


def operations(n_members: int, n: int, dtype: Any) -> float:
    """FLOP of the transform, by XLA."""
    x, z = (jax.ShapeDtypeStruct((n_members, size), dtype) for size in (n, n // 10))
    key, mask = jax.random.key(0), jax.ShapeDtypeStruct((n // 10,), bool)
    account = jax.jit(ETKF().transform).lower(key, x, z, mask).compile().cost_analysis()
    return float(account["flops"])  # type: ignore[index]


def arrays(n_members: int, n: int) -> list[float]:
    """Given, results, temporary of a chunk's program in ensembles, and all of them with donation."""
    measurement = Measurement(Subset(np.arange(0, n, 10)), Gaussian(1.0))
    seen: list[Any] = []

    class Seen(BaseException):
        pass

    def caught(*args: Any) -> Any:
        seen.extend(args)
        raise Seen

    scan, driver._scan = driver._scan, caught
    try:
        z, x = jnp.zeros((2, n // 10)), jax.random.normal(jax.random.key(0), (n_members, n))
        observations = Observations(z, 1)
        assimilate(jax.random.key(1), ETKF(), Lorenz96(n), measurement, observations, x, chunk=1, save=())
    except Seen:
        pass
    finally:
        driver._scan = scan
    problem, carry, xs = seen
    kept = scan.lower(problem, carry, xs).compile().compiled.memory_analysis()
    donating = eqx.filter_jit(lambda given, carry: scan(given[0], carry, given[1]), donate="all-except-first")
    freed = donating.lower((problem, xs), carry).compile().compiled.memory_analysis()
    parts = [kept.argument_size_in_bytes, kept.output_size_in_bytes, kept.temp_size_in_bytes]
    parts.append(
        freed.argument_size_in_bytes + freed.output_size_in_bytes + freed.temp_size_in_bytes
        - freed.alias_size_in_bytes
    )  # fmt: skip
    return [part / x.nbytes for part in parts]


def main() -> None:
    args = arguments(__doc__).parse_args()
    rows, numbers = [], []
    for n_members, n in SIZES:
        found, m = operations(n_members, n, jnp.float32), n // 10
        expected = 2 * n_members**2 * (n + m) + 6 * n_members * n
        held = arrays(n_members, n)
        with jax.enable_x64(True):
            held.append(arrays(n_members, n)[2])
        rows.append([n_members, n, f"{found:.3e}", f"{expected:.3e}", f"{found / expected:.2f}"])
        rows[-1] += [f"{each:.2f}" for each in held]
        numbers.append({"members": n_members, "n": n, "flop": found, "formula": expected, "arrays": held})
    names = [
        "N",
        "n",
        "FLOP by XLA",
        "formula",
        "ratio",
        "given",
        "results",
        "temporary",
        "all, donated",
        "temporary, float64",
    ]
    finish(args, "etkf_counts", header("") + "\n" + table(rows, names), numbers)


if __name__ == "__main__":
    main()
