"""Families of models on rings that networks of the package were trained on together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from masf_jax import dynamics as d, filters as f, measurements as m
from masf_jax.amortised import Course, Practice, load_amortised, pretrained_file
from masf_jax.ensemble import Inflation
from masf_jax.training.config import Optimiser

from .ring_models import Burgers, TwoScaleLorenz96

__all__ = ["BLOCKS", "RING_FAMILIES", "Family"]

BLOCKS = 64
PARTS: dict[str, Any] = {"noise": (0.4, 2.5), "spread": 0.5, "cycles": 140, "burn_in": 20}


@dataclasses.dataclass(frozen=True)
class Family:
    """Systems of 64 values, and how their network is trained.

    Attributes:
        home: the model whose network it is to be, where the package is asked for the nearest.
        lorenz96: forcing, (radius, inflation) of the base, intervals, ensemble sizes, shares measured.
        sivashinsky: length instead of the forcing.
        two_scales: forcing, of Lorenz-96 with four fast variables to each slow one, which alone are measured.
        burgers: viscosity instead of the forcing; noise of .3.
        start: a network of the package, trained further.
        runs, rounds, steps, cooling, seed, batch_size: of the training.
        window: cycles of a step, of a training through cycles; None: by rounds.
    """

    home: str
    lorenz96: tuple[Any, ...]
    sivashinsky: tuple[Any, ...]
    start: str
    runs: int
    rounds: int
    steps: int
    cooling: float
    seed: int
    window: int | None = None
    batch_size: int = 64
    two_scales: tuple[Any, ...] = ()
    burgers: tuple[Any, ...] = ()
    learning_rate: float = 1e-3
    optimiser: Optimiser = "adamw"

    def courses(self) -> list[Course]:
        rings = [self.course(d.Lorenz96(BLOCKS, forcing=each[0]), *each[1:]) for each in self.lorenz96]
        waves = [d.KuramotoSivashinsky(BLOCKS, length=each[0], dt=0.5) for each in self.sivashinsky]
        slow = m.Measurement(m.Subset(range(BLOCKS)), m.Gaussian(1.0))
        rough = m.Measurement(m.Identity(), m.Gaussian(0.3))
        scales = [TwoScaleLorenz96(BLOCKS, 4, each[0], inner=5) for each in self.two_scales]
        shocks = [Burgers(BLOCKS, each[0]) for each in self.burgers]
        return [
            *rings,
            *(self.course(model, *each[1:]) for model, each in zip(waves, self.sivashinsky, strict=True)),
            *(
                self.course(model, *each[1:], slow, 0.1)
                for model, each in zip(scales, self.two_scales, strict=True)
            ),
            *(
                self.course(model, *each[1:], rough, 0.1)
                for model, each in zip(shocks, self.burgers, strict=True)
            ),
        ]

    def course(
        self,
        model: d.Dynamics,
        base: Any,
        intervals: Any,
        sizes: Any,
        density: Any,
        sensor: m.Measurement | None = None,
        spread: float = PARTS["spread"],
    ) -> Course:
        letkf = f.LETKF(base[0], Inflation(base[1]), rotation=True)
        start = pretrained_file(self.start)
        filter = load_amortised(start, letkf, state_shape=model.state_shape, climate=None, calibration=1.0)
        ranges: dict[str, Any] = {"intervals": intervals, "ensemble_sizes": sizes, "density": density}
        practice = Practice(runs=self.runs, **ranges, **(PARTS | {"spread": spread}), widths=(1.0, 1.0))
        return Course(filter, model, sensor or m.Measurement(m.Identity(), m.Gaussian(1.0)), practice)

    def alike(self, courses: Sequence[Course]) -> Sequence[Course]:
        """Those whose cells say how smooth a state the network is made for."""
        return courses[len(self.lorenz96) :][: len(self.sivashinsky)]

    def trained_on(self, correlation: float) -> dict[str, Any]:
        """What the file says of it, as `masf-jax train` does."""
        systems = [*self.lorenz96, *self.sivashinsky, *self.two_scales, *self.burgers]
        others = {
            "two_scale_lorenz96_forcings": sorted({each[0] for each in self.two_scales}),
            "burgers_viscosities": sorted({each[0] for each in self.burgers}),
        }
        noise = {"law": "gaussian", "std": 1.0}
        intervals, sizes, shares = (sorted({x for each in systems for x in each[i]}) for i in (2, 3, 4))
        ranges = {"intervals": intervals, "ensemble_sizes": sizes, "density": [shares[0], shares[-1]]}
        return {
            "measurement": {"name": "identity", "noise": noise},
            "dynamics": {
                "name": "rings",
                "n": BLOCKS,
                "lorenz96_forcings": sorted({each[0] for each in self.lorenz96}),
                "kuramoto_sivashinsky_lengths": sorted({float(each[0]) for each in self.sivashinsky}),
            }
            | {name: values for name, values in others.items() if values},
            "models": len(systems),
            "filter": {
                "inflation": sorted({each[1][1] for each in systems}),
                "radius": sorted({each[1][0] for each in systems}),
                "rotation": True,
            }
            | ({} if self.window is None else {"training": {"window": self.window, "steps": self.steps}}),
            "practice": PARTS | {"runs": self.runs} | ranges | {"noise": list(PARTS["noise"])},
            "correlation": correlation,
            "seed": self.seed,
        }


RINGS: Any = (
    (
        (8.0, (6.5, 1.1), (4,), (20,), (0.2, 1.0)),
        (8.0, (4.0, 1.04), (2,), (10,), (0.2, 1.0)),
        (8.0, (12.0, 1.02), (1,), (20,), (0.5, 1.0)),
        (6.0, (9.0, 1.2), (4,), (40,), (0.2, 1.0)),
        (5.5, (5.0, 1.06), (6,), (20,), (0.3, 1.0)),
        (10.0, (5.0, 1.15), (3,), (16,), (0.25, 1.0)),
        (12.0, (7.0, 1.3), (2,), (30,), (0.25, 1.0)),
    ),
    (
        (16 * np.pi, (51.0, 1.02), (2,), (16,), (0.3, 1.0)),
        (16 * np.pi, (20.0, 1.06), (2,), (10,), (0.1, 1.0)),
        (12 * np.pi, (30.0, 1.04), (4,), (20,), (0.1, 1.0)),
        (22.0, (15.0, 1.1), (2,), (20,), (0.1, 0.8)),
        (14 * np.pi, (25.0, 1.2), (1,), (30,), (0.1, 1.0)),
    ),
)
"""Systems of the families `rings`, `rings_cycles` and, with others beside, `rings_four`."""

RING_FAMILIES = {
    "rings": Family(
        "rings",
        *RINGS,
        start="lorenz96_masks",
        runs=8,
        rounds=14,
        steps=2500,
        cooling=0.9,
        seed=120,
    ),
    "rings_cycles": Family(
        "rings",
        *RINGS,
        start="rings",
        runs=64,
        rounds=1,
        steps=12_000,
        cooling=1.0,
        seed=122,
        window=6,
        batch_size=8,
    ),
    "rings_four": Family(
        "rings",
        *RINGS,
        start="rings_cycles",
        runs=64,
        rounds=1,
        steps=14_000,
        cooling=1.0,
        seed=123,
        window=6,
        batch_size=8,
        two_scales=(
            (10.0, (6.0, 1.05), (2,), (10,), (0.3, 1.0)),
            (8.0, (9.0, 1.1), (1,), (16,), (0.2, 0.7)),
        ),
        burgers=(
            (0.1, (12.0, 1.05), (10,), (20,), (0.1, 1.0)),
            (0.07, (6.0, 1.1), (4,), (10,), (0.05, 0.5)),
        ),
        learning_rate=1e-3,
        optimiser="muon",
    ),
}
