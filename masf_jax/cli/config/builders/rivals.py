"""Score- and flow-based filters of other papers (docs/rivals.md)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from .... import filters as f
from ....diffusion.linear_schedule import LinearSchedule
from ....ensemble.inflation import Inflation
from ....ensemble.normalization import Normalization
from .masf import NetworkSettings

if TYPE_CHECKING:
    from ....filters.rivals.score_network import ScoreNetwork

__all__ = ["conditional_diffusion", "enff", "ensf", "ensf_lr", "iensf", "score_filter", "ssls"]


@dataclasses.dataclass(frozen=True)
class CycleTrainingSettings:
    """Keys of `filter.training`."""

    steps: int = 100
    learning_rate: float = 1e-3
    batch_size: int = 32
    restart: bool = True


_NETWORK = NetworkSettings(width=64, depth=1, layout="vector")
_TRAINING = CycleTrainingSettings()


def _normalization(kind: Literal["cycle", "moving"] | None) -> Normalization | None:
    return None if kind is None else Normalization(kind)


def _ensf_sampler(
    eps_alpha: float,
    eps_beta: float,
    n_steps: int,
    batch_size: int | None,
    start: Literal["standardised", "noise", "forecast"],
    limit: float | None,
) -> f.EnSFSampler:
    return f.EnSFSampler(LinearSchedule(eps_alpha, eps_beta), n_steps, batch_size, start, limit)


def ensf(
    inflation: Inflation,
    *,
    eps_alpha: float = 0.5,
    eps_beta: float = 0.025,
    n_steps: int = 500,
    batch_size: int | None = 1,
    start: Literal["standardised", "noise", "forecast"] = "standardised",
    limit: float | None = 1000.0,
    normalization: Literal["cycle", "moving"] | None = None,
) -> f.Filter:
    """Ensemble score filter (Bao et al. 2024)."""
    sampler = _ensf_sampler(eps_alpha, eps_beta, n_steps, batch_size, start, limit)
    return f.EnSF(inflation, _normalization(normalization), sampler)


def ensf_lr(
    inflation: Inflation,
    *,
    eps_alpha: float = 0.5,
    eps_beta: float = 0.025,
    n_steps: int = 500,
    batch_size: int | None = 1,
    start: Literal["standardised", "noise", "forecast"] = "standardised",
    limit: float | None = 1000.0,
    normalization: Literal["cycle", "moving"] | None = None,
    ridge: float = 1e-3,
) -> f.Filter:
    """EnSF where something is measured, regression elsewhere (EnSF-LR)."""
    sampler = _ensf_sampler(eps_alpha, eps_beta, n_steps, batch_size, start, limit)
    return f.EnSFLR(inflation, _normalization(normalization), sampler, ridge)


def iensf(
    inflation: Inflation,
    *,
    prior: Literal["diagonal", "ensemble", "mixture"] = "diagonal",
    eps_alpha: float = 0.05,
    eps_beta: float = 0.0,
    n_steps: int = 500,
    iterations: int = 5,
    limit: float | None = 1000.0,
    normalization: Literal["cycle", "moving"] | None = "cycle",
) -> f.Filter:
    """Iterative ensemble score filter, exact where all is Gaussian (Zhang et al. 2025)."""
    schedule = LinearSchedule(eps_alpha, eps_beta)
    return f.IEnSF(inflation, _normalization(normalization), prior, schedule, n_steps, iterations, limit)


def enff(
    inflation: Inflation,
    *,
    path: Literal["ot", "f2p"] = "ot",
    n_steps: int = 100,
    guidance: float = 0.2,
    sigma_min: float = 0.1,
    normalization: Literal["cycle", "moving"] | None = None,
) -> f.Filter:
    """Ensemble flow filter (Transue et al. 2025)."""
    return f.EnFF(inflation, _normalization(normalization), path, n_steps, guidance, sigma_min)


def conditional_diffusion(
    inflation: Inflation,
    *,
    rule: Literal["given", "silverman", "cross_validated"] = "cross_validated",
    h: float = 0.2,
    h_y: float = 0.2,
    h_max: float = 5.0,
    tolerance: float = 1e-3,
    flow: bool = True,
    normalization: Literal["cycle", "moving"] | None = "cycle",
) -> f.Filter:
    """Closed-form conditional diffusion (Binder et al. 2026)."""
    from ....filters.rivals.conditional_diffusion import (
        ConditionalDiffusion,  # Diffrax: only where it is needed
    )

    units = _normalization(normalization)
    return ConditionalDiffusion(inflation, units, rule, h, h_y, h_max, tolerance, flow)


def score_filter(
    inflation: Inflation,
    *,
    sigma: float = 25.0,
    n_steps: int = 100,
    cap: float = 100.0,
    network: NetworkSettings = _NETWORK,
    training: CycleTrainingSettings = _TRAINING,
    normalization: Literal["cycle", "moving"] | None = "cycle",
    seed: int = 1,
) -> f.Filter:
    """Score filter: a score network trained in every cycle (Bao et al. 2024)."""
    from ....filters.rivals.score_filter import ExplodingSampler, ScoreFilter

    sampler = ExplodingSampler(sigma, n_steps, cap)
    learned = _score_network(network, training, seed)
    return ScoreFilter(inflation, _normalization(normalization), learned, sampler)


def ssls(
    inflation: Inflation,
    *,
    sigma: float = 0.2,
    step: float = 5e-3,
    n_steps: int = 200,
    network: NetworkSettings = _NETWORK,
    training: CycleTrainingSettings = _TRAINING,
    normalization: Literal["cycle", "moving"] | None = "cycle",
    seed: int = 1,
) -> f.Filter:
    """Score-based sequential Langevin sampling (Ding et al. 2024)."""
    from ....filters.rivals.ssls import SSLS, LangevinSampler

    sampler = LangevinSampler(sigma, step, n_steps)
    learned = _score_network(network, training, seed)
    return SSLS(inflation, _normalization(normalization), learned, sampler)


def _score_network(network: NetworkSettings, training: CycleTrainingSettings, seed: int) -> ScoreNetwork:
    from ....denoisers.architecture import Architecture  # Flax and Optax: only where they are needed
    from ....filters.rivals.score_network import ScoreNetwork
    from ....training import FitConfig

    config = FitConfig(
        learning_rate=training.learning_rate,
        steps=training.steps,
        batch_size=training.batch_size,
        validation_fraction=0.0,
    )
    architecture = Architecture(**dataclasses.asdict(network))
    return ScoreNetwork(training=config, restart=training.restart, architecture=architecture, seed=seed)
