"""What an amortised network can gain where measurements are dense: in one analysis, and in cycles.

    python benchmarks/accuracy/dense_measurements.py SYSTEM [--headroom] [--steps N] [--out FILE]

SYSTEM: lorenz96, lorenz96_arctan_half.

A network is trained on the cycles of its base filter, the tuned LETKF (192 runs of 150 cycles). Squared
error of one analysis in analysis spreads, on runs held back, without and with the network, and its mean
factor on the spread; then RMSE in 48 runs of 300 cycles with the correction of the mean times a gain, the
spread the base's or the learned one.

--headroom: RMSE of Kalman filters with 20, 100 and 400 members on two seeds instead.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from amortised import evaluate, mean_and_error
from suite.amortised_systems import SYSTEMS, System
from suite.common import header

from masf_jax import filters as f
from masf_jax.amortised import Practice, practise
from masf_jax.denoisers.architecture import Architecture
from masf_jax.ensemble import Inflation
from masf_jax.masf.amortised.filter import AmortisedMASF, Context
from masf_jax.masf.amortised.training import _loss
from masf_jax.training import FitConfig, pretrain

GAINS = ((0.0, False), (0.25, False), (0.5, False), (1.0, False), (0.0, True), (1.0, True))


class Damped(AmortisedMASF):
    """The mean's correction times `gain`, and the learned spread or the base's."""

    gain: float = eqx.field(static=True, default=1.0)
    learned: bool = eqx.field(static=True, default=True)

    def sample(self, key: jax.Array, context: Context) -> tuple[jax.Array, jax.Array]:
        assert self.denoiser is not None
        a, zero = context.analysis, jnp.zeros_like(context.analysis.mean)
        network = self.denoiser.with_features(context.features)
        centre, factor = network.moments(zero, jnp.full_like(zero, 0.5 * np.pi))
        assert factor is not None
        factor = factor if self.learned else jnp.ones_like(factor)
        drawn = self.gain * centre[None] + factor[None] * a.deviations
        return a.mean[None] + a.spread[None] * drawn, factor.mean()


def damped(filter: AmortisedMASF, gain: float, learned: bool) -> Damped:
    fields = {field.name: getattr(filter, field.name) for field in dataclasses.fields(filter)}
    out = object.__new__(Damped)
    for name, value in (fields | {"gain": gain, "learned": learned}).items():
        object.__setattr__(out, name, value)
    return out


def network(system: System, steps: int) -> list[str]:
    filter = AmortisedMASF(system.base, architecture=Architecture(channels=16, multipliers=(1, 1)))
    filter = filter.prepare(system.dynamics, system.measurement)
    practice = Practice(192, 180, 30, (system.interval,), (system.members,), system.spread)
    base = eqx.tree_at(lambda f: f.denoiser, filter, jax.tree.map(jnp.zeros_like, filter.denoiser))

    def cycles(policy: AmortisedMASF, practice: Practice, key: int) -> tuple[np.ndarray, ...]:
        run = eqx.filter_jit(lambda key, policy: practise(
            key, policy, system.dynamics, system.measurement, practice, system.interval, system.members
        ))  # fmt: skip
        return tuple(np.asarray(part)[:, practice.burn_in :] for part in run(jax.random.key(key), policy))

    truth, features, rmse, spread = cycles(base, practice, 1)
    lines = [f"base filter: RMSE {rmse.mean():.4f}, spread {spread.mean():.4f}"]
    pairs = [
        tuple(a[part].reshape(-1, *a.shape[2:]) for a in (truth, features))
        for part in (slice(12, None), slice(12))
    ]
    training, held = (tuple(jnp.asarray(a) for a in pair) for pair in pairs)
    config = FitConfig(learning_rate=1e-3, weight_decay=1e-3, steps=steps, batch_size=64, ema_decay=0.998)
    assert filter.denoiser is not None
    loss = _loss(filter, True)
    params, _ = pretrain(jax.random.key(2), loss, filter.denoiser.params, training, config, validation=held)
    filter = eqx.tree_at(lambda f: f.denoiser.params, filter, params)
    denoiser = filter.denoiser
    assert denoiser is not None
    zero = jnp.zeros(truth.shape[2:])
    half = jnp.full_like(zero, 0.5 * np.pi)
    mean, factor = jax.lax.map(lambda seen: denoiser.with_features(seen).moments(zero, half), held[1])
    without, with_it = jnp.mean(held[0] ** 2), jnp.mean((held[0] - mean) ** 2)
    lines.append(
        f"one analysis: {without:.4f} without, {with_it:.4f} with the network; factor {factor.mean():.3f}"
    )
    for gain, learned in GAINS:
        own = dataclasses.replace(practice, runs=48, cycles=400, burn_in=100)
        rmse = cycles(damped(filter, gain, learned), own, 5)[2]
        which = "learned" if learned else "base's"
        lines.append(
            f"gain {gain:g}, {which} spread: RMSE {rmse.mean():.4f}, median run {np.median(rmse.mean(1)):.4f}"
        )
        print(lines[-1], flush=True)
    return lines


def headroom(system: System) -> list[str]:
    best = system.base
    trials = {"the base filter, N = 20": (20, best)}
    trials |= {
        f"ETKF, N = {n}": (n, f.ETKF(Inflation(i), rotation=True)) for n, i in ((100, 1.02), (400, 1.005))
    }
    lines = []
    for name, (members, filter) in trials.items():
        own = dataclasses.replace(system, members=members, burn_in=100)
        lines.append(f"{name}: {mean_and_error(evaluate(own, filter, (0, 1), 500)[0][0])}")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=("lorenz96", "lorenz96_arctan_half"))
    parser.add_argument("--headroom", action="store_true")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    system = SYSTEMS[arguments.system]()
    lines = headroom(system) if arguments.headroom else network(system, arguments.steps)
    text = "\n".join([header(f"{arguments.system}: N = {system.members}"), *lines])
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
