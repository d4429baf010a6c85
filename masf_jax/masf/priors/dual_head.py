"""The paper's network: of one head where the measurement is linear, of two where it is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...diffusion.conditional import lifted_process
from ...diffusion.dual_head import guided_dual_head, paper_nonlinear_score_scale
from ...diffusion.samplers import paper_guidance_scale
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ...training import fit
from ...training.dual_head import dual_head_loss, heads_of
from ...training.loop import pretrain
from ..climatology import Climate
from .base import DrawingFit, Sampling, member_keys
from .network import NetworkFit, training_info

__all__ = ["DualHeadFit"]


class DualHeadFit(NetworkFit, DrawingFit):
    """`NetworkFit` for a linear H; for another, E[x0 | x_t] and E[H(x0) | x_t] from one network.

    The analysis of a nonlinear H is `guided_dual_head`, from forecast members. The network is pretrained on
    the climatology, trained on the forecast ensemble in each cycle, or both, as in `NetworkFit`, by the
    plain mean square errors of both heads (`weighted` is of the linear H). Measured values must have a
    place in the state (`lift`) and independent noise. Biased, with exact heads too: of the operators tried
    none is right, and most are further from the true posterior than the EnKF's regression (docs/masf.md).

    Args:
        nonlinear_steps: reverse steps for a nonlinear H.
    """

    routes: ClassVar[tuple[str, ...]] = ("linear", "linearized", "dual_head")
    nonlinear_steps: int = eqx.field(static=True, default=200)

    def for_measurement(self, measurement: Measurement) -> DualHeadFit:
        """This fit with the architecture that the measurement needs."""
        if measurement.operator.structure is not None:
            return self
        return dataclasses.replace(
            self, architecture=dataclasses.replace(self.architecture, variance_head=True, noise_map=False)
        )

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> NetworkFit:
        if measurement.operator.structure is not None:
            return super().prepare(dynamics, measurement, climate)
        suited, shape = self.for_measurement(measurement), dynamics.state_shape
        zeros = jnp.zeros(measurement.output_shape(shape))
        there = jnp.ones(zeros.shape, bool)
        lifted_process(measurement, zeros, there, jnp.zeros(shape), jnp.ones(shape))  # raises where it must
        if suited.denoiser is not None:
            return suited
        key_init, key_fit = jax.random.split(jax.random.key(self.seed))
        network = suited.architecture.create(key_init, shape)
        if self.pretraining is None:
            return dataclasses.replace(suited, denoiser=network)
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
            self.pretraining,
            validation=validation,
            progress=self.progress,
        )
        return dataclasses.replace(suited, denoiser=network.with_params(params), history=history)

    def draw(
        self,
        key: PRNGKeyArray,
        members: Float[Array, "N *x"],
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        units: tuple[Float[Array, "*x"], Float[Array, "..."]],
        sampling: Sampling,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        key_fit, key_sample = jax.random.split(key)
        process = lifted_process(measurement, z, mask, *units)
        states = jax.vmap(process.frame.encode)(members)
        network, info, remembered = self._network(), {}, memory
        if self.training is not None:
            start = network.params if memory is None else memory
            loss = dual_head_loss(network, process)
            params, history = fit(key_fit, loss, start, states, self._training(len(states)))
            network, info = network.with_params(params), training_info(history, members.dtype)
            remembered = None if self.restart else params
        scales = (paper_nonlinear_score_scale, paper_guidance_scale)
        if not sampling.paper_scales:
            scales = (jnp.ones_like, jnp.ones_like)
        times = sampling.times(self.nonlinear_steps)

        def one(key: PRNGKeyArray, v0: Array) -> Array:
            drawn = guided_dual_head(key, process, heads_of(network), times, v0, *scales)
            return process.frame.decode(drawn)

        keys = member_keys(key_sample, len(states))
        return jax.vmap(one)(keys, states), remembered, info
