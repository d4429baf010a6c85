"""One analysis through z = sin(x), which folds a wide forecast: spreads of each route and of the posterior.

    python benchmarks/accuracy/folding_sensor.py > benchmarks/results/folding_sensor.txt

Forecast N(0, std²) of 1000 members, z = .5 with error .1; the posterior by quadrature.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from masf_jax import dynamics, filters, masf, measurements

SENSOR = measurements.Measurement(lambda x: jnp.sin(x), measurements.Gaussian(0.1))
MODEL = dynamics.Function(lambda x: x, (1,))
FILTERS = {
    "at=member": filters.MASF(),
    "at=mean": filters.MASF(route=masf.Linearized("mean")),
    "kernel": filters.MASF(route=masf.ConditionalKernel()),
    "ETKF": filters.ETKF(),
}


def posterior(std: float) -> float:
    x = np.linspace(-8 * std, 8 * std, 200_001)
    log = -0.5 * (x / std) ** 2 - 0.5 * ((0.5 - np.sin(x)) / 0.1) ** 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    return float(np.sqrt((weight * x**2).sum() - (weight * x).sum() ** 2))


def spread(filter: filters.EnsembleFilter, std: float) -> float:
    members = std * jax.random.normal(jax.random.key(0), (1000, 1))
    filter = filter.prepare(MODEL, SENSOR)
    state = filter.init(jax.random.key(1), members)
    found, _ = filter.analysis(jax.random.key(2), state, jnp.asarray([0.5]), SENSOR, jnp.asarray([True]))
    return float(found.ensemble.std())


def main() -> None:
    print("python benchmarks/accuracy/folding_sensor.py > benchmarks/results/folding_sensor.txt\n")
    print("spread of the analysis through z = sin(x)")
    print(f"{'forecast std':14}{'posterior':>10}" + "".join(f"{name:>11}" for name in FILTERS))
    for std in (0.1, 0.3, 1.0, 3.0):
        found = "".join(f"{spread(filter, std):11.3f}" for filter in FILTERS.values())
        print(f"{std:<14}{posterior(std):10.3f}{found}")


if __name__ == "__main__":
    main()
