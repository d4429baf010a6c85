"""Pretraining of a network on the model's own states, before there is any forecast."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import IdentityBasis
from ..denoisers.architecture import Architecture
from ..denoisers.network import NetworkDenoiser
from ..diffusion.process import Process
from .config import FitConfig
from .history import History
from .loop import pretrain
from .objectives import denoising_loss, process_angles
from .trees import Kept

__all__ = ["pretrain_network"]


def pretrain_network(
    key: PRNGKeyArray,
    network: Architecture | NetworkDenoiser,
    states: Float[Array, "n *state"],
    process: Process,
    config: FitConfig,
    *,
    validation: Float[Array, "m *state"] | None = None,
    weighted: bool = False,
    progress: bool = False,
    kept: Kept | None = None,
) -> tuple[NetworkDenoiser, History]:
    """A denoiser of `states` at the noise levels of `process`, t uniform in [0, 1], and how it was trained.

    Args:
        network: what to train: a fresh network of this architecture, or this one further.
        states: in the coordinates of the process (normalised).
        process: from the state to the measurement the network is to be used with.
        validation: states of other trajectories; None: `config.validation_fraction` of the states.
        weighted: see `denoising_loss` (the paper: no).
        progress: show a progress bar.
        kept: see `pretrain`.

    Runs from the host, outside jit. Source: Yoon et al., arXiv 2604.02889 (1000 states, 200 epochs).

    Raises:
        ValueError: a process in other coordinates than the state's own components.
    """
    if not isinstance(process.frame.basis, IdentityBasis):
        raise ValueError(
            "a network alone works on the state's own components, and the process has a "
            f"{type(process.frame.basis).__name__}: use the hybrid denoiser."
        )
    key_init, key_fit = jax.random.split(key)
    if isinstance(network, Architecture):
        network = network.create(key_init, states.shape[1:])
    loss = denoising_loss(network, process_angles(process), weighted=weighted)
    params, history = pretrain(
        key_fit, loss, network.params, states, config, validation=validation, progress=progress, kept=kept
    )
    return network.with_params(params), history
