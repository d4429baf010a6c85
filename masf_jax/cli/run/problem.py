"""From settings to what `assimilate` takes: objects, observations, truth, first ensemble."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ...arrays import real_array
from ...dynamics import Dynamics, MemberLayout, spun_up_ensemble
from ...filters import Filter, KalmanFilter
from ...measurements import Measurement, Observations
from ...measurements.base import places
from ...numbers import as_float
from ...processes import on_host
from ...twin import Simulation, simulate
from ..config.builders.dynamics import DYNAMICS
from ..config.builders.filters import FILTERS
from ..config.builders.measurement import MEASUREMENTS, Network
from ..config.own_files import is_own
from ..config.settings import Initial, Settings
from ..config.values import naming
from ..errors import InputError, of_files, warn
from ..groups import shipped_file
from .pretrained import with_checkpoint

__all__ = [
    "AT_ONCE",
    "Case",
    "Problem",
    "build",
    "build_case",
    "build_filter",
    "build_models",
    "member_layout",
    "model_step",
]

AT_ONCE = 2**26
"""Bytes of a truth and observations that a run makes before its first cycle."""
_TRUTH, _RUN, _START, _ENSEMBLE, _FILTER = range(5)
"""Purposes of the random keys: `fold_in(key(seed), purpose)`."""


class Case(NamedTuple):
    """What a run has of its seed; a `Simulation` has its own truth, real observations have none."""

    key: jax.Array
    observations: Observations | Simulation
    ensemble: jax.Array
    truth: jax.Array | None
    times: np.ndarray | None = None
    """Times in the observation file, (cycles,)."""
    units: str | None = None
    """Of the observations, where they or the settings say."""
    time_units: str | None = None
    """What the times in the file count, where it says."""
    outside: int = 0
    """Values that count as missing because they lie outside a valid range."""
    dates: np.ndarray | None = None
    """(cycles,) datetime64, where the times in the file are dates."""
    stations: tuple[str, ...] | None = None
    """What the file calls each measured value's place."""
    withheld: np.ndarray | None = None
    """(cycles, *z) values that no analysis sees and that are scored; NaN elsewhere."""


class Problem(NamedTuple):
    """Everything one run needs: the fields of `Case`, filter, model and measurement."""

    key: jax.Array
    filter: Filter
    dynamics: Dynamics
    measurement: Measurement
    observations: Observations | Simulation
    ensemble: jax.Array
    truth: jax.Array | None
    times: np.ndarray | None = None
    units: str | None = None
    time_units: str | None = None
    outside: int = 0
    dates: np.ndarray | None = None
    stations: tuple[str, ...] | None = None
    withheld: np.ndarray | None = None


def build(settings: Settings) -> Problem:
    """Builds the problem; truth, ensemble and filter have keys of their own.

    Raises:
        InputError: settings the library refuses, a truth that blows up, a bad observation file.
    """
    dynamics, network = build_models(settings)
    filter = build_filter(settings, dynamics)
    case = build_case(settings, dynamics, network, whole=bool(settings.estimate))
    return Problem(**case._asdict(), filter=filter, dynamics=dynamics, measurement=network.measurement)


def build_models(settings: Settings) -> tuple[Dynamics, Network]:
    """The model and what measures it."""
    dynamics = DYNAMICS.build(settings.dynamics)
    return dynamics, MEASUREMENTS.build(settings.measurement, dynamics.state_shape, dynamics.coordinates)


def model_step(settings: Settings, dynamics: Dynamics) -> float:
    """Model time of one step in double precision: as the settings say, unlike dynamics.dt."""
    given = settings.dynamics.get("dt")
    return as_float(dynamics.dt) if given is None or is_own(settings.dynamics["name"]) else given


def build_filter(settings: Settings, dynamics: Dynamics) -> Filter:
    """The filter, with the network of its checkpoint where it has one; not prepared."""
    filter = _with_initial(FILTERS.build(settings.filter), settings, dynamics)
    return with_checkpoint(filter, settings, dynamics)


def build_case(settings: Settings, dynamics: Dynamics, network: Network, whole: bool = True) -> Case:
    """Truth, observations and first ensemble of `settings.seed`, by two compiled programs.

    Args:
        whole: make all cycles now; else where they are many, the run makes them along the way.
    """
    initial, n = settings.initial, settings.ensemble_size
    try:
        seed = np.uint32(settings.seed)
        key, key_run, start, members = _draw(seed, dynamics, initial, n, member_layout(settings))
        if jax.process_count() > 1:
            start, members = on_host((start, members))
        # added on the host: in a compiled program a product and a sum may be rounded once, not twice
        if initial.mean is not None and initial.std is not None:
            start, members = (initial.mean + initial.std * np.asarray(x) for x in (start, members))
        elif initial.spread is not None:
            shift, members = (initial.spread * np.asarray(x) for x in members)
            members = (np.asarray(start) + shift)[None] + members
        members = jax.device_put(members)
        if settings.observations.path is not None:
            return _from_file(settings, dynamics, network.measurement, key, members)
        n_cycles, units = settings.n_cycles or 0, settings.observations.units
        mask = None if network.mask is None else network.mask(n_cycles)
        about: Any = (dynamics, network.measurement, n_cycles, settings.steps_per_cycle, start)
        values = math.prod(members.shape[1:]) + math.prod(network.measurement.output_shape(members.shape[1:]))
        if not whole and n_cycles * values * members.dtype.itemsize > AT_ONCE:
            twin = eqx.tree_at(lambda twin: twin.mask, _simulation(key_run, *about), mask, is_leaf=_is_none)
            return Case(key, twin, members, None, units=units)
        truth, observations = _twin(mask, key_run, *about)
    except NotImplementedError as error:
        hint = "initial.mean=… and initial.std=… draw them from a normal law."
        raise InputError(f"{error} On the command line, {hint}") from error
    except ValueError as error:
        raise InputError(str(error)) from error
    finite = np.isfinite(np.asarray(truth)).reshape(n_cycles, -1).all(1)
    if not finite.all():
        raise InputError(
            f"the simulated truth is not finite from cycle {int(np.argmin(finite))} on: "
            f"dynamics.dt = {model_step(settings, dynamics)} may be too large for the model."
        )
    return Case(key, observations, members, truth, units=units)


_simulation = eqx.filter_jit(Simulation)


def _is_none(leaf: Any) -> bool:
    return leaf is None


@eqx.filter_jit
def _twin(
    mask: np.ndarray | None,
    key: jax.Array,
    dynamics: Dynamics,
    measurement: Measurement,
    n_cycles: int,
    steps_per_cycle: int,
    start: Any,
) -> tuple[jax.Array, Observations]:
    truth, observations = simulate(key, dynamics, measurement, n_cycles, steps_per_cycle, start)
    return truth, Observations(observations.values, steps_per_cycle, mask)


@eqx.filter_jit
def _draw(seed: Any, dynamics: Dynamics, initial: Initial, n: int, layout: MemberLayout) -> tuple[Any, ...]:
    """Keys of the filter and of the truth's run, and of `Initial` the start and the members of it.

    Standard normal numbers stand for the start (given a mean) and the members (but for those of the
    climatology); those around the start come as two, of the mean's error and the perturbations.
    """
    root, shape = jax.random.key(seed), dynamics.state_shape
    key = [jax.random.fold_in(root, purpose) for purpose in range(5)]
    given = initial.mean is not None
    start = jax.random.normal(key[_START], shape) if given else dynamics.sample_climatology(key[_START])
    if given:
        members = jax.random.normal(key[_ENSEMBLE], (n, *shape))
    elif initial.spread is None:
        members = spun_up_ensemble(dynamics, key[_ENSEMBLE], n, layout)
    else:
        of_mean, of_members = jax.random.split(key[_ENSEMBLE])
        members = jax.random.normal(of_mean, shape), jax.random.normal(of_members, (n, *shape))
    return key[_FILTER], key[_RUN], start, members


def member_layout(settings: Settings) -> MemberLayout:
    """How members are batched, and which devices they are spread over: all of several processes'."""
    wanted, found = settings.layout.devices, jax.devices()
    if jax.process_count() > 1:
        if wanted not in (None, len(found)):
            raise InputError(
                f"layout.devices = {wanted}, but the {jax.process_count()} processes of the run have "
                f"{len(found)}, and take all of them: leave it out."
            )
        wanted = len(found)
    if wanted is not None and wanted > len(found):
        raise InputError(f"layout.devices = {wanted}, but this machine has {len(found)} for JAX: {found}.")
    devices = None if wanted is None else tuple(found[:wanted])
    return MemberLayout(settings.layout.batch_size, devices)


def _with_initial(filter: Filter, settings: Settings, dynamics: Dynamics) -> Filter:
    """The Kalman filter starts from N(mean, std² I) itself where that is given, not from a sample."""
    mean, std = settings.initial.mean, settings.initial.std
    if not isinstance(filter, KalmanFilter) or mean is None or std is None:
        return filter
    n = int(np.prod(dynamics.state_shape))
    return KalmanFilter(np.full(dynamics.state_shape, mean), std**2 * np.eye(n), float(filter.inflation))


def _from_file(
    settings: Settings, dynamics: Dynamics, measurement: Measurement, key: jax.Array, members: jax.Array
) -> Case:
    from ...observations.reading import read_observations
    from .plausible import far_from_model

    coordinates = None
    if dynamics.coordinates is not None:
        coordinates = places(measurement.operator, dynamics.state_shape, dynamics.coordinates)
    path = settings.observations.path
    source = dataclasses.replace(settings.observations, path=shipped_file(path or ""))
    with of_files():
        record = read_observations(
            source,
            measurement.output_shape(dynamics.state_shape),
            model_step(settings, dynamics),
            settings.n_cycles,
            None if coordinates is None else coordinates.wrapped(),
        )
    if settings.burn_in >= len(record.steps):
        raise InputError(
            f"burn_in ({settings.burn_in}) leaves none of the {len(record.steps)} cycles of {path} to "
            "score: give a "
            "smaller one, burn_in=0."
        )
    with naming(str(path), ValueError):
        values = real_array("values", record.values)
    for text in record.warnings:
        warn(text)
    far = far_from_model(record, dynamics, measurement, settings.initial, members)
    if far is not None:
        warn(f"{path}: {far}")
    observations = _observations(values, record.steps.astype(np.int32), record.mask)
    about = (record.times, record.units, record.time_units, record.outside, record.dates)
    return Case(key, observations, members, None, *about, record.stations, record.withheld)


_observations = eqx.filter_jit(Observations)
