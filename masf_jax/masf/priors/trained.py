"""What priors with a network share: training on every forecast ensemble, as a part of the compiled cycle."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...denoisers.architecture import Architecture
from ...denoisers.network import NetworkDenoiser
from ...diffusion.process import Process
from ...training import FitConfig, History, fit
from ...training.objectives import denoising_loss, process_angles
from .base import Prior

__all__ = ["TrainedPrior", "training_info"]


class TrainedPrior(Prior):
    """A denoiser with a network.

    Args:
        denoiser: a trained network (see `masf_jax.training`); None: a fresh one by `architecture`.
        training: how the network is trained on every forecast ensemble, in its process's noise levels;
            None: it is used as it is.
        epochs: passes over the ensemble in each cycle, instead of `training.steps`.
        restart: whether each cycle's training starts from `denoiser`, or from the last cycle's result.
        weighted: whether the losses are weighted by 1/(sin²φ + .01) (the paper: no).
        architecture, seed: of a fresh network.
    """

    denoiser: NetworkDenoiser | None = None
    training: FitConfig | None = None
    epochs: int | None = eqx.field(static=True, default=None)
    restart: bool = eqx.field(static=True, default=True)
    weighted: bool = eqx.field(static=True, default=True)
    architecture: Architecture = eqx.field(static=True, default=Architecture())
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, or None for training.steps; got {self.epochs}.")

    @property
    def trained(self) -> bool:
        return True

    def init(self) -> Any:
        return None if self.restart or self.training is None else self.network.params

    @property
    def network(self) -> NetworkDenoiser:
        """The network, which `prepare` makes."""
        if self.denoiser is None:
            raise ValueError("the network is not there yet: call filter.prepare(dynamics, measurement).")
        return self.denoiser

    def fitted(
        self, key: PRNGKeyArray, denoiser: Any, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """A denoiser with this network, trained on the ensemble where there is training (see `Prior`)."""
        if self.training is None:
            return denoiser, memory, {}
        loss = denoising_loss(denoiser, process_angles(process), weighted=self.weighted)
        params, memory, info = self.trained_params(key, loss, ensemble, memory)
        return denoiser.with_params(params), memory, info

    def trained_params(
        self, key: PRNGKeyArray, loss: Any, ensemble: Float[Array, "N *v"], memory: Any
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Parameters that make the loss small on the ensemble, the memory, and scalars to report."""
        assert self.training is not None
        config, n_members = self.training, ensemble.shape[0]
        if self.epochs is not None:
            config = config.for_epochs(self.epochs, n_members - config.held_back(n_members))
        start = self.network.params if memory is None else memory
        params, history = fit(key, loss, start, ensemble, config)
        return params, None if self.restart else params, training_info(history, ensemble.dtype)


def training_info(history: History, dtype: Any) -> dict[str, Array]:
    """What is reported of one cycle's training."""
    return {
        "training_loss": jnp.nanmin(history.loss).astype(dtype),
        "training_steps": history.steps.astype(dtype),
        "skipped_steps": history.skipped.astype(dtype),
    }
