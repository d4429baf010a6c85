"""A Gaussian denoiser with a network's correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...denoisers.hybrid import HybridDenoiser
from ...diffusion.process import Process
from ...dynamics.base import Dynamics
from ...measurements.measurement import Measurement
from ..climate import Climate
from .gaussian import GaussianPrior
from .trained import TrainedPrior

__all__ = ["HybridPrior"]


class HybridPrior(TrainedPrior):
    """The Gaussian of the forecast, which a network trained in every cycle corrects: for any linear H.

    Args:
        denoiser, training, epochs, restart, weighted, architecture, seed: see `TrainedPrior`.
        gaussian: the Gaussian part.
    """

    gaussian: GaussianPrior = eqx.field(default_factory=GaussianPrior)

    def __check_init__(self) -> None:
        if self.architecture.variance_head:
            raise ValueError("the hybrid denoiser draws with the Gaussian's covariance: no variance_head.")
        if self.denoiser is None and self.training is None:
            raise ValueError("a fresh network knows nothing: give training, or a trained denoiser.")

    @property
    def couples_members(self) -> bool:
        return self.gaussian.couples_members

    @property
    def transports(self) -> bool:
        return self.gaussian.transports

    @property
    def rotates(self) -> bool:
        return self.gaussian.rotates

    @property
    def of_each_member(self) -> HybridPrior:
        return dataclasses.replace(self, gaussian=self.gaussian.of_each_member)

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> HybridPrior:
        gaussian, denoiser = self.gaussian.prepare(dynamics, measurement), self.denoiser
        if denoiser is None:
            shape = dynamics.state_shape
            architecture = self.architecture.at(dynamics.coordinates, shape)
            seen = architecture.mean_feature(shape)
            denoiser = architecture.create(jax.random.key(self.seed), shape, seen)
        return dataclasses.replace(self, denoiser=denoiser, gaussian=gaussian)

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        gaussian = self.gaussian.denoiser(ensemble, process)
        hybrid = HybridDenoiser(gaussian, self.network, process.frame.basis)
        return self.fitted(key, hybrid, ensemble, process, memory)
