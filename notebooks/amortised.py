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
# # A score-based filter that trains before the run, not in it
#
# `AmortisedMASF` lets a Kalman filter make its analysis, and corrects it with a denoiser that was trained
# once, on simulated cycles: one evaluation of a small network a cycle. What it sees and how it is trained:
# docs/amortised.md.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.amortised import Practice, load_amortised, pretrained_file, pretrained_names, train_on_policy
from masf_jax.ensemble import Inflation
from masf_jax.masf.amortised.filter import AmortisedMASF
from masf_jax.training import FitConfig

print("trained filters in the package:", *pretrained_names())

# %% [markdown]
# ## Lorenz-96, every second variable measured
#
# The network in the package was trained with this very LETKF as its base, on other seeds.

# %%
model = dynamics.Lorenz96(n=40, forcing=8.0, dt=0.05)
sensor = measurements.Measurement(measurements.Subset(range(0, 40, 2)), measurements.Gaussian(std=1.0))
base = filters.LETKF(radius=6.5, inflation=Inflation(1.1), rotation=True)
amortised = load_amortised(pretrained_file("lorenz96_partial"), base)

key_start, key_twin, key_ensemble, key_filter = jax.random.split(jax.random.key(0), 4)
start = model.sample_climatology(key_start)
twin = simulate(key_twin, model, sensor, n_cycles=500, steps_per_cycle=4, x0=start)
ensemble = start + 0.1 * jax.random.normal(key_ensemble, (20, 40))

runs = {}
for name, filter in {"LETKF": base, "amortised MASF": amortised}.items():
    runs[name] = assimilate(key_filter, filter, model, sensor, twin.observations, ensemble, truth=twin.truth)
    scores = runs[name].analysis_scores
    rmse, spread = scores["rmse"][100:].mean(), scores["spread"][100:].mean()
    print(f"{name}: analysis RMSE {rmse:.3f}, spread {spread:.3f}")

# %%
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
for name, run in runs.items():
    axis.plot(run.analysis_scores["rmse"], label=name)
axis.set(xlabel="cycle", ylabel="analysis RMSE")
axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
plt.show()

# %% [markdown]
# ## Train one yourself
#
# Lorenz-63, all three variables measured, 20 members. Each round simulates runs of the filter as it is by
# then (at first of its base alone) and trains the network on pairs of truth and forecast: seconds, where the
# filter in the package was trained for minutes.

# %%
model = dynamics.Lorenz63(dt=0.01)
sensor = measurements.Measurement(measurements.Identity(), measurements.Gaussian(std=2**0.5))
filter = AmortisedMASF(filters.EnSRF(Inflation(1.05), rotation=True))
practice = Practice(runs=48, cycles=120, burn_in=20, intervals=(25,), ensemble_sizes=(20,), spread=2**0.5)
config = FitConfig(learning_rate=2e-3, steps=1000, batch_size=256, ema_decay=0.995)


def report(number, found):
    by = f"after round {number}" if number else "base filter"
    print(f"{by}: RMSE {found.rmse:.3f} in simulated cycles")


trained, rounds = train_on_policy(
    jax.random.key(3), filter, model, sensor, practice, config, rounds=4, factors=(1.0,), report=report
)

# %% [markdown]
# On a truth of its own, beside the base filter, with the same measurements and first members:

# %%
keys = jax.random.split(jax.random.key(7), 4)
start = model.sample_climatology(keys[0])
twin = simulate(keys[1], model, sensor, n_cycles=1000, steps_per_cycle=25, x0=start)
ensemble = start + 2**0.5 * jax.random.normal(keys[2], (20, 3))
for name, each in {"base filter": filter.base, "trained here": trained}.items():
    run = assimilate(keys[3], each, model, sensor, twin.observations, ensemble, truth=twin.truth)
    rmse, spread = (run.analysis_scores[score][100:] for score in ("rmse", "spread"))
    ratio = jnp.sqrt(jnp.mean(spread**2) / jnp.mean(rmse**2))
    print(f"{name}: analysis RMSE {rmse.mean():.3f}, spread/RMSE {ratio:.2f}")

# %% [markdown]
# ## Fine-tune it
#
# The sensor is replaced by a worse one, of error 3 instead of 1.4. The filter runs with it as it is; two
# rounds of training, which start from its network, make it fit.

# %%
worse = measurements.Measurement(measurements.Identity(), measurements.Gaussian(std=3.0))
tuned, rounds = train_on_policy(
    jax.random.key(4), trained, model, worse, practice, config, rounds=2, factors=(1.0,), fine_tune=True
)
twin = simulate(keys[1], model, worse, n_cycles=1000, steps_per_cycle=25, x0=start)
for name, each in {"base filter": filter.base, "trained above": trained, "fine-tuned": tuned}.items():
    run = assimilate(keys[3], each, model, worse, twin.observations, ensemble, truth=twin.truth)
    rmse, spread = (run.analysis_scores[score][100:] for score in ("rmse", "spread"))
    ratio = jnp.sqrt(jnp.mean(spread**2) / jnp.mean(rmse**2))
    print(f"{name}: analysis RMSE {rmse.mean():.3f}, spread/RMSE {ratio:.2f}")

# %% [markdown]
# On this truth the spread is no longer too small; the error is the same, as far as one truth can say.
