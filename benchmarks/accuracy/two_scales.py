"""Truth of two scales, a filter with a model of one: closures found from what is measured.

Truth: two-scale Lorenz-96 (K = 36, J = 10, h = 1, b = c = 10, F = 10), RK4 steps of .005; the 36 slow
variables are measured each .05, noise 1. Filter: LETKF, N = 20, radius 7.28, adaptive inflation, nothing
tuned. The model of one scale has a closure g(x_i) beside F = 10: none; a constant or a polynomial of degree
3 (each coefficient of (x/5)^d with prior N(0, 2²)), found by AugmentedState() in 2000 cycles, mean over the
second half of the course; a network of x_{i-1}, x_i, x_{i+1} (16 tanh, 81 parameters, the same at each i),
found by Gradient, 100 steps, through 200 cycles of the filter, derivatives through 5. "and error": the
polynomial's model with additive error instead of inflation, its std found by EM, 30 steps of 200 cycles.
"RMSE": of the slow variables, over cycles 200-1200 of a window that no closure has seen; "known": the model
of two scales in the filter. Mean ± standard error of seeds.

    python benchmarks/accuracy/two_scales.py [--seeds 5]

Model: Lorenz (1996); closures: Wilks (2005), doi 10.1256/qj.04.03.
"""

from __future__ import annotations

import time
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, simulate
from masf_jax.coordinates import Coordinates
from masf_jax.dynamics import Dynamics, Lorenz96, ModelError
from masf_jax.dynamics.integrate import rk4_step
from masf_jax.ensemble import Inflation
from masf_jax.estimation import EM, AugmentedState, Gradient, LogNormal, Normal, estimate
from masf_jax.filters import LETKF
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset

K, J, H, B, C, F, DT, INNER = 36, 10, 1.0, 10.0, 10.0, 10.0, 0.05, 10
TRAIN, SHORT, BURN_IN, TEST = 2000, 200, 200, 1200


class TwoScales(Dynamics):
    """x = (slow, fast): the K slow variables, then J fast ones of each."""

    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self) -> None:
        self.dt, self.state_shape = jnp.asarray(DT), (K + K * J,)

    def tendency(self, x: Float[Array, " n"], time: Any) -> Float[Array, " n"]:
        slow, fast = x[:K], x[K:]
        near, fastest = jnp.roll(slow, 1), jnp.roll(fast, -1)
        load = fast.reshape(K, J).sum(1)
        d_slow = -near * (jnp.roll(slow, 2) - jnp.roll(slow, -1)) - slow + F - H * C / B * load
        d_fast = -C * B * fastest * (jnp.roll(fast, -2) - jnp.roll(fast, 1)) - C * fast
        return jnp.concatenate([d_slow, d_fast + H * C / B * jnp.repeat(slow, J)])

    def __call__(self, x: Float[Array, " n"], time: Any, key: Any) -> Float[Array, " n"]:
        step = self.dt.astype(x.dtype) / INNER
        return jax.lax.fori_loop(0, INNER, lambda _, x: rk4_step(self.tendency, x, time, step), x)

    @property
    def coordinates(self) -> Coordinates:
        fast = np.repeat(np.arange(K), J) + np.tile((np.arange(J) + 0.5) / J - 0.5, K)
        return Coordinates(np.concatenate([np.arange(K), fast % K])[:, None], (float(K),))

    @property
    def spin_up_steps(self) -> int:
        return 400

    def initial_state(self, key: Any) -> Float[Array, " n"]:
        scales = jnp.concatenate([jnp.full(K, 3.0), jnp.full(K * J, 0.1)])
        return scales * jax.random.normal(key, self.state_shape)


class OneScale(Dynamics):
    """Lorenz-96 and a closure by its parameters: a polynomial's coefficients, or a network's, flat."""

    parameters: Float[Array, " p"]
    dt: Float[Array, ""]
    network: bool = eqx.field(static=True)
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, parameters: Any, network: bool = False):
        self.parameters, self.network = jnp.asarray(parameters, float), network
        self.dt, self.state_shape = jnp.asarray(DT), (K,)

    def closure(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        parameters, scaled = self.parameters.astype(x.dtype), x / 5
        if self.network:
            near = jnp.stack([jnp.roll(scaled, 1), scaled, jnp.roll(scaled, -1)], axis=1)
            return jax.vmap(UNRAVEL(parameters))(near)
        return jnp.polyval(parameters[::-1], scaled)

    def tendency(self, x: Float[Array, " n"], time: Any) -> Float[Array, " n"]:
        return Lorenz96(K, F).tendency(x, time) + self.closure(x)

    def __call__(self, x: Float[Array, " n"], time: Any, key: Any) -> Float[Array, " n"]:
        return rk4_step(self.tendency, x, time, self.dt.astype(x.dtype))

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.grid((K,), (float(K),))


def _unravel() -> tuple[np.ndarray, Any]:
    """A network's parameters to begin with, and what makes it of parameters."""
    made = eqx.nn.MLP(3, "scalar", 16, 1, jax.nn.tanh, key=jax.random.key(0))
    arrays, rest = eqx.partition(made, eqx.is_inexact_array)
    flat, back = ravel_pytree(arrays)
    return np.asarray(flat), lambda parameters: eqx.combine(back(parameters), rest)


FLAT, UNRAVEL = _unravel()
FILTER = LETKF(7.28, Inflation(adaptive=True))
SENSOR = Measurement(Identity(), Gaussian(1.0))
NAME, POLYNOMIAL = "dynamics.parameters", "polynomial, AugmentedState"


def found(key: Any, model: OneScale, prior: Normal, engine: Any, values: Array, members: Array) -> OneScale:
    options = {"truncate": 5} if isinstance(engine, Gradient) else {}
    given = (key, FILTER, model, SENSOR, Observations(values, 1), members)
    result = estimate(*given, unknown={NAME: prior}, engine=engine, **options)
    if isinstance(engine, Gradient):
        return OneScale(result.mean[NAME], model.network)
    return OneScale(np.asarray(result.course_mean[NAME])[TRAIN // 2 :].mean(0), model.network)


def one_seed(seed: int) -> dict[str, tuple[float, float]]:
    """RMSE and CPU seconds of the estimation, by model."""
    model = TwoScales()
    sensor = Measurement(Subset(np.arange(K)), Gaussian(1.0))
    keys = jax.random.split(jax.random.key(seed), 6)
    twin = simulate(keys[0], model, sensor, TRAIN + TEST, 1, model.sample_climatology(keys[1]))
    values = twin.observations.values
    slow = twin.truth[0, :K] + jax.random.normal(keys[2], (20, K))
    test, out = twin.truth[TRAIN:, :K], {}

    def rmse(model: Dynamics, sensor: Measurement, members: Array, filter: LETKF = FILTER) -> float:
        observations = Observations(values[TRAIN:], 1)
        run = assimilate(keys[3], filter, model, sensor, observations, members, save=("mean",))
        off = np.asarray(run.analysis["mean"])[BURN_IN:, :K] - np.asarray(test)[BURN_IN:]
        return float(np.sqrt((off**2).mean(1)).mean())

    first = test[0] + jax.random.normal(keys[4], (20, K))
    out["no closure"] = rmse(OneScale(np.zeros(1)), SENSOR, first), 0.0
    wide, by_gradient = Normal(0.0, 2.0), Gradient(100, 0.1, laplace=False)
    for name, start, prior, engine, cycles in [
        ("constant, AugmentedState", OneScale(np.zeros(1)), wide, AugmentedState(), TRAIN),
        ("network, Gradient", OneScale(FLAT, True), Normal(FLAT, 0.5), by_gradient, SHORT),
        (POLYNOMIAL, OneScale(np.zeros(4)), wide, AugmentedState(), TRAIN),
    ]:
        begun = time.process_time()
        closed = found(keys[5], start, prior, engine, values[:cycles], slow)
        seconds = time.process_time() - begun
        out[name] = rmse(closed, SENSOR, first), seconds
        print(seed, name, out[name], np.asarray(closed.parameters)[:4], flush=True)
        if name == POLYNOMIAL:
            begun = time.process_time()
            given = (ModelError(closed, 0.3), SENSOR, Observations(values[:SHORT], 1), slow)
            with_error = estimate(
                keys[5], LETKF(7.28), *given, unknown={"dynamics.std": LogNormal(0.3)},
                engine=EM(30, laplace=False),
            )  # fmt: skip
            spent, erring = seconds + time.process_time() - begun, with_error.problem.dynamics
            out[f"{name}, and error"] = rmse(erring, SENSOR, first, LETKF(7.28)), spent
            print(seed, out[f"{name}, and error"], float(with_error.mean["dynamics.std"]), flush=True)
    far = jnp.stack([twin.truth[i * (TRAIN // 20), K:] for i in range(20)])  # fast ones of other times
    members = jnp.concatenate([first, far], axis=1)
    out["known"] = rmse(model, sensor, members), 0.0
    print(seed, out["no closure"], out["known"], flush=True)
    return out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    seeds = [one_seed(seed) for seed in range(300, 300 + args.seeds)]
    rows, numbers = [], {}
    known = np.array([each["known"][0] for each in seeds])
    for name in seeds[0]:
        rmse, seconds = np.array([each[name] for each in seeds]).T
        error = rmse.std(ddof=1) / len(seeds) ** 0.5
        shown = [f"{rmse.mean():.4f} ± {error:.4f}", f"{np.mean(rmse / known):.3f}"]
        rows.append([name, *shown, f"{seconds.mean():.1f}"])
        numbers[name] = rmse.tolist()
    text = [
        header("Two scales, assimilated by a model of one"),
        table(rows, ["closure, engine", "RMSE", "/ known", "CPU s to find it"]),
    ]
    finish(args, "two_scales", "\n".join(text), numbers)


if __name__ == "__main__":
    main()
