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
# # A turbulent flow, animated
#
# Two-dimensional Kolmogorov flow on 64 × 64 points, its velocity measured at every fourth point each way: one
# value in 16. A local ensemble Kalman filter of 20 members that begin anywhere finds the vortices.

# %%
import jax
from IPython.display import Image

from masf_jax import assimilate, dynamics, filters, measurements, plots, simulate
from masf_jax.ensemble import Inflation

model = dynamics.Kolmogorov(64, reynolds=1000.0, dt=0.2)
points = measurements.grid_stride(model.state_shape, 4)  # (2, 64, 64), true at every fourth point
sensor = measurements.Measurement(measurements.Subset.from_mask(points), measurements.Gaussian(std=0.1))

# %% [markdown]
# Truth and members are draws of the climatology: fields of their own, spun up by the model.

# %%
key_truth, key_twin, key_members, key_filter = jax.random.split(jax.random.key(0), 4)
start = model.sample_climatology(key_truth)
members = jax.vmap(model.sample_climatology)(jax.random.split(key_members, 20))
twin = simulate(key_twin, model, sensor, n_cycles=20, steps_per_cycle=1, x0=start)

letkf = filters.LETKF(radius=4.0, inflation=Inflation(1.1))
run = assimilate(key_filter, letkf, model, sensor, twin.observations, members, truth=twin.truth)
data = run.to_xarray()
for cycle in (0, 4, 9, 19):
    rmse, spread = (run.analysis_scores[name][cycle] for name in ("rmse", "spread"))
    print(f"time {0.2 * (cycle + 1):.1f}: RMSE of the velocity {rmse:.3f}, spread {spread:.3f}")

# %%
path = plots.animation(data, "flow.gif", dpi=50, frames_per_second=6)
Image(filename=path)

# %%
plots.spectra(data, burn_in=5)

# %% [markdown]
# Dots are the measured points. Large eddies are right from the first analyses on; the small scales follow, as
# the flow makes them from the large ones. At the end the error has about a tenth of the truth's energy at
# wavenumber 10 and nearly all of it at the smallest scales, which 16 × 16 points cannot see.
#
# On the command line: `masf-jax animate RUN_DIR` and `masf-jax plot RUN_DIR` (docs/gallery.md). Networks that
# were trained for this flow: docs/networks.md.
