"""The filter as published."""

from __future__ import annotations

import dataclasses

from ..denoisers.architecture import Architecture
from ..diffusion.measurement_aware import MeasurementAware
from ..diffusion.samplers import Guided
from ..ensemble.inflation import Inflation
from ..ensemble.normalization import Normalization
from ..training import FitConfig
from .filter import MASF
from .priors.network import NetworkPrior
from .routes.automatic import Automatic
from .routes.dual_head import DualHead

__all__ = ["paper_masf", "paper_training"]

_UNET = Architecture(channels=32, multipliers=(1, 2, 4, 8), blocks=2, attention=(2, 3))


def paper_training(learning_rate: float = 3e-4, batch_size: int = 32) -> FitConfig:
    """A constant learning rate, and the last parameters."""
    return FitConfig(
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
        ema_decay=None,
        validation_fraction=0.0,
    )


def paper_masf(
    architecture: Architecture = _UNET,
    *,
    pretraining_epochs: int = 200,
    pretraining: FitConfig | None = None,
    epochs: int = 120,
    training: FitConfig | None = None,
    restart: bool = True,
    n_steps: int | None = None,
    paper_scales: bool = True,
    inflation: Inflation | None = None,
    climatology: int = 1000,
    seed: int = 1,
) -> MASF:
    """MASF as published: measurement-aware process, guided sampler, a network pretrained and fine-tuned.

    A plain network for x0 and its squared error, without noise-level map; states normalised by the model's
    climatology; for a nonlinear H one network with two heads. It is biased (docs/masf.md): use it to
    reproduce the paper.

    Source: Yoon, Chang, Kim & Kim, arXiv 2604.02889.

    Args:
        architecture: of the network; its preconditioning and noise map are the paper's.
        pretraining_epochs, pretraining: passes over the model's climatology, and how; no passes: none.
        epochs, training: passes over the forecast ensemble in every cycle, and how; no passes: none.
        restart: whether each cycle's training starts from the pretrained network, or where the last ended.
        n_steps: of the reverse process; None: 150, 200 for a nonlinear measurement.
        paper_scales: see `Guided`.
        inflation, climatology, seed: see `MASF`.
    """
    plain = {"noise_map": False, "preconditioning": "x0", "variance_head": False}
    architecture = dataclasses.replace(architecture, **plain)
    pretraining = paper_training() if pretraining is None else pretraining
    prior = NetworkPrior(
        training=(paper_training() if training is None else training) if epochs else None,
        pretraining=pretraining.for_epochs(pretraining_epochs, climatology) if pretraining_epochs else None,
        epochs=epochs or None,
        restart=restart,
        weighted=False,
        architecture=architecture,
        seed=seed,
    )
    return MASF(
        prior,
        MeasurementAware(),
        Guided(150 if n_steps is None else n_steps, paper_scales=paper_scales),
        Automatic(DualHead(200 if n_steps is None else n_steps)),
        inflation,
        Normalization("fixed"),
        climatology,
        seed,
    )
