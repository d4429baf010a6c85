"""What filters share that draw the analysis members by a sampler of their own."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Scalar

from ...dynamics.layout import current
from ...ensemble.normalization import Normalization
from ...measurements.measurement import Measurement
from ..base import InflatedFilter, Info

__all__ = ["Likelihood", "SampledFilter"]


_FARTHEST = 10.0
"""Longest step of the guidance, in the coordinates' unit (standard deviations of the forecast)."""


class Likelihood(eqx.Module):
    """p(z | x) of one cycle, for members in the coordinates v = (x - centre)/scale.

    Args:
        mask: which values of z are there.
        centre, scale: None: v is x. A scale of 0: the component is the centre in all members, and stays so.
        curvature: see `_curvature`; None: `scores` shortens no step.
    """

    measurement: Measurement
    z: Float[Array, "*z"]
    mask: Bool[Array, "*z"]
    centre: Float[Array, "*x"] | None = None
    scale: Float[Array, "..."] | None = None
    curvature: Float[Array, "*x"] | None = None

    @classmethod
    def around(
        cls,
        members: Float[Array, "N *x"],
        centre: Float[Array, "*x"],
        scale: Float[Array, "..."],
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        measurement: Measurement,
    ) -> Likelihood:
        """That in the coordinates of `centre` and `scale`; what is the same in all members does not vary."""
        varies = (members != members[:1]).any(0)
        centre, scale = jnp.where(varies, centre, members[0]), jnp.where(varies, scale, 0.0)
        return cls(measurement, z, mask, centre, scale)

    def guiding(self, v: Float[Array, "N *x"]) -> Likelihood:
        """The same with the curvature that these members see; in raw coordinates as it is."""
        return self if self.scale is None else dataclasses.replace(self, curvature=_curvature(self, v))

    def encode(self, ensemble: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
        """v of each member."""
        if self.centre is None or self.scale is None:
            return ensemble
        safe = jnp.where(self.scale > 0, self.scale, jnp.inf)
        return (ensemble - self.centre[None]) / safe[None]

    def decode(self, v: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
        """Members of these coordinates."""
        if self.centre is None or self.scale is None:
            return v
        return self.centre[None] + self.scale[None] * v

    def scores(
        self, v: Float[Array, "N *x"], step: Scalar | None = None, bounded: bool = False
    ) -> Float[Array, "N *x"]:
        """∇_v log p(z | x) of each member; 0 in components where it does not exist (NaN).

        g for a move by `step` · g: where that would carry a component beyond the largest likelihood (`step` ·
        curvature > 1), g is shortened to end there. bounded: no component moves by more than `_FARTHEST`.
        """

        def log_prob(x: Array) -> Array:
            return self.measurement.log_prob(self.z, x, self.mask)

        scores = current().each(jax.grad(log_prob), self.decode(v))
        if self.scale is not None:
            factor = self.scale
            if self.curvature is not None and step is not None:
                factor = factor / jnp.maximum(step * self.curvature, 1.0)
            scores = factor[None] * scores
        scores = jnp.where(jnp.isnan(scores), 0.0, scores)
        if self.scale is None or step is None or not bounded:
            return scores
        farthest = jnp.minimum(_FARTHEST / step, jnp.finfo(v.dtype).max)
        return jnp.clip(scores, -farthest, farthest)


def _curvature(likelihood: Likelihood, members: Float[Array, "N *x"]) -> Float[Array, "*x"]:
    """About max_j Σ_k |A_j|_ik, A_j = GᵀG, G the derivative of R^{-1/2} H(x) in v at member j: as a diagonal
    matrix it bounds A_j.

    Row sums are had from products with vectors of signs: those of the member, then those of the product,
    which are right where one value mixes components (Hager's estimate of |A|_∞). Exact where each value
    depends on one component.
    """
    measurement, z, mask = likelihood.measurement, likelihood.z, likelihood.mask

    def one(v: Array) -> Array:
        def whitened(v: Array) -> Array:
            return measurement.whitened_innovation(z, likelihood.decode(v[None])[0], mask)

        _, push = jax.linearize(whitened, v)
        pull = jax.linear_transpose(push, v)

        def product(signs: Array) -> Array:
            return pull(push(jnp.where(signs < 0, -1.0, jnp.ones_like(v))))[0]

        first = product(v)
        return jnp.maximum(jnp.abs(first), jnp.abs(product(first)))

    sums = current().each(one, members).max(0)
    return jnp.where(jnp.isnan(sums), 0.0, sums)


class SampledFilter(InflatedFilter):
    """Filters that draw new members, given the forecast's members and the likelihood of each state.

    A subclass gives `draw`, and `first_memory` if it carries something from cycle to cycle. Members are drawn
    in the coordinates of `normalization`, where what a sampler holds for scales has no unit: of the forecasts
    (by default) an analysis does not depend on units. `Normalization("raw")` is the form of the released
    codes: the state's own units, and no step of the guidance shortened.
    """

    uses_noise_of_each_state: ClassVar[bool] = True
    normalization: eqx.AbstractVar[Normalization]

    @abc.abstractmethod
    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        """Analysis members from forecast members, both in the likelihood's coordinates."""

    def first_memory(self, ensemble: Float[Array, "N *state"]) -> Any:
        """What `draw` is given as memory in the first cycle."""
        return None

    def remember(self, key: PRNGKeyArray, ensemble: Float[Array, "N *state"]) -> Any:
        return self.normalization.init(ensemble), self.first_memory(ensemble)

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
        if self.normalization.kind == "raw":
            likelihood = Likelihood(measurement, z, mask)
        else:
            centre, scale, units = self.normalization(members, units)
            likelihood = Likelihood.around(members, centre, scale, z, mask, measurement)
        drawn, memory, info = self.draw(key, likelihood.encode(members), likelihood, memory)
        return likelihood.decode(drawn), (units, memory), info
