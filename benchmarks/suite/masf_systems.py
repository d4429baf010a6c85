"""Systems, methods and trials of `masf_filters.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import jax

from masf_jax import dynamics, filters as f, masf, measurements as m
from masf_jax.amortised import load_amortised, pretrained_file
from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.builders.measurement import MEASUREMENTS
from masf_jax.cli.config.compose import compose
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import spun_up_ensemble
from masf_jax.masf.paper import paper_training
from masf_jax.training import FitConfig


@dataclasses.dataclass(frozen=True)
class Trial:
    """One setting of the tuned knobs; None: the method does not have it."""

    inflation: float = 1.0
    rtps: float = 0.0
    rate: float | None = None
    radius: float | None = None
    epochs: int | None = None

    @property
    def structure(self) -> tuple[float | None, int | None]:
        """What changes the program; the rest are arrays in it."""
        return self.radius, self.epochs

    def __str__(self) -> str:
        known = {k: v for k, v in dataclasses.asdict(self).items() if v is not None and (k, v) != ("rtps", 0)}
        return ", ".join(f"{'learning rate' if k == 'rate' else k} {v:g}" for k, v in known.items())


@dataclasses.dataclass(frozen=True)
class Method:
    """A filter by (radius, epochs), and the trials; `several`: seeds and trials are worth a vmap."""

    build: Callable[[float | None, int | None], f.Filter]
    trials: tuple[Trial, ...]
    several: bool = True


@dataclasses.dataclass(frozen=True)
class System:
    """A twin experiment; members start `spread` around the truth, or (None) independently of it."""

    dynamics: dynamics.Dynamics
    measurement: m.Measurement
    steps_per_cycle: int
    members: int
    spread: float | None
    cycles: int  # scored, in the evaluation
    tuning_cycles: int
    burn_in: int
    methods: dict[str, Method]

    def start(self, key: jax.Array, key_members: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Truth and members at the beginning."""
        truth = self.dynamics.sample_climatology(key)
        if self.spread is None:
            return truth, spun_up_ensemble(self.dynamics, key_members, self.members)
        noise = jax.random.normal(key_members, (self.members, *truth.shape), truth.dtype)
        return truth, truth[None] + self.spread * noise


def grid(**knobs: Sequence[Any]) -> tuple[Trial, ...]:
    """Every combination."""
    return tuple(Trial(**dict(zip(knobs, values, strict=True))) for values in product(*knobs.values()))


def classical(inflations: Sequence[float], local: tuple[Trial, ...], rotation: bool) -> dict[str, Method]:
    """Kalman filters: with a radius by the trials `local`, without one by the inflations."""
    alone = grid(inflation=inflations)
    enkf = Method(lambda radius, epochs: f.EnKF(), alone)
    if not local:
        return {
            "ETKF, rotation": Method(lambda radius, epochs: f.ETKF(rotation=rotation), alone),
            "EnKF": enkf,
            "masf_gaussian": Method(lambda radius, epochs: perturbed(float("inf")), alone),
            "masf_gaussian, transported": Method(lambda radius, epochs: transported(None), alone),
        }
    return {
        "LETKF": Method(lambda radius, epochs: f.LETKF(radius or 1.0, rotation=rotation), local),
        "EnKF, no localisation": enkf,
        "MASF, localised Gaussian": Method(lambda radius, epochs: perturbed(radius or 1.0), local),
        "MASF, transported": Method(lambda radius, epochs: transported(radius), local),
    }


def transported(radius: float | None) -> f.MASF:
    """Members transported and rotated; nonlinear H by tangents at the mean."""
    prior = masf.GaussianPrior(float("inf") if radius is None else radius, rotation=True)
    return f.MASF(prior, route=masf.Automatic(masf.Linearized("mean", 3)))


def perturbed(radius: float) -> f.MASF:
    """Members perturbed; nonlinear H by tangents at each of them."""
    return f.MASF(masf.GaussianPrior(radius, "perturbed"))


def learned(
    network: Architecture,
    states: int,
    pretraining_epochs: int,
    n_steps: int,
    several: bool,
    members: int,
    **trials: tuple[Trial, ...],
) -> dict[str, Method]:
    """The hybrid, the paper's filter, and the paper's filter without its training in the cycles.

    One batch is the whole ensemble, so that an epoch is one optimiser step. States in one dimension get an
    MLP, rings too (layout "vector"): a training step costs a hundredth of a U-Net's.
    """

    def hybrid(radius: float | None, epochs: int | None) -> f.Filter:
        prior = masf.HybridPrior(
            training=FitConfig(learning_rate=3e-4, batch_size=members, validation_fraction=0.0),
            epochs=epochs,
            architecture=network,
            seed=1,
            gaussian=masf.GaussianPrior(float("inf") if radius is None else radius, rotation=True),
        )
        return f.MASF(prior)

    def paper(radius: float | None, epochs: int | None) -> f.Filter:
        return masf.paper_masf(
            network,
            pretraining_epochs=pretraining_epochs,
            epochs=epochs or 0,
            training=paper_training(batch_size=members),
            n_steps=n_steps,
            climatology=states,
        )

    builders = {"hybrid": hybrid, "paper": paper, "pretrained": paper}
    names = {
        "hybrid": "MASF hybrid, trained each cycle",
        "paper": "masf_paper",
        "pretrained": "masf_paper, pretrained only",
    }
    return {names[kind]: Method(builders[kind], found, several) for kind, found in trials.items()}


def lorenz63() -> System:
    twelve = (1.0, 1.01, 1.02, 1.03, 1.04, 1.06, 1.08, 1.1, 1.15, 1.2, 1.3, 1.5)
    networks = learned(
        Architecture(width=64, depth=2, layout="vector"),
        states=1000,
        pretraining_epochs=200,
        n_steps=150,
        several=True,
        members=20,
        hybrid=grid(inflation=(1.0, 1.05, 1.1), rate=(1e-3, 3e-3), epochs=(60, 120)),
        paper=grid(inflation=(1.0, 1.2), rtps=(0.0, 0.7), rate=(1e-4,), epochs=(4, 20, 120)),
        pretrained=grid(inflation=(1.0, 1.1, 1.2, 1.5), rtps=(0.0, 0.5, 0.9)),
    )
    noise = m.Measurement(m.Identity(), m.Gaussian(2.0**0.5))
    methods = classical(twelve, (), rotation=True) | networks
    return System(dynamics.Lorenz63(dt=0.01), noise, 25, 20, 2.0**0.5, 300, 100, 50, methods)


def lorenz96(half: bool) -> System:
    twelve = (1.0, 1.02, 1.04, 1.06, 1.08, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 2.0)
    inflations = (1.02, 1.06, 1.12) if half else (1.01, 1.03, 1.06)
    networks = learned(
        Architecture(width=128, depth=2, layout="vector"),
        states=1000,
        pretraining_epochs=200,
        n_steps=150,
        several=True,
        members=20,
        hybrid=grid(radius=(5.0, 8.0), inflation=inflations[1:], rate=(1e-3,), epochs=(5, 20, 60)),
        paper=grid(inflation=(1.0, 1.2), rtps=(0.0, 0.7), rate=(1e-4,), epochs=(4, 20, 120)),
        pretrained=grid(inflation=(1.0, 1.1, 1.2, 1.5), rtps=(0.0, 0.5, 0.9)),
    )
    seen = m.Subset(range(0, 40, 2)) if half else m.Identity()
    noise = m.Measurement(seen, m.Gaussian(1.0))
    methods = classical(twelve, grid(radius=(3.0, 5.0, 8.0, 12.0), inflation=inflations), rotation=True)
    steps = 4 if half else 1
    return System(dynamics.Lorenz96(40, 8.0, 0.05), noise, steps, 20, 1.0, 300, 60, 50, methods | networks)


def lorenz96_arctan(n: int, half: bool) -> System:
    """With more variables than 40, half the trials and fewer cycles: each averages over more of the ring.

    The first trial of EnSF and EnSF-LR is the released code's setting.
    """
    small = n == 40
    alone = (1.0, 1.005, 1.01, 1.015, 1.02, 1.03, 1.04, 1.06, 1.08, 1.1, 1.15, 1.2)
    local = grid(radius=(6.0, 9.0, 14.0, 20.0), inflation=(1.02, 1.04, 1.07))
    scores = grid(inflation=(1.0, 1.02, 1.05, 1.1), rtps=(0.0, 0.5, 1.0))
    if not small:
        alone = (1.0, 1.01, 1.02, 1.05, 1.1, 1.2)
        local = grid(radius=(9.0, 14.0, 20.0), inflation=(1.02, 1.05))
        scores = grid(inflation=(1.0, 1.05), rtps=(0.0, 0.5, 1.0))
    operator = m.arctan() @ m.Subset(range(0, n, 2)) if half else m.arctan()
    methods = classical(alone, local, rotation=True)
    methods["MASF, linearised"] = methods.pop("MASF, localised Gaussian")
    if small:
        methods["MASF, transported, no localisation"] = Method(
            lambda radius, epochs: transported(None), grid(inflation=alone)
        )
        methods["ETKF"] = Method(lambda radius, epochs: f.ETKF(rotation=True), grid(inflation=alone))
    methods["IEnKF"] = Method(lambda radius, epochs: f.IEnKF(rotation=True), grid(inflation=alone))
    methods["EnSF"] = Method(lambda radius, epochs: f.EnSF(), scores)
    if half:
        methods["EnSF-LR"] = Method(lambda radius, epochs: f.EnSFLR(), scores)
    methods = {name: dataclasses.replace(method, several=small) for name, method in methods.items()}
    lengths = (300, 100, 100) if small else (60, 15, 40)
    noise = m.Measurement(operator, m.Gaussian(0.05))
    return System(dynamics.Lorenz96(n, 8.0, 0.01), noise, 10, 20, 0.1, *lengths, methods)


def kolmogorov() -> System:
    chosen = compose(["experiment=kolmogorov_grid"])
    model = DYNAMICS.build(chosen.dynamics)
    noise = MEASUREMENTS.build(chosen.measurement, model.state_shape, model.coordinates).measurement
    local = tuple(Trial(radius=r, inflation=i) for r, i in ((4.0, 1.1), (5.0, 1.1), (5.0, 1.3), (7.0, 1.1)))
    networks = learned(
        Architecture(channels=8, multipliers=(1, 2, 4)),
        states=200,
        pretraining_epochs=30,
        n_steps=100,
        several=False,
        members=10,
        hybrid=tuple(Trial(1.1, rate=1e-3, radius=5.0, epochs=e) for e in (5, 10))
        + tuple(Trial(1.3, rate=1e-3, radius=5.0, epochs=e) for e in (5, 10)),
        paper=grid(inflation=(1.0, 1.2), rate=(1e-4,), epochs=(2, 10)),
        pretrained=grid(inflation=(1.0, 1.2), rtps=(0.0, 0.7)),
    )
    methods = classical((1.0, 1.1, 1.3, 1.6), local, rotation=False) | networks
    methods["amortised, as in the package"] = Method(
        lambda radius, epochs: load_amortised(pretrained_file("kolmogorov_grid"), f.LETKF(radius or 1.0)),
        (Trial(1.1, radius=5.0),),
        several=False,
    )
    return System(model, noise, chosen.steps_per_cycle, 10, None, 5, 5, 1, methods)


SYSTEMS: dict[str, Callable[[], System]] = {
    "lorenz63": lorenz63,
    "lorenz96": lambda: lorenz96(half=False),
    "lorenz96_half": lambda: lorenz96(half=True),
    "lorenz96_arctan": lambda: lorenz96_arctan(40, half=False),
    "lorenz96_arctan_half": lambda: lorenz96_arctan(40, half=True),
    "lorenz96_arctan_1000": lambda: lorenz96_arctan(1000, half=False),
    "lorenz96_arctan_half_1000": lambda: lorenz96_arctan(1000, half=True),
    "kolmogorov": kolmogorov,
}
