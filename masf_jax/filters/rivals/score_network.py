"""A network trained on every forecast ensemble, for filters that learn the forecast's score."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ...denoisers.architecture import Architecture
from ...denoisers.base import Denoiser
from ...denoisers.network import NetworkDenoiser
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ...training import FitConfig, fit
from ...training.objectives import AngleSampler, denoising_loss
from ..base import Info
from .sampled import Likelihood, SampledFilter

__all__ = ["LearnedFilter", "ScoreNetwork", "smoothed_score"]

_TRAINING = FitConfig(steps=100, learning_rate=1e-3, validation_fraction=0.0)
_ARCHITECTURE = Architecture(width=64, depth=1, layout="vector")


class ScoreNetwork(eqx.Module):
    """The denoiser E[x0 | x] of the forecast, which is its score: trained within the compiled cycle.

    A forecast has few members, which long training learns by heart: so few steps of a small network, and each
    cycle's from the same start (docs/rivals.md).

    Args:
        denoiser: with the parameters that training starts from; None: fresh ones, made by `prepare`.
        training: in every cycle.
        restart: whether each cycle's training starts from `denoiser`, or from the last cycle's result.
        architecture, seed: of a fresh network.
    """

    denoiser: NetworkDenoiser | None = None
    training: FitConfig = _TRAINING
    restart: bool = eqx.field(static=True, default=True)
    architecture: Architecture = eqx.field(static=True, default=_ARCHITECTURE)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.architecture.variance_head:
            raise ValueError("a score network has one output, the mean: no variance_head.")

    def prepare(self, dynamics: Dynamics) -> ScoreNetwork:
        """The same with a network."""
        if self.denoiser is not None:
            return self
        shape = dynamics.state_shape
        fresh = self.architecture.at(dynamics.coordinates, shape).create(jax.random.key(self.seed), shape)
        return dataclasses.replace(self, denoiser=fresh)

    def init(self) -> Any:
        """What is remembered before the first cycle."""
        return None if self.restart else self._network().params

    def __call__(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], angles: AngleSampler, memory: Any
    ) -> tuple[Denoiser, Any, Info]:
        """The denoiser of these members at noise levels from `angles`, the memory, and what to report."""
        network = self._network()
        start = network.params if memory is None else memory
        params, history = fit(key, denoising_loss(network, angles), start, members, self.training)
        info = {"training_loss": jnp.nanmin(history.loss).astype(members.dtype)}
        return network.with_params(params), None if self.restart else params, info

    def _network(self) -> NetworkDenoiser:
        if self.denoiser is None:
            raise ValueError("the network is not there yet: call filter.prepare(dynamics, measurement).")
        return self.denoiser


def smoothed_score(denoiser: Denoiser, x: Float[Array, "N *x"], std: Scalar) -> Float[Array, "N *x"]:
    """∇log p of x0 + std·η at each row: (E[x0 | x] - x)/std²."""
    angle = jnp.full(x.shape[1:], jnp.arctan(std))
    mean = jax.vmap(denoiser, (0, None))(x / jnp.hypot(jnp.ones_like(std), std), angle)
    return (mean - x) / std**2


class LearnedFilter(SampledFilter):
    """Filters that train a score network on each forecast ensemble, then draw with it by a sampler.

    The sampler has `angles`, the noise levels to train at, and is called with (key, denoiser, members,
    ∇log p(z | x) of an ensemble).
    """

    network: eqx.AbstractVar[ScoreNetwork]
    sampler: eqx.AbstractVar[Any]

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> LearnedFilter:
        return eqx.tree_at(lambda f: f.network, self, self.network.prepare(dynamics))

    def first_memory(self, ensemble: Float[Array, "N *state"]) -> Any:
        return self.network.init()

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        key_fit, key_draw = jax.random.split(key)
        denoiser, memory, info = self.network(key_fit, members, self.sampler.angles, memory)
        scores = functools.partial(likelihood.guiding(members).scores, bounded=True)
        return self.sampler(key_draw, denoiser, members, scores), memory, info
