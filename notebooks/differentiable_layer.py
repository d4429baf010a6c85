# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# In Colab: upload this file, and the wheel of `python -m build --wheel` beside it.

# %%
import importlib.util

if importlib.util.find_spec("masf_jax") is None:  # in Colab
    from pathlib import Path

    if not list(Path().glob("masf_jax-*.whl")):
        raise SystemExit(
            "No wheel is beside this notebook. On your own machine, in a clone of the repository: "
            "pip install build; python -m build --wheel; then upload dist/masf_jax-*.whl here."
        )
    get_ipython().system("pip install -q masf_jax-*.whl")

# %% [markdown]
# # A filter as a differentiable layer
#
# A run of a filter is a JAX function, so what is inside it can be trained through it. Here a model lacks a
# term; a small network takes its place, and is trained from noisy measurements alone: no true state is seen.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.ensemble import Inflation
from masf_jax.estimation import log_likelihood

# %% [markdown]
# ## A model with a network in it
#
# The truth is Lorenz-96 with 12 variables, $\dot x_i = (x_{i+1} - x_{i-2})\,x_{i-1} - x_i + 8$. The model
# knows the first term. For $-x_i + 8$ it has $g(x_i)$, the same network of one input for every variable.
# A `dynamics.Dynamics` is an Equinox module: its arrays are what is trained.

# %%
n, dt = 12, 0.05
truth = dynamics.Lorenz96(n=n, forcing=8.0, dt=dt)


class WithNetwork(dynamics.Dynamics):
    network: eqx.nn.MLP
    dt: jax.Array
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def missing(self, x):
        return 10.0 * jax.vmap(self.network)(x[:, None] / 10.0)[:, 0]

    def tendency(self, x):
        return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) + self.missing(x)

    @property
    def coordinates(self):
        return truth.coordinates  # for localised filters: filters.LETKF(3.0) in place of the ETKF below

    def __call__(self, x, time, key):
        dt = self.dt.astype(x.dtype)
        a = self.tendency(x)
        b = self.tendency(x + dt / 2 * a)
        c = self.tendency(x + dt / 2 * b)
        return x + dt / 6 * (a + 2 * b + 2 * c + self.tendency(x + dt * c))


network = eqx.nn.MLP(1, 1, width_size=16, depth=1, activation=jnp.tanh, key=jax.random.key(0))
model = WithNetwork(network=network, dt=jnp.asarray(dt), state_shape=(n,))

# %% [markdown]
# ## Training
#
# All variables are measured every 0.05 time units with error 1. The loss is minus the log-likelihood of a
# sequence of 20 cycles under the filter's own forecasts, an ETKF with 20 members; Adam takes another of eight
# sequences at each step.

# %%
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(std=1.0))
key_start, key_twin, key_members = jax.random.split(jax.random.key(1), 3)
start = truth.sample_climatology(key_start)
twin = simulate(key_twin, truth, sensor, n_cycles=400, x0=start)
values = twin.observations.values[:160].reshape(8, 20, n)  # for training; the rest is for the test
etkf = filters.ETKF(Inflation(1.1))


def loss(model, values, key):
    members = values[0] + jax.random.normal(key, (20, n))  # one step early: the first cycles forgive it
    observations = measurements.Observations(values, 1)
    return -log_likelihood(key, etkf, model, sensor, observations, members) / values.size


@eqx.filter_jit
def train_step(model, state, values, key):
    value, slope = eqx.filter_value_and_grad(loss)(model, values, key)
    slope = eqx.tree_at(lambda m: m.dt, slope, jnp.zeros(()))  # the time step is no unknown
    updates, state = optimizer.update(slope, state)
    return eqx.apply_updates(model, updates), state, value


optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 200))
state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
trained, losses = model, []
for number in range(200):
    key = jax.random.fold_in(key_members, number)
    trained, state, value = train_step(trained, state, values[number % 8], key)
    losses.append(float(value))
print(f"loss: first ten steps {np.mean(losses[:10]):.3f}, last ten {np.mean(losses[-10:]):.3f}")

# %% [markdown]
# ## What it found

# %%
x = jnp.linspace(-8.0, 12.0, 200)
seen = np.quantile(twin.truth, (0.01, 0.99))
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
axes[0].plot(losses, lw=0.8)
axes[0].set(xlabel="step", ylabel="minus log-likelihood of a value")
axes[1].axvspan(*seen, color="0.93", label="98 % of the true values")
axes[1].plot(x, 8.0 - x, "k", label="truth, $8 - x$")
axes[1].plot(x, model.missing(x), "--", color="tab:gray", label="before training")
axes[1].plot(x, trained.missing(x), color="tab:blue", label="trained")
axes[1].set(xlabel="$x$", ylabel="missing term", xlim=(x[0], x[-1]))
axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
plt.show()

# %% [markdown]
# ## Does it help?
#
# The same filter with three models, on later measurements that no training saw.

# %%
test = slice(160, 400)
observations = measurements.Observations(twin.observations.values[test], 1)
members = twin.truth[159] + jax.random.normal(key_members, (20, n))
for name, each in {"without the term": model, "trained network": trained, "true model": truth}.items():
    run = assimilate(key_members, etkf, each, sensor, observations, members, truth=twin.truth[test])
    rmse = run.analysis_scores["rmse"][40:].mean(), run.forecast_scores["rmse"][40:].mean()
    print(f"{name}: RMSE of the analysis {rmse[0]:.3f}, of the forecast {rmse[1]:.3f}")

# %% [markdown]
# From measurements of error 1 the network has found the missing term where the truth spends its time, and the
# filter with it is nearly as good as with the true model. What has gradients, and in how much memory:
# docs/gradients.md; closures of a larger model: docs/estimation.md.
