"""A network that sees the measured values, trained on simulated pairs in every cycle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...denoisers.architecture import Architecture
from ...denoisers.network import NetworkDenoiser
from ...diffusion.conditional import towards_noise
from ...diffusion.lift import has_lift
from ...diffusion.samplers import Bridge, Sampler
from ...dynamics.base import Dynamics
from ...dynamics.layout import current
from ...ensemble.density import check_bandwidth
from ...ensemble.keys import member_keys
from ...measurements.measurement import Measurement
from ...training import FitConfig, fit
from ...training.objectives import denoising_loss, uniform_angle
from ..climate import Climate
from ..priors.base import Prior
from ..priors.trained import training_info
from .base import Inputs, Route
from .conditional import Conditional
from .pairs import Layout, Pairs, feature_shape, simulated_pairs

__all__ = ["Architecture", "ConditionalNetwork", "conditional_training", "pairs_loss"]


def conditional_training() -> FitConfig:
    """What `ConditionalNetwork` is trained with if nothing else is said."""
    return FitConfig(steps=2000, batch_size=128, learning_rate=2e-3, validation_fraction=0.0)


class ConditionalNetwork(Conditional):
    """D(u_t, φ, z) ≈ E[u | u_t, z], trained on pairs (x0, z) drawn anew for every optimiser step.

    u is the state in the coordinates of `Pairs`, u_t = cos φ u + sin φ η (`towards_noise`), and the reverse
    process runs from noise: the one construction that is exact for any H, any shape of z and any noise
    that can be drawn from; p(z | x) need not be known. What is not exact is the network, and the draws of
    u given u_t, normal with the spread of the variance head: with several modes they need many steps (40).
    Near the true posterior for every smooth H of one mode, whatever the noise, and for speed; off for several
    modes in two components (x², |x|) and for `Quantised` (a posterior that jumps with z), where
    `ConditionalKernel` is right (docs/masf.md).

    Args:
        training: how the network is trained in each cycle, as a part of the compiled cycle.
        bandwidth: of the forecast's kernel density; None: Silverman's rule (see `KernelDensity`).
        epochs: passes over the ensemble in each cycle, instead of `training.steps`.
        restart: whether each cycle's training starts from the fresh network, or where the last one ended.
        architecture, seed: of the network; the layout "vector" where z has no place on the state's grid.
        network: the fresh network; filled in by `prepare`.
        layout: how the network sees z; filled in by `prepare`.
    """

    training: FitConfig = eqx.field(default_factory=conditional_training)
    bandwidth: Float[Array, ""] | None = eqx.field(converter=check_bandwidth, default=None)
    epochs: int | None = eqx.field(static=True, default=None)
    restart: bool = eqx.field(static=True, default=True)
    architecture: Architecture = eqx.field(static=True, default=Architecture(width=64, variance_head=True))
    seed: int = eqx.field(static=True, default=0)
    network: NetworkDenoiser | None = None
    layout: Layout = eqx.field(static=True, default="vector")

    def sampler(self) -> Sampler:
        return Bridge(40)

    def prepare(
        self,
        prior: Prior,
        dynamics: Dynamics,
        measurement: Measurement,
        climate: Callable[[], Climate] | None = None,
    ) -> tuple[Route, Prior]:
        if self.network is not None:
            return self, prior
        shape, name = dynamics.state_shape, type(measurement.operator).__name__
        architecture, layout = self.architecture.at(dynamics.coordinates, shape), "vector"
        if architecture.form(shape)[0] != "vector":
            if measurement.noise.diagonal and has_lift(measurement.operator, shape):
                layout = "grid"
            elif len(shape) == 1:
                architecture = dataclasses.replace(architecture, layout="vector")
            else:
                raise ValueError(
                    f"a network for states of shape {shape} sees measured values at their place on the grid, "
                    f"and those of {name} with {type(measurement.noise).__name__} noise have none (see "
                    "masf_jax.diffusion.lift): take ConditionalKernel, or linearise."
                )
        features = jnp.zeros(feature_shape(layout, shape, measurement.output_shape(shape)))
        network = architecture.create(jax.random.key(self.seed), shape, features)
        return dataclasses.replace(self, network=network.with_features(None), layout=layout), prior

    def init(self, prior: Prior) -> Any:
        return None if self.restart else self._fresh().params

    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        members = inputs.members
        key_fit, key_sample = jax.random.split(keys[1])
        pairs = simulated_pairs(members, inputs.measurement, inputs.mask, self.bandwidth, self.layout)
        network = self._fresh()
        start = network.params if memory is None else memory
        config = self.training
        if self.epochs is not None:
            config = config.for_epochs(self.epochs, len(members) - config.held_back(len(members)))
        params, history = fit(key_fit, pairs_loss(network, pairs), start, members, config)
        denoiser = network.with_params(params).with_features(pairs.features(inputs.z))
        process = towards_noise(pairs.frame(inputs.z), members[0])

        def one(key: PRNGKeyArray) -> Array:
            return process.frame.decode(inputs.sampler.draw(key, process, denoiser, None))

        drawn = current().each(one, member_keys(key_sample, members.shape[0]))
        return drawn, None if self.restart else params, training_info(history, members.dtype)

    def _fresh(self) -> NetworkDenoiser:
        if self.network is None:
            raise ValueError("the network is not there yet: call filter.prepare(dynamics, measurement).")
        return self.network


def pairs_loss(
    network: NetworkDenoiser, pairs: Pairs
) -> Callable[[Any, PRNGKeyArray, Array], Float[Array, ""]]:
    """The loss(params, key, members) of `denoising_loss` for a pair around each member, φ uniform."""
    angles: Callable[[PRNGKeyArray], Array] = uniform_angle(0.0, math.pi / 2)
    loss = denoising_loss(network, angles)

    def paired(params: Any, key: PRNGKeyArray, members: Array) -> Float[Array, ""]:
        key_pairs, key_loss = jax.random.split(key)
        batch = jax.vmap(pairs.draw)(jax.random.split(key_pairs, members.shape[0]), members)
        return loss(params, key_loss, batch)

    return paired
