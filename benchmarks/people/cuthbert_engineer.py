"""engineer.py with cuthbert 0.1.1: a row for each step, NaN where nothing was, NumPy by a callback."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from cuthbert import filter as run_filter
from cuthbert.ensemble_kalman import ensemble_kalman_filter
from tanks import step

table = pd.read_csv("levels.csv", parse_dates=["timestamp"], index_col="timestamp")
every = table.asfreq("10min")


def noisy(x, key):
    new = jax.pure_callback(lambda x: step(np.asarray(x)), x, x, vmap_method="expand_dims")
    return new + 0.01 * jax.random.normal(key, (2,))


enkf = ensemble_kalman_filter.build_filter(
    init_sample=lambda key: 1.5 + jax.random.normal(key, (2,)),
    get_dynamics=lambda _: noisy,
    get_observations=lambda z: (lambda x: x, 0.05 * jnp.eye(2), z),
    n_particles=50,
)
first = enkf.init_prepare(key=jax.random.key(0))
run = run_filter(enkf, jnp.asarray(every.to_numpy()), first, key=jax.random.key(1))
levels = pd.DataFrame(np.asarray(run.mean[1:]), every.index, table.columns).loc[table.index]
levels.to_csv("analysed.csv")
print(levels.tail(2))
