"""The serial ensemble square-root filter."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...dynamics.base import Dynamics
from ...dynamics.layout import AXIS, Placement, current
from ...ensemble.inflation import Inflation
from ...ensemble.localization import as_radius_or_none, taper_matrix
from ...ensemble.statistics import anomalies
from ...ensemble.transforms import mean_preserving_rotation
from ...measurements.measurement import Measurement
from ..base import EnsembleFilter, Info
from .geometry import measured_coordinates

__all__ = ["EnSRF"]

_BLOCK = 32
"""Values of which devices send each other the anomalies at once."""


class EnSRF(EnsembleFilter):
    """Assimilates whitened values one after another: mean by K, anomalies by α K.

    For a value with anomalies s and innovation d: v = sᵀs/(N-1), K = Xᵀs/((N-1)(v+1)) tapered,
    α = 1/(1 + (1+v)^{-1/2}); mean += K d, X -= α s Kᵀ. The predicted values still to come are
    updated alike. The taper is a dense (n + m) × m array: for small and medium problems.

    Source: Whitaker & Hamill (2002), doi 10.1175/1520-0493(2002)130.

    Args:
        inflation: see `Inflation`.
        rotation: random mean-preserving rotation after each analysis.
        radius: Gaspari-Cohn length, support 2·radius; inf: no localisation (kept as None). Another finite
            one compiles nothing new.
        taper: filled in by `prepare`.
    """

    placement: ClassVar[Placement] = "components"
    forms_gram: ClassVar[bool] = False

    inflation: Inflation = eqx.field(default_factory=Inflation)
    rotation: bool = eqx.field(static=True, default=False)
    radius: Float[Array, ""] | None = eqx.field(converter=as_radius_or_none, default=math.inf)
    taper: Float[Array, "m n_plus_m"] | None = None

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> EnSRF:
        if self.radius is None:
            return self
        state, measured = measured_coordinates("EnSRF", self.radius, dynamics, measurement)
        to_state = taper_matrix(measured, state, self.radius)
        channels = math.prod(dynamics.state_shape) // state.n_points
        taper = jnp.concatenate(
            [
                jnp.tile(jnp.asarray(to_state), (1, channels)),
                jnp.asarray(taper_matrix(measured, measured, self.radius)),
            ],
            axis=1,
        )
        return dataclasses.replace(self, taper=taper)

    def draws(self, key: PRNGKeyArray, n_members: int, mask: Bool[Array, " m"], dtype: Any) -> Array | None:
        """The rotation."""
        return mean_preserving_rotation(key, n_members, dtype) if self.rotation else None

    def transform(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        return self.exact_transform(self.draws(key, len(x), mask, x.dtype), x, innovations, mask)

    def exact_transform(
        self,
        draws: Array | None,
        x: Float[Array, "N n"],
        innovations: Float[Array, "N m"],
        mask: Bool[Array, " m"],
    ) -> tuple[Float[Array, "N n"], Info]:
        if self.taper is None and self.radius is not None:
            raise ValueError("EnSRF needs its taper: call filter.prepare(dynamics, measurement).")
        mean, deviations = (
            self._serially(x, innovations) if current().devices is None else self._in_blocks(x, innovations)
        )
        if draws is not None:
            deviations = draws @ deviations
        return mean[None] + deviations, {}

    def _serially(
        self, x: Float[Array, "N n"], innovations: Float[Array, "N m"]
    ) -> tuple[Float[Array, " n"], Float[Array, "N n"]]:
        """Analysis mean and anomalies; x may hold several states in a row (`enks`)."""
        n, m = x.shape[1], innovations.shape[1]
        joint = jnp.concatenate([x, -innovations], axis=1)  # predicted values minus z: same anomalies
        mean, deviations = anomalies(joint)

        def one(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            mean, deviations = carry
            taper = None
            if self.taper is not None:
                to_state, between = self.taper[j, :-m], self.taper[j, -m:]
                taper = jnp.concatenate([jnp.tile(to_state, n // len(to_state)), between])
            return _moved(mean, deviations, deviations[:, n + j], mean[n + j], taper)

        mean, deviations = jax.lax.fori_loop(0, m, one, (mean, deviations))
        return mean[:n], deviations[:, :n]

    def _in_blocks(
        self, x: Float[Array, "N n"], innovations: Float[Array, "N m"]
    ) -> tuple[Float[Array, " n"], Float[Array, "N n"]]:
        """`_serially` on several devices, which have components of x and predicted values each.

        All devices are sent the predicted values that are next, a block at a time, and update their copies
        of them as they update their own: one message a block instead of one a value.
        """
        layout, (n, m) = current(), (x.shape[1], innovations.shape[1])
        share = -(-m // layout.n_devices)
        size = min(_BLOCK, share)
        share += -share % size  # values of a device: whole blocks
        total = share * layout.n_devices

        def padded(a: Array, width: int) -> Array:
            return jnp.pad(a, ((0, 0), (0, width - a.shape[1])))

        x, y = padded(x, n + -n % layout.n_devices), padded(-innovations, total)
        tapers = None
        if self.taper is not None:
            rows = jnp.pad(self.taper.astype(x.dtype), ((0, total - m), (0, 0)))
            between = padded(rows[:, n:], total)
            near = jnp.arange(total)[:, None] // size * size + jnp.arange(size)[None]
            block = jnp.take_along_axis(between, near, axis=1)
            tapers = padded(rows[:, :n], x.shape[1]), between, block

        def own(x: Array, y: Array, tapers: Any) -> tuple[Array, Array]:
            me, first = jax.lax.axis_index(AXIS), x.shape[1]
            mean, deviations = anomalies(jnp.concatenate([x, y], axis=1))
            if tapers is not None:
                tapers = jnp.concatenate(tapers[:2], axis=1), tapers[2]

            def block(b: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
                start = b * size
                at = first + start % share
                mine = tuple(jax.lax.dynamic_slice_in_dim(a, at, size, a.ndim - 1) for a in carry)
                sent = jax.lax.psum(
                    jax.tree.map(lambda a: jnp.where(start // share == me, a, 0.0), mine), AXIS
                )

                def one(j: Array, both: tuple[tuple[Array, Array], tuple[Array, Array]]) -> Any:
                    (mean, deviations), (values, s) = both
                    taper = (None, None) if tapers is None else (tapers[0][start + j], tapers[1][start + j])
                    by = s[:, j], values[j]
                    return _moved(mean, deviations, *by, taper[0]), _moved(values, s, *by, taper[1])

                return jax.lax.fori_loop(0, size, one, (carry, sent))[0]

            mean, deviations = jax.lax.fori_loop(0, total // size, block, (mean, deviations))
            return mean[:first], deviations[:, :first]

        columns, each = PartitionSpec(None, AXIS), PartitionSpec(AXIS)
        specs = None if tapers is None else (columns, columns, PartitionSpec())
        mean, deviations = layout.local(own, (columns, columns, specs), (each, columns))(x, y, tapers)
        return mean[:n], deviations[:, :n]


def _moved(
    mean: Float[Array, " n"],
    deviations: Float[Array, "N n"],
    s: Float[Array, " N"],
    innovation: Float[Array, ""],
    taper: Float[Array, " n"] | None,
) -> tuple[Float[Array, " n"], Float[Array, "N n"]]:
    """Mean and anomalies after one value of anomalies s, predicted as far as -innovation from it."""
    scale = len(s) - 1
    variance = (s @ s) / scale
    gain = (s @ deviations) / (scale * (1.0 + variance))
    if taper is not None:
        gain = gain * taper.astype(gain.dtype)
    alpha = 1.0 / (1.0 + 1.0 / jnp.sqrt(1.0 + variance))
    return mean - gain * innovation, deviations - alpha * s[:, None] * gain[None]
