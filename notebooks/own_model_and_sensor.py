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
# # Your own model and sensor
#
# A model is a JAX function that takes one state one step on; a sensor is a function of one state. Nothing
# needs to be derived from a class. Here: waves on a ring canal, and gauges that measure its level at a few
# places and never its current.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from masf_jax import assimilate, dynamics, filters, measurements, simulate
from masf_jax.coordinates import Coordinates
from masf_jax.ensemble import Inflation

# %% [markdown]
# ## The model
#
# Shallow water: level $\eta$ (m) above a mean depth of 10 m, and current $u$ (m/s), at 50 points 2 km apart,
#
# $$\partial_t \eta = -\partial_x\big((10 + \eta)\,u\big), \qquad
#   \partial_t u = -u\,\partial_x u - g\,\partial_x \eta + \nu\,\partial_x^2 u .$$
#
# One call is one step of 60 s, of fourth order. The state has any shape, here (2, 50).

# %%
n, dx, dt = 50, 2000.0, 60.0  # points, m, s


def slope(f):
    return (jnp.roll(f, -1) - jnp.roll(f, 1)) / (2 * dx)


def tendency(x):
    level, current = x
    bend = (jnp.roll(current, -1) - 2 * current + jnp.roll(current, 1)) / dx**2
    push = -current * slope(current) - 9.81 * slope(level) + 100.0 * bend
    return jnp.stack([-slope((10.0 + level) * current), push])


def step(x):
    a = tendency(x)
    b = tendency(x + dt / 2 * a)
    c = tendency(x + dt / 2 * b)
    return x + dt / 6 * (a + 2 * b + 2 * c + tendency(x + dt * c))


def any_waves(key):
    """A state to start from: four waves of random size and phase in level and current."""
    wave = jnp.arange(1, 5)[:, None]
    parts = jax.random.normal(key, (2, 4, 2)) / jnp.arange(1, 5)[:, None]
    angle = 2 * jnp.pi * wave * jnp.arange(n) / n
    return 0.3 * jnp.einsum("fwp,pwx->fx", parts, jnp.stack([jnp.cos(angle), jnp.sin(angle)]))


model = dynamics.Function(
    step,
    state_shape=(2, n),
    dt=dt,
    coordinates=Coordinates(2.0 * np.arange(n), period=(2.0 * n,)),  # km; for localisation
    climatology=any_waves,
    variable_names=["level", "current"],
)

# %% [markdown]
# ## The sensor
#
# Ten gauges measure the level with an error of 5 cm, every 10 minutes. What each value depends on, and so
# where it lies, is found from the function's derivatives.

# %%
gauges = np.arange(0, n, 5)
sensor = measurements.Measurement(lambda x: x[0, gauges], measurements.Gaussian(std=0.05))

# %% [markdown]
# ## A run
#
# A simulated truth of six hours, 20 members that know nothing of it, and the local ensemble transform Kalman
# filter with a radius of 15 km. A gauge is 10 km from the next.

# %%
key_start, key_twin, key_ensemble, key_filter = jax.random.split(jax.random.key(0), 4)
start = model.sample_climatology(key_start)
twin = simulate(key_twin, model, sensor, n_cycles=36, steps_per_cycle=10, x0=start)
ensemble = jax.vmap(any_waves)(jax.random.split(key_ensemble, 20))

letkf = filters.LETKF(radius=15.0, inflation=Inflation(1.05))
run = assimilate(key_filter, letkf, model, sensor, twin.observations, ensemble, truth=twin.truth)


def errors(run):
    """Root-mean-square errors of level (m) and current (m/s) after each cycle, (cycles, 2)."""
    return np.sqrt(np.mean((run.analysis["mean"] - twin.truth) ** 2, axis=2))


print("after hours        " + "".join(f"{(cycle + 1) / 6:8.2f}" for cycle in (0, 5, 17, 35)))
for name, error in zip(["level, m", "current, m/s"], errors(run).T, strict=True):
    print(f"{'error of ' + name:22}" + "".join(f"{error[cycle]:8.3f}" for cycle in (0, 5, 17, 35)))

# %%
x = 2 * np.arange(n)
figure, axes = plt.subplots(2, 2, figsize=(9, 4.5), sharex=True, sharey="row", layout="constrained")
for column, cycle in zip(axes.T, (0, 17), strict=True):
    for i, (axis, name) in enumerate(zip(column, ["level (m)", "current (m/s)"], strict=True)):
        mean, spread = run.analysis["mean"][cycle, i], run.analysis["spread"][cycle, i]
        axis.fill_between(x, mean - 2 * spread, mean + 2 * spread, alpha=0.25, lw=0, label="mean ± 2 spreads")
        axis.plot(x, mean, label="analysis mean")
        axis.plot(x, twin.truth[cycle, i], "k", lw=1, label="truth")
        if i == 0:
            axis.plot(x[gauges], twin.observations.values[cycle], "x", color="tab:orange", label="gauges")
        axes[i, 0].set_ylabel(name)
    column[0].set_title(f"after {10 * (cycle + 1)} minutes")
    column[1].set_xlabel("along the canal (km)")
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# The current is never measured, but it moves the level: after three hours it is known as well.
#
# ## Another sensor
#
# Floats tell how fast the water is, but not which way: the absolute value of the current, with an error of
# 5 cm/s. Five of the gauges are given for five floats. The function now gives both kinds of values and is not
# linear; nothing else changes.


# %%
def gauges_and_floats(x):
    return jnp.concatenate([x[0, ::10], jnp.abs(x[1, 5::10])])


both = measurements.Measurement(gauges_and_floats, measurements.Gaussian(std=0.05))
seen = simulate(key_twin, model, both, n_cycles=36, steps_per_cycle=10, x0=start)
with_floats = assimilate(key_filter, letkf, model, both, seen.observations, ensemble, truth=seen.truth)

hours = (1 + np.arange(36)) / 6
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name, each in {"ten gauges": run, "five gauges, five floats": with_floats}.items():
    axis.plot(hours, errors(each)[:, 1], label=name)
    print(f"{name}: error of the current after 6 hours {errors(each)[-1, 1]:.3f} m/s")
axis.set(xlabel="hours", ylabel="error of the current (m/s)", ylim=(0, None))
figure.legend(loc="outside lower center", ncols=2)
plt.show()

# %% [markdown]
# A speed without its direction misleads while the current is unknown; from the third hour on both sensors do
# alike. This is one run: docs/comparisons.md has what it takes to call one better.
