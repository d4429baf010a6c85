"""colab.py with cuthbert 0.1.1: its EnKF, localised or not (no LETKF, no MASF); model and twin by hand."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from cuthbert import filter as run_filter
from cuthbert.ensemble_kalman import ensemble_kalman_filter
from cuthbertlib import ensemble_kalman as parts


def slope(x):
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + 8.0


def step(x, dt=0.05):
    a = slope(x)
    b = slope(x + dt / 2 * a)
    c = slope(x + dt / 2 * b)
    return x + dt / 6 * (a + 2 * b + 2 * c + slope(x + dt * c))


def between(a, b):
    apart = np.abs(a[:, None] - b[None, :])
    return parts.gaspari_cohn(np.minimum(apart, 40 - apart), 7.0)


def whole_root(values, noise_root, model_inputs):
    return parts.construct_tapered_chol_innovation_covariance(values, root, noise_root)


keys, measured = jax.random.split(jax.random.key(1), 4), np.arange(0, 40, 2)
cross, root = between(np.arange(40), measured), jnp.linalg.cholesky(between(measured, measured))
start = jax.lax.fori_loop(0, 1000, lambda _, x: step(x), jax.random.normal(keys[0], (40,)))
truth = jax.lax.scan(lambda x, _: (step(x),) * 2, start, length=300)[1]
values = truth[:, measured] + jax.random.normal(keys[1], (300, 20))
tapers = {
    "modify_cross_covariance": lambda covariance, model_inputs: cross * covariance,
    "construct_chol_innovation_covariance": whole_root,
}
for name, taper in (("localised EnKF", tapers), ("EnKF", {})):
    enkf = ensemble_kalman_filter.build_filter(
        init_sample=lambda key: start + jax.random.normal(key, (40,)),
        get_dynamics=lambda _: lambda x, key: step(x),
        get_observations=lambda z: (lambda x: x[measured], jnp.eye(20), z),
        n_particles=20,
        inflation=0.05,
        **taper,
    )
    run = run_filter(enkf, values, enkf.init_prepare(key=keys[2]), key=keys[3])
    rmse = jnp.sqrt(jnp.mean((run.mean[1:] - truth) ** 2, 1))
    plt.plot(rmse, label=f"{name} {rmse[100:].mean():.2f}")
plt.legend()
plt.savefig("colab.png")
