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
# # Compare filters fairly
#
# A ranking of filters says as much of their tuning as of the filters. Three rules: the same truths,
# observations and first members for all; the same effort of tuning for each, on other seeds; and errors of
# the difference, not of each mean.

# %%
import functools
import itertools

import jax
import numpy as np

from masf_jax import assimilate, dynamics, filters, measurements, plots, results, simulate
from masf_jax.ensemble import Inflation

model = dynamics.Lorenz96(n=40, forcing=8.0, dt=0.05)
sensor = measurements.Measurement(measurements.Subset(range(0, 40, 2)), measurements.Gaussian(std=1.0))
cycles, burn_in = 250, 50


@functools.cache
def problem(seed):
    """Observations, 20 first members, and the truth, of a seed: the same for every filter."""
    key_start, key_twin, key_ensemble = jax.random.split(jax.random.key(seed), 3)
    start = model.sample_climatology(key_start)
    twin = simulate(key_twin, model, sensor, n_cycles=cycles, steps_per_cycle=4, x0=start)
    return twin.observations, start + jax.random.normal(key_ensemble, (20, 40)), twin.truth


def run(filter, seed):
    observations, ensemble, truth = problem(seed)
    return assimilate(jax.random.key(seed + 1000), filter, model, sensor, observations, ensemble, truth=truth)


def rmse(filter, seeds):
    """RMSE of the analysis for each seed, without the burn-in."""
    return np.array([run(filter, seed).analysis_scores["rmse"][burn_in:].mean() for seed in seeds])


# %% [markdown]
# ## The same tuning for each
#
# Two local filters, the LETKF and the serial EnSRF, each with two numbers: six settings, on two seeds that
# are used for nothing else. Another radius or inflation is no new program, so that a run takes a fraction of
# a second. A filter of your own is one more line.

# %%
makers = {
    "LETKF": lambda r, a: filters.LETKF(radius=r, inflation=Inflation(a), rotation=True),
    "EnSRF": lambda r, a: filters.EnSRF(radius=r, inflation=Inflation(a), rotation=True),
}
grid = list(itertools.product((4.0, 7.0, 10.0), (1.05, 1.1)))
compared = {"LETKF, not tuned": makers["LETKF"](2.0, 1.0)}
for name, make in makers.items():
    found = [rmse(make(*setting), seeds=(100, 101)).mean() for setting in grid]
    best = grid[int(np.argmin(found))]
    compared[name] = make(*best)
    print(
        f"{name}: best radius, inflation {best}; RMSE {min(found):.2f}, of the worst setting {max(found):.2f}"
    )

# %% [markdown]
# ## On other seeds

# %%
seeds = range(5)
datasets = {
    name: [run(filter, seed).to_xarray(burn_in=burn_in) for seed in seeds]
    for name, filter in compared.items()
}
data = results.comparison(datasets)
plots.comparison(data)


# %%
def mean_and_error(values):
    """Mean and standard error, s/√S."""
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


by = {name: data["rmse_analysis"].sel(filter=name).values for name in compared}
for name, values in by.items():
    print(f"{name:18}", mean_and_error(values), " single seeds", np.round(values, 2))
for one, other in itertools.combinations(by, 2):
    print(f"{one} less {other}: {mean_and_error(by[one] - by[other])}, seed by seed")

# %% [markdown]
# What tuning did to one filter, .22, is more than ten times the difference of the two tuned ones, which is
# less than its standard error: five seeds do not say which is better. With the LETKF untuned the EnSRF would
# have "won". `masf-jax tune` and `masf-jax compare` do the same on the command line (docs/comparisons.md).
