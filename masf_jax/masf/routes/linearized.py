"""The route of a nonlinear measurement: bridges to its tangents, at states that improve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ...bases import IdentityBasis
from ...denoisers.base import Denoiser
from ...diffusion.process import Process, ProcessFamily
from ...diffusion.samplers import Sampler
from ...dynamics.layout import current
from ...ensemble.keys import member_keys
from ...ensemble.order import after
from ...ensemble.resampling import systematic
from ...ensemble.statistics import effective_sample_size, member_mean
from ...measurements.measurement import Measurement
from ...numbers import within
from ..priors.base import Prior
from .base import Inputs, Route, of_each, residual, rotated

__all__ = ["Linearized"]


class _Tangents(NamedTuple):
    """What the iterations are made of.

    Attributes:
        inputs: with the prior that is used.
        denoiser_of: of the forecast, in the coordinates of a process.
    """

    inputs: Inputs
    denoiser_of: Callable[[Process], Denoiser]

    def draw(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, member: Float[Array, "*x"] | None
    ) -> Float[Array, "*x"]:
        """One draw in the state's units, of this forecast member (None: of none)."""
        own = None if member is None else process.frame.encode(member)
        return process.frame.decode(self.inputs.sampler.draw(key, process, denoiser, own))

    def mean(self, key: PRNGKeyArray, process: Process, denoiser: Denoiser) -> Float[Array, "*x"]:
        """E[x | z] in the state's units."""
        n_members = len(self.inputs.members)
        return process.frame.decode(self.inputs.sampler.mean(key, process, denoiser, n_members))

    def change(self, new: Array, old: Array) -> Float[Array, ""]:
        """In typical deviations (RMS)."""
        return jnp.sqrt(jnp.mean(((new - old) / self.inputs.centre_and_scale()[1]) ** 2))


class Linearized(Route):
    """How a nonlinear H becomes linear: H(x) ≈ H(x̂) + J (x - x̂) (Gauss-Newton), x̂ found in a few iterations.

    Iteration k of K works with the noise variance times annealing^(K - k) and puts x̂ where its analysis is:
    large steps, which the tangent does not support, are taken in small ones. Where H is saturated J is
    almost nothing, and the component counts as almost unmeasured.

    at = "member": every member has its own x̂, starting at its forecast. A member then solves the nonlinear
    problem with its own perturbation (randomised maximum likelihood): exact for a linear H and a Gaussian
    forecast, near for a mild H of one mode (`Log`, arctan) and for flow speed. It finds several modes, but
    gives them wrong weights, and is worse than the EnKF's regression where H is flat or rounded (`Censored`,
    `Quantised`) or turns much over the forecast (`RangeBearing`); distances to the true posterior are in
    docs/masf.md. With `centred` the members are shifted by what the same draws at a common x̂ miss of their
    known mean: that removes the noise of N draws as far as H is linear, and all of it where it is.

    at = "mean": one x̂ for all, the analysis mean. For one mode only; the spread is that of the tangent.
    With `proposals` the error is corrected: there are that many draws for each member, all are weighted by
    w = p(z | x)/p_tangent(z | x), the true likelihood over the linearised one, and N are resampled. Exact
    for many proposals, whatever H and the law of the noise, where they overlap with p(x | z): for states of
    few components and one mode, rounded and log values included; not for x², |x| and speed, whose other
    modes they miss. The effective sample size, as a share of the draws, is reported as `proposals_used`: it
    tells of proposals that fit badly, not of a mode without any. Noise that depends on H(x) counts by its
    law at the forecast's mean.

    Source: iterated ensemble Kalman filters and smoothers: Gu & Oliver (2007), Chen & Oliver (2012);
    annealing as in Emerick & Reynolds (2013).

    Args:
        at: "member" or "mean".
        iterations: K, at least 1.
        annealing: factor on the noise variance per remaining iteration, at least 1.
        proposals: see above; 0: no correction.
    """

    name: ClassVar[str] = "linearized"
    at: Literal["member", "mean"] = eqx.field(static=True, default="member")
    iterations: int = eqx.field(static=True, default=5)
    annealing: Float[Array, ""] = eqx.field(converter=within("annealing", "[-inf, inf]"), default=4.0)
    proposals: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.at not in ("member", "mean"):
            raise ValueError(f'linearization at must be "member" or "mean"; got {self.at!r}.')
        if self.iterations < 1 or not (isinstance(self.annealing, Tracer) or float(self.annealing) >= 1):
            raise ValueError(
                "linearization needs iterations of at least 1 and annealing of at least 1; got "
                f"iterations={self.iterations}, annealing={self.annealing}."
            )
        if self.proposals < 0 or (self.proposals and self.at != "mean"):
            raise ValueError(
                "proposals must be 0 or more, and they need linearization at the mean: draws of one law; got "
                f"proposals={self.proposals}, at={self.at!r}."
            )

    def factors(self) -> Float[Array, " iterations"]:
        """On the noise variance, in each iteration."""
        powers = jnp.full(self.iterations, self.annealing).at[0].set(1.0)
        return jnp.cumprod(powers)[::-1]

    def check(
        self,
        prior: Prior,
        process: ProcessFamily,
        sampler: Sampler,
        measurement: Measurement,
        state_shape: tuple[int, ...],
        scale_shape: tuple[int, ...],
    ) -> None:
        name, own = type(measurement.operator).__name__, type(prior).__name__
        if not process.linearizes or not sampler.moves_members:
            raise ValueError(
                f"the process {type(process).__name__} with the sampler {type(sampler).__name__} needs a "
                f"linear measurement and route; {name} is to be linearised here, which the process VP with "
                "the Bridge does."
            )
        if self.at == "member" and not prior.couples_members:
            raise ValueError(
                f"{own} draws members afresh: they have no forecast member to linearise at. Take "
                'GaussianPrior(members="transported"), or Linearized("mean"), with proposals where '
                "components are few."
            )
        alone = measurement.operator.coupling(state_shape) == "component" and measurement.noise.diagonal
        if prior.trained and (prior.climatological or not alone):
            raise ValueError(
                "a trained denoiser takes a nonlinear measurement only where each value depends on one "
                f"component and it is trained on the forecasts; {name} does not suit {own}. Take "
                "GaussianPrior or KernelPrior."
            )
        process.check(measurement, state_shape, scale_shape)

    def draw(
        self, keys: tuple[PRNGKeyArray, PRNGKeyArray], inputs: Inputs, memory: Any
    ) -> tuple[Float[Array, "N *x"], Any, dict[str, Array]]:
        key_prior, key = keys
        prior = inputs.prior.of_each_member if self.at == "member" else inputs.prior
        inputs = inputs._replace(prior=prior)
        process = inputs.process_at()
        members = of_each(process.frame.encode, inputs.members)
        denoiser, new_memory, info = prior.checked(key_prior, members, process, memory)

        def denoiser_of(other: Process) -> Denoiser:
            if isinstance(other.frame.basis, IdentityBasis):
                return denoiser
            coordinates = of_each(other.frame.encode, inputs.members)
            return prior(key_prior, coordinates, other, memory)[0]

        drawn, found = self._iterated(key, _Tangents(inputs, denoiser_of))
        if prior.rotates and inputs.sampler.moves_members and not self.proposals:
            drawn = rotated(key, drawn)
        return drawn, new_memory, info | found

    def _iterated(
        self, key: PRNGKeyArray, tangents: _Tangents
    ) -> tuple[Float[Array, "N *x"], dict[str, Float[Array, ""]]]:
        """The analysis members, and `last_step`: the last change of x̂, in typical deviations (RMS)."""
        inputs = tangents.inputs
        members, n, centred = inputs.members, len(inputs.members), inputs.sampler.centred
        factors = self.factors().astype(members.dtype)

        def better(at: Array, factor: Array) -> tuple[Array, Array]:
            process = inputs.process_at(at, factor)
            new = tangents.mean(key, process, tangents.denoiser_of(process))
            return new, tangents.change(new, at)

        at, steps = jax.lax.scan(better, member_mean(members), factors[:-1])
        process = inputs.process_at(at, factors[-1])
        denoiser = tangents.denoiser_of(process).knowing(process.angle(jnp.ones((), members.dtype)))
        keys = member_keys(key, n)
        each = current().each
        common = each(lambda key, member: tangents.draw(key, process, denoiser, member), keys, members)
        mean, info = tangents.mean(key, process, denoiser), residual(process, denoiser)
        if self.at == "mean":
            info = info | {"last_step": tangents.change(mean, at)}
            if self.proposals > 0:
                return self._resampled(key, tangents, process, at, info)
            return (common + (mean - member_mean(common))[None] if centred else common), info

        def move(key: PRNGKeyArray, member: Array) -> tuple[Array, Array]:
            def again(at: Array, factor: Array) -> tuple[Array, Array]:
                process = inputs.process_at(at, factor)
                new = tangents.draw(key, process, tangents.denoiser_of(process), member)
                return new, tangents.change(new, at)

            drawn, steps = jax.lax.scan(again, member, factors)
            return drawn, steps[-1]

        drawn, steps = each(move, keys, after(members, common))
        if centred:
            drawn = drawn + (mean - member_mean(common))[None]
        return drawn, info | {"last_step": jnp.sqrt(jnp.mean(steps**2))}

    def _resampled(
        self,
        key: PRNGKeyArray,
        tangents: _Tangents,
        process: Process,
        at: Float[Array, "*x"],
        info: dict[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """N of N · proposals draws, by the true over the linearised likelihood."""
        measurement, z, mask = tangents.inputs.measurement, tangents.inputs.z, tangents.inputs.mask
        n = len(tangents.inputs.members)
        count = n * self.proposals
        key_draws, key_pick = jax.random.split(jax.random.fold_in(key, n))
        keys = member_keys(key_draws, count)
        denoiser = tangents.denoiser_of(process)
        draws = current().each(lambda key: tangents.draw(key, process, denoiser, None), keys)
        _, tangent = jax.linearize(measurement.operator, at)
        innovation = measurement.innovation(z, at)

        def log_weight(x: Array) -> Array:
            linear = measurement.noise.whiten(innovation - tangent(x - at), mask)
            return measurement.log_prob(z, x, mask) + 0.5 * jnp.sum(linear**2)

        weights = jax.nn.log_softmax(current().each(log_weight, draws))
        picked = systematic(key_pick, jnp.exp(weights), n)
        used = effective_sample_size(weights) / count
        return draws[picked], info | {"proposals_used": used}
