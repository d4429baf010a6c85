"""The amortised score-based filter, and how it practises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from .... import filters as f
from ....ensemble.inflation import Inflation
from ....filters.base import MemberFilter
from .masf import NetworkSettings

__all__ = ["OnPolicySettings", "PracticeSettings", "masf_amortised"]


@dataclasses.dataclass(frozen=True)
class PracticeSettings:
    """Keys of `filter.practice`; see `masf_jax.amortised.Practice`."""

    runs: int = 64
    cycles: int = 220
    burn_in: int = 20
    intervals: tuple[int, ...] | None = None
    ensemble_sizes: tuple[int, ...] | None = None
    noise: tuple[float, ...] = (1.0, 1.0)
    density: tuple[float, ...] = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class OnPolicySettings:
    """Keys of `filter.training`."""

    rounds: int = 4
    replay: float = 0.6
    cooling: float = 1.0
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    factors: tuple[float, ...] = (0.9, 1.0, 1.1)


_NETWORK = NetworkSettings(width=96, channels=24, multipliers=(1, 1))


def masf_amortised(
    inflation: Inflation,
    *,
    base: Literal["letkf", "etkf", "ensrf", "enkf", "ienkf"] = "letkf",
    radius: float = 7.28,
    rotation: bool = True,
    n_steps: int = 1,
    members: Literal["transported", "fresh"] = "transported",
    centred: bool = True,
    calibration: float | None = None,
    checkpoint: str | None = None,
    network: NetworkSettings = _NETWORK,
    practice: PracticeSettings = PracticeSettings(),
    training: OnPolicySettings = OnPolicySettings(),
    seed: int = 1,
) -> f.Filter:
    """Score-based filter with a denoiser trained on simulated cycles: nothing is trained in a run."""
    from ....denoisers.architecture import Architecture  # Flax: only where it is needed
    from ....masf.amortised.filter import AmortisedMASF

    bases: dict[str, Callable[[], MemberFilter]] = {
        "letkf": lambda: f.LETKF(radius, inflation, rotation),
        "etkf": lambda: f.ETKF(inflation, rotation),
        "ensrf": lambda: f.EnSRF(inflation, rotation),
        "enkf": lambda: f.EnKF(inflation),
        "ienkf": lambda: f.IEnKF(inflation, rotation, iterations=3),
    }
    return AmortisedMASF(
        bases[base](),
        architecture=Architecture(
            **dataclasses.asdict(network), preconditioning="bounded", variance_head=True
        ),
        n_steps=n_steps,
        members=members,
        centred=centred,
        calibration=1.0 if calibration is None else calibration,
        seed=seed,
    )
