"""Draws of p(x | z) for a nonlinear measurement: bridges to its tangents, at states that improve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ...denoisers.base import Denoiser
from ...diffusion.process import Process
from ...ensemble.resampling import systematic
from ...ensemble.statistics import effective_sample_size, member_mean
from ...measurements.measurement import Measurement
from ..priors.base import member_keys

__all__ = ["Linearization", "Problem"]

ProcessAt: TypeAlias = Callable[[Array, Array], Process]
DenoiserOf: TypeAlias = Callable[[Process], Denoiser]


class Problem(NamedTuple):
    """One nonlinear analysis.

    Attributes:
        process: the process to the tangent of H at a state, with the noise variance times a factor.
        denoiser: of the forecast, in the coordinates of a process.
        draw: a draw in the state's units, given a key, the process, the denoiser, and the forecast member
            that it comes from (None: none).
        mean: E[x | z] in the state's units, given a key, process and denoiser, and the number of members.
        members: the forecast members, in the state's units.
        scale: typical deviation of the state.
    """

    process: ProcessAt
    denoiser: DenoiserOf
    draw: Callable[[PRNGKeyArray, Process, Denoiser, Array | None], Array]
    mean: Callable[[PRNGKeyArray, Process, Denoiser, int], Array]
    members: Float[Array, "N *x"]
    scale: Float[Array, "..."]


class Linearization(eqx.Module):
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

    at: Literal["member", "mean"] = eqx.field(static=True, default="member")
    iterations: int = eqx.field(static=True, default=5)
    annealing: float = eqx.field(static=True, default=4.0)
    proposals: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if self.at not in ("member", "mean"):
            raise ValueError(f'linearization at must be "member" or "mean"; got {self.at!r}.')
        if self.iterations < 1 or not self.annealing >= 1:
            raise ValueError(
                "linearization needs iterations of at least 1 and annealing of at least 1; got "
                f"iterations={self.iterations}, annealing={self.annealing}."
            )
        if self.proposals < 0 or (self.proposals and self.at != "mean"):
            raise ValueError(
                "proposals must be 0 or more, and they need linearization at the mean: draws of one law; got "
                f"proposals={self.proposals}, at={self.at!r}."
            )

    def factors(self) -> np.ndarray:
        """On the noise variance, in each iteration."""
        return self.annealing ** np.arange(self.iterations - 1.0, -1.0, -1.0)

    def __call__(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        centred: bool,
    ) -> tuple[Float[Array, "N *x"], dict[str, Float[Array, ""]]]:
        """The analysis members, and `last_step`: the last change of x̂, in typical deviations (RMS)."""
        members, n = problem.members, len(problem.members)
        factors = jnp.asarray(self.factors(), members.dtype)

        def better(at: Array, factor: Array) -> tuple[Array, Array]:
            process = problem.process(at, factor)
            new = problem.mean(key, process, problem.denoiser(process), n)
            return new, self._change(new, at, problem.scale)

        at, steps = jax.lax.scan(better, member_mean(members), factors[:-1])
        process = problem.process(at, factors[-1])
        denoiser = problem.denoiser(process)
        keys = member_keys(key, n)
        common = jax.vmap(problem.draw, (0, None, None, 0))(keys, process, denoiser, members)
        mean = problem.mean(key, process, denoiser, n)
        if self.at == "mean":
            info = {"last_step": self._change(mean, at, problem.scale)}
            if self.proposals > 0:
                return self._resampled(key, problem, process, at, measurement, z, mask, info)
            return (common + (mean - member_mean(common))[None] if centred else common), info

        def move(key: PRNGKeyArray, member: Array) -> tuple[Array, Array]:
            def again(at: Array, factor: Array) -> tuple[Array, Array]:
                process = problem.process(at, factor)
                new = problem.draw(key, process, problem.denoiser(process), member)
                return new, self._change(new, at, problem.scale)

            drawn, steps = jax.lax.scan(again, member, factors)
            return drawn, steps[-1]

        drawn, steps = jax.vmap(move)(keys, members)
        if centred:
            drawn = drawn + (mean - member_mean(common))[None]
        return drawn, {"last_step": jnp.sqrt(jnp.mean(steps**2))}

    @staticmethod
    def _change(new: Array, old: Array, scale: Array) -> Float[Array, ""]:
        return jnp.sqrt(jnp.mean(((new - old) / scale) ** 2))

    def _resampled(
        self,
        key: PRNGKeyArray,
        problem: Problem,
        process: Process,
        at: Array,
        measurement: Measurement,
        z: Array,
        mask: Array,
        info: dict[str, Array],
    ) -> tuple[Array, dict[str, Array]]:
        """N of N · proposals draws, by the true over the linearised likelihood."""
        n = len(problem.members)
        count = n * self.proposals
        key_draws, key_pick = jax.random.split(jax.random.fold_in(key, n))
        keys = member_keys(key_draws, count)
        draws = jax.vmap(problem.draw, (0, None, None, None))(keys, process, problem.denoiser(process), None)
        _, tangent = jax.linearize(measurement.operator, at)
        innovation = measurement.innovation(z, at)

        def log_weight(x: Array) -> Array:
            linear = measurement.noise.whiten(innovation - tangent(x - at), mask)
            return measurement.log_prob(z, x, mask) + 0.5 * jnp.sum(linear**2)

        weights = jax.nn.log_softmax(jax.vmap(log_weight)(draws))
        picked = systematic(key_pick, jnp.exp(weights), n)
        used = effective_sample_size(weights) / count
        return draws[picked], info | {"proposals_used": used}
