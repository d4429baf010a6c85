"""Denoisers with a network: trained on the forecast ensemble in every cycle, beforehand, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...bases import IdentityBasis
from ...denoisers.architecture import Architecture
from ...denoisers.base import Denoiser
from ...denoisers.hybrid import HybridDenoiser
from ...denoisers.network import NetworkDenoiser
from ...diffusion.process import Process
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ...training import FitConfig, History, fit
from ...training.objectives import denoising_loss, process_angles
from ...training.pretraining import pretrain_network
from ..climatology import Climate
from .base import DenoiserFit, GaussianFit

__all__ = ["Architecture", "NetworkFit", "training_info"]


class NetworkFit(DenoiserFit):
    """A network, or a Gaussian denoiser with a network's correction ("hybrid"), as denoiser of the forecast.

    Args:
        denoiser: a trained network (see `masf_jax.training`); None: a fresh one by `architecture`.
        gaussian: the Gaussian part; None: the network alone.
        training: how the network is trained on every forecast ensemble, in its process's noise levels;
            None: it is used as it is. Training is a part of the compiled cycle.
        pretraining: how `prepare` trains a network alone on the model's climatology, once and outside jit;
            None: not. Nothing to do where there is a `denoiser`.
        epochs: passes over the ensemble in each cycle, instead of `training.steps`.
        restart: whether each cycle's training starts from `denoiser`, or from the last cycle's result.
        weighted: whether the losses are weighted by 1/(sin²φ + .01) (the paper: no).
        architecture, seed: of a fresh network.
        progress: show a progress bar while pretraining.
        history: of the pretraining; filled in by `prepare`.
    """

    denoiser: NetworkDenoiser | None = None
    gaussian: GaussianFit | None = None
    training: FitConfig | None = None
    pretraining: FitConfig | None = None
    epochs: int | None = eqx.field(static=True, default=None)
    restart: bool = eqx.field(static=True, default=True)
    weighted: bool = eqx.field(static=True, default=True)
    architecture: Architecture = eqx.field(static=True, default=Architecture())
    seed: int = eqx.field(static=True, default=0)
    progress: bool = eqx.field(static=True, default=False)
    history: History | None = None

    def __check_init__(self) -> None:
        if self.gaussian is not None and self.architecture.variance_head:
            raise ValueError("the hybrid denoiser draws with the Gaussian's covariance: no variance_head.")
        if self.gaussian is not None and self.pretraining is not None:
            raise ValueError(
                "the hybrid denoiser's network corrects the Gaussian of a forecast ensemble, which the "
                "model's climatology does not have: pretraining is for a network alone."
            )
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, or None for training.steps; got {self.epochs}.")
        if self.denoiser is None and self.training is None and self.pretraining is None:
            raise ValueError(
                "a fresh network knows nothing: give training, pretraining, or a trained denoiser."
            )

    @property
    def climatological(self) -> bool:
        return self.pretraining is not None and self.training is None

    @property
    def couples_members(self) -> bool:
        return self.gaussian is not None and self.gaussian.couples_members

    @property
    def transports(self) -> bool:
        return self.gaussian is not None and self.gaussian.transports

    @property
    def of_each_member(self) -> NetworkFit:
        gaussian = None if self.gaussian is None else self.gaussian.of_each_member
        return dataclasses.replace(self, gaussian=gaussian)

    @property
    def trained(self) -> bool:
        return True

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> NetworkFit:
        structure = measurement.operator.structure
        if self.gaussian is None and (
            structure not in ("identity", "mask", None) or not measurement.noise.diagonal
        ):
            raise ValueError(
                "a network alone works on the state's own components, which "
                f"{type(measurement.operator).__name__} with {type(measurement.noise).__name__} noise mixes: "
                "use the hybrid denoiser."
            )
        gaussian = None if self.gaussian is None else self.gaussian.prepare(dynamics, measurement)
        denoiser, history, key = self.denoiser, self.history, jax.random.key(self.seed)
        if denoiser is None and self.pretraining is not None:
            if climate is None:
                raise ValueError("pretraining needs the model's climatology: call the filter's own prepare.")
            states, validation, process, _ = climate()
            denoiser, history = pretrain_network(
                key,
                self.architecture,
                states,
                process,
                self.pretraining,
                validation=validation,
                weighted=self.weighted,
                progress=self.progress,
            )
        elif denoiser is None:
            shape = dynamics.state_shape
            seen = None if gaussian is None else self.architecture.mean_feature(shape)
            denoiser = self.architecture.create(key, shape, seen)
        return dataclasses.replace(self, denoiser=denoiser, gaussian=gaussian, history=history)

    def init(self) -> Any:
        return None if self.restart or self.training is None else self._network().params

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        network = self._network()
        denoiser: Any = network
        if self.gaussian is not None:
            gaussian = self.gaussian.gaussian(ensemble, process)
            denoiser = HybridDenoiser(gaussian, network, process.frame.basis)
        elif not isinstance(process.frame.basis, IdentityBasis):
            raise ValueError("a network alone needs a process in the state's own components.")
        if self.training is None:
            return denoiser, memory, {}
        loss = denoising_loss(denoiser, process_angles(process), weighted=self.weighted)
        start = network.params if memory is None else memory
        params, history = fit(key, loss, start, ensemble, self._training(ensemble.shape[0]))
        info = training_info(history, ensemble.dtype)
        return denoiser.with_params(params), None if self.restart else params, info

    def _training(self, n_members: int) -> FitConfig:
        assert self.training is not None
        if self.epochs is None:
            return self.training
        return self.training.for_epochs(self.epochs, n_members - self.training.held_back(n_members))

    def _network(self) -> NetworkDenoiser:
        if self.denoiser is None:
            raise ValueError("the network is not there yet: call filter.prepare(dynamics, measurement).")
        return self.denoiser


def training_info(history: History, dtype: Any) -> dict[str, Array]:
    """What is reported of one cycle's training."""
    return {
        "training_loss": jnp.nanmin(history.loss).astype(dtype),
        "training_steps": history.steps.astype(dtype),
        "skipped_steps": history.skipped.astype(dtype),
    }
