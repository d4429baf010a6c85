"""A network as the denoiser of the forecast: trained beforehand, in every cycle, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...bases import IdentityBasis
from ...denoisers.architecture import Architecture
from ...denoisers.base import Denoiser
from ...diffusion.process import Process
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ...training import FitConfig, History
from ...training.pretraining import pretrain_network
from ...training.trees import Kept
from ..climate import Climate
from .trained import TrainedPrior

__all__ = ["Architecture", "NetworkPrior"]


class NetworkPrior(TrainedPrior):
    """A network alone, on the state's own components.

    Args:
        denoiser, training, epochs, restart, weighted, architecture, seed: see `TrainedPrior`.
        pretraining: how `prepare` trains the network on the model's climatology, once and outside jit; None:
            not. Nothing to do where there is a `denoiser`.
        progress: show a progress bar while pretraining.
        kept: file in which the pretraining is kept while it lasts: one that was ended goes on from there.
        history: of the pretraining; filled in by `prepare`.
    """

    pretraining: FitConfig | None = None
    progress: bool = eqx.field(static=True, default=False)
    kept: str | None = eqx.field(static=True, default=None)
    history: History | None = None

    def __check_init__(self) -> None:
        if self.denoiser is None and self.training is None and self.pretraining is None:
            raise ValueError(
                "a fresh network knows nothing: give training, pretraining, or a trained denoiser."
            )

    @property
    def climatological(self) -> bool:
        return self.pretraining is not None and self.training is None

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> NetworkPrior:
        structure = measurement.operator.structure
        if structure not in ("identity", "mask", None) or not measurement.noise.diagonal:
            raise ValueError(
                "a network alone works on the state's own components, which "
                f"{type(measurement.operator).__name__} with {type(measurement.noise).__name__} noise mixes: "
                "use the hybrid denoiser."
            )
        if self.denoiser is not None:
            return self
        key, shape = jax.random.key(self.seed), dynamics.state_shape
        architecture = self.architecture.at(dynamics.coordinates, shape)
        if self.pretraining is None:
            return dataclasses.replace(self, denoiser=architecture.create(key, shape))
        if climate is None:
            raise ValueError("pretraining needs the model's climatology: call the filter's own prepare.")
        states, validation, process, _ = climate()
        denoiser, history = pretrain_network(
            key,
            architecture,
            states,
            process,
            self.pretraining,
            validation=validation,
            weighted=self.weighted,
            progress=self.progress,
            kept=None if self.kept is None else Kept(Path(self.kept)),
        )
        return dataclasses.replace(self, denoiser=denoiser, history=history, kept=None)

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        if not isinstance(process.frame.basis, IdentityBasis):
            raise ValueError("a network alone needs a process in the state's own components.")
        return self.fitted(key, self.network, ensemble, process, memory)
