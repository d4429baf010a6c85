"""Trained filters of the package with networks in bfloat16 against float32: RMSE and spread of the analysis,
bytes of parameters, and temporary bytes of the network's program for all members at once.

Pairs of runs with the same seed; differences are means over seeds ± standard error.

    python benchmarks/accuracy/half_networks.py
"""

from __future__ import annotations

from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table

from masf_jax import assimilate
from masf_jax.cli.config.compose import compose
from masf_jax.cli.process import precision
from masf_jax.cli.run.problem import build
from masf_jax.denoisers import in_type
from masf_jax.metrics.summary import mean_and_standard_error

CASES = {"lorenz63_sakov2012": (600, 100), "lorenz96_partial": (600, 100), "kolmogorov_grid": (20, 4)}
OTHER = {"lorenz63_sakov2012": "lorenz63_rounds"}
"""The network, where it is not the experiment's."""
"""Cycles, and those left out of averages."""


def memory(filter: Any, n_members: int) -> tuple[int, int]:
    """Bytes of the parameters, and temporary ones of the network's evaluation for all members."""
    network = filter.denoiser
    shape = filter.climate.mean.shape
    x = jax.ShapeDtypeStruct((n_members, *shape), jnp.float32)
    evaluate = jax.jit(lambda network, x: jax.vmap(lambda x: network(x, jnp.ones_like(x)))(x))
    account: Any = evaluate.lower(network, x).compile().memory_analysis()
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(network.params))
    return parameters, account.temp_size_in_bytes


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    rows, numbers = [], []
    for name, (n_cycles, burn_in) in CASES.items():
        found: dict[str, list[Any]] = {"float32": [], "bfloat16": []}
        held = {}
        for seed in range(args.seeds):
            keys = [f"experiment={name}", "filter=masf_amortised", f"n_cycles={n_cycles}", f"seed={seed}"]
            keys += [f"filter.checkpoint={OTHER.get(name, name)}"]
            settings = compose([*keys, f"burn_in={burn_in}"])
            with precision(settings.precision):
                given = build(settings)
                filter = given.filter.prepare(given.dynamics, given.measurement)
                for kind in found:
                    own = in_type(filter, jnp.dtype(kind))
                    held[kind] = memory(own, settings.ensemble_size)
                    run = assimilate(
                        given.key, own, given.dynamics, given.measurement, given.observations,
                        given.ensemble, truth=given.truth, save=(), scores=("rmse", "spread"),
                    )  # fmt: skip
                    scores = run.analysis_scores
                    found[kind].append([float(np.mean(scores[s][burn_in:])) for s in ("rmse", "spread")])
        rmse = {kind: mean_and_standard_error(np.array(each)[:, 0]) for kind, each in found.items()}
        apart = np.subtract(found["bfloat16"], found["float32"])
        change = [mean_and_standard_error(apart[:, i]) for i in (0, 1)]
        rows.append(
            [name, args.seeds, n_cycles]
            + [f"{rmse[kind][0]:.4f}" for kind in found]
            + [f"{mean:+.4f} ± {error:.4f}" for mean, error in change]
            + [f"{held[kind][i] / 1e6:.3f}" for i in (0, 1) for kind in found]
        )
        numbers.append({"name": name, "found": found, "held": held})
    head = ["experiment", "seeds", "cycles", "RMSE float32", "bfloat16", "change", "change of spread"]
    head += ["parameters, MB", "bfloat16", "temporary, MB", "bfloat16"]
    finish(args, "half_networks", header("") + "\n" + table(rows, head), numbers)


if __name__ == "__main__":
    main()
