"""The score-based filter, whole and in the forms that have a name."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Literal

from .... import filters as f
from ....ensemble.inflation import Inflation
from ....ensemble.normalization import Normalization

if TYPE_CHECKING:
    from ....masf.priors.conditional_network import ConditionalNetwork
    from ....masf.priors.network import NetworkFit

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
_CONDITIONAL_STEPS = 40
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
    if route == "conditional":
        fitted = _conditional(denoiser, bandwidth, network, training, checkpoint, corrected, seed)
        steps = (_CONDITIONAL_STEPS if denoiser == "network" else 1) if n_steps is None else n_steps
        return f.MASF(
            fitted,
            inflation,
            Normalization(normalization or "cycle", affine),
            route=route,
            process=process,
            sampler=sampler,
            n_steps=steps,
            grid=grid,
            corrected=corrected,
            climatology=pretraining.states,
            seed=seed,
        )
    alone = denoiser == "network"
    if checkpoint is not None and not alone:
        raise ValueError(f"checkpoint is of a network alone (denoiser=network); the denoiser is {denoiser}.")
    if denoiser == "hybrid" and training.epochs == 0:
        raise ValueError("the hybrid denoiser needs training.epochs of at least 1: it is Gaussian without.")
    gaussian = f.GaussianFit(radius, members)
    fit: f.DenoiserFit = gaussian if denoiser == "gaussian" else f.KernelFit(bandwidth)
    if denoiser in ("hybrid", "network"):
        fit = _network_fit(
            network,
            pretraining,
            training,
            None if alone else gaussian,
            paper=False,
            head=corrected,
            seed=seed,
        )
    return f.MASF(
        fit,
        inflation,
        Normalization(normalization or ("fixed" if alone else "cycle"), affine),
        f.Linearization(**dataclasses.asdict(linearization)),
        route=route,
        process=process,
        sampler=sampler,
        n_steps=1 if n_steps is None else n_steps,
        grid=grid,
        corrected=corrected,
        centred=centred,
        rotation=rotation,
        paper_scales=paper_scales,
        climatology=pretraining.states,
        seed=seed,
    )


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
    tangents = f.Linearization(**dataclasses.asdict(linearization))
    fit = f.GaussianFit(radius, members)
    return f.MASF(fit, inflation, linearization=tangents, rotation=rotation, n_steps=n_steps)


def masf_kernel(
    inflation: Inflation,
    *,
    bandwidth: float | None = None,
    shrink: bool = True,
    n_steps: int = 1,
    linearization: LinearizationSettings = LinearizationSettings("mean", proposals=20),
) -> f.Filter:
    """The score-based filter of the forecast's kernel density: exact for it, and training-free."""
    tangents = f.Linearization(**dataclasses.asdict(linearization))
    return f.MASF(f.KernelFit(bandwidth, shrink), inflation, linearization=tangents, n_steps=n_steps)


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
    fit = _network_fit(
        network, pretraining, training, None, paper=True, head=False, seed=seed, nonlinear_steps=n_steps
    )
    return f.MASF(
        fit,
        inflation,
        Normalization("fixed"),
        process="measurement_aware",
        sampler="guided",
        n_steps=150 if n_steps is None else n_steps,
        grid="quadratic",
        paper_scales=paper_scales,
        climatology=pretraining.states,
        seed=seed,
    )


def _network_fit(
    network: NetworkSettings,
    pretraining: PretrainingSettings,
    training: TrainingSettings,
    gaussian: f.GaussianFit | None,
    *,
    paper: bool,
    head: bool,
    seed: int,
    nonlinear_steps: int | None = None,
) -> NetworkFit:
    """`paper`: constant learning rate, the last parameters, plain x0 and its squared error, no noise map, and
    a second head where the measurement is nonlinear."""
    from ....denoisers.architecture import Architecture  # Flax and Optax: only where they are needed
    from ....masf.priors.dual_head import DualHeadFit
    from ....masf.priors.network import NetworkFit
    from ....training import FitConfig

    for name, section in (("pretraining", pretraining), ("training", training)):
        if section.epochs is not None and section.epochs < 0:
            raise ValueError(f"{name}.epochs must not be negative; got {section.epochs}.")

    def config(section: PretrainingSettings | TrainingSettings) -> FitConfig:
        return FitConfig(
            learning_rate=3e-4 if section.learning_rate is None else section.learning_rate,
            batch_size=32 if section.batch_size is None else section.batch_size,
            schedule="constant" if paper else "cosine",
            ema_decay=None if paper else 0.999,
            validation_fraction=0.0,
        )

    alone = gaussian is None
    epochs = training.epochs
    if epochs is None:
        epochs = _EPOCHS if paper or not alone else 0
    kind = functools.partial(DualHeadFit, nonlinear_steps=nonlinear_steps or 200) if paper else NetworkFit
    return kind(
        gaussian=gaussian,
        training=config(training) if epochs else None,
        pretraining=(
            config(pretraining).for_epochs(pretraining.epochs, pretraining.states)
            if alone and pretraining.epochs > 0
            else None
        ),
        epochs=epochs or None,
        restart=training.restart,
        weighted=not paper,
        architecture=Architecture(
            **dataclasses.asdict(network),
            noise_map=not paper,
            preconditioning="x0" if paper else "edm",
            variance_head=head and alone,
        ),
        seed=seed,
    )


def _conditional(
    denoiser: str,
    bandwidth: float | None,
    network: NetworkSettings,
    training: TrainingSettings,
    checkpoint: str | None,
    head: bool,
    seed: int,
) -> f.ConditionalKernel | ConditionalNetwork:
    """What knows the measured values."""
    if denoiser not in ("kernel", "network"):
        raise ValueError(
            "route=conditional needs a denoiser that sees the measured values: denoiser=kernel (few "
            f"components) or denoiser=network (trained in every cycle); got denoiser={denoiser}."
        )
    if checkpoint is not None:
        raise ValueError("route=conditional trains its network in every cycle: it takes no checkpoint.")
    if denoiser == "kernel":
        return f.ConditionalKernel(bandwidth)
    if training.epochs is not None and training.epochs < 1:
        raise ValueError(
            f"route=conditional needs training.epochs of at least 1, or null; got {training.epochs}."
        )
    from ....denoisers.architecture import Architecture
    from ....masf.priors.conditional_network import ConditionalNetwork, conditional_training

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
