"""From settings to what `assimilate` takes: objects, observations, truth, first ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...dynamics import Dynamics, MemberLayout, spun_up_ensemble
from ...filters import Filter, KalmanFilter
from ...measurements import Measurement, Observations
from ...twin import simulate
from ..config.builders.dynamics import DYNAMICS
from ..config.builders.filters import FILTERS
from ..config.builders.measurement import MEASUREMENTS, Network
from ..config.settings import Settings
from ..errors import InputError
from .amortised import with_trained_network
from .pretrained import with_checkpoint

if TYPE_CHECKING:
    from ..observations.reading import Record

__all__ = ["Case", "Problem", "build", "build_case", "build_filter", "build_models", "member_layout"]

_TRUTH, _RUN, _START, _ENSEMBLE, _FILTER = range(5)
"""Purposes of the random keys: `fold_in(key(seed), purpose)`."""


class Problem(NamedTuple):
    """Everything one run needs; truth is None with real observations."""

    key: jax.Array
    filter: Filter
    dynamics: Dynamics
    measurement: Measurement
    observations: Observations
    ensemble: jax.Array
    truth: jax.Array | None
    times: np.ndarray | None = None
    """Times in the observation file, (cycles,)."""
    units: str | None = None
    """Of the observations, where they or the settings say."""


class Case(NamedTuple):
    """What a run has of its seed: the fields of `Problem` by the same names."""

    key: jax.Array
    observations: Observations
    ensemble: jax.Array
    truth: jax.Array | None
    times: np.ndarray | None = None
    units: str | None = None


def build(settings: Settings) -> Problem:
    """Builds the problem; truth, ensemble and filter have keys of their own.

    Raises:
        InputError: settings the library refuses, a truth that blows up, a bad observation file.
    """
    dynamics, network = build_models(settings)
    filter = build_filter(settings, dynamics)
    key, observations, ensemble, truth, times, units = build_case(settings, dynamics, network)
    measurement = network.measurement
    return Problem(key, filter, dynamics, measurement, observations, ensemble, truth, times, units)


def build_models(settings: Settings) -> tuple[Dynamics, Network]:
    """The model and what measures it."""
    dynamics = DYNAMICS.build(settings.dynamics)
    return dynamics, MEASUREMENTS.build(settings.measurement, dynamics.state_shape)


def build_filter(settings: Settings, dynamics: Dynamics) -> Filter:
    """The filter, with the network of its checkpoint where it has one; not prepared."""
    filter = _with_initial(FILTERS.build(settings.filter), settings, dynamics)
    return with_trained_network(with_checkpoint(filter, settings, dynamics), settings, dynamics)


def build_case(settings: Settings, dynamics: Dynamics, network: Network) -> Case:
    """Truth, observations and first ensemble of `settings.seed`."""
    root = jax.random.key(settings.seed)
    key = [jax.random.fold_in(root, purpose) for purpose in range(5)]
    try:
        start = _truth_start(settings, dynamics, key[_START])
        ensemble = _first_ensemble(settings, dynamics, start, key[_ENSEMBLE])
        if settings.observations.path is not None:
            observations, record = _from_file(settings, dynamics, network.measurement)
            return Case(key[_FILTER], observations, ensemble, None, record.times, record.units)
        truth, observations = _twin(settings, dynamics, network, start, key[_RUN])
    except (ValueError, NotImplementedError) as error:
        raise InputError(str(error)) from error
    return Case(key[_FILTER], observations, ensemble, truth, units=settings.observations.units)


def member_layout(settings: Settings) -> MemberLayout:
    """How members are batched, and which of this machine's devices they are spread over."""
    wanted, found = settings.layout.devices, jax.devices()
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


def _truth_start(settings: Settings, dynamics: Dynamics, key: jax.Array) -> jax.Array:
    initial = settings.initial
    if initial.mean is not None and initial.std is not None:
        return initial.mean + initial.std * jax.random.normal(key, dynamics.state_shape)
    return eqx.filter_jit(type(dynamics).sample_climatology)(dynamics, key)


def _first_ensemble(settings: Settings, dynamics: Dynamics, start: jax.Array, key: jax.Array) -> jax.Array:
    """(N, *state_shape) members; see `Initial`."""
    initial, n = settings.initial, settings.ensemble_size
    shape = (n, *dynamics.state_shape)
    if initial.mean is not None and initial.std is not None:
        return initial.mean + initial.std * jax.random.normal(key, shape)
    if initial.spread is None:
        return eqx.filter_jit(spun_up_ensemble)(dynamics, key, n, member_layout(settings))
    key_mean, key_members = jax.random.split(key)
    centre = start + initial.spread * jax.random.normal(key_mean, dynamics.state_shape)
    return centre[None] + initial.spread * jax.random.normal(key_members, shape)


def _twin(
    settings: Settings, dynamics: Dynamics, network: Network, start: jax.Array, key: jax.Array
) -> tuple[jax.Array, Observations]:
    n_cycles = settings.n_cycles or 0
    truth, observations = eqx.filter_jit(simulate)(
        key, dynamics, network.measurement, n_cycles, settings.steps_per_cycle, start
    )
    finite = np.isfinite(np.asarray(truth)).reshape(n_cycles, -1).all(1)
    if not finite.all():
        raise InputError(
            f"the simulated truth is not finite from cycle {int(np.argmin(finite))} on: "
            f"dynamics.dt = {settings.dynamics.get('dt')} may be too large for the model."
        )
    if network.mask is not None:
        mask = network.mask(n_cycles)
        observations = Observations(observations.values, settings.steps_per_cycle, jnp.asarray(mask))
    return truth, observations


def _from_file(
    settings: Settings, dynamics: Dynamics, measurement: Measurement
) -> tuple[Observations, Record]:
    from ..observations.reading import read_observations

    coordinates = None
    if dynamics.coordinates is not None:
        coordinates = measurement.operator.coordinates(dynamics.coordinates)
    record = read_observations(
        settings.observations,
        measurement.output_shape(dynamics.state_shape),
        float(dynamics.dt),
        settings.n_cycles,
        None if coordinates is None else coordinates.wrapped(),
    )
    return Observations(record.values, record.steps, record.mask), record
