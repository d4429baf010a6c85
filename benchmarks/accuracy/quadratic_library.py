"""A model from nothing: 18 coefficients of a quadratic library, from zero, found while assimilating.

Lorenz-96, n = 40, all measured each .05 with noise 1, ETKF with N = 50. The filter's model is dx_i/dt =
Σ_j c_j φ_j(x), the same at each i, over 1, x_{i-2} … x_{i+2}, and the twelve x_{i+a} x_{i+b} with |a|, |b|,
|a - b| ≤ 2; all c start at 0, with priors N(0, 4²), N(0, 1), N(0, .3²). True are 8, -1 of x_i, 1 of
x_{i-1} x_{i+1}, -1 of x_{i-2} x_{i-1}, else 0. "forcing off": the error of the constant, relative to 8;
"others off": the largest error of the other 17 (of which the true ones are 1, -1 and 0); in brackets that of
the worst seed. Of the estimate after so many cycles, and of its mean over the second half of the course.
"RMSE": of the analyses in the 100 cycles before; last row: of the filter with the true model, but for the
first 500. Mean ± standard error of seeds. AugmentedState's floor and relaxation and the inflation were chosen
on five other seeds; the default floor, .02, is as large as the accuracy asked for here.

    python benchmarks/accuracy/quadratic_library.py [--seeds 5] [--cycles 8000]

Library: Bocquet et al. (2019), doi 10.5194/npg-26-143-2019.
"""

from __future__ import annotations

import time
from typing import Any

import _path  # noqa: F401
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from suite.common import arguments, finish, header, table

from masf_jax import assimilate, simulate
from masf_jax.dynamics import Dynamics, Lorenz96
from masf_jax.dynamics.integrate import rk4_step
from masf_jax.ensemble import Inflation
from masf_jax.estimation import AugmentedState, Normal, estimate
from masf_jax.filters import ETKF
from masf_jax.measurements import Gaussian, Identity, Measurement

PLACES = range(-2, 3)
PRODUCTS = tuple((a, b) for a in PLACES for b in PLACES if 0 <= b - a <= 2)
STD = np.array([4.0] + [1.0] * 5 + [0.3] * 12)
TRUE = np.zeros(18)
TRUE[[0, 3, 6 + PRODUCTS.index((-1, 1)), 6 + PRODUCTS.index((-2, -1))]] = 8.0, -1.0, 1.0, -1.0
FILTER = ETKF(Inflation(1.02))
ENGINE = AugmentedState(floor=0.005, relaxation=0.95)
SHOWN = (100, 500, 2000)
NAME = "dynamics.coefficients"


class Library(Dynamics):
    """The model above on a ring; RK4 steps of .05."""

    coefficients: Float[Array, "18"]
    dt: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, n: int, coefficients: Any):
        self.state_shape, self.dt = (n,), jnp.asarray(0.05)
        self.coefficients = jnp.asarray(coefficients, float)

    def tendency(self, x: Float[Array, " n"], time: Any) -> Float[Array, " n"]:
        near = {a: jnp.roll(x, -a) for a in PLACES}
        terms = [jnp.ones_like(x), *near.values(), *(near[a] * near[b] for a, b in PRODUCTS)]
        return self.coefficients.astype(x.dtype) @ jnp.stack(terms)

    def __call__(self, x: Float[Array, " n"], time: Any, key: Any) -> Float[Array, " n"]:
        return rk4_step(self.tendency, x, time, self.dt.astype(x.dtype))


def found(seed: int, cycles: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The coefficients' course (cycles, 18), RMSE of each cycle, and with the true model but for 500."""
    sensor = Measurement(Identity(), Gaussian(1.0))
    twin = simulate(jax.random.key(seed), Lorenz96(40), sensor, cycles)
    members = twin.truth[0] + jax.random.normal(jax.random.key(1000 + seed), (50, 40))
    given = sensor, twin.observations, members
    scored: dict[str, Any] = {"truth": twin.truth, "scores": ("rmse",)}
    result = estimate(
        jax.random.key(2000 + seed), FILTER, Library(40, np.zeros(18)), *given,
        unknown={NAME: Normal(0.0, STD)}, engine=ENGINE, **scored,
    )  # fmt: skip
    known = assimilate(jax.random.key(2000 + seed), FILTER, Lorenz96(40), *given, save=(), **scored)
    assert result.run is not None
    rmse, best = (np.asarray(run.analysis_scores["rmse"]) for run in (result.run, known))
    return np.asarray(result.course_mean[NAME]), rmse, float(best[500:].mean())


def shown(values: Any, digits: int = 3) -> str:
    values = np.asarray(values)
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"


def relative(errors: np.ndarray) -> str:
    """Mean ± standard error over seeds, and the worst, in percent."""
    mean, error, worst = (
        100 * errors.mean(),
        100 * errors.std(ddof=1) / len(errors) ** 0.5,
        100 * errors.max(),
    )
    return f"{mean:.2f} ± {error:.2f} % ({worst:.2f})"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=8000)
    args = parser.parse_args()
    begun = time.process_time()
    seeds = [found(seed, args.cycles) for seed in range(200, 200 + args.seeds)]
    seconds = (time.process_time() - begun) / args.seeds
    courses, rmse = np.stack([each[0] for each in seeds]), np.stack([each[1] for each in seeds])
    half, rows, numbers = args.cycles // 2, [], {}
    ends = [*(k for k in SHOWN if k < args.cycles), args.cycles]
    estimates = {str(k): courses[:, k - 1] for k in ends} | {
        f"mean of {half}-{args.cycles}": courses[:, half:].mean(1)
    }
    for name, coefficients in estimates.items():
        off = np.abs(coefficients - TRUE)
        shown_rmse = shown(rmse[:, int(name) - 100 : int(name)].mean(1)) if name.isdigit() else ""
        rows.append([name, relative(off[:, 0] / 8), relative(off[:, 1:].max(1)), shown_rmse])
        numbers[name] = off.tolist()
    rows.append(["true model", "", "", shown([best for *_, best in seeds])])
    text = [
        header("18 coefficients of a quadratic library, from zero"),
        table(rows, ["after cycles", "forcing off (worst)", "others off (worst)", "RMSE"]),
        "",
        f"CPU seconds a seed, all of it: {seconds:.1f}",
    ]
    finish(args, "quadratic_library", "\n".join(text), numbers)


if __name__ == "__main__":
    main()
