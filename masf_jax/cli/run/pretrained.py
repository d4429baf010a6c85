"""Networks of the score-based filter: pretrained for a run, kept in a checkpoint, taken from one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...diffusion import VP
from ...dynamics import Dynamics
from ...ensemble.normalization import Moments
from ...filters import MASF, Filter
from ..config.builders.measurement import MEASUREMENTS
from ..config.settings import Settings
from ..errors import InputError

if TYPE_CHECKING:
    from ...masf.climate import Climate
    from ...masf.priors.network import NetworkPrior
    from ...training import History

F = TypeVar("F", bound=Filter)

__all__ = ["pretraining_fit", "with_checkpoint", "with_progress", "write_checkpoint"]


def pretraining_fit(filter: Filter) -> NetworkPrior | None:
    """The filter's network, if it is one that is to be pretrained."""
    if not isinstance(filter, MASF):
        return None
    from ...masf.priors.network import NetworkPrior

    fit = filter.prior
    if isinstance(fit, NetworkPrior) and fit.denoiser is None and fit.pretraining is not None:
        return fit
    return None


def with_progress(filter: F) -> F:
    """The same filter, with a bar while it pretrains."""
    fit = pretraining_fit(filter)
    if fit is None:
        return filter
    return _replaced(filter, prior=dataclasses.replace(fit, progress=True))


def with_checkpoint(filter: Filter, settings: Settings, dynamics: Dynamics) -> Filter:
    """The filter with the network and normalisation that `filter.checkpoint` names, if it names one.

    Raises:
        InputError: nothing there, or what is there was trained for another model, measurement or network.
    """
    path = settings.filter.get("checkpoint")
    if path is None or settings.filter["name"] == "masf_amortised":
        return filter
    from ...masf.priors.network import NetworkPrior
    from ...masf.routes.dual_head import DualHead
    from ...training import load

    if not isinstance(filter, MASF) or not isinstance(filter.prior, NetworkPrior):
        raise InputError(f"filter {settings.filter['name']} takes no checkpoint; got {path}.")
    fit = filter.prior
    measurement = MEASUREMENTS.build(settings.measurement, dynamics.state_shape).measurement
    if isinstance(filter.route.of(measurement), DualHead):
        fit = DualHead.with_second_head(fit)
    try:
        stored = load(
            path,
            net=fit.architecture.net(dynamics.state_shape),
            state_shape=dynamics.state_shape,
            fingerprint=_description(settings, filter, fit),
        )
    except (ValueError, OSError) as error:
        raise InputError(f"filter.checkpoint: {error}") from error
    normalization = dataclasses.replace(filter.normalization, moments=Moments(**stored.normaliser))
    fit = dataclasses.replace(fit, denoiser=stored.denoiser)
    return _replaced(filter, prior=fit, normalization=normalization)


def write_checkpoint(
    path: Path, settings: Settings, filter: Filter, climate: Climate, overwrite: bool
) -> tuple[Path, History, int]:
    """Writes the network of a filter prepared with this climate; returns the file, history and size.

    Of the fingerprint a run compares what `_description` has. The hash of the training states and the keys of
    the training say where the network comes from: another run could make those states anew only at the
    price that a checkpoint is to save.

    Raises:
        InputError: a filter without a pretrained network, or a file that exists and may not be replaced.
    """
    from ...masf.priors.network import NetworkPrior
    from ...nn import parameter_count
    from ...training import fingerprint, save

    assert isinstance(filter, MASF)
    fit, moments = filter.prior, filter.normalization.moments
    assert isinstance(fit, NetworkPrior)
    if fit.denoiser is None or fit.history is None or moments is None:
        raise InputError("only a network pretrained with the normalization fixed can be kept.")
    try:
        where = save(
            path,
            fit.denoiser,
            moments.mean.shape,
            normaliser=moments._asdict(),
            fingerprint=fingerprint(
                (climate.states, climate.validation),
                **_description(settings, filter, fit),
                **_flat("pretraining", settings.filter["pretraining"]),
                seed=filter.seed,
            ),
            history=fit.history,
            overwrite=overwrite,
        )
    except FileExistsError as error:
        raise InputError(f"{error}") from error
    return where, fit.history, parameter_count(fit.denoiser.params)


def _description(settings: Settings, filter: MASF, fit: NetworkPrior) -> dict[str, Any]:
    """What a network's training depended on and its use must agree with, one flat entry each."""
    options = ("noise_map", "preconditioning", "variance_head")
    return {
        **_flat("dynamics", settings.dynamics),
        **_flat("measurement", settings.measurement),
        **{f"network.{name}": getattr(fit.architecture, name) for name in options},
        "process": "vp" if isinstance(filter.process, VP) else "measurement_aware",
        "normalization.kind": filter.normalization.kind,
        "normalization.affine": filter.normalization.affine,
    }


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = [_flat(f"{prefix}.{name}", item) for name, item in value.items()]
    return {name: item for part in parts for name, item in part.items()}


def _replaced(filter: Any, **changes: Any) -> Any:
    """`dataclasses.replace` for a filter whose constructor takes its fields by other names."""
    import equinox as eqx

    names = tuple(changes)
    return eqx.tree_at(
        lambda f: tuple(getattr(f, name) for name in names), filter, tuple(changes[name] for name in names)
    )
