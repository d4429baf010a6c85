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
# # Quickstart: estimate a chaotic state from noisy measurements
#
# A twin experiment on Lorenz-96: a simulated truth, every second variable measured every 0.2 time units with
# error 1, and two filters of 20 members.

# %%
import jax
import matplotlib.pyplot as plt

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.ensemble import Inflation

model = dynamics.Lorenz96(n=40, forcing=8.0, dt=0.05)
every_second = measurements.Subset(range(0, 40, 2))
sensor = measurements.Measurement(every_second, measurements.Gaussian(std=1.0))

# %% [markdown]
# Truth, ensemble and filter each get a key of their own.

# %%
key_start, key_twin, key_ensemble, key_filter = jax.random.split(jax.random.key(1), 4)
start = model.sample_climatology(key_start)
twin = simulate(key_twin, model, sensor, n_cycles=300, steps_per_cycle=4, x0=start)
ensemble = start + jax.random.normal(key_ensemble, (20, 40))

# %% [markdown]
# Each run is one compiled program. The ETKF has no localisation: 20 members cannot span 40 variables, and it
# loses track. The LETKF updates each variable from the measurements near it. (The system is chaotic: another
# version of JAX rounds otherwise, and these numbers are others, by a tenth or so.)

# %%
runs = {}
for name, filter in {
    "LETKF": filters.LETKF(radius=7.0, inflation=Inflation(1.05), rotation=True),
    "ETKF": filters.ETKF(Inflation(1.05), rotation=True),
}.items():
    runs[name] = assimilate(key_filter, filter, model, sensor, twin.observations, ensemble, truth=twin.truth)
    scores = runs[name].analysis_scores
    rmse, spread = scores["rmse"][100:].mean(), scores["spread"][100:].mean()
    print(f"{name}: analysis RMSE {rmse:.2f}, spread {spread:.2f}")

# %%
figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
for name, run in runs.items():
    axes[0].plot(run.analysis_scores["rmse"], label=name)
axes[0].set_ylabel("analysis RMSE")
axes[1].plot(twin.truth[:, 1], "k", label="truth, unobserved variable 1")
axes[1].plot(runs["LETKF"].analysis["mean"][:, 1], label="LETKF mean")
axes[1].set_xlim(0, 150)
axes[1].set_xlabel("cycle")
axes[1].set_ylabel("state")
for axis in axes:
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
plt.show()

# %% [markdown]
# The figures of the package are shown as the last value of a cell (`plt.show()` does not know them);
# `run.to_xarray()` has what they show.

# %%
runs["LETKF"].plot("error_spread", burn_in=100)
