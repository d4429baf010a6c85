"""Parts of the score-based filter with a network that is trained, by their sections of keys."""

from __future__ import annotations

import dataclasses
from typing import Any

from ....denoisers.architecture import Architecture
from ....ensemble.inflation import Inflation
from ....masf import MASF, ConditionalNetwork, GaussianPrior, HybridPrior, NetworkPrior, paper_masf
from ....masf.paper import paper_training
from ....masf.routes.conditional_network import conditional_training
from ....training import FitConfig

__all__ = ["Pretraining", "Training", "conditional_network", "hybrid", "masf_paper", "network"]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Keys of `filter.pretraining`: of the network on the model's climatology, unless there is a checkpoint.

    Args:
        states: of the model; those behind a fixed normalisation.
        epochs: passes over them; 0: none.
        learning_rate, batch_size: of the training.
    """

    states: int = 1000
    epochs: int = 200
    learning_rate: float = 3e-4
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"pretraining.epochs must not be negative; got {self.epochs}.")


@dataclasses.dataclass(frozen=True)
class Training:
    """Keys of `filter.training`: of the network on the forecast ensemble, in every cycle.

    Args:
        epochs: passes over the ensemble, 0: none; null: 120 of hybrid and masf_paper, 2000 steps of
            conditional_network, none of network.
        learning_rate: null: 3e-4, 2e-3 of conditional_network.
        batch_size: null: 32, 128 of conditional_network.
        restart: from the pretrained (or fresh) parameters; false: from the last cycle's.
    """

    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    restart: bool = True

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 0:
            raise ValueError(f"training.epochs must not be negative; got {self.epochs}.")

    @property
    def given(self) -> dict[str, Any]:
        """What is set of the optimiser."""
        values = {"learning_rate": self.learning_rate, "batch_size": self.batch_size}
        return {name: value for name, value in values.items() if value is not None}


_EPOCHS = 120  # the paper's


def hybrid(
    gaussian: GaussianPrior,
    network: Architecture = Architecture(),
    training: Training = Training(),
    seed: int = 1,
) -> HybridPrior:
    """The Gaussian, corrected by a network trained in every cycle."""
    if training.epochs == 0:
        raise ValueError("the hybrid prior needs training.epochs of at least 1: it is Gaussian without.")
    return HybridPrior(
        gaussian=gaussian,
        training=FitConfig(validation_fraction=0.0, **training.given),
        epochs=training.epochs or _EPOCHS,
        restart=training.restart,
        architecture=network,
        seed=seed,
    )


def network(
    network: Architecture = Architecture(variance_head=True),
    pretraining: Pretraining = Pretraining(),
    training: Training = Training(),
    seed: int = 1,
) -> NetworkPrior:
    """A network alone, pretrained on the model's climatology."""
    before = FitConfig(pretraining.learning_rate, batch_size=pretraining.batch_size, validation_fraction=0.0)
    return NetworkPrior(
        pretraining=before.for_epochs(pretraining.epochs, pretraining.states) if pretraining.epochs else None,
        training=FitConfig(validation_fraction=0.0, **training.given) if training.epochs else None,
        epochs=training.epochs or None,
        restart=training.restart,
        architecture=network,
        seed=seed,
    )


def conditional_network(
    bandwidth: float | None = None,
    network: Architecture = Architecture(),
    training: Training = Training(),
    corrected: bool = True,
    seed: int = 1,
) -> ConditionalNetwork:
    """A network that knows the measured values, trained in every cycle."""
    if training.epochs == 0:
        raise ValueError(
            f"route=conditional needs training.epochs of at least 1, or null; got {training.epochs}."
        )
    return ConditionalNetwork(
        dataclasses.replace(conditional_training(), **training.given),
        bandwidth,
        epochs=training.epochs,
        restart=training.restart,
        architecture=dataclasses.replace(network, variance_head=corrected),
        seed=seed,
    )


def masf_paper(
    inflation: Inflation,
    n_steps: int | None = None,
    paper_scales: bool = True,
    network: Architecture = Architecture(),
    pretraining: Pretraining = Pretraining(),
    training: Training = Training(),
    checkpoint: str | None = None,
    seed: int = 1,
) -> MASF:
    """MASF as published (Yoon et al. 2026): guided sampler, network pretrained and fine-tuned.

    Args:
        n_steps: of the reverse process; null: 150, 200 for a nonlinear measurement.
        paper_scales: the paper's factors on prior and likelihood score; false: 1.
        checkpoint: a file of masf-jax train: a network to use instead of pretraining one.
        seed: of the climatological states and of the fresh network.
    """
    return paper_masf(
        network,
        pretraining_epochs=pretraining.epochs,
        pretraining=paper_training(pretraining.learning_rate, pretraining.batch_size),
        epochs=_EPOCHS if training.epochs is None else training.epochs,
        training=paper_training(**training.given),
        restart=training.restart,
        n_steps=n_steps,
        paper_scales=paper_scales,
        inflation=inflation,
        climatology=pretraining.states,
        seed=seed,
    )
