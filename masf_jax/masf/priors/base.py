"""What a score-based filter makes of each cycle's forecast ensemble: a denoiser, or the analysis itself."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...denoisers.gaussian import GaussianDenoiser, Members, ensemble_gaussian
from ...denoisers.kernel import ensemble_kernel
from ...diffusion.process import Process
from ...diffusion.schedules import TimeGrid, time_grid
from ...dynamics.base import Dynamics
from ...ensemble.density import check_bandwidth
from ...ensemble.taper import Taper, taper
from ...measurements.measurement import Measurement
from ..climatology import Climate

__all__ = ["DenoiserFit", "DrawingFit", "Fit", "GaussianFit", "KernelFit", "Sampling", "member_keys"]


class Fit(eqx.Module):
    """What a filter makes of a forecast ensemble; may remember across cycles."""

    routes: ClassVar[tuple[str, ...]] = ("linear", "linearized")
    """Routes to the analysis that it can take (see `MASF`)."""

    @property
    def climatological(self) -> bool:
        """Whether it knows states in units of the model's climatology only (a fixed normalisation)."""
        return False

    @property
    def couples_members(self) -> bool:
        """Whether each analysis member comes from a forecast member of its own."""
        return False

    @property
    def trained(self) -> bool:
        """Whether it is a network's, with parameters."""
        return False

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> Fit:
        """This fit with what it derives from the model; raises ValueError where it does not suit them.

        `climate()` is the model's climatology in the filter's normalisation and process.
        """
        return self

    def init(self) -> Any:
        """What is remembered before the first cycle."""
        return None


class DenoiserFit(Fit):
    """From a forecast ensemble, in a process's coordinates, to a denoiser that knows nothing of z."""

    @property
    def transports(self) -> bool:
        """Whether it moves the forecast members without noise."""
        return False

    @property
    def of_each_member(self) -> DenoiserFit:
        """This fit where each member has a process of its own, to the tangent of H at its own state."""
        return self

    @abc.abstractmethod
    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        """The denoiser, the memory for the next cycle, and scalars to report."""


class Sampling(NamedTuple):
    """How a reverse process is run; see the arguments of `MASF`."""

    n_steps: int
    grid: TimeGrid
    first: float
    corrected: bool
    paper_scales: bool

    def times(self, n_steps: int | None = None) -> Float[Array, " n_times"]:
        """The times it stops at; in as many steps as given instead of its own."""
        return time_grid(self.n_steps if n_steps is None else n_steps, self.grid, self.first)


class DrawingFit(Fit):
    """From a forecast ensemble and the measured values to the analysis members."""

    @abc.abstractmethod
    def draw(
        self,
        key: PRNGKeyArray,
        members: Float[Array, "N *x"],
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        units: tuple[Float[Array, "*x"], Float[Array, "..."]],
        sampling: Sampling,
        memory: Any,
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        """The analysis members, the memory for the next cycle, and scalars to report.

        Args:
            members: of the forecast, in the state's units.
            units: centre and scale of the filter's normalisation.
        """


class GaussianFit(DenoiserFit):
    """The ensemble's mean and (localised) covariance: the bridge is then an ensemble Kalman analysis.

    Args:
        radius: Gaspari-Cohn length of the taper in the coordinates' unit; inf: no localisation.
        members: "transported" and "perturbed" make each analysis member from a forecast member of its own, as
            a square root filter and as a stochastic EnKF; "fresh" draws it from the Gaussian
            (`GaussianDenoiser`). At tangents of each member's own, "transported" is "perturbed".
        taper: filled in by `prepare`.
    """

    radius: float = eqx.field(static=True, default=math.inf)
    members: Members = eqx.field(static=True, default="fresh")
    taper: Taper | None = None

    @property
    def couples_members(self) -> bool:
        return self.members != "fresh"

    @property
    def transports(self) -> bool:
        return self.members == "transported"

    @property
    def of_each_member(self) -> GaussianFit:
        """With a process each, members have no common transport: each solves its own, perturbed."""
        return dataclasses.replace(self, members="perturbed") if self.transports else self

    def __check_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"localisation radius must be positive (inf: none); got {self.radius}.")
        if self.members not in get_args(Members):
            raise ValueError(f"members must be one of {', '.join(get_args(Members))}; got {self.members!r}.")

    def prepare(
        self, dynamics: Dynamics, measurement: Measurement, climate: Callable[[], Climate] | None = None
    ) -> GaussianFit:
        if math.isinf(self.radius):
            return self
        if dynamics.coordinates is None:
            raise ValueError(
                f"localisation radius {self.radius} needs coordinates, and {type(dynamics).__name__} has "
                "none: give the model coordinates, or use radius inf."
            )
        chosen = taper(dynamics.coordinates, dynamics.state_shape, self.radius)
        return GaussianFit(self.radius, self.members, chosen)

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        return self.gaussian(ensemble, process), memory, {}

    def gaussian(self, ensemble: Float[Array, "N *v"], process: Process) -> GaussianDenoiser:
        """The denoiser itself."""
        if self.taper is None and not math.isinf(self.radius):
            raise ValueError(
                "the Gaussian denoiser needs its taper: call filter.prepare(dynamics, measurement)."
            )
        return ensemble_gaussian(ensemble, self.taper, process.frame.basis, self.members)


class KernelFit(DenoiserFit):
    """The ensemble as a Gaussian mixture.

    Args:
        bandwidth: in standard deviations of each component; None: Silverman's rule for the state's size.
        shrink: whether the mixture keeps the ensemble's variance (see `ensemble_kernel`).
    """

    bandwidth: Float[Array, ""] | None = None
    shrink: bool = eqx.field(static=True, default=True)

    def __init__(self, bandwidth: float | None = None, shrink: bool = True):
        self.bandwidth = check_bandwidth(bandwidth)
        self.shrink = shrink

    def __call__(
        self, key: PRNGKeyArray, ensemble: Float[Array, "N *v"], process: Process, memory: Any
    ) -> tuple[Denoiser, Any, dict[str, Array]]:
        return ensemble_kernel(ensemble, self.bandwidth, self.shrink), memory, {}


def member_keys(key: PRNGKeyArray, n_members: int) -> PRNGKeyArray:
    """A key for each member, the same whatever the number of members."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n_members, dtype=jnp.uint32))
