"""Systems of `amortised.py`: twin experiments, base filters of the checkpoints, trials of the rivals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import numpy as np

from masf_jax import dynamics as d, filters as f, measurements as m
from masf_jax.dynamics import spun_up_ensemble
from masf_jax.ensemble import Inflation


@dataclasses.dataclass(frozen=True)
class System:
    """A twin experiment; members start `spread` around the truth, or (None) independently of it."""

    dynamics: d.Dynamics
    measurement: m.Measurement
    interval: int
    members: int
    base: f.EnsembleFilter
    rivals: dict[str, dict[str, f.Filter]]
    checkpoint: str
    cycles: int = 1000
    burn_in: int = 200
    spread: float | None = 0.1
    n_steps: int = 1
    truth: d.Dynamics | None = None  # None: the filter's own model
    missing: float = 0.0  # share of the measured values that are missing
    others: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def start(self, key: jax.Array, key_members: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Truth and members at the beginning."""
        truth = self.dynamics.sample_climatology(key)
        if self.spread is None:
            return truth, spun_up_ensemble(self.dynamics, key_members, self.members)
        noise = jax.random.normal(key_members, (self.members, *truth.shape), truth.dtype)
        return truth, truth[None] + self.spread * noise


def _letkf(radii: Sequence[float], inflations: Sequence[float], rotation: bool = True) -> dict[str, f.Filter]:
    return {
        f"radius {radius:g}, inflation {inflation:g}": f.LETKF(radius, Inflation(inflation), rotation)
        for radius, inflation in product(radii, inflations)
    }


def _etkf(inflations: Sequence[float]) -> dict[str, f.Filter]:
    return {f"inflation {i:g}": f.ETKF(Inflation(i), rotation=True) for i in inflations}


def _enkf_n(certainties: Sequence[float]) -> dict[str, f.Filter]:
    return {f"certainty {c:g}": f.EnKFN(rotation=True, certainty=c) for c in certainties}


def _ienkf(inflations: Sequence[float]) -> dict[str, f.Filter]:
    return {f"inflation {i:g}": f.IEnKF(Inflation(i), rotation=True) for i in inflations}


def _gaussian(operator: m.Operator, std: float) -> m.Measurement:
    return m.Measurement(operator, m.Gaussian(std))


def lorenz63(members: int = 50, checkpoint: str = "lorenz63_sakov2012") -> System:
    rivals = {
        "ETKF": _etkf((1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.07, 1.1, 1.15, 1.2, 1.3, 1.4)),
        "EnKF-N": _enkf_n((0.25, 0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)),
        "IEnKF": _ienkf((1.0, 1.005, 1.01, 1.015, 1.02, 1.03, 1.04, 1.05, 1.07, 1.1, 1.15, 1.2)),
    }
    base = f.EnSRF(Inflation(1.05))  # its network sees how each member moves: no rotation, as in its training
    measurement = _gaussian(m.Identity(), 2**0.5)
    return System(d.Lorenz63(dt=0.01), measurement, 25, members, base, rivals, checkpoint)


def lorenz63_small() -> System:
    return lorenz63(10)


def lorenz96() -> System:
    rivals = {"LETKF": _letkf((8, 10, 12, 14), (1.01, 1.02, 1.04))}
    base = f.LETKF(12.0, Inflation(1.02), rotation=True)
    measurement = _gaussian(m.Identity(), 1.0)
    return System(d.Lorenz96(40), measurement, 1, 20, base, rivals, "lorenz96_sakov2008")


def lorenz96_half() -> System:
    base = f.LETKF(6.5, Inflation(1.1), rotation=True)
    half = m.Subset(np.arange(0, 40, 2))
    others = {
        "as trained": {},
        "every 4th variable": {"measurement": _gaussian(m.Subset(np.arange(0, 40, 4)), 1.0)},
        "a random half is missing": {"missing": 0.5},
        "all variables": {"measurement": _gaussian(m.Identity(), 1.0)},
        "noise .5": {"measurement": _gaussian(half, 0.5)},
        "noise 2": {"measurement": _gaussian(half, 2.0)},
        "N = 10": {"members": 10},
        "N = 40": {"members": 40},
        "interval .1": {"interval": 2},
        "interval .3": {"interval": 6},
        "true forcing 8.5": {"truth": d.Lorenz96(40, forcing=8.5)},
    }
    rivals = {"LETKF": _letkf((4, 5, 6.5, 8), (1.06, 1.1, 1.15))}
    return System(
        d.Lorenz96(40), _gaussian(half, 1.0), 4, 20, base, rivals, "lorenz96_partial", others=others
    )


def lorenz96_arctan_half() -> System:
    base = f.LETKF(14.0, Inflation(1.03), rotation=True)
    operator = m.Compose(m.arctan(), m.Subset(np.arange(0, 40, 2)))
    rivals = {"LETKF": _letkf((6, 9, 14, 20), (1.02, 1.04, 1.07))}
    model = d.Lorenz96(40, dt=0.01)
    return System(model, _gaussian(operator, 0.05), 10, 20, base, rivals, "lorenz96_arctan_half")


def ks() -> System:
    base = f.LETKF(51, Inflation(1.02), rotation=True)
    rivals = {"LETKF": _letkf((25, 35, 51, 70), (1.01, 1.02, 1.04))}
    model = d.KuramotoSivashinsky(128, 32 * np.pi, 0.5)
    return System(model, _gaussian(m.Identity(), 1.0), 2, 16, base, rivals, "ks_bocquet2019")


def kolmogorov(
    kind: str, base: f.LETKF, radii: Sequence[float], inflations: Sequence[float]
) -> Callable[[], System]:
    """A preset of the 64² flow."""

    def make() -> System:
        from masf_jax.cli.config.builders.dynamics import DYNAMICS
        from masf_jax.cli.config.builders.measurement import MEASUREMENTS
        from masf_jax.cli.config.compose import compose

        name = f"kolmogorov_{kind}"
        settings = compose([f"experiment={name}"])
        model = DYNAMICS.build(settings.dynamics)
        measurement = MEASUREMENTS.build(
            settings.measurement, model.state_shape, model.coordinates
        ).measurement
        rivals = {"LETKF": _letkf(radii, inflations, rotation=False)}
        return System(model, measurement, 10, 10, base, rivals, name, cycles=100, burn_in=10, spread=None)

    return make


def kolmogorov_any() -> System:
    """One network for all masks: trained with random shares of .5 to 10 % of the values, noise .05 to .2."""
    system = kolmogorov("grid", f.LETKF(4, Inflation(1.1)), (4, 5), (1.1, 1.2))()
    shape = system.dynamics.state_shape
    rng = np.random.default_rng(11)

    def seen(mask: np.ndarray, std: float = 0.1) -> dict[str, m.Measurement]:
        return {"measurement": _gaussian(m.Subset.from_mask(mask), std)}

    part = np.array(m.grid_stride(shape, 8))
    part[..., shape[-1] // 2 :] = False
    others = {
        "every 10th point": {},
        "every 6th point": seen(m.grid_stride(shape, 6)),
        "every 16th point": seen(m.grid_stride(shape, 16)),
        "a random 3 % of the values": seen(rng.uniform(size=shape) < 0.03),
        "every 8th point of one half": seen(part),
        "every 10th point, noise .3": seen(m.grid_stride(shape, 10), 0.3),
    }
    return dataclasses.replace(system, cycles=40, checkpoint="kolmogorov_any", others=others)


SYSTEMS: dict[str, Callable[[], System]] = {
    "lorenz63": lorenz63,
    "lorenz63_small": lorenz63_small,
    "lorenz96": lorenz96,
    "lorenz96_half": lorenz96_half,
    "lorenz96_arctan_half": lorenz96_arctan_half,
    "ks": ks,
    "kolmogorov": kolmogorov("grid", f.LETKF(5, Inflation(1.1)), (5, 7), (1.1, 1.2)),
    "kolmogorov_any": kolmogorov_any,
    "kolmogorov_center": kolmogorov("center", f.LETKF(4, Inflation(1.1)), (3, 4, 5), (1.1, 1.2)),
    "kolmogorov_sigmoid": kolmogorov("sigmoid", f.LETKF(2.5, Inflation(1.3)), (2, 2.5, 3.5), (1.15, 1.3)),
    "kolmogorov_speed": kolmogorov("speed", f.LETKF(0.6, Inflation(1.0)), (0.6, 1.2, 2.5), (1.0, 1.2)),
}
