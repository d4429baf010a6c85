"""The model's climatology as a score-based filter sees it: normalised, and on its way to the measurement."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ..bases import IdentityBasis
from ..derivatives import without_derivative
from ..diffusion.conditional import towards_noise
from ..diffusion.process import Frame, Process, ProcessFamily
from ..dynamics.base import Dynamics
from ..dynamics.rollout import SAMPLED, at_once, climatological_states
from ..ensemble.normalization import Moments, Normalization
from ..ensemble.statistics import member_mean, member_variance
from ..measurements.measurement import Measurement

__all__ = ["Climate", "climate"]


class Climate(NamedTuple):
    """What a network is pretrained on.

    Attributes:
        states: climatological states, in the coordinates of the process.
        validation: some of other trajectories.
        process: to a measurement without gaps; of its measured values nothing depends on the observations.
        moments: that the states were normalised with.
    """

    states: Float[Array, "n *v"]
    validation: Float[Array, "m *v"]
    process: Process
    moments: Moments


def climate(
    dynamics: Dynamics,
    measurement: Measurement,
    normalization: Normalization,
    family: ProcessFamily | None,
    key: PRNGKeyArray,
    n: int = 1000,
) -> Climate:
    """`n` states of the model and a tenth as many for validation, normalised by `normalization`'s moments.

    Without moments, by those of the `n` states themselves. Without a family of processes the states are on
    their way to noise.

    Raises:
        ValueError: a model that blows up, or a measurement that the process cannot take.
    """
    with at_once(dynamics):
        found = eqx.filter_jit(climatological_states)(dynamics, key, n, max(1, n // 10))
    states, validation = without_derivative(SAMPLED, found)
    if not isinstance(states, Tracer) and not np.isfinite(np.asarray(states)).all():
        raise ValueError(
            f"climatological states of {type(dynamics).__name__} are not finite: its time step dt = "
            f"{float(dynamics.dt):g} may be too large."
        )
    moments = normalization.moments
    if moments is None:
        moments = Moments(member_mean(states), member_variance(states))
    fixed = dataclasses.replace(normalization, kind="fixed", moments=moments)
    centre, scale, _ = fixed(states, None)
    if family is None:
        process = towards_noise(Frame(centre, scale, IdentityBasis()), centre)
    else:
        z = jnp.zeros(measurement.output_shape(dynamics.state_shape), states.dtype)
        process = family(measurement, z, jnp.ones(z.shape, bool), centre, scale)
    encode = jax.vmap(process.frame.encode)
    return Climate(encode(states), encode(validation), process, moments)
