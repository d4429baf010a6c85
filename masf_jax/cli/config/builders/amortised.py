"""The amortised score-based filter, and how it practises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from .... import filters as f
from ....denoisers.architecture import Architecture
from ....ensemble.inflation import Inflation
from ....filters.base import MemberFilter

__all__ = ["OnPolicySettings", "PracticeSettings", "masf_amortised"]


@dataclasses.dataclass(frozen=True)
class PracticeSettings:
    """Keys of `filter.practice`: the simulated cycles that masf-jax train learns from.

    Args:
        runs: at once, for each interval and ensemble size.
        cycles, burn_in: of each run, and how many of its first are left out.
        intervals: model steps between measurements; null: steps_per_cycle.
        ensemble_sizes: null: ensemble_size.
        noise: noise std of a run over the measurement's, log-uniform between these.
        density: share of the measured values that a run has, uniform between these.
        widths: in every second run the spread of each analysis is multiplied by a factor, log-uniform between
            these; null: not, but from=CHECKPOINT [0.6, 1.7].
    """

    runs: int = 64
    cycles: int = 220
    burn_in: int = 20
    intervals: tuple[int, ...] | None = None
    ensemble_sizes: tuple[int, ...] | None = None
    noise: tuple[float, ...] = (1.0, 1.0)
    density: tuple[float, ...] = (1.0, 1.0)
    widths: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class OnPolicySettings:
    """Keys of `filter.training`, of masf-jax train.

    Args:
        window: 0: each analysis learns by itself, by rounds. Above: by derivatives through so many cycles, in
            one training of `steps`, batch_size runs side by side; rounds, replay, cooling, factors unused.
        score: of an analysis, where there is a window: gaussian (mean and spread), or of the members as they
            are, for networks that see them: crps (each component), energy (whole states).
        rounds: the first learns from the base filter's cycles, the others from the filter's own.
        replay: share of a round's pairs that are those of the round before; the rest are new.
        cooling: factor on the learning rate after each round but the first.
        steps, batch_size: of the optimiser, a round.
        learning_rate: halved after the first round.
        weight_decay: of the optimiser.
        optimiser: adamw, or muon, which through cycles took a third of the steps (docs/amortised.md).
        factors: on the learned spread, tried at the end; the best becomes the calibration.
    """

    window: int = 0
    score: Literal["gaussian", "crps", "energy"] = "gaussian"
    rounds: int = 4
    replay: float = 0.6
    cooling: float = 1.0
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    optimiser: Literal["adamw", "muon"] = "adamw"
    factors: tuple[float, ...] = (0.9, 1.0, 1.1)


_NETWORK = Architecture(
    width=96, channels=24, multipliers=(1, 1), preconditioning="bounded", variance_head=True
)


def masf_amortised(
    inflation: Inflation,
    *,
    base: Literal["letkf", "etkf", "ensrf", "enkf", "ienkf", "three_d_var"] = "letkf",
    radius: float = 7.28,
    rotation: bool = True,
    n_steps: int = 1,
    members: Literal["transported", "fresh"] = "transported",
    centred: bool = True,
    calibration: float | None = None,
    checkpoint: str | None = None,
    gate: bool | None = None,
    gate_radius: float | None = None,
    coarsening: int | None = None,
    network: Architecture = _NETWORK,
    practice: PracticeSettings = PracticeSettings(),
    training: OnPolicySettings = OnPolicySettings(),
    seed: int = 1,
) -> f.Filter:
    """Score-based filter with a denoiser trained on simulated cycles: nothing is trained in a run.

    Args:
        base: whose analysis the network corrects (ienkf: 3 iterations; three_d_var: the model runs once).
        radius: of letkf: Gaspari-Cohn length, support 2·radius; inf: no localisation.
        rotation: of letkf, etkf, ensrf, ienkf: random mean-preserving rotation each analysis.
        n_steps: of the reverse process: network evaluations per member, the first for all members together.
        members: of the first step: the base filter's, moved and scaled; fresh: independent draws.
        centred: several steps: keep the mean that the first one knows.
        calibration: factor on the learned spread; null: the checkpoint's.
        checkpoint: a file of masf-jax train; null: the one in the package for this experiment.
        gate: run the base filter beside, and use the network where its forecasts are nearer to what is
            measured (see `Gate`; twice the cost); null: where the run is not one that it was trained for.
        gate_radius: each point of the grid has the filter that is ahead near it, by the values within twice
            this distance; null: one for the whole state.
        coarsening: the network sees blocks of so many cells each way; null: as many as are as large as a cell
            of its training, by the length of the domain for the same model, else by the model's climate.
        seed: of the climatology and of a fresh network.
    """
    from ....masf.amortised.filter import AmortisedMASF

    bases: dict[str, Callable[[], MemberFilter | f.ThreeDVar]] = {
        "letkf": lambda: f.LETKF(radius, inflation, rotation),
        "etkf": lambda: f.ETKF(inflation, rotation),
        "ensrf": lambda: f.EnSRF(inflation, rotation),
        "enkf": lambda: f.EnKF(inflation),
        "ienkf": lambda: f.IEnKF(inflation, rotation, iterations=3),
        "three_d_var": f.ThreeDVar,
    }
    return AmortisedMASF(
        bases[base](),
        architecture=network,
        n_steps=n_steps,
        members=members,
        centred=centred,
        calibration=1.0 if calibration is None else calibration,
        seed=seed,
        coarsening=1 if coarsening is None else coarsening,
    )
