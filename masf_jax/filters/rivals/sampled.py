"""What filters share that draw the analysis members by a sampler of their own."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...ensemble.normalization import Normalization
from ...measurements.measurement import Measurement
from ..base import InflatedFilter, Info

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


class SampledFilter(InflatedFilter):
    """Filters that draw new members, given the forecast's members and the likelihood of each state.

    A subclass gives `draw`, and `first_memory` if it carries something from cycle to cycle. With a
    `normalization` members are drawn in normalised coordinates.
    """

    uses_noise_of_each_state: ClassVar[bool] = True
    normalization: eqx.AbstractVar[Normalization | None]

    @abc.abstractmethod
    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        """Analysis members from forecast members, both in the likelihood's coordinates."""

    def first_memory(self, ensemble: Float[Array, "N *state"]) -> Any:
        """What `draw` is given as memory in the first cycle."""
        return None

    def remember(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> Any:
        units = None if self.normalization is None else self.normalization.init(ensemble)
        return units, self.first_memory(ensemble)

    def analyse(
        self,
        key: PRNGKeyArray,
        members: Float[Array, "N *x"],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        units, memory = memory
        centre = scale = None
        if self.normalization is not None:
            centre, scale, units = self.normalization(members, units)
        likelihood = Likelihood(measurement, z, mask, centre, scale)
        drawn, memory, info = self.draw(key, likelihood.encode(members), likelihood, memory)
        return likelihood.decode(drawn), (units, memory), info
