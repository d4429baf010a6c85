"""The forecast as a Gaussian: the bridge is then an ensemble Kalman analysis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, get_args

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...denoisers.gaussian import GaussianDenoiser, Members, ensemble_gaussian
from ...diffusion.process import Process
from ...dynamics.base import Dynamics
from ...dynamics.layout import Placement
from ...ensemble.localization import as_radius_or_none
from ...ensemble.taper import Taper, taper
from ...measurements.measurement import Measurement
from ..climate import Climate
from .base import Prior

__all__ = ["GaussianPrior"]


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
        taper: filled in by `prepare`.
    """

    radius: Float[Array, ""] | None = eqx.field(converter=as_radius_or_none, default=math.inf)
    members: Members = eqx.field(static=True, default="transported")
    rotation: bool = eqx.field(static=True, default=False)
    taper: Taper | None = None

    def __check_init__(self) -> None:
        if self.members not in get_args(Members):
            raise ValueError(f"members must be one of {', '.join(get_args(Members))}; got {self.members!r}.")

    @property
    def placement(self) -> Placement:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "components" if self.radius is None else "replicated"

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
                f"localisation radius {self.radius} needs coordinates, and {type(dynamics).__name__} has "
                "none: give the model coordinates, or use radius inf."
            )
        chosen = taper(dynamics.coordinates, dynamics.state_shape, self.radius)
        return dataclasses.replace(self, taper=chosen)

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        return self.denoiser(ensemble, process), memory, {}

    def denoiser(self, ensemble: Float[Array, "N *v"], process: Process) -> GaussianDenoiser:
        """The denoiser itself."""
        if self.taper is None and self.radius is not None:
            raise ValueError(
                "the Gaussian denoiser needs its taper: call filter.prepare(dynamics, measurement)."
            )
        return ensemble_gaussian(ensemble, self.taper, process.frame.basis, self.members)
