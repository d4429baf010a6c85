"""The two-step ensemble score filter: what is measured by EnSF, the rest by regression on it."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...dynamics.base import Dynamics
from ...dynamics.layout import Placement
from ...ensemble.inflation import Inflation
from ...ensemble.normalization import Normalization
from ...ensemble.statistics import anomalies
from ...measurements.measurement import Measurement
from ...numbers import within
from ..base import Info
from .ensf import EnSFSampler
from .sampled import Likelihood, SampledFilter

__all__ = ["EnSFLR"]


class EnSFLR(SampledFilter):
    """EnSF on the measured components o; the others follow by x_u ← x_u + C_uo C_oo⁻¹ (x_o^a - x_o^f).

    C is the ensemble covariance. All in ensemble space, O(N² n): with anomalies A (a row per member),

        x_u ← x_u + (x_o^a - x_o^f) A_oᵀ (A_o A_oᵀ + r I)⁻¹ A_u,   r = ridge · tr(A_o A_oᵀ)/N,

    which without ridge is the formula above, C_oo⁻¹ a pseudo-inverse where fewer members than measured
    components leave C_oo singular. Not localised.

    Source: "A two-step ensemble score filter for data assimilation in partially observed systems" (EnSF-LR).

    Args:
        inflation, normalization, sampler: see `EnSF`.
        ridge: see above, positive; larger than round-off where members are few.

    Raises:
        ValueError: in `prepare`, for measured values that mix components.
    """

    placement: ClassVar[Placement] = "members"
    inflation: Inflation = eqx.field(default_factory=Inflation)
    normalization: Normalization = eqx.field(default_factory=lambda: Normalization("history"))
    sampler: EnSFSampler = eqx.field(default_factory=EnSFSampler)
    ridge: Float[Array, ""] = eqx.field(converter=within("ridge", "(0, inf]"), default=1e-3)

    def prepare(self, dynamics: Dynamics, measurement: Measurement) -> EnSFLR:
        if measurement.operator.sources(dynamics.state_shape) is None:
            raise ValueError(
                "EnSF-LR needs measured values that depend on one component each, to tell measured components"
                f" from others; those of {type(measurement.operator).__name__} mix components. Take EnSF."
            )
        return self

    def draw(
        self, key: PRNGKeyArray, members: Float[Array, "N *x"], likelihood: Likelihood, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, Info]:
        measured = _measured(likelihood, members.shape[1:])
        # an unmeasured component at 0 in all members tells them apart no more than a missing one
        only = jnp.where(measured[None], members, 0.0)
        drawn = self.sampler(key, only, likelihood.guiding(members).scores)
        n_members = members.shape[0]
        deviations = anomalies(members)[1].reshape(n_members, -1)
        part = jnp.where(measured.reshape(-1)[None], deviations, 0.0)
        gram = part @ part.T
        r = self.ridge.astype(gram.dtype) * jnp.trace(gram) / n_members
        r = jnp.maximum(r, jnp.finfo(gram.dtype).tiny)
        factor = cho_factor(gram + r * jnp.eye(n_members, dtype=gram.dtype))
        moved = jnp.where(measured[None], drawn - members, 0.0).reshape(n_members, -1)
        weights = cho_solve(factor, part @ moved.T).T
        regressed = members + (weights @ deviations).reshape(members.shape)
        return jnp.where(measured[None], drawn, regressed), memory, {}


def _measured(likelihood: Likelihood, state_shape: tuple[int, ...]) -> Bool[Array, "*x"]:
    """Which components are measured in this cycle."""
    sources = likelihood.measurement.operator.sources(state_shape)
    if sources is None:
        raise ValueError(
            f"values of {type(likelihood.measurement.operator).__name__} mix components: call filter.prepare."
        )
    empty = jnp.zeros(state_shape, bool).reshape(-1)
    return empty.at[jnp.asarray(sources)].max(likelihood.mask.reshape(-1)).reshape(state_shape)
