"""What filters share that draw the analysis members by a sampler of their own."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization
from ...measurements.measurement import Measurement
from ..base import EnsembleState, Info, MemberFilter

__all__ = ["Likelihood", "SampledFilter"]


class Likelihood(eqx.Module):
    """p(z | x) of one cycle, for members in the coordinates v = (x - centre)/scale.

    Args:
        mask: which values of z are there.
        centre, scale: None: v is x.
    """

    measurement: Measurement
    z: Float[Array, "*z"]
    mask: Bool[Array, "*z"]
    centre: Float[Array, "*x"] | None = None
    scale: Float[Array, "..."] | None = None

    def encode(self, ensemble: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
        """v of each member."""
        if self.centre is None or self.scale is None:
            return ensemble
        return (ensemble - self.centre[None]) / self.scale[None]

    def decode(self, v: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
        """Members of these coordinates."""
        if self.centre is None or self.scale is None:
            return v
        return self.centre[None] + self.scale[None] * v

    def scores(self, v: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
        """∇_v log p(z | x) of each member; 0 in components where it does not exist (NaN)."""

        def log_prob(v: Array) -> Array:
            return self.measurement.log_prob(self.z, self.decode(v[None])[0], self.mask)

        scores = jax.vmap(jax.grad(log_prob))(v)
        return jnp.where(jnp.isnan(scores), 0.0, scores)


class SampledFilter(MemberFilter):
    """Filters that draw new members, given the forecast's members and the likelihood of each state.

    A subclass gives `draw`, and `remember` if it carries something from cycle to cycle. Inflation is that
    of all filters; with a `normalization` members are drawn in normalised coordinates.
    """

    uses_noise_of_each_state: ClassVar[bool] = True
    inflation: eqx.AbstractVar[Inflation]
    normalization: eqx.AbstractVar[Normalization | None]

    @abc.abstractmethod
    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        """Analysis members from forecast members, both in the likelihood's coordinates."""

    def remember(self, ensemble: Float[Array, "N *state"]) -> Any:
        """What `draw` is given as memory in the first cycle."""
        return None

    def init(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> EnsembleState:
        normalization = None if self.normalization is None else self.normalization.init(ensemble)
        memory = self.inflation.init(ensemble.dtype), normalization, self.remember(ensemble)
        return EnsembleState(ensemble, None, memory)

    def update(
        self,
        key: PRNGKeyArray,
        state: EnsembleState,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> tuple[EnsembleState, Info]:
        key_draw, key_inflate = jax.random.split(key)
        inflation_memory, normalization_memory, memory = state.memory
        forecast = state.ensemble
        d = jax.vmap(measurement.whitened_innovation, (None, 0, None))(z, forecast, mask)
        inflated, inflation_memory = self.inflation.before(
            forecast, inflation_memory, d, mask.sum().astype(d.dtype)
        )
        centre = scale = None
        if self.normalization is not None:
            centre, scale, normalization_memory = self.normalization(inflated, normalization_memory)
        likelihood = Likelihood(measurement, z, mask, centre, scale)
        drawn, memory, info = self.draw(key_draw, likelihood.encode(inflated), likelihood, memory)
        analysis = self.inflation.after(key_inflate, forecast, likelihood.decode(drawn))
        if inflation_memory is not None:
            info = info | {"inflation": jnp.sqrt(inflation_memory.factor)}
        memory = inflation_memory, normalization_memory, memory
        return EnsembleState(analysis, state.log_weights, memory), info
