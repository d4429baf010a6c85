"""Networks that a filter brings along: to be pretrained for a run, or taken from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import equinox as eqx

from ...diffusion import VP
from ...dynamics import Dynamics
from ...ensemble.normalization import Moments
from ...filters import MASF, Filter
from ..config.builders.measurement import MEASUREMENTS
from ..config.settings import Settings, write_plain
from ..errors import InputError

if TYPE_CHECKING:
    from ...masf.amortised.filter import AmortisedMASF
    from ...masf.priors.network import NetworkPrior

F = TypeVar("F", bound=Filter)

__all__ = ["AMORTISED", "description", "flat", "pretraining_fit", "with_checkpoint", "with_progress"]

AMORTISED = "masf_amortised"
"""The filter whose network is trained on simulated cycles, by `masf-jax train` only."""


def pretraining_fit(filter: Filter) -> NetworkPrior | None:
    """The filter's network, if it is one that is to be pretrained."""
    if not isinstance(filter, MASF):
        return None
    from ...masf.priors.network import NetworkPrior

    fit = filter.prior
    if isinstance(fit, NetworkPrior) and fit.denoiser is None and fit.pretraining is not None:
        return fit
    return None


def with_progress(filter: F, progress: bool = True, kept: Path | None = None) -> F:
    """The same filter, with a bar while it pretrains, and the training kept in a file."""
    fit = pretraining_fit(filter)
    if fit is None:
        return filter
    how = {"progress": progress, "kept": None if kept is None else str(kept)}
    return eqx.tree_at(lambda f: f.prior, filter, dataclasses.replace(fit, **how))


def with_checkpoint(filter: Filter, settings: Settings, dynamics: Dynamics) -> Filter:
    """The filter with the network of its checkpoint, where it names one or (masf_amortised) needs one.

    Raises:
        InputError: nothing there, or what is there was trained for another model, measurement or network.
    """
    try:
        if settings.filter["name"] == AMORTISED:
            return _with_trained_network(filter, settings, dynamics)
        if settings.filter.get("checkpoint") is not None:
            return _with_pretrained_network(filter, settings, dynamics)
    except (ValueError, OSError) as error:
        raise InputError(f"filter.checkpoint: {error}") from error
    return filter


def _with_pretrained_network(filter: Filter, settings: Settings, dynamics: Dynamics) -> Filter:
    from ...masf.priors.network import NetworkPrior
    from ...masf.routes.dual_head import DualHead
    from ...training import load

    path = settings.filter["checkpoint"]
    if not isinstance(filter, MASF) or not isinstance(filter.prior, NetworkPrior):
        raise InputError(f"filter {settings.filter['name']} takes no checkpoint; got {path}.")
    prior = filter.prior
    measurement = MEASUREMENTS.build(settings.measurement, dynamics.state_shape).measurement
    if isinstance(filter.route.of(measurement), DualHead):
        prior = DualHead.with_second_head(prior)
    stored = load(
        path,
        net=prior.architecture.net(dynamics.state_shape),
        state_shape=dynamics.state_shape,
        fingerprint=description(settings, eqx.tree_at(lambda f: f.prior, filter, prior)),
    )
    prior = dataclasses.replace(prior, denoiser=stored.denoiser)
    normalization = dataclasses.replace(filter.normalization, moments=Moments(**stored.normaliser))
    return eqx.tree_at(lambda f: (f.prior, f.normalization), filter, (prior, normalization))


def _with_trained_network(filter: Any, settings: Settings, dynamics: Dynamics) -> AmortisedMASF:
    """Network, climate and calibration of `filter.checkpoint`, or of the package's for this experiment.

    It must be of the same model, base filter and `filter.network`; measurement, noise, ensemble size and
    interval may be others than it was trained with.
    """
    from ...masf.amortised import load_amortised, pretrained_file, pretrained_names

    path, name = settings.filter["checkpoint"], settings.experiment.name
    if path is None and name not in pretrained_names():
        raise InputError(
            f"{AMORTISED} needs a trained network, and the package has none for "
            f"{'a run without experiment' if name is None else name!r} (it has some for: "
            f"{', '.join(pretrained_names())}). Train one: masf-jax train filter={AMORTISED} with the other "
            "settings of this run, then give its file as filter.checkpoint."
        )
    return load_amortised(
        pretrained_file(str(name)) if path is None else path,
        filter.base,
        net=filter.architecture.net(dynamics.state_shape),
        state_shape=dynamics.state_shape,
        about=description(settings, filter),
        calibration=settings.filter["calibration"],
        n_steps=filter.n_steps,
        members=filter.members,
        centred=filter.centred,
    )


def description(settings: Settings, filter: Any) -> dict[str, Any]:
    """What a network's training depended on and its use must agree with, one flat entry each."""
    if settings.filter["name"] == AMORTISED:
        return {"filter": AMORTISED, "dynamics": settings.dynamics["name"], "base": settings.filter["base"]}
    options = ("noise_map", "preconditioning", "variance_head")
    return {
        **flat(dynamics=settings.dynamics, measurement=settings.measurement),
        **{f"network.{name}": getattr(filter.prior.architecture, name) for name in options},
        "process": "vp" if isinstance(filter.process, VP) else "measurement_aware",
        "normalization.kind": filter.normalization.kind,
        "normalization.affine": filter.normalization.affine,
    }


def flat(**groups: Any) -> dict[str, Any]:
    """Groups of settings as one dictionary with dotted names."""
    from flax.traverse_util import flatten_dict

    return flatten_dict(write_plain(groups), sep=".")
