"""Trajectories as results of smoothers: one that was found (4D-Var), or draws (SDA)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from ..arrays import real_array
from ..checks import traced
from ..cycles import given_arrays, observed_components
from ..dynamics.base import Dynamics
from ..filters.base import EnsembleState
from ..measurements.measurement import Measurement, Observations
from ..measurements.rows import ObservationsLike, as_observations
from ..metrics.cycle import DEFAULT_SCORES, cycle_scores
from ..results.given import Given
from ..scan import saved
from .smoothing import Smoothing

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["Trajectory", "from_draws", "given_of"]


class Trajectory:
    """`to_xarray`, `to_netcdf` and `plot` of what has the states at the measurements' steps, and of what."""

    trajectory: Float[Array, "K *state"]
    steps: Int[Array, " K"]
    given: Given | None

    def smoothing(self, truth: ArrayLike | None = None) -> Smoothing:
        """The trajectory as the result of a smoother, with its RMSE where the truth (K, *state) is given.

        Raises:
            ValueError: a truth of another shape.
        """
        given, states = self.given, self.trajectory
        truth = _checked(truth, states.shape)
        given = None if given is None else eqx.tree_at(lambda g: g.truth, given, truth, is_leaf=_is_none)
        errors = {} if truth is None else {"rmse": _rmse(states, truth)}
        return _smoothing({"mean": states}, errors, self.steps, given)

    def to_xarray(self, truth: ArrayLike | None = None, **options: Any) -> xr.Dataset:
        """The trajectory as `smoothed_mean` of a dataset, with `rmse_smoothed` where the truth (K, *state) is
        given; options: see `Assimilation.to_xarray`."""
        return self.smoothing(truth).to_xarray(**options)

    def to_netcdf(self, path: str | os.PathLike[str], truth: ArrayLike | None = None, **options: Any) -> Path:
        """Writes `to_xarray(truth, **options)` as NetCDF 4, whole or not at all, and returns the path."""
        return self.smoothing(truth).to_netcdf(path, **options)

    def plot(self, what: str = "states", truth: ArrayLike | None = None, **options: Any) -> Figure:
        """A figure of `masf_jax.plots` by its name; options are the figure's own."""
        return self.smoothing(truth).plot(what, **options)


def given_of(dynamics: Dynamics, measurement: Measurement, observations: Observations, *found: Any) -> Any:
    """What a trajectory knows of its problem; None where that, or what was found, is traced."""
    if traced(found, dynamics, measurement, observations):
        return None
    return Given(dynamics, measurement, **given_arrays(observations, None, observations.n_cycles))


def from_draws(
    draws: Float[Array, "n L *state"],
    dynamics: Dynamics,
    measurement: Measurement,
    observations: ObservationsLike,
    truth: ArrayLike | None = None,
    interval: int = 1,
) -> Smoothing:
    """Draws of a trajectory (of `SDA`) as the result of a smoother: a dataset, a file, figures.

    Args:
        draws: as `SDA.draws` gives them, at least two.
        dynamics: whose states these are: its coordinates, names and `dt`; it is not run.
        measurement, observations: what the draws were given; `steps` count states.
        truth: (L, *state).
        interval: model steps from one state to the next.

    Raises:
        ValueError: arrays that do not fit.
    """
    observations = as_observations(observations)
    n, n_states = draws.shape[:2]
    if n < 2 or draws.shape[2:] != dynamics.state_shape:
        raise ValueError(
            f"draws must be two or more trajectories (n, L, *state) of states {dynamics.state_shape}; got "
            f"shape {draws.shape}."
        )
    steps = np.asarray(observations.steps)
    if steps[-1] >= n_states:
        raise ValueError(f"the last measured state is number {steps[-1]}, and a draw has {n_states}.")
    truth = _checked(truth, draws.shape[1:])
    members = jnp.swapaxes(jnp.asarray(draws), 0, 1)
    observed = observed_components(dynamics, measurement)

    @jax.jit
    def reported(members: Array, truth: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
        def one(x: Array, true: Array | None) -> tuple[dict[str, Array], dict[str, Array]]:
            state = EnsembleState(x)
            scores = {} if true is None else cycle_scores(DEFAULT_SCORES, state, true, observed)
            return saved(("mean", "spread", "ensemble"), state), scores

        return jax.vmap(one)(members, truth)

    values = np.full((n_states, *observations.values.shape[1:]), np.nan, observations.values.dtype)
    mask = np.zeros(values.shape, bool)
    values[steps], mask[steps] = np.asarray(observations.values), np.asarray(observations.mask)
    given = Given(dynamics, measurement, jnp.asarray(values), jnp.asarray(mask), truth)
    arrays, scores = reported(members, truth)
    return _smoothing(arrays, scores, interval * jnp.arange(n_states, dtype=jnp.int32), given)


def _smoothing(
    arrays: dict[str, Any], scores: dict[str, Any], steps: Array, given: Given | None
) -> Smoothing:
    none = jnp.zeros(len(steps), jnp.int32)
    flags = {"repaired": none, "diverged": none > 0, "skipped": none > 0, "faults": none}
    return Smoothing(arrays, {}, scores, {}, {}, **flags, steps=steps, given=given)


def _checked(truth: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    if truth is None:
        return None
    found = real_array("truth", truth, cycles_first=True)
    if found.shape != shape:
        raise ValueError(f"truth must be the states of the trajectory, {shape}; got shape {found.shape}.")
    return found


def _rmse(states: Array, truth: Array) -> Float[Array, " K"]:
    return jnp.sqrt(((states - truth) ** 2).reshape(len(states), -1).mean(1))


def _is_none(leaf: Any) -> bool:
    return leaf is None
