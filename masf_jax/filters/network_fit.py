"""Denoisers with a network: trained on the forecast ensemble in every cycle, beforehand, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import IdentityBasis
from ..denoisers.base import Denoiser
from ..denoisers.hybrid import HybridDenoiser
from ..denoisers.network import NetworkDenoiser
from ..diffusion.process import Process
from ..dynamics.base import Dynamics
from ..measurements.measurement import Measurement
from ..nn import MLP, UNet
from ..training import FitConfig, denoising_loss, fit
from .denoiser_fit import DenoiserFit, GaussianFit

__all__ = ["Architecture", "NetworkFit", "process_angles"]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network by the shape of the state: an MLP for vectors, a circular U-Net for rings and fields.

    Args:
        width, depth: of the MLP.
        channels, multipliers, blocks, attention: of the U-Net (see `UNet`).
        layout: "vector", "ring", "field"; None: by the state's shape, a vector below 16 components.
        noise_map, preconditioning, variance_head: see `NetworkDenoiser`.
    """

    width: int = 128
    depth: int = 3
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = ()
    layout: Literal["vector", "ring", "field"] | None = None
    noise_map: bool = True
    preconditioning: Literal["edm", "x0"] = "edm"
    variance_head: bool = False

    def create(self, key: PRNGKeyArray, shape: Sequence[int], with_mean: bool = False) -> NetworkDenoiser:
        """A fresh denoiser for states of `shape`; `with_mean`: it sees a Gaussian estimate of the state too.

        Raises:
            ValueError: a shape that the network does not suit.
        """
        layout = self.layout or ("field" if len(shape) > 1 else "vector" if shape[0] < 16 else "ring")
        space = {"vector": 0, "ring": 1, "field": 2}[layout]
        channels = shape[0] if len(shape) == space + 1 else 1
        head = channels if self.variance_head else None
        net = (
            MLP(channels, self.width, self.depth, second_head=head)
            if layout == "vector"
            else UNet(
                channels,
                self.channels,
                self.multipliers,
                self.blocks,
                self.attention,
                second_head=head,
                space=space,
            )
        )
        features = None
        if with_mean:
            features = jnp.zeros(tuple(shape) if layout == "vector" or len(shape) > space else (1, *shape))
        return NetworkDenoiser.create(
            key,
            net,
            tuple(shape),
            features=features,
            layout=layout,
            noise_map=self.noise_map,
            preconditioning=self.preconditioning,
            variance_head=self.variance_head,
        )


def process_angles(process: Process, last: float = 1.0) -> Any:
    """From a key, the noise-level map of `process` at a time uniform in [0, last]."""

    def sample(key: PRNGKeyArray) -> Array:
        return process.angle(jax.random.uniform(key, (), process.measured.dtype, maxval=last))

    return sample


class NetworkFit(DenoiserFit):
    """A network, or a Gaussian denoiser with a network's correction ("hybrid"), as denoiser of the forecast.

    Args:
        denoiser: a trained network (see `masf_jax.training`); None: a fresh one by `architecture`.
        gaussian: the Gaussian part; None: the network alone.
        training: how the network is trained on every forecast ensemble, in its process's noise levels;
            None: it is used as it is. Training is a part of the compiled cycle.
        restart: whether each cycle's training starts from `denoiser`, or from the last cycle's result.
        weighted: whether the loss is weighted by 1/(sin²φ + .01) (the paper: no).
        architecture, seed: of a fresh network.
    """

    denoiser: NetworkDenoiser | None = None
    gaussian: GaussianFit | None = None
    training: FitConfig | None = None
    restart: bool = eqx.field(static=True, default=True)
    weighted: bool = eqx.field(static=True, default=True)
    architecture: Architecture = eqx.field(static=True, default=Architecture())
    seed: int = eqx.field(static=True, default=0)

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> NetworkFit:
        structure = measurement.operator.structure
        if self.gaussian is None and (
            structure not in ("identity", "mask") or not measurement.noise.diagonal
        ):
            raise ValueError(
                "a network alone works on the state's own components, which "
                f"{type(measurement.operator).__name__} with {type(measurement.noise).__name__} noise mixes: "
                "use the hybrid denoiser."
            )
        if self.gaussian is not None and self.architecture.variance_head:
            raise ValueError("the hybrid denoiser draws with the Gaussian's covariance: no variance_head.")
        gaussian = None if self.gaussian is None else self.gaussian.prepare(dynamics, measurement)
        denoiser = self.denoiser
        if denoiser is None:
            key = jax.random.key(self.seed)
            denoiser = self.architecture.create(key, dynamics.state_shape, gaussian is not None)
        return dataclasses.replace(self, denoiser=denoiser, gaussian=gaussian)

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
        params, history = fit(key, loss, start, ensemble, self.training)
        info = {
            "training_loss": jnp.nanmin(history.loss).astype(ensemble.dtype),
            "training_steps": history.steps.astype(ensemble.dtype),
            "skipped_steps": history.skipped.astype(ensemble.dtype),
        }
        return denoiser.with_params(params), None if self.restart else params, info

    def _network(self) -> NetworkDenoiser:
        if self.denoiser is None:
            raise ValueError("the network is not there yet: call filter.prepare(dynamics, measurement).")
        return self.denoiser
