"""Measurements of small states: every route of `filter=masf` against importance sampling.

    python benchmarks/accuracy/nonlinear_posteriors.py [--members N] [--operators NAME ...]
        [--routes PART ...]

Forecasts: "2-d" and "one cell", correlated normal; "Lorenz-63", a cloud carried until it is bent. Truth:
10^6 draws of the forecast weighted by p(z | x), for z = H(x*) + .3 std of its noise with x* the draw nearest
to .7 standard deviations above the mean. Filters see an ensemble of `--members` other draws.

Columns: error of the mean over the posterior's standard deviation (RMS over components), Frobenius error of
the covariance over the covariance's norm, sliced Wasserstein-2 distance over the posterior's RMS spread, and
what the correction by weights used of its proposals. Networks (64 wide) are trained for 2000 steps of 128 on
those draws, within the analysis. First row: as many draws of the posterior itself. "refuses": the route
raises ValueError in `prepare`. Linear operators have the rows of the route "linear" in place of tangents'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import header, table

from masf_jax import dynamics as d, filters as f, masf, measurements as m
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import advance
from masf_jax.metrics import sliced_wasserstein
from masf_jax.training import FitConfig

DRAWS = 1_000_000


def operators(shape: tuple[int, ...]) -> dict[str, m.Measurement]:
    """Noise of about a tenth of each operator's range; of x² and |x| two modes are left."""
    if len(shape) > 1:
        return {
            "speed": m.Measurement(m.Speed(), m.Gaussian(0.1)),
            "sigmoid of speed²": m.Measurement(m.sigmoid() @ m.Speed(True, -1.0), m.Gaussian(0.1)),
        }
    n = shape[0]
    line = m.LineAverage(shape, np.arange(n - 1), np.arange(1, n))
    return {
        "arctan": m.Measurement(m.arctan(), m.Gaussian(0.05)),
        "sigmoid": m.Measurement(m.sigmoid(2.0), m.Gaussian(0.1)),
        "tanh": m.Measurement(m.tanh(), m.Gaussian(0.1)),
        "x²": m.Measurement(m.square(), m.Gaussian(0.5)),
        "|x|": m.Measurement(m.absolute(), m.Gaussian(0.2)),
        "first x², Student-t": m.Measurement(m.square() @ m.Subset([0]), m.StudentT(3.0, 0.3)),
        "quantised": m.Measurement(m.Quantised(1.0), m.Gaussian(0.3)),
        "censored": m.Measurement(m.Censored(-0.5, 0.5), m.Gaussian(0.1)),
        "log": m.Measurement(m.Log(floor=0.5) @ m.Linear(np.eye(n), 4 * np.ones(n)), m.Gaussian(0.15)),
        "range and bearing": m.Measurement(m.RangeBearing([[-2.0, 0.0]]), m.Gaussian([0.1, 0.3])),
        "multiplicative noise": m.Measurement(m.Identity(), m.Multiplicative(0.5, 0.1)),
        "line average": m.Measurement(line, m.Gaussian(0.1)),
    }


def plane(key: jax.Array, n: int) -> jax.Array:
    root = jnp.linalg.cholesky(jnp.asarray([[1.0, 0.5], [0.5, 1.0]]))
    return jnp.asarray([0.6, -0.4])[None] + jax.random.normal(key, (n, 2)) @ root.T


def cell(key: jax.Array, n: int) -> jax.Array:
    return plane(key, n)[:, :, None, None]


def bent(key: jax.Array, n: int) -> jax.Array:
    """Lorenz-63, standardised so that the operators' scales suit it."""
    start = jnp.asarray([1.5, -1.5, 25.0])[None] + jax.random.normal(key, (n, 3))
    moved = eqx.filter_jit(advance)(d.Lorenz63(dt=0.01), start, jnp.zeros((), jnp.int32), key, 20)
    return (moved - jnp.asarray([0.0, 0.0, 16.0])[None]) / 2.0


FORECASTS: dict[str, tuple[Callable[[jax.Array, int], jax.Array], tuple[int, ...]]] = {
    "2-d": (plane, (2,)),
    "one cell": (cell, (2, 1, 1)),
    "Lorenz-63": (bent, (3,)),
}


def filters(linear: bool) -> dict[str, f.EnKF | f.MASF]:
    perturbed, free = masf.GaussianPrior(members="perturbed"), masf.Bridge(centred=False)
    network = Architecture(64, multipliers=(1,), variance_head=True)
    conditional = {
        "conditional, kernel": f.MASF(route=masf.ConditionalKernel()),
        "conditional, network": f.MASF(route=masf.ConditionalNetwork(architecture=network)),
    }
    if linear:
        return {
            "EnKF (regression)": f.EnKF(),
            "linear, Gaussian": f.MASF(perturbed, sampler=free),
            "linear, kernel": f.MASF(masf.KernelPrior(), sampler=free),
            **conditional,
            "the paper's network": paper(),
        }
    return {
        "EnKF (regression)": f.EnKF(),
        "one tangent at the mean": f.MASF(perturbed, sampler=free, route=masf.Linearized("mean", 1)),
        "mean, 5 iterations": f.MASF(perturbed, sampler=free, route=masf.Linearized("mean")),
        "mean, 20 proposals": f.MASF(perturbed, route=masf.Linearized("mean", proposals=20)),
        "member, 5 iterations": f.MASF(perturbed, sampler=free, route=masf.Linearized()),
        "kernel, 20 proposals": f.MASF(masf.KernelPrior(), route=masf.Linearized("mean", proposals=20)),
        **conditional,
        "the paper's two heads": paper(),
    }


class Still(d.Dynamics):
    """x' = x, for states of any shape: what filters with a network are prepared with."""

    dt: jax.Array
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: jax.Array, time: jax.Array, key: jax.Array | None) -> jax.Array:
        return x


def paper() -> f.MASF:
    """Trained on the forecast ensemble alone, by as many steps as the conditional network."""
    training = FitConfig(steps=2000, batch_size=128, learning_rate=2e-3, validation_fraction=0.0)
    network = Architecture(64, noise_map=False, preconditioning="x0")
    return f.MASF(
        masf.NetworkPrior(training=training, architecture=network, weighted=False),
        masf.MeasurementAware(),
        masf.Guided(200),
        masf.Automatic(masf.DualHead(200)),
    )


def posterior(
    key: jax.Array, states: jax.Array, measurement: m.Measurement, z: jax.Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, covariance, and as many equally weighted draws as there are states over 50."""
    log = jax.lax.map(lambda x: measurement.log_prob(z, x), states, batch_size=10_000)
    weights = jax.nn.softmax(log)
    flat = states.reshape(len(states), -1)
    mean = weights @ flat
    away = flat - mean[None]
    picked = jax.random.choice(key, len(states), (len(states) // 50,), p=weights)
    return np.asarray(mean), np.asarray((away * weights[:, None]).T @ away), np.asarray(flat[picked])


def distances(
    draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray, exact: np.ndarray
) -> tuple[float, float, float]:
    flat = draws.reshape(len(draws), -1)
    spread = np.sqrt(np.trace(covariance) / len(mean))
    far = np.sqrt(np.mean((flat.mean(0) - mean) ** 2)) / spread
    wrong = np.linalg.norm(np.cov(flat.T).reshape(covariance.shape) - covariance) / np.linalg.norm(covariance)
    w2 = sliced_wasserstein(jax.random.key(3), jnp.asarray(flat), jnp.asarray(exact))
    return float(far), float(wrong), float(w2) / float(spread)


def analyse(
    filter: f.EnKF | f.MASF, members: jax.Array, measurement: m.Measurement, z: jax.Array
) -> tuple[np.ndarray, dict[str, jax.Array]] | None:
    """The analysis members and what the filter says of them; None where it refuses the measurement."""
    network = isinstance(filter, f.MASF) and (
        filter.prior.trained or isinstance(filter.route, masf.ConditionalNetwork)
    )
    if network and members.ndim > 2:
        members, z = members[:, :, 0, 0], z[0, 0]  # a cell as a vector: no U-Net is made for one cell
    try:
        prepared = filter.prepare(Still(jnp.ones(()), members.shape[1:]), measurement)
    except ValueError as refusal:
        print(f"refuses: {refusal}", flush=True)
        return None
    state = prepared.init(jax.random.key(1), members)
    after, info = eqx.filter_jit(prepared.analysis)(jax.random.key(2), state, z, measurement)
    assert isinstance(after, f.EnsembleState)
    return np.asarray(after.ensemble), info


def rows(
    name: str, measurement: m.Measurement, forecast: str, n_members: int, routes: list[str]
) -> list[list[str]]:
    make, _ = FORECASTS[forecast]
    states, members = make(jax.random.key(0), DRAWS), make(jax.random.key(1), n_members)
    centre, spread = states.mean(0), states.std(0)
    away = ((states - (centre + 0.7 * spread)[None]) / spread[None]).reshape(len(states), -1)
    truth = states[jnp.argmin((away**2).sum(1))]
    value = measurement.operator(truth)
    z = value + 0.3 * measurement.noise.at(value).standard_deviation(value)
    mean, covariance, exact = posterior(jax.random.key(5), states, measurement, z)
    n = min(n_members, len(exact) // 2)
    floor = distances(exact[:n], mean, covariance, exact[n:])
    out = [[f"{forecast}, {name}: as many exact draws", *(f"{value:.3f}" for value in floor), ""]]
    for label, filter in filters(measurement.operator.structure is not None).items():
        if not any(part in label for part in routes):
            continue
        done = analyse(filter, members, measurement, z)
        if done is None:
            out.append([f"{forecast}, {name}: {label}", "refuses", "", "", ""])
            continue
        drawn, info = done
        used = f"{float(info['proposals_used']):.3f}" if "proposals_used" in info else ""
        found = distances(drawn, mean, covariance, exact)
        out.append([f"{forecast}, {name}: {label}", *(f"{value:.3f}" for value in found), used])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=4000)
    parser.add_argument("--operators", nargs="*", help="names (default: all)")
    parser.add_argument("--forecasts", nargs="*", default=list(FORECASTS), choices=FORECASTS)
    parser.add_argument("--routes", nargs="*", default=[""], help="parts of routes (default: all)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = []
    for forecast in arguments.forecasts:
        _, shape = FORECASTS[forecast]
        for name, measurement in operators(shape).items():
            if arguments.operators is None or name in arguments.operators:
                found.append(rows(name, measurement, forecast, arguments.members, arguments.routes))
                print(*("  ".join(row) for row in found[-1]), sep="\n", flush=True)
    head = ["", "mean", "covariance", "sliced W2", "proposals used"]
    title = f"Routes of filter=masf against {DRAWS:.0e} weighted draws; {arguments.members} members"
    text = "\n".join([header(title), table([row for case in found for row in case], head)])
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
