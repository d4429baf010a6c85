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
# # Estimate a parameter
#
# The model has a number that nobody knows, here the forcing $F$ of Lorenz-96, and the observations tell it:
# along the way, as part of the state, or by maximum likelihood. More of both: docs/estimation.md.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.ensemble import Inflation
from masf_jax.estimation import Normal, estimate, log_likelihood

# %% [markdown]
# ## A truth and a wrong model
#
# The truth has $F = 8$, and every second variable of it is measured with error 1. The model at hand says 5.

# %%
right, wrong = (dynamics.Lorenz96(n=40, forcing=forcing, dt=0.05) for forcing in (8.0, 5.0))
sensor = measurements.Measurement(measurements.Subset(range(0, 40, 2)), measurements.Gaussian(std=1.0))

key_start, key_twin, key_ensemble, key_filter = jax.random.split(jax.random.key(0), 4)
start = right.sample_climatology(key_start)
twin = simulate(key_twin, right, sensor, n_cycles=200, x0=start)
ensemble = start + jax.random.normal(key_ensemble, (20, 40))
letkf = filters.LETKF(radius=4.0, inflation=Inflation(1.05))

# %% [markdown]
# ## As part of the state
#
# Before any observation, $F$ is 5 ± 1. Every member gets a forcing of its own, and the analysis
# moves it with the rest of the state. `estimate` takes the path of the number and its prior.

# %%
given = (sensor, twin.observations, ensemble)
unknown = {"dynamics.forcing": Normal(5.0, 1.0)}
found = estimate(key_filter, letkf, wrong, *given, unknown=unknown, truth=twin.truth)
mean, std = (float(each["dynamics.forcing"]) for each in (found.mean, found.std))
print(f"forcing after 200 cycles: {mean:.2f} ± {std:.2f}")

runs = {
    f"F = {f:g}": assimilate(key_filter, letkf, m, *given, truth=twin.truth)
    for f, m in ((5, wrong), (8, right))
}
runs["F estimated"] = found.run
for name, run in runs.items():
    print(f"{name}: RMSE of the analysis {run.analysis_scores['rmse'][100:].mean():.3f}")

# %%
course, spread = (each["dynamics.forcing"] for each in (found.course_mean, found.course_std))
cycles = np.arange(1, 201)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
axes[0].fill_between(cycles, course - 2 * spread, course + 2 * spread, alpha=0.3, lw=0, label="± 2 spreads")
axes[0].plot(cycles, course, label="estimate")
axes[0].axhline(8.0, color="black", lw=1, label="truth")
axes[0].set(xlabel="cycle", ylabel="forcing")
for name, run in runs.items():
    axes[1].plot(cycles, run.analysis_scores["rmse"], label=name)
axes[1].set(xlabel="cycle", ylabel="RMSE of the analysis", ylim=(0, None))
for axis in axes:
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
plt.show()

# %% [markdown]
# From about the fiftieth cycle on the state is as well known as with the right forcing.
#
# ## By the likelihood
#
# A filter's forecasts say how likely the observations were. The sum of the logarithms is a function of $F$,
# which may be drawn, differentiated, maximised (`estimate(…, engine=Gradient())`) or given to a sampler.


# %%
@jax.jit
@jax.vmap
def of(forcing):
    model = wrong.with_numbers(forcing=forcing)
    return log_likelihood(key_filter, letkf, model, *given)


forcings = jnp.linspace(6.5, 9.5, 13)
likelihood = of(forcings)
best = forcings[likelihood.argmax()]
print(f"most likely of these: {best:.2f}")

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(forcings, likelihood - likelihood.max(), "o-")
axis.axvline(8.0, color="black", lw=1)
axis.annotate("truth", (8.0, likelihood.min() - likelihood.max()), xytext=(4, 0), textcoords="offset points")
axis.set(xlabel="forcing", ylabel="log-likelihood, less its maximum")
plt.show()
