"""Values of a record far from anything that the model, measured, gives."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import numpy as np

from ...dynamics import Dynamics, spun_up_ensemble
from ...measurements import Measurement
from ...observations.reading import Record, first_of
from ..config.settings import Initial

__all__ = ["far_from_model"]

_DRAWS = 32
_MOST_WORK = 10**8
"""Components × steps of spin-up × draws; of larger models the first ensemble stands for the climatology."""
_RANGES = 10.0


def far_from_model(
    record: Record,
    dynamics: Dynamics,
    measurement: Measurement,
    initial: Initial,
    ensemble: jax.Array,
) -> str | None:
    """A sentence on values further than ten times the range of what is measured of the climatology (or of the
    Gaussian of `initial`, where that is given) from that range; None: there are none."""
    key = jax.random.key(0)
    work = math.prod(dynamics.state_shape) * max(dynamics.spin_up_steps, 1) * _DRAWS
    states = ensemble
    if initial.mean is not None and initial.std is not None:
        numbers = np.random.default_rng(0).standard_normal((_DRAWS, *dynamics.state_shape))
        states = jax.device_put((initial.mean + initial.std * numbers).astype(ensemble.dtype))
    elif work <= _MOST_WORK:
        states = _climatology(dynamics, key)
    measured = np.asarray(_measured(measurement, key, states), np.float64)
    width = np.ptp(measured, axis=0)
    width = np.maximum(width, np.mean(width))
    if states is ensemble:  # its members may be close together: the range over all values
        width = np.full_like(width, np.ptp(measured))
    if not np.isfinite(width).all() or not (width > 0).all():
        return None
    least, most = measured.min(0) - _RANGES * width, measured.max(0) + _RANGES * width
    far = record.mask & ((record.values < least) | (record.values > most))
    if not far.any():
        return None
    return (
        f"{int(far.sum())} of {int(record.mask.sum())} values lie far outside what the model gives "
        f"({measured.min():.3g} … {measured.max():.3g}), first "
        f"{first_of(far, record.values, record.times)}. They "
        "are used as they are: observations.valid_range or quality_control.threshold leave such out."
    )


@eqx.filter_jit
def _climatology(dynamics: Dynamics, key: jax.Array) -> jax.Array:
    return spun_up_ensemble(dynamics, key, _DRAWS)


@eqx.filter_jit
def _measured(measurement: Measurement, key: jax.Array, states: jax.Array) -> jax.Array:
    return jax.vmap(measurement.sample)(jax.random.split(key, states.shape[0]), states)
