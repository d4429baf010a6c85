"""Training of a denoiser of windows on trajectories of a model."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from ..arrays import check_key, one_state
from ..denoisers.architecture import Architecture
from ..denoisers.network import NetworkDenoiser
from ..dynamics.base import Dynamics
from ..dynamics.rollout import rollout, spun_up_ensemble
from ..numbers import number
from ..training.config import FitConfig
from ..training.history import History
from ..training.loop import pretrain
from ..training.objectives import denoising_loss
from .sda import SDA, diffusion_angle
from .windows import Reshaped, TrajectoryDenoiser

__all__ = ["climatological_trajectories", "train_sda", "window_shape"]

_NETWORK = Architecture(width=256, depth=3, noise_map=False)


def climatological_trajectories(
    dynamics: Dynamics, key: PRNGKeyArray, n: int, n_states: int, every: int = 1
) -> Float[Array, "n T *state"]:
    """`n` independent trajectories of `n_states` states, `every` model steps apart, from spun-up states."""
    check_key(key)
    if n < 1 or n_states < 1 or every < 1:
        raise ValueError(f"n, n_states and every must be at least 1; got {n}, {n_states}, {every}.")
    key_start, key_run = jax.random.split(key)
    start = spun_up_ensemble(dynamics, key_start, n)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key_run, jnp.arange(n, dtype=jnp.uint32))
    later = jax.vmap(lambda x, key: rollout(dynamics, x, key, n_states - 1, every))(start, keys)
    return jnp.concatenate([start[:, None], later], axis=1)


def window_shape(network: Architecture, state_shape: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The shape in which a network sees a window of `length` states: a vector, or channels on the space."""
    layout, space, channels = network.form(state_shape)
    if layout == "vector":
        return (length * math.prod(state_shape),)
    return (length * channels, *state_shape[len(state_shape) - space :])


def train_sda(
    key: PRNGKeyArray,
    trajectories: Float[Array, "M T *state"],
    k: int,
    config: FitConfig,
    network: Architecture = _NETWORK,
    *,
    validation: Float[Array, "V T *state"] | None = None,
    mean: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> tuple[SDA, History]:
    """SDA with a network trained on windows of 2k + 1 states of these trajectories, and how it was trained.

    A step takes one window, at a random place, of each of `config.batch_size` trajectories, noised at t
    uniform in [0, 1]. The network gives the window's mean x̂ by F = (x̂ - cos φ · x)/sin φ, whose loss is the
    published one of ε = (x - cos φ · x̂)/sin φ times tan² φ, floored.

    Runs from the host, outside jit.

    Args:
        trajectories: in the state's units, at the intervals that draws are to have.
        network: its layout by the shape of one state; default an MLP 256 wide, 3 blocks deep.
        validation: other trajectories; None: `config.validation_fraction` of them.
        mean, scale: to normalise states with; None: mean and standard deviation of each component.
        batch_size: windows computed together in draws; None: all.

    Raises:
        ValueError: trajectories shorter than a window or with NaN, a component that never changes, a mean or
            scale of another shape, or a network that does not suit.
    """
    check_key(key)
    length, state_shape = 2 * k + 1, trajectories.shape[2:]
    if k < 0 or trajectories.shape[1] < length:
        raise ValueError(
            f"windows of 2k + 1 = {length} states need trajectories as long, and k at least 0; got "
            f"{trajectories.shape[1]} states."
        )
    if not bool(jnp.isfinite(trajectories).all()):
        raise ValueError("the trajectories hold NaN or Inf.")
    mean = trajectories.mean((0, 1)) if mean is None else one_state("mean", mean, state_shape)
    found = trajectories.std((0, 1)) if scale is None else jnp.asarray(scale)
    if scale is None and not bool((found > 0).all()):
        raise ValueError("a component of the state never changes in these trajectories: give its scale.")
    scale = one_state("scale", number("scale", found, "(0, inf)"), state_shape)
    key_init, key_fit = jax.random.split(key)
    shape = window_shape(network, state_shape, length)
    fixed = dataclasses.replace(network, layout=network.form(state_shape)[0])
    denoiser = fixed.create(key_init, shape)
    windows_loss = denoising_loss(denoiser, lambda key: diffusion_angle(jax.random.uniform(key)))

    def normalised(states: Array) -> Array:
        return (states - mean[None, None]) / scale[None, None]

    def loss(params: Any, key: PRNGKeyArray, batch: Array) -> Float[Array, ""]:
        key_place, key_loss = jax.random.split(key)
        places = jax.random.randint(key_place, batch.shape[:1], 0, batch.shape[1] - length + 1)
        windows = jax.vmap(lambda x, place: jax.lax.dynamic_slice_in_dim(x, place, length))(batch, places)
        return windows_loss(params, key_loss, windows.reshape(-1, *shape))

    held = None if validation is None else normalised(validation)
    params, history = pretrain(
        key_fit, loss, denoiser.params, normalised(trajectories), config, validation=held, progress=progress
    )
    return _assembled(denoiser.with_params(params), shape, k, batch_size, mean, scale), history


def _assembled(
    denoiser: NetworkDenoiser,
    shape: tuple[int, ...],
    k: int,
    batch_size: int | None,
    mean: Array,
    scale: Array,
) -> SDA:
    return SDA(TrajectoryDenoiser(Reshaped(denoiser, shape), k, batch_size), mean, scale)
