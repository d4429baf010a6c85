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
    get_ipython().system("pip install -q masf_jax-*.whl statsmodels")

# %% [markdown]
# # Real data, with dates and gaps
#
# Weekly CO₂ at Mauna Loa, 1958 to 2001 (Keeling & Whorf; the file of statsmodels). A linear model with
# Gaussian errors does here, for which Kalman filter and smoother are exact: no members, nothing random.

# %%
import jax
import jax.numpy as jnp
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
from statsmodels.datasets import co2

from masf_jax import assimilate, dynamics, filters, measurements, smoothers

series = co2.load_pandas().data["co2"]  # ppm, by date; NaN where nothing was measured
print(series.iloc[:8])
print(f"{len(series)} weeks, {series.isna().sum()} of them missing")

# %% [markdown]
# ## The model
#
# Level, its slope, and two waves of a year and half a year, each of which turns by its angle every week. One
# step is one week. Level, slope and waves may drift: `std` per √week.

# %%
blocks = [np.array([[1.0, 1.0], [0.0, 1.0]])]
for waves in (1, 2):
    angle = 2 * np.pi * waves / 52.1775
    blocks.append(np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))
matrix = np.zeros((6, 6))
for i, block in enumerate(blocks):
    matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block

drift = [0.15, 0.001, 0.02, 0.02, 0.02, 0.02]  # ppm per √week
model = dynamics.ModelError(dynamics.Linear(matrix), std=drift)
row = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])  # the air has level and waves
sensor = measurements.Measurement(measurements.Linear(row[None]), measurements.Gaussian(std=0.25))

# %% [markdown]
# ## The data
#
# NaN means missing. Steps are weeks since the first date, so that a record with rows left out would do as
# well. To see whether what is said of gaps is true, some values are hidden: 1975, and every tenth week.

# %%
dates = series.index
steps = (dates - dates[0]).days.to_numpy() // 7
hidden = (dates.year == 1975) | (np.arange(len(series)) % 10 == 5)
observations = measurements.Observations(series.to_numpy()[:, None], steps, mask=~hidden)
print(f"{int(observations.mask.sum())} values to use, {int((hidden & series.notna()).sum())} hidden")

# %% [markdown]
# ## Filter and smoother
#
# The filter knows the past of each week; the smoother knows all of the record. Before the first value: level
# 315 ± 10 ppm, slope 0 ± 0.1 ppm a week, waves 0 ± 3 ppm.

# %%
first = jnp.array([315.0, 0.0, 0.0, 0.0, 0.0, 0.0])
kalman = filters.KalmanFilter(first, jnp.diag(jnp.array([10.0, 0.1, 3.0, 3.0, 3.0, 3.0]) ** 2))
smoothed = smoothers.rts(kalman, model, sensor, observations, save=("mean", "spread", "covariance"))


def in_the_air(found):
    """Mean and standard deviation of what the sensor would read without its error, ppm."""
    variance = np.einsum("i,kij,j->k", row, found["covariance"], row)
    return np.asarray(found["mean"]) @ row, np.sqrt(variance)


mean, std = in_the_air(smoothed.smoothed)
known = hidden & series.notna().to_numpy()
score = ((series.to_numpy() - mean) / np.sqrt(std**2 + 0.25**2))[known]
print(f"hidden values: {np.mean(np.abs(score) < 1.645):.0%} within the 90 % band,")
print(f"root mean square of (value - mean) / standard deviation: {np.sqrt(np.mean(score**2)):.2f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
spans = {"a gap of the record": ("1963-07", "1964-12"), "a year that was hidden": ("1974-07", "1976-06")}
for axis, (title, (begin, end)) in zip(axes, spans.items(), strict=True):
    part = (dates >= begin) & (dates <= end)
    low, high = (mean + sign * 1.645 * std for sign in (-1, 1))
    axis.fill_between(dates[part], low[part], high[part], alpha=0.3, lw=0, label="smoother, 90 % band")
    axis.plot(dates[part], mean[part], label="smoother, mean")
    axis.plot(dates[part & ~hidden], series[part & ~hidden], ".", color="black", ms=4, label="used")
    axis.plot(dates[part & hidden], series[part & hidden], "x", color="tab:red", ms=4, label="hidden")
    axis.set(title=title, ylabel="CO₂ (ppm)")
    axis.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axis.xaxis.get_major_locator()))
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# The band widens where nothing was used, and closes again. 86 % of the hidden values are in the 90 % band:
# the noise levels, set by hand, are a little too small (docs/noise.md and docs/estimation.md find them).
#
# ## Results with dates
#
# The filter alone, as it would have run week by week. With `dates` its dataset has them as its time axis;
# `run.to_netcdf` writes the same with the names and units of the CF conventions.

# %%
run = assimilate(jax.random.key(0), kalman, model, sensor, observations)
data = run.to_xarray(dates=dates.to_numpy(), units="ppm", title="CO₂ at Mauna Loa")
tail = data.isel(cycle=slice(-8, None))
for date, value, level in zip(
    tail.time.values, tail.observation.values[:, 0], tail.analysis_mean.values[:, 0], strict=True
):
    print(f"{str(date)[:10]}  measured {value:.1f}, level without the waves of the year {level:.1f} ppm")
