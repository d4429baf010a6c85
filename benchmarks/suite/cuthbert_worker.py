"""Runs cuthbert in its own Python and answers requests, one JSON object a line (see against_cuthbert.py).

The problem is that of its documentation's page on localisation: Lorenz-96, n = 40, RK4 steps of .01, every
second variable measured with noise 1 each .05, 500 cycles; members from the model's climatology, inflation
1.05 of the forecast, Gaspari-Cohn support 8, float64. Seed 0 is that page's own (key 1337); the truth of seed
s starts s·500 cycles later.

    {"do": "twin", "seed", "members": [N, …], "path"}    truth, observations, first members of each N: a file
    {"do": "run", "seed", "members", "localised"}        mean RMSE from cycle 50 on, spread/RMSE, seconds
"""

import json
import sys
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from cuthbert import filter as run_filter  # noqa: E402
from cuthbert.ensemble_kalman import ensemble_kalman_filter  # noqa: E402
from cuthbertlib import ensemble_kalman as parts  # noqa: E402

N_STATE, FORCING, DT, INNER, CYCLES, BURN_IN = 40, 8.0, 0.01, 5, 500, 50
MEASURED = np.arange(0, N_STATE, 2)
SUPPORT, INFLATION = 8.0, 0.05
SPIN_UP, CLIMATE = 2_000, 10_000


def slope(x):
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + FORCING


def inner(_, x):
    k1 = slope(x)
    k2 = slope(x + DT / 2 * k1)
    k3 = slope(x + DT / 2 * k2)
    k4 = slope(x + DT * k3)
    return x + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def cycle(x):
    return jax.lax.fori_loop(0, INNER, inner, x)


def trajectory(x, length):
    def step(x, _):
        x = cycle(x)
        return x, x

    return jax.jit(lambda x: jax.lax.scan(step, x, None, length=length)[1])(x)


CLIMATOLOGY = trajectory(FORCING * jnp.ones(N_STATE).at[0].add(0.01 / FORCING), CLIMATE)[SPIN_UP:]


def problem(seed):
    """Truth, observations, and the keys of first members and filter."""
    start = CLIMATOLOGY[-1] if seed == 0 else trajectory(CLIMATOLOGY[-1], CYCLES * seed)[-1]
    truth = trajectory(start, CYCLES)
    noise, _, first, running = jax.random.split(jax.random.key(1337 + seed), 4)
    observations = truth[:, MEASURED] + jax.random.normal(noise, (CYCLES, len(MEASURED)))
    return truth, observations, first, running


def tapered():
    """The callbacks by which cuthbert tapers both covariances."""

    def between(a, b):
        apart = np.abs(a[:, None] - b[None, :])
        return parts.gaspari_cohn(np.minimum(apart, N_STATE - apart), SUPPORT)

    cross = between(np.arange(N_STATE), MEASURED)
    root = jnp.linalg.cholesky(between(MEASURED, MEASURED))

    def innovation(values, noise_root, model_inputs):
        return parts.construct_tapered_chol_innovation_covariance(values, root, noise_root)

    return {
        "modify_cross_covariance": lambda covariance, model_inputs: cross * covariance,
        "construct_chol_innovation_covariance": innovation,
    }


def enkf(members, localised):
    def draw(key):
        return CLIMATOLOGY[jax.random.randint(key, (), 0, len(CLIMATOLOGY))]

    return ensemble_kalman_filter.build_filter(
        init_sample=draw,
        get_dynamics=lambda _: lambda x, _key: cycle(x),
        get_observations=lambda z: (lambda x: x[MEASURED], jnp.eye(len(MEASURED)), z),
        n_particles=members,
        inflation=INFLATION,
        perturbed_obs=True,
        **(tapered() if localised else {}),
    )


def twin(request):
    truth, observations, first, _ = problem(request["seed"])
    starts = {f"members_{n}": enkf(n, False).init_prepare(key=first).ensemble for n in request["members"]}
    np.savez(request["path"], truth=truth, observations=observations, **starts)
    return {}


compiled = jax.jit(run_filter, static_argnames=("filter_obj",))
built = {}


def run(request):
    case = request["members"], request["localised"]
    new = case not in built
    filter = built.setdefault(case, enkf(*case) if new else None)
    truth, observations, first, running = problem(request["seed"])
    start = filter.init_prepare(key=first)

    def once():
        return jax.block_until_ready(compiled(filter, observations, start, key=running))

    if new:
        once()
    wall, cpu = time.perf_counter(), time.process_time()
    states = once()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    mean = states.mean[1:]
    rmse = np.sqrt(np.mean((mean - truth) ** 2, axis=1))[BURN_IN:]
    variance = np.var(states.ensemble[1:], axis=1, ddof=1).mean(1)[BURN_IN:]
    ratio = float(np.sqrt(variance.mean() / np.mean(rmse**2)))
    return {"rmse": float(rmse.mean()), "ratio": ratio} | {k: v / CYCLES for k, v in seconds.items()}


answers = sys.stdout
sys.stdout = sys.stderr
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"twin": twin, "run": run}[request.pop("do")](request)), file=answers, flush=True)
