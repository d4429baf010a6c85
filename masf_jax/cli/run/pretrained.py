"""Networks that a filter brings along: to be pretrained for a run, or taken from a checkpoint."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import equinox as eqx

from ...diffusion import VP
from ...dynamics import Dynamics
from ...ensemble.normalization import Moments
from ...filters import MASF, Filter
from ..config.builders.measurement import MEASUREMENTS
from ..config.settings import Settings, write_plain
from ..errors import InputError, warn

if TYPE_CHECKING:
    from ...masf.amortised.filter import AmortisedMASF
    from ...masf.priors.network import NetworkPrior

F = TypeVar("F", bound=Filter)

__all__ = [
    "AMORTISED",
    "climate_for",
    "description",
    "differences",
    "flat",
    "network_file",
    "pretraining_fit",
    "with_checkpoint",
    "with_progress",
]

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
    """Network, climate and calibration of `filter.checkpoint`, or of the package's nearest.

    What it was trained for and this run is not is said, and no reason to refuse it: measurement, noise,
    ensemble size and interval may be others, of a ring or a field the size and the model too.
    """
    from ...masf.amortised import load_amortised

    given = settings.filter["checkpoint"]
    path = _nearest(settings, dynamics) if given is None else network_file(given)
    for line in differences(path, settings):
        _say(line)
    return load_amortised(
        path,
        filter.base,
        state_shape=dynamics.state_shape,
        calibration=settings.filter["calibration"],
        climate=climate_for(path, settings, dynamics),
        n_steps=filter.n_steps,
        members=filter.members,
        centred=filter.centred,
    )


_say = functools.cache(warn)
"""Once in a process: a comparison builds its filters many times."""


def network_file(given: str) -> Path:
    """A checkpoint by its path, or by its name in the package."""
    from ...masf.amortised import pretrained_file, pretrained_names

    return pretrained_file(given) if given in pretrained_names() else Path(given)


def _nearest(settings: Settings, dynamics: Dynamics) -> Path:
    """The package's network of the same model and base: first those of the same size, of these the
    experiment's, then the one trained for most densities of measurements.

    Raises:
        InputError: there is none.
    """
    from ...masf.amortised import pretrained_file, pretrained_names

    name = settings.experiment.name

    def nearness(each: str) -> tuple[bool, bool, float]:
        about = _about(each)
        low, high = about["fingerprint"]["trained_on"]["practice"]["density"]
        return tuple(about["state_shape"]) == dynamics.state_shape, each == name, high / low

    serving = [each for each in pretrained_names() if _serves(_about(each), settings, dynamics)]
    if serving:
        return pretrained_file(max(serving, key=nearness))
    raise InputError(
        f"{AMORTISED} needs a trained network, and the package has none for "
        f"{'a run without experiment' if name is None else name!r} (it has some for: "
        f"{', '.join(pretrained_names())}). Train one: masf-jax train filter={AMORTISED} with the other "
        "settings of this run, then give its file as filter.checkpoint; or give one of these, which "
        "need not do well with another model."
    )


@functools.cache
def _about(name: str) -> dict[str, Any]:
    """What a network of the package says of itself; read once."""
    from ...masf.amortised import pretrained_file
    from ...training import inspect

    return inspect(pretrained_file(name))


def _serves(about: dict[str, Any], settings: Settings, dynamics: Dynamics) -> bool:
    """Whether a network is one of the same model's and base filter's, and fits its states."""
    from ...masf.amortised.files import fits

    found = about["fingerprint"]
    same = (found["dynamics"], found["base"]) == (settings.dynamics["name"], settings.filter["base"])
    return same and fits(about["denoiser"]["layout"], tuple(about["state_shape"]), dynamics.state_shape)


def differences(path: str | Path, settings: Settings) -> list[str]:
    """What a checkpoint was trained for and the run is not, a line each, for the user."""
    from ...training import inspect

    about = inspect(path)["fingerprint"]
    of = _model_changes(about, settings)
    lines = []
    if of:
        shown = ", ".join(f"{key} {was} there, {now} here" for key, (was, now) in of.items())
        lines.append(
            f"the network of {Path(path).name} was trained on another model ({shown}): it runs with this "
            "model's climate, and need not do as well."
        )
    if about.get("base") not in (None, settings.filter["base"]):
        lines.append(
            f"the network of {Path(path).name} was trained on analyses of filter.base={about['base']}; this "
            f"run's base is {settings.filter['base']}."
        )
    return lines


_NUMERICAL = {"shape", "stepper", "dealias", "max_speed", "n_inner"}
"""Keys of a flow that change how it is computed, and not its climate."""


def climate_for(
    path: str | Path, settings: Settings, dynamics: Dynamics
) -> Moments | Literal["stored"] | None:
    """The climate a network sees: the stored one for the model of its training, on this grid; else None."""
    from ...masf.amortised.resample import resampled
    from ...training import inspect, load

    changed = _model_changes(inspect(path)["fingerprint"], settings)
    if not changed:
        return "stored"
    if changed.keys() - _NUMERICAL or settings.dynamics["name"] != "kolmogorov":
        return None
    arrays = load(path).normaliser
    return resampled(Moments(arrays["mean"], arrays["variance"]), dynamics.state_shape[-2:])


def _model_changes(about: dict[str, Any], settings: Settings) -> dict[str, tuple[Any, Any]]:
    """The model's keys that were others in training: what they were, and what they are."""
    before, now = about.get("trained_on", {}).get("dynamics"), write_plain(dict(settings.dynamics))
    before = {"name": about.get("dynamics")} if before is None else before
    if before.get("name") != now["name"]:
        return {"dynamics": (before.get("name"), now["name"])}
    return {key: (before[key], now[key]) for key in before if key in now and before[key] != now[key]}


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
