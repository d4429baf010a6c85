"""Families of flows that networks of the package were trained on together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from masf_jax import dynamics as d, filters as f, measurements as m
from masf_jax.amortised import Course, Practice, load_amortised, pretrained_file
from masf_jax.ensemble import Inflation
from masf_jax.training.config import Optimiser

__all__ = ["FLOWS", "FlowFamily"]

POINTS, STD = 64, 0.1
PARTS: dict[str, Any] = {"noise": (0.5, 2.0), "spread": 0.5, "burn_in": 3}


class Flow(NamedTuple):
    """A Kolmogorov flow on 64² points, its untuned base, and what it is measured with."""

    reynolds: float
    waves: int
    drag: float
    length: float
    base: tuple[float, float]
    interval: int
    members: int
    density: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class FlowFamily:
    """Flows of several Reynolds numbers, forcings, drags and domains; `home` and the rest as of `Family`."""

    home: str
    flows: tuple[Flow, ...]
    start: str
    runs: int
    cycles: int
    rounds: int
    steps: int
    cooling: float
    seed: int
    batch_size: int = 8
    window: int | None = None
    learning_rate: float = 1e-3
    optimiser: Optimiser = "adamw"

    def courses(self) -> list[Course]:
        return [self.course(each) for each in self.flows]

    def course(self, flow: Flow) -> Course:
        model = d.Kolmogorov(
            POINTS,
            reynolds=flow.reynolds,
            forcing_waves=flow.waves,
            drag=flow.drag,
            length=flow.length,
        )
        letkf = f.LETKF(flow.base[0], Inflation(flow.base[1]))
        shape = model.state_shape
        filter = load_amortised(
            pretrained_file(self.start), letkf, state_shape=shape, climate=None, calibration=1.0
        )
        ranges: dict[str, Any] = {"intervals": (flow.interval,), "ensemble_sizes": (flow.members,)}
        ranges |= {"density": flow.density, "widths": (1.0, 1.0)}
        practice = Practice(runs=self.runs, cycles=self.cycles, **ranges, **PARTS)
        return Course(filter, model, m.Measurement(m.Identity(), m.Gaussian(STD)), practice)

    def alike(self, courses: Sequence[Course]) -> Sequence[Course]:
        """Those whose cells say how smooth a state the network is made for."""
        return courses

    def trained_on(self, correlation: float) -> dict[str, Any]:
        """What the file says of it, as `masf-jax train` does."""

        def seen(name: str) -> list[Any]:
            return sorted({getattr(each, name) for each in self.flows})

        def between(name: str) -> dict[str, list[Any]]:
            return {"between": [seen(name)[0], seen(name)[-1]]}

        shares = [share for each in self.flows for share in each.density]
        practice = {"intervals": seen("interval"), "ensemble_sizes": seen("members")}
        return {
            "measurement": {"name": "grid_mask", "stride": 1, "noise": {"law": "gaussian", "std": STD}},
            "dynamics": {
                "name": self.home,
                "shape": [POINTS, POINTS],
                "dt": 0.2,
                "length": [float(self.flows[0].length)] * 2,
                "forcing": 1.0,
                "hyperviscosity": 0.0,
                "random_forcing": 0.0,
                "model_error": 0.0,
                "reynolds": between("reynolds"),
                "forcing_waves": between("waves"),
                "drag": between("drag"),
            },
            "models": len(self.flows),
            "filter": {
                "inflation": sorted({each.base[1] for each in self.flows}),
                "radius": sorted({each.base[0] for each in self.flows}),
                "rotation": False,
            },
            "practice": PARTS
            | practice
            | {"noise": list(PARTS["noise"]), "runs": self.runs, "cycles": self.cycles}
            | {"density": [min(shares), max(shares)]},
            "correlation": correlation,
            "seed": self.seed,
            "from": self.start,
        }


FLOWS = {
    "flows": FlowFamily(
        "kolmogorov",
        (
            Flow(1000.0, 4, 0.1, 2 * np.pi, (4.0, 1.1), 10, 10, (0.005, 0.1)),
            Flow(500.0, 3, 0.1, 2 * np.pi, (6.0, 1.06), 10, 10, (0.005, 0.05)),
            Flow(2000.0, 6, 0.05, 2 * np.pi, (5.0, 1.2), 10, 10, (0.01, 0.2)),
            Flow(700.0, 5, 0.2, 2 * np.pi, (3.0, 1.1), 5, 16, (0.01, 0.1)),
            Flow(1000.0, 6, 0.1, 2 * np.pi, (4.0, 1.15), 10, 10, (0.01, 0.1)),
            Flow(500.0, 5, 0.1, 3 * np.pi, (5.0, 1.05), 10, 8, (0.01, 0.2)),
        ),
        start="kolmogorov_masks",
        runs=4,
        cycles=33,
        rounds=4,
        steps=1000,
        cooling=0.8,
        seed=130,
    ),
}
