"""The paper's route of a nonlinear measurement: one network with two heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...diffusion.conditional import lifted_process
from ...diffusion.dual_head import guided_dual_head, paper_nonlinear_score_scale
from ...diffusion.measurement_aware import MeasurementAware
from ...diffusion.process import ProcessFamily
from ...diffusion.samplers import Guided, Sampler, paper_guidance_scale
from ...dynamics.base import Dynamics
from ...dynamics.layout import current
from ...ensemble.keys import member_keys
from ...measurements.measurement import Measurement
from ...training.dual_head import dual_head_loss, heads_of
from ...training.loop import pretrain
from ...training.trees import Kept
from ..climate import Climate
from ..priors.base import Prior
from ..priors.network import NetworkPrior
from .base import Inputs, Route

__all__ = ["DualHead"]


class DualHead(Route):
    """E[x0 | x_t] and E[H(x0) | x_t] from the prior's network, which gets a second head.

    The analysis is `guided_dual_head`, from forecast members. The network is pretrained on the climatology,
    trained on the forecast ensemble in each cycle, or both, as the `NetworkPrior` says, by the plain mean
    square errors of both heads (its `weighted` is of the linear H). Measured values must have a place in the
    state (`lift`) and independent noise. Biased, with exact heads too: of the operators tried none is right,
    and most are further from the true posterior than the EnKF's regression (docs/masf.md).

    Args:
        n_steps: reverse steps.
    """

    name: ClassVar[str] = "dual_head"
    draws_itself: ClassVar[bool] = True
    n_steps: int = eqx.field(static=True, default=200)

    def sampler(self) -> Sampler:
        return Guided()

    def check(
        self,
        prior: Prior,
        process: ProcessFamily,
        sampler: Sampler,
        measurement: Measurement,
        state_shape: tuple[int, ...],
        scale_shape: tuple[int, ...],
    ) -> None:
        if not isinstance(prior, NetworkPrior):
            raise ValueError(
                f"{type(prior).__name__} cannot take the route 'dual_head': it takes the paper's network, "
                "NetworkPrior."
            )
        if not isinstance(process, MeasurementAware) or not isinstance(sampler, Guided):
            raise ValueError(
                "the route 'dual_head' is the paper's: it needs the process MeasurementAware and the sampler "
                f"Guided; got {type(process).__name__} and {type(sampler).__name__}."
            )

    @staticmethod
    def with_second_head(prior: NetworkPrior) -> NetworkPrior:
        """The prior with the architecture that this route needs."""
        architecture = dataclasses.replace(prior.architecture, variance_head=True, noise_map=False)
        return dataclasses.replace(prior, architecture=architecture)

    def prepare(
        self,
        prior: Prior,
        dynamics: Dynamics,
        measurement: Measurement,
        climate: Callable[[], Climate] | None = None,
    ) -> tuple[Route, Prior]:
        assert isinstance(prior, NetworkPrior)
        suited, shape = self.with_second_head(prior), dynamics.state_shape
        zeros = jnp.zeros(measurement.output_shape(shape))
        there = jnp.ones(zeros.shape, bool)
        lifted_process(measurement, zeros, there, jnp.zeros(shape), jnp.ones(shape))  # raises where it must
        if suited.denoiser is not None:
            return self, suited
        key_init, key_fit = jax.random.split(jax.random.key(prior.seed))
        network = suited.architecture.at(dynamics.coordinates, shape).create(key_init, shape)
        if prior.pretraining is None:
            return self, dataclasses.replace(suited, denoiser=network)
        if climate is None:
            raise ValueError("pretraining needs the model's climatology: call the filter's own prepare.")
        states, validation, to_noise, _ = climate()
        frame = to_noise.frame
        process = lifted_process(measurement, zeros, there, frame.centre, frame.scale)
        params, history = pretrain(
            key_fit,
            dual_head_loss(network, process),
            network.params,
            states,
            prior.pretraining,
            validation=validation,
            progress=prior.progress,
            kept=None if prior.kept is None else Kept(Path(prior.kept)),
        )
        trained = network.with_params(params)
        return self, dataclasses.replace(suited, denoiser=trained, history=history, kept=None)

    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        prior, sampler = inputs.prior, inputs.sampler
        assert isinstance(prior, NetworkPrior)
        assert isinstance(sampler, Guided)
        key_fit, key_sample = jax.random.split(keys[1])
        process = lifted_process(inputs.measurement, inputs.z, inputs.mask, *inputs.centre_and_scale())
        states = jax.vmap(process.frame.encode)(inputs.members)
        network, info = prior.network, {}
        if prior.training is not None:
            loss = dual_head_loss(network, process)
            params, memory, info = prior.trained_params(key_fit, loss, states, memory)
            network = network.with_params(params)
        scales = (jnp.ones_like, jnp.ones_like)
        if sampler.paper_scales:
            scales = (paper_nonlinear_score_scale, paper_guidance_scale)
        times = sampler.times(self.n_steps)

        def one(key: PRNGKeyArray, v0: Array) -> Array:
            return process.frame.decode(guided_dual_head(key, process, heads_of(network), times, v0, *scales))

        return current().each(one, member_keys(key_sample, len(states)), states), memory, info
