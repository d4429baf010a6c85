"""The contract of a route: how a measurement enters the analysis."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...denoisers.gaussian import GaussianDenoiser
from ...denoisers.iterated import IteratedCovariance
from ...diffusion.process import Process, ProcessFamily
from ...diffusion.samplers import Bridge, Sampler
from ...dynamics.base import Dynamics
from ...dynamics.layout import ALL_AT_ONCE, current
from ...ensemble.keys import member_keys
from ...ensemble.normalization import Normalization
from ...ensemble.statistics import anomalies, recentre
from ...ensemble.transforms import mean_preserving_rotation
from ...measurements.measurement import Measurement
from ..climate import Climate
from ..priors.base import Prior

__all__ = ["Inputs", "Route", "draws", "known", "of_each", "residual", "rotated"]


class Inputs(NamedTuple):
    """All that one analysis is made of.

    Attributes:
        prior, process, sampler: see `MASF`.
        members: of the forecast, in the state's units.
        measurement, z, mask: the measured values, and which of them are there.
        units: centre and scale of the normalisation; None: mean and standard deviations of the members, made
            where they are asked for, so that a branch which does without them has no cost of theirs.
    """

    prior: Prior
    process: ProcessFamily
    sampler: Sampler
    members: Float[Array, "N *x"]
    measurement: Measurement
    z: Float[Array, "*z"]
    mask: Bool[Array, "*z"]
    units: tuple[Float[Array, "*x"], Float[Array, "..."]] | None

    def centre_and_scale(self) -> tuple[Float[Array, "*x"], Float[Array, "..."]]:
        return Normalization()(self.members, None)[:2] if self.units is None else self.units

    def process_at(self, at: Float[Array, "*x"] | None = None, tempering: Any = 1.0) -> Process:
        """The process of this measurement, or of its tangent at a state; noise variance times a factor."""
        return self.process(self.measurement, self.z, self.mask, *self.centre_and_scale(), at, tempering)


class Route(eqx.Module):
    """From the forecast members and z to the analysis members. A subclass gives `draw`."""

    name: ClassVar[str] = "own"
    uses_noise_of_each_state: ClassVar[bool] = False
    """See `Filter`."""
    draws_itself: ClassVar[bool] = False
    """Whether it does without the filter's process."""

    @abc.abstractmethod
    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        """The analysis members, the memory for the next cycle, and scalars to report.

        `keys`: of what is made of the forecast, and of the draws.
        """

    def of(self, measurement: Measurement) -> Route:
        """The route that is taken for this measurement."""
        return self

    def sampler(self) -> Sampler:
        """What it is best drawn with."""
        return Bridge()

    def init(self, prior: Prior) -> Any:
        """What is remembered before the first cycle."""
        return prior.init()

    def check(
        self,
        prior: Prior,
        process: ProcessFamily,
        sampler: Sampler,
        measurement: Measurement,
        state_shape: tuple[int, ...],
        scale_shape: tuple[int, ...],
    ) -> None:
        """Raises ValueError where it does not suit the filter's other parts, or the measurement."""

    def prepare(
        self,
        prior: Prior,
        dynamics: Dynamics,
        measurement: Measurement,
        climate: Callable[[], Climate] | None = None,
    ) -> tuple[Route, Prior]:
        """This route and the prior, with what they derive from the model (see `Prior.prepare`)."""
        return self, prior.prepare(dynamics, measurement, climate)


def of_each(f: Callable[[Array], Array], members: Float[Array, "N *x"]) -> Float[Array, "N *v"]:
    """f of each member, on several devices by members, and then by components."""
    layout = current()
    return layout.spread(layout.each(f, members))


def draws(
    key: PRNGKeyArray,
    process: Process,
    denoiser: Denoiser,
    members: Float[Array, "N *v"],
    sampler: Sampler,
) -> Float[Array, "N *v"]:
    """One draw of p(x | z) for each forecast member, all in the process's coordinates."""
    found = _at_once(process, denoiser, sampler)
    if found is not None:
        return current().spread(found)
    n_members = members.shape[0]
    keys = member_keys(key, n_members)

    def draw(key: PRNGKeyArray, index: Array, member: Array) -> Array:
        return sampler.draw(key, process, denoiser.numbered(index), member)

    layout = ALL_AT_ONCE if denoiser.by_components else current()
    drawn = current().spread(layout.each(draw, keys, jnp.arange(n_members), members))
    if not sampler.centred:
        return drawn
    return recentre(sampler.mean(key, process, denoiser, n_members), anomalies(drawn)[1])


def _at_once(process: Process, denoiser: Denoiser, sampler: Sampler) -> Float[Array, "N *v"] | None:
    """All draws by one solution for all members, where there is one: noise then goes nowhere."""
    if not (isinstance(denoiser, GaussianDenoiser) and type(sampler) is Bridge):
        return None
    if sampler.n_steps > 1 or not sampler.corrected:
        return None
    return denoiser.at_once(*known(process))


def known(process: Process) -> tuple[Float[Array, "*v"], Float[Array, "*v"]]:
    """What the measurement tells of v_0, 0 where nothing, and its noise levels."""
    one = jnp.ones((), process.measured.dtype)
    values = jnp.where(process.observed, process.measured, 0.0)
    return process.rescaled(values, one), process.angle(one)


def residual(process: Process, denoiser: Denoiser) -> dict[str, Array]:
    """To report: what an iterative solver leaves of E[x | z], in posterior standard deviations."""
    denoiser = denoiser.at_end()
    if not (isinstance(denoiser, GaussianDenoiser) and isinstance(denoiser.covariance, IteratedCovariance)):
        return {}
    x, angle = known(process)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return {"residual": denoiser.covariance.residual(x - cos * denoiser.mean, cos, sin)}


def rotated(key: PRNGKeyArray, members: Float[Array, "N *x"]) -> Float[Array, "N *x"]:
    """Members after a random rotation that keeps their mean and covariance."""
    mean, deviations = anomalies(members)
    n_members = len(members)
    turn = mean_preserving_rotation(jax.random.fold_in(key, n_members), n_members, members.dtype)
    return recentre(mean, jnp.tensordot(turn, deviations, axes=1))
