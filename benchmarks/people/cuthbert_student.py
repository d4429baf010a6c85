"""student.py with cuthbert 0.1.1: its localised EnKF, the twin by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from canal import N, any_waves, step
from cuthbert import filter as run_filter
from cuthbert.ensemble_kalman import ensemble_kalman_filter
from cuthbertlib import ensemble_kalman as parts


def cycle(x):
    return jax.lax.fori_loop(0, 10, lambda _, x: step(x), x.reshape(2, N)).ravel()


def between(a, b):
    apart = np.abs(a[:, None] % N - b[None, :] % N)
    return parts.gaspari_cohn(np.minimum(apart, N - apart), 7.5)  # grid points of 2 km


def whole_root(values, noise_root, model_inputs):
    return parts.construct_tapered_chol_innovation_covariance(values, root, noise_root)


keys = jax.random.split(jax.random.key(0), 4)
gauges, noise = np.arange(0, N, 5), 0.05 * jnp.eye(10)
cross = between(np.arange(2 * N), gauges)
root = jnp.linalg.cholesky(between(gauges, gauges) + 1e-6 * jnp.eye(10))
start = any_waves(keys[0]).ravel()
truth = jax.lax.scan(lambda x, _: (cycle(x),) * 2, start, length=36)[1]
values = truth[:, gauges] + 0.05 * jax.random.normal(keys[1], (36, 10))
enkf = ensemble_kalman_filter.build_filter(
    init_sample=lambda key: any_waves(key).ravel(),
    get_dynamics=lambda _: lambda x, key: cycle(x),
    get_observations=lambda z: (lambda x: x[gauges], noise, z),
    n_particles=20,
    inflation=0.05,
    modify_cross_covariance=lambda covariance, model_inputs: cross * covariance,
    construct_chol_innovation_covariance=whole_root,
)
run = jax.jit(lambda: run_filter(enkf, values, enkf.init_prepare(key=keys[2]), key=keys[3]))()
error = run.mean[1:] - truth
print(f"current, RMSE of the last two hours: {np.sqrt(np.mean(error[-12:, N:] ** 2)):.3f} m/s")
