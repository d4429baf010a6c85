"""Networks that a filter brings along: to be pretrained for a run, or taken from a checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import equinox as eqx
import jax
import numpy as np

from ...denoisers.architecture import Architecture
from ...diffusion import VP
from ...dynamics import Dynamics
from ...ensemble.normalization import Moments
from ...ensemble.statistics import member_mean, member_variance
from ...filters import MASF, Filter, Gate
from ..config.builders.measurement import MEASUREMENTS
from ..config.settings import Settings, write_plain
from ..errors import InputError, unknown, warn
from .away import (
    differences,
    has_seen,
    measured_otherwise,
    model_changes,
    of_many_models,
    outside_practice,
    rotated_otherwise,
)

if TYPE_CHECKING:
    from ...masf.amortised.filter import AmortisedMASF
    from ...masf.priors.network import NetworkPrior

F = TypeVar("F", bound=Filter)

__all__ = [
    "AMORTISED",
    "checkpoint_digest",
    "climate_and_coarsening",
    "description",
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
    from ...training import inspect, load

    path = settings.filter["checkpoint"]
    if not isinstance(filter, MASF) or not isinstance(filter.prior, NetworkPrior):
        raise InputError(f"filter {settings.filter['name']} takes no checkpoint; got {path}.")
    if "trained_on" in inspect(path)["fingerprint"]:
        raise InputError(
            f"filter.checkpoint: {path} is a network of filter={AMORTISED}; give one of this filter."
        )
    prior = filter.prior
    given = settings.measurement, dynamics.state_shape, dynamics.coordinates
    measurement = MEASUREMENTS.build(*given).measurement
    if isinstance(filter.route.of(measurement), DualHead):
        prior = DualHead.with_second_head(prior)
    stored = load(
        path,
        net=prior.architecture.at(dynamics.coordinates, dynamics.state_shape).net(dynamics.state_shape),
        state_shape=dynamics.state_shape,
        fingerprint=description(settings, eqx.tree_at(lambda f: f.prior, filter, prior)),
    )
    prior = dataclasses.replace(prior, denoiser=stored.denoiser)
    normalization = dataclasses.replace(filter.normalization, moments=Moments(**stored.normaliser))
    return eqx.tree_at(lambda f: (f.prior, f.normalization), filter, (prior, normalization))


def _with_trained_network(filter: Any, settings: Settings, dynamics: Dynamics) -> AmortisedMASF | Gate:
    """Network, climate and calibration of `filter.checkpoint`, or of the package's nearest.

    What it was trained for and this run is not is said, and no reason to refuse it: measurement, noise,
    ensemble size and interval may be others, of a ring or a field the size and the model too. There it runs
    beside its base filter, unless `filter.gate` says otherwise.
    """
    from ...masf.amortised import load_amortised

    given, gate = settings.filter["checkpoint"], settings.filter["gate"]
    path = _nearest(settings, dynamics) if given is None else network_file(given)
    climate, coarsening = climate_and_coarsening(path, settings, dynamics, filter.seed)
    away = differences(path, settings, dynamics.state_shape, coarsening)
    for line in away:
        _say(line)
    if not filter.has_members:
        if gate:
            raise InputError("filter.gate=true needs members, and filter.base=three_d_var has none.")
        gate = False
    if away and gate is None:
        _say(
            "so its base filter runs beside it, at the cost of both, and it is used where its forecasts are "
            "nearer to what is measured; filter.gate=false runs the network alone."
        )
    if coarsening > 1 and settings.filter["coarsening"] is None:
        _say(
            f"the network of {path.name} was trained on larger cells, or rougher fields: it sees blocks of "
            f"{coarsening} cells each way (filter.coarsening)."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the network of .* rotation")  # which `differences` said
        made = load_amortised(
            path,
            filter.base,
            state_shape=dynamics.state_shape,
            coordinates=dynamics.coordinates,
            calibration=settings.filter["calibration"],
            climate=climate,
            n_steps=filter.n_steps,
            members=filter.members,
            centred=filter.centred,
            coarsening=coarsening,
        )
    if told := network_remark(made):
        _say(f"{path.name}: {told}.")
    radius = settings.filter["gate_radius"]
    return Gate(made, radius=radius) if gate or (away and gate is None) else made


def network_remark(filter: Filter) -> str | None:
    """What there is to say of a filter whose network does nothing; None of any other."""
    from ...masf.amortised import AmortisedMASF

    alone = filter.filter if isinstance(filter, Gate) else filter
    if not isinstance(alone, AmortisedMASF) or not alone.network_is_zero:
        return None
    base = type(alone.base).__name__
    same = alone.n_steps == 1 and alone.members == "transported" and float(alone.calibration) == 1
    told = f"the filter equals its base, {base}" if same else f"it has learnt nothing beyond its base, {base}"
    return f"its network is zero (no round of training did better): {told}"


def _check_climatology(dynamics: Dynamics, settings: Settings) -> None:
    """Refuses a model that no climate can be drawn from."""
    try:
        jax.eval_shape(dynamics.initial_state, jax.random.key(0))
    except NotImplementedError as error:
        raise InputError(
            f"{AMORTISED} sees the climate of its model, and {settings.dynamics['name']} says no state to "
            "spin up from: give initial_state(key), or of a function in a file one that returns "
            "dynamics.Function(f, state_shape, dt, climatology=…), which draws states near the attractor."
        ) from error


_ONE_RUN = "three_d_var"
"""The base that runs the model once: a network trained on it is of no use with members, and the reverse."""

_say = functools.cache(warn)
"""Once in a process: a comparison builds its filters many times."""


def network_file(given: str) -> Path:
    """A checkpoint by its path, or by its name in the package.

    Raises:
        InputError: a name that neither has.
    """
    from ...masf.amortised import pretrained_file, pretrained_names

    names, path = pretrained_names(), Path(given)
    if given in names:
        return pretrained_file(given)
    if not path.exists() and path.name == given and not path.suffix:
        raise unknown("network", given, names, " Nor is there a checkpoint at that path.")
    return path


def checkpoint_digest(settings: Settings) -> str | None:
    """Of the content of filter.checkpoint; None: the filter names none, or nothing is there."""
    given = settings.filter.get("checkpoint")
    if given is None:
        return None
    try:
        return hashlib.sha256(network_file(given).read_bytes()).hexdigest()[:16]
    except (InputError, OSError):
        return None


def _nearest(settings: Settings, dynamics: Dynamics) -> Path:
    """The package's network that fits and is nearest: one that has seen the model, of the same base, the
    experiment's where it was trained for such measurements; of those that have seen the model one for such
    measurements, with the fewest of noise, interval and members beyond its training, where these numbers of
    the model are known one of them, else one of many, one of this model alone; in this order, then the one
    trained on most models, of the same size, for most densities of measurements, at last one trained through
    cycles. Of other models only such as have states laid out like this one's: a few variables are no ring.

    Raises:
        InputError: none fits.
    """
    from ...masf.amortised import pretrained_file, pretrained_names
    from ...masf.amortised.files import fits

    model, base = settings.dynamics["name"], settings.filter["base"]
    kinds = {name: (_about(name)["denoiser"]["layout"], _shape(name)) for name in pretrained_names()}

    def about_base(each: str) -> str:
        return _about(each)["fingerprint"]["base"]

    def at_home(each: str) -> bool:
        found = _about(each)["fingerprint"]
        return not of_many_models(found) and not model_changes(found, settings).keys() - _NUMERICAL

    def nearness(each: str) -> tuple[float, ...]:
        found = _about(each)["fingerprint"]
        low, high = found["trained_on"]["practice"]["density"]
        alike_base = about_base(each) == base and not rotated_otherwise(_about(each), settings)
        seen = has_seen(found, model)
        models = found["trained_on"].get("models", 1)
        size = _shape(each) == dynamics.state_shape
        otherwise = outside = 0  # of other models the most models matter more
        if seen:
            cells = _by_length(pretrained_file(each), settings, dynamics)
            given = found["trained_on"], settings, dynamics.state_shape, cells
            otherwise, outside = measured_otherwise(*given), len(outside_practice(*given))
        alike = at_home(each) and each == settings.experiment.name and not outside
        window = found["trained_on"]["filter"].get("training", {}).get("window")
        within = seen, alike_base, alike, -otherwise, -outside
        known_so = of_many_models(found) is not known, found["dynamics"] == model
        return *within, *known_so, models, size, high / low, window is not None

    shape = dynamics.state_shape
    one_run, here = base == _ONE_RUN, Architecture().at(dynamics.coordinates, shape).form(shape)[0]
    fitting = [
        name
        for name, (layout, trained) in kinds.items()
        if (layout == here or _about(name)["fingerprint"]["dynamics"] == model)
        and fits(layout, trained, shape, dynamics.coordinates)
        and (about_base(name) == _ONE_RUN) == one_run
    ]
    known = any(map(at_home, fitting))
    if fitting:
        return pretrained_file(max(fitting, key=nearness))
    all_of_them = ", ".join(f"{name} {layout} {trained}" for name, (layout, trained) in kinds.items())
    raise InputError(
        f"{AMORTISED} needs a trained network, and none of the package fits states of shape "
        f"{shape} and filter.base={base} (rings and fields of any size, vectors of their own: "
        f"{all_of_them}). Train one: masf-jax train filter={AMORTISED} with the other settings of this run, "
        "then give its file as filter.checkpoint."
    )


def _shape(name: str) -> tuple[int, ...]:
    """Of the states that a network of the package was trained on."""
    return tuple(_about(name)["state_shape"])


@functools.cache
def _about(name: str) -> dict[str, Any]:
    """What a network of the package says of itself; read once."""
    from ...masf.amortised import pretrained_file
    from ...training import inspect

    return inspect(pretrained_file(name))


_NUMERICAL = {"shape", "stepper", "dealias", "max_speed", "n_inner"}
"""Keys of a flow that change how it is computed, and not its climate."""
_DOMAIN = {"length", "n"}
"""Those that say how large the domain is, or its cells are."""


def climate_and_coarsening(
    path: str | Path, settings: Settings, dynamics: Dynamics, seed: int
) -> tuple[Moments | Literal["stored"] | None, int]:
    """The climate a network sees, and how many cells each way are as large as one of its training.

    Of the model of its training, where that was one, the stored climate, of the same flow on another grid
    that one resampled, else None: to be drawn. `filter.coarsening` where it is given, 1 with several steps;
    of the same model on another domain or grid by the lengths of cells; of any other by states of its
    climate, which are drawn for it (`suited`) and then are the climate.

    Raises:
        CheckpointError: the network cannot take this model's states.
    """
    from ...masf.amortised.files import sees_one_by_one, suited
    from ...masf.amortised.resample import resampled
    from ...masf.amortised.scale import climate_states
    from ...training import inspect, load

    sees_one_by_one(path, dynamics.state_shape, dynamics.coordinates)
    about = inspect(path)["fingerprint"]
    changed, one = model_changes(about, settings).keys(), not of_many_models(about)
    name, coarsening = settings.dynamics["name"], settings.filter["coarsening"]
    if coarsening is None and settings.filter["n_steps"] > 1:
        coarsening = 1
    if coarsening is None and (not changed or (name in _OF_A_LENGTH and changed <= _NUMERICAL | _DOMAIN)):
        coarsening = _by_length(path, settings, dynamics)
    if one and not changed:
        return "stored", coarsening or 1
    if one and name == "kolmogorov" and changed <= _NUMERICAL:
        moments = Moments(*(load(path).normaliser[part] for part in ("mean", "variance")))
        return resampled(moments, dynamics.state_shape[-2:]), coarsening or 1
    _check_climatology(dynamics, settings)
    if coarsening is not None:
        return None, coarsening
    states = climate_states(dynamics, seed)
    return Moments(member_mean(states), member_variance(states)), suited(path, states)


def _by_length(path: str | Path, settings: Settings, dynamics: Dynamics) -> int:
    """How many cells each way are as large as one of a network's training on the same model.

    1 where the model is another or none whose `length` is that of its domain. Only numbers that divide the
    sizes of the grid, the one nearest in the logarithm.
    """
    from ...masf.amortised.features import SPACE
    from ...training import inspect

    about = inspect(path)
    trained, space = about["fingerprint"].get("trained_on", {}), SPACE[about["denoiser"]["layout"]]
    before, now = trained.get("dynamics", {}), settings.dynamics
    related = now["name"] in _OF_A_LENGTH and before.get("name") == now["name"]
    if not related or space == 0:
        return 1
    grid = dynamics.state_shape[-space:]
    sides = np.asarray(before["length"]) / about["state_shape"][-space:]
    cells = np.asarray(now["length"]) / grid
    wanted = float(np.log(sides / cells).mean()) + math.log(trained.get("filter", {}).get("coarsening") or 1)
    dividing = [c for c in range(1, min(grid) + 1) if all(size % c == 0 for size in grid)]
    return min(dividing, key=lambda c: abs(math.log(c) - wanted))


_OF_A_LENGTH = {"kolmogorov", "kuramoto_sivashinsky"}
"""Models whose `length` is that of their domain: a finer grid has smaller cells of the same field."""


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
