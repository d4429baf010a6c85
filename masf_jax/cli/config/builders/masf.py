"""The score-based filter, whole and in the forms that have a name."""

from __future__ import annotations

import dataclasses
from typing import Literal

from .... import filters as f, masf as m
from ....ensemble.inflation import Inflation
from ....ensemble.normalization import Normalization

__all__ = ["masf", "masf_gaussian", "masf_kernel", "masf_paper"]


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Keys of `filter.network`; see `Architecture`."""

    width: int = 128
    depth: int = 3
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = ()
    layout: Literal["vector", "ring", "field"] | None = None


@dataclasses.dataclass(frozen=True)
class PretrainingSettings:
    """Keys of `filter.pretraining`."""

    states: int = 1000
    epochs: int = 200
    learning_rate: float = 3e-4
    batch_size: int = 32


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Keys of `filter.training`."""

    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    restart: bool = True


@dataclasses.dataclass(frozen=True)
class LinearizationSettings:
    """Keys of `filter.linearization`; see `masf_jax.filters.Linearization`."""

    at: Literal["member", "mean"] = "member"
    iterations: int = 5
    annealing: float = 4.0
    proposals: int = 0


_EPOCHS = 120  # the paper's
_PROCESSES = {"vp": m.VP, "measurement_aware": m.MeasurementAware}
_NETWORK = NetworkSettings()
_PRETRAINING = PretrainingSettings()
_TRAINING = TrainingSettings()
_LINEARIZATION = LinearizationSettings()


def masf(
    inflation: Inflation,
    *,
    route: Literal["auto", "linear", "linearized", "conditional"] = "auto",
    denoiser: Literal["gaussian", "kernel", "hybrid", "network"] = "gaussian",
    radius: float = 7.28,
    members: Literal["transported", "perturbed", "fresh"] = "transported",
    bandwidth: float | None = None,
    process: Literal["vp", "measurement_aware"] = "vp",
    sampler: Literal["bridge", "guided"] = "bridge",
    paper_scales: bool = True,
    n_steps: int | None = None,
    grid: Literal["uniform", "quadratic", "log_snr"] = "uniform",
    corrected: bool = True,
    centred: bool = True,
    rotation: bool = True,
    normalization: Literal["cycle", "moving", "fixed"] | None = None,
    affine: bool = True,
    linearization: LinearizationSettings = _LINEARIZATION,
    network: NetworkSettings = _NETWORK,
    pretraining: PretrainingSettings = _PRETRAINING,
    training: TrainingSettings = _TRAINING,
    checkpoint: str | None = None,
    seed: int = 1,
) -> f.Filter:
    """Measurement-aware score-based filter: exact for every linear measurement, others linearised."""
    units = None if normalization is None else Normalization(normalization, affine)
    if not affine and units is None:
        units = Normalization("fixed" if denoiser == "network" and route != "conditional" else "cycle", False)
    common = {"inflation": inflation, "climatology": pretraining.states, "seed": seed}
    if route == "conditional":
        chosen = _conditional(denoiser, bandwidth, network, training, checkpoint, corrected, seed)
        steps = chosen.sampler() if n_steps is None else m.Bridge(n_steps)
        assert isinstance(steps, m.Bridge)
        reverse = m.Bridge(steps.n_steps, grid, corrected) if sampler == "bridge" else m.Guided()
        return m.MASF(None, _PROCESSES[process](), reverse, chosen, normalization=units, **common)
    alone = denoiser == "network"
    if checkpoint is not None and not alone:
        raise ValueError(f"checkpoint is of a network alone (denoiser=network); the denoiser is {denoiser}.")
    if denoiser == "hybrid" and training.epochs == 0:
        raise ValueError("the hybrid denoiser needs training.epochs of at least 1: it is Gaussian without.")
    gaussian = m.GaussianPrior(radius, members, rotation)
    prior: m.Prior = gaussian if denoiser == "gaussian" else m.KernelPrior(bandwidth)
    if denoiser in ("hybrid", "network"):
        prior = _trained(network, pretraining, training, None if alone else gaussian, corrected, seed)
    if alone and units is None:
        units = Normalization("fixed", affine)
    steps = 1 if n_steps is None else n_steps
    if sampler == "guided":
        reverse = m.Guided(steps, grid, paper_scales=paper_scales)
    else:
        reverse = m.Bridge(steps, grid, corrected, centred)
    tangents = m.Linearized(**dataclasses.asdict(linearization))
    taken = {"auto": m.Automatic(tangents), "linear": m.Linear(), "linearized": tangents}[route]
    return m.MASF(prior, _PROCESSES[process](), reverse, taken, normalization=units, **common)


def masf_gaussian(
    inflation: Inflation,
    *,
    radius: float = float("inf"),
    members: Literal["transported", "perturbed", "fresh"] = "transported",
    rotation: bool = True,
    n_steps: int = 1,
    linearization: LinearizationSettings = _LINEARIZATION,
) -> f.Filter:
    """The score-based filter of a Gaussian forecast: an ensemble Kalman filter by diffusion."""
    prior = m.GaussianPrior(radius, members, rotation)
    route = m.Automatic(m.Linearized(**dataclasses.asdict(linearization)))
    return m.MASF(prior, sampler=m.Bridge(n_steps), route=route, inflation=inflation)


def masf_kernel(
    inflation: Inflation,
    *,
    bandwidth: float | None = None,
    shrink: bool = True,
    n_steps: int = 1,
    linearization: LinearizationSettings = LinearizationSettings("mean", proposals=20),
) -> f.Filter:
    """The score-based filter of the forecast's kernel density: exact for it, and training-free."""
    prior = m.KernelPrior(bandwidth, shrink)
    route = m.Automatic(m.Linearized(**dataclasses.asdict(linearization)))
    return m.MASF(prior, sampler=m.Bridge(n_steps), route=route, inflation=inflation)


def masf_paper(
    inflation: Inflation,
    *,
    n_steps: int | None = None,
    paper_scales: bool = True,
    network: NetworkSettings = _NETWORK,
    pretraining: PretrainingSettings = _PRETRAINING,
    training: TrainingSettings = _TRAINING,
    checkpoint: str | None = None,
    seed: int = 1,
) -> f.Filter:
    """MASF as published (Yoon et al. 2026): guided sampler, network pretrained and fine-tuned."""
    from ....denoisers.architecture import Architecture  # Flax and Optax: only where they are needed
    from ....masf.paper import paper_training

    _check_epochs(pretraining, training)
    return m.paper_masf(
        Architecture(**dataclasses.asdict(network)),
        pretraining_epochs=pretraining.epochs,
        pretraining=paper_training(pretraining.learning_rate, pretraining.batch_size),
        epochs=_EPOCHS if training.epochs is None else training.epochs,
        training=paper_training(training.learning_rate or 3e-4, training.batch_size or 32),
        restart=training.restart,
        n_steps=n_steps,
        paper_scales=paper_scales,
        inflation=inflation,
        climatology=pretraining.states,
        seed=seed,
    )


def _check_epochs(pretraining: PretrainingSettings, training: TrainingSettings) -> None:
    for name, section in (("pretraining", pretraining), ("training", training)):
        if section.epochs is not None and section.epochs < 0:
            raise ValueError(f"{name}.epochs must not be negative; got {section.epochs}.")


def _trained(
    network: NetworkSettings,
    pretraining: PretrainingSettings,
    training: TrainingSettings,
    gaussian: m.GaussianPrior | None,
    head: bool,
    seed: int,
) -> m.Prior:
    """A network alone, or with the Gaussian that it corrects."""
    from ....denoisers.architecture import Architecture  # Flax and Optax: only where they are needed
    from ....training import FitConfig

    _check_epochs(pretraining, training)

    def config(section: PretrainingSettings | TrainingSettings) -> FitConfig:
        return FitConfig(
            learning_rate=3e-4 if section.learning_rate is None else section.learning_rate,
            batch_size=32 if section.batch_size is None else section.batch_size,
            validation_fraction=0.0,
        )

    alone = gaussian is None
    epochs = (0 if alone else _EPOCHS) if training.epochs is None else training.epochs
    common = {
        "training": config(training) if epochs else None,
        "epochs": epochs or None,
        "restart": training.restart,
        "architecture": Architecture(**dataclasses.asdict(network), variance_head=head and alone),
        "seed": seed,
    }
    if gaussian is not None:
        return m.HybridPrior(gaussian=gaussian, **common)
    passes = pretraining.epochs
    return m.NetworkPrior(
        pretraining=config(pretraining).for_epochs(passes, pretraining.states) if passes else None, **common
    )


def _conditional(
    denoiser: str,
    bandwidth: float | None,
    network: NetworkSettings,
    training: TrainingSettings,
    checkpoint: str | None,
    head: bool,
    seed: int,
) -> m.ConditionalKernel | m.ConditionalNetwork:
    """What knows the measured values."""
    if denoiser not in ("kernel", "network"):
        raise ValueError(
            "route=conditional needs a denoiser that sees the measured values: denoiser=kernel (few "
            f"components) or denoiser=network (trained in every cycle); got denoiser={denoiser}."
        )
    if checkpoint is not None:
        raise ValueError("route=conditional trains its network in every cycle: it takes no checkpoint.")
    if denoiser == "kernel":
        return m.ConditionalKernel(bandwidth)
    if training.epochs is not None and training.epochs < 1:
        raise ValueError(
            f"route=conditional needs training.epochs of at least 1, or null; got {training.epochs}."
        )
    from ....denoisers.architecture import Architecture
    from ....masf.routes.conditional_network import ConditionalNetwork, conditional_training

    given = {
        name: value
        for name in ("learning_rate", "batch_size")
        if (value := getattr(training, name)) is not None
    }
    return ConditionalNetwork(
        dataclasses.replace(conditional_training(), **given),
        bandwidth,
        epochs=training.epochs,
        restart=training.restart,
        architecture=Architecture(**dataclasses.asdict(network), variance_head=head),
        seed=seed,
    )
