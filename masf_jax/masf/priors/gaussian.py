"""The forecast as a Gaussian: the bridge is then an ensemble Kalman analysis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, get_args

import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ...bases import IdentityBasis
from ...coordinates import Coordinates
from ...denoisers.base import Denoiser
from ...denoisers.gaussian import DENSE_TAPERED, GaussianDenoiser, Members, ensemble_gaussian
from ...diffusion.process import Process
from ...dynamics.base import Dynamics
from ...dynamics.layout import MemberLayout, Placement
from ...ensemble.local_taper import LocalTaper, local_taper
from ...ensemble.localization import as_radius_or_none
from ...ensemble.taper import Taper, taper
from ...measurements.measurement import Measurement
from ...numbers import shown
from ..climate import Climate
from .base import Prior

__all__ = ["GaussianPrior"]

_DENSE_TANGENTS = 64
"""`DENSE_TAPERED` for nonlinear operators."""


class GaussianPrior(Prior):
    """The ensemble's mean and (localised) covariance.

    Args:
        radius: Gaspari-Cohn length of the taper in the coordinates' unit; inf: no localisation (kept as
            None). It may be traced (`vmap` over radii).
        members: "transported" and "perturbed" make each analysis member from a forecast member of its own, as
            a square root filter and as a stochastic EnKF; "fresh" draws it from the Gaussian
            (`GaussianDenoiser`). At tangents of each member's own, "transported" is "perturbed".
        rotation: a random mean-preserving rotation of transported members in each analysis: without it they
            keep their forecast's shape, in which outliers grow over the cycles.
        taper, local: filled in by `prepare`; the second where each measured value is one of a component's
            own, with uncorrelated noise.
    """

    radius: Float[Array, ""] | None = eqx.field(converter=as_radius_or_none, default=math.inf)
    members: Members = eqx.field(static=True, default="transported")
    rotation: bool = eqx.field(static=True, default=False)
    taper: Taper | None = None
    local: LocalTaper | None = None

    def __check_init__(self) -> None:
        if self.members not in get_args(Members):
            raise ValueError(f"members must be one of {', '.join(get_args(Members))}; got {self.members!r}.")

    @property
    def placement(self) -> Placement:  # pyright: ignore[reportIncompatibleVariableOverride]
        moved = self.local is not None and self.transports
        return "components" if self.radius is None or moved else "replicated"

    @property
    def couples_members(self) -> bool:
        return self.members != "fresh"

    @property
    def transports(self) -> bool:
        return self.members == "transported"

    @property
    def rotates(self) -> bool:
        return self.rotation and self.transports

    @property
    def of_each_member(self) -> GaussianPrior:
        """With a process each, members have no common transport: each solves its own, perturbed."""
        return dataclasses.replace(self, members="perturbed") if self.transports else self

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> GaussianPrior:
        if self.radius is None:
            return self
        if dynamics.coordinates is None:
            raise ValueError(
                f"localisation radius {shown(self.radius)} needs coordinates, and "
                f"{type(dynamics).__name__} has none: give the model coordinates, or use radius inf."
            )
        local = self._around(dynamics.coordinates, dynamics.state_shape, measurement)
        return dataclasses.replace(
            self,
            local=local,
            taper=taper(dynamics.coordinates, dynamics.state_shape, self.radius, needed=local is None),
        )

    def _around(
        self, coordinates: Coordinates, state_shape: tuple[int, ...], measurement: Measurement
    ) -> LocalTaper | None:
        """The taper around measured components, of a state too large for a matrix of all.

        Too large for a nonlinear operator is less: each member has tangents, and factorisations, of its own.
        """
        sources = measurement.operator.sources(state_shape)
        most = DENSE_TAPERED if measurement.operator.structure is not None else _DENSE_TANGENTS
        large = math.prod(state_shape) > most and not isinstance(self.radius, Tracer)
        if not large or sources is None or not measurement.noise.diagonal or self.radius is None:
            return None
        return local_taper(coordinates, np.unique(sources), self.radius)

    def spread(self, layout: MemberLayout) -> GaussianPrior:
        return self if self.local is None else dataclasses.replace(self, local=self.local.spread(layout))

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        return self.denoiser(ensemble, process), memory, {}

    def denoiser(self, ensemble: Float[Array, "N *v"], process: Process) -> GaussianDenoiser:
        """The denoiser itself."""
        if self.taper is None and self.local is None and self.radius is not None:
            raise ValueError(
                "the Gaussian denoiser needs its taper: call filter.prepare(dynamics, measurement)."
            )
        basis = process.frame.basis
        local = self.local if isinstance(basis, IdentityBasis) else None
        return ensemble_gaussian(ensemble, self.taper, basis, self.members, local)
