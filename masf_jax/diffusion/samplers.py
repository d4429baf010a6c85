"""Samplers of p(x0 | z) for ONE member: plain `lax.scan` loops, and the objects that run them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..denoisers.base import Denoiser
from ..ensemble.keys import member_keys
from .process import Process
from .schedules import TimeGrid, time_grid

__all__ = [
    "Bridge",
    "Guided",
    "Sampler",
    "bridge",
    "bridge_start",
    "guided",
    "paper_guidance_scale",
    "paper_score_scale",
]


def bridge_start(key: PRNGKeyArray, process: Process) -> tuple[Float[Array, "*v"], PRNGKeyArray]:
    """v_1 that `bridge` starts from with this key, and the key of its steps."""
    key_start, key_steps = jax.random.split(key)
    return process.endpoint(key_start), key_steps


def bridge(
    key: PRNGKeyArray,
    process: Process,
    denoiser: Denoiser,
    times: Float[Array, " n_times"],
    corrected: bool = True,
    first: Denoiser | None = None,
    path: bool = False,
) -> Float[Array, "..."]:
    """A draw of v_0 given v_1 = the measurement: the unconditional reverse process started there.

    Each of the K steps takes x0 from the denoiser and draws v_t given v_s and x0 (`Process.reverse`). Exact
    for the exact denoiser: with `corrected`, x0 is a draw of x0 | v_s and any number of steps will do;
    without, it is the mean, which loses Var[x0 | v_s] at few steps.

    Args:
        times: diffusion times from 1 down to 0 (see `time_grid`).
        first: what the first step takes x0 from, if not from `denoiser`. A denoiser that moves a forecast
            member (`Denoiser.for_member`) belongs here only: from the second step on v_s depends on the
            member, and a draw made of it again would have too much variance.
        path: return v at all times, (n_times, *v), the draw last, instead of the draw alone.
    """

    def move(denoiser: Denoiser, v: Array, key: PRNGKeyArray, ends: Array) -> tuple[Array, PRNGKeyArray]:
        key, key_draw, key_step = jax.random.split(key, 3)
        x, angle = process.rescaled(v, ends[0]), process.angle(ends[0])
        v0 = denoiser.sample(key_draw, x, angle) if corrected else denoiser(x, angle)
        return process.reverse(key_step, v, v0, ends[0], ends[1]), key

    def step(
        carry: tuple[Array, PRNGKeyArray], ends: Array
    ) -> tuple[tuple[Array, PRNGKeyArray], Array | None]:
        carry = move(denoiser, *carry, ends)
        return carry, carry[0] if path else None

    start, key_steps = bridge_start(key, process)
    times = times.astype(start.dtype)
    ends = jnp.stack([times[:-1], times[1:]], 1)
    carry, before = (start, key_steps), [start]
    if first is not None:
        carry, ends = move(first, *carry, ends[0]), ends[1:]
        before.append(carry[0])
    (v, _), later = jax.lax.scan(step, carry, ends)
    return v if later is None else jnp.concatenate([jnp.stack(before), later])


def paper_score_scale(t: Scalar) -> Scalar:
    """c_s = .95 + .65 t^1.5, the paper's factor on the prior score (linear measurements)."""
    return 0.95 + 0.65 * t**1.5


def paper_guidance_scale(t: Scalar) -> Scalar:
    """c_g = 1.1 + .4 (1 - t)², the paper's factor on the likelihood score."""
    return 1.1 + 0.4 * (1 - t) ** 2


def guided(
    key: PRNGKeyArray,
    process: Process,
    denoiser: Denoiser,
    times: Float[Array, " n_times"],
    v0: Float[Array, "*v"],
    score_scale: Callable[[Scalar], Scalar] = paper_score_scale,
    guidance_scale: Callable[[Scalar], Scalar] = paper_guidance_scale,
) -> Float[Array, "*v"]:
    """The paper's sampler: the reverse step with c_s ∇log p_s + c_g ∇log p(z | v_s) for the score.

    From s to t < s: v_t = M v_s - S (c_s ∇log p_s(v_s) + c_g ∇log p(z | v_s)) + |S|^{1/2} ξ, with M and
    S < 0 of `Process.transition`, started from the noised forecast member v0.

    It counts the measurement twice, since the process already ends in it: for a N(0, 1) forecast and z = 2
    of noise 1, both scales 1 and many steps, it gives 1.39 ± .48 where the posterior is 1.00 ± .71. Use
    it to reproduce the paper; `bridge` is exact. Source: arXiv 2604.02889.

    It needs many steps: with r = (variance left to the end at t)/(at s), guidance multiplies v_s by
    1 - c_g (r - 1), and on coarse grids r is far above 1 near t = 1. On the quadratic grid 16 steps are
    off by up to 65 posterior standard deviations, 64 by less than one from the limit (docs/samplers.md).

    Args:
        times: from below 1 (the paper: .992) down to about 0 (the paper: 1e-5).
        v0: a forecast member, in the process's coordinates.
    """
    key_start, key_steps = jax.random.split(key)
    times = times.astype(v0.dtype)

    def step(carry: tuple[Array, PRNGKeyArray], ends: Array) -> tuple[tuple[Array, PRNGKeyArray], None]:
        v, key = carry
        key, key_noise = jax.random.split(key)
        s, t = ends
        mean = denoiser(process.rescaled(v, s), process.angle(s))
        score = score_scale(s) * process.score(v, mean, s) + guidance_scale(s) * process.likelihood_score(
            v, s
        )
        factor, variance = process.transition(s, t)
        noise = jax.random.normal(key_noise, v.shape, v.dtype)
        return (factor * v - variance * score + jnp.sqrt(jnp.abs(variance)) * noise, key), None

    start = process.noised(key_start, v0, times[0])
    (v, _), _ = jax.lax.scan(step, (start, key_steps), jnp.stack([times[:-1], times[1:]], 1))
    return v


class Sampler(eqx.Module):
    """How p(v_0 | z) is drawn from: what `MASF(sampler=…)` takes. A subclass gives `draw`."""

    moves_members: ClassVar[bool] = False
    """Whether `draw` makes the analysis of `member` of it where the denoiser couples them (`for_member`)."""

    @property
    def centred(self) -> bool:
        """Whether draws are shifted to `mean`."""
        return False

    @abc.abstractmethod
    def draw(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, member: Float[Array, "*v"] | None
    ) -> Float[Array, "*v"]:
        """One draw of v_0, for this forecast member (None: for none), in the process's coordinates."""

    def mean(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, n_members: int
    ) -> Float[Array, "*v"]:
        """E[v_0 | z], for samplers that know it."""
        raise ValueError(f"{type(self).__name__} does not know the mean of its draws: use Bridge().")


class Bridge(Sampler):
    """`bridge`: exact for the exact denoiser.

    Args:
        n_steps, grid: number of reverse steps, and their spacing (see `time_grid`).
        corrected: draw x0 in each step from the denoiser's law instead of taking its mean.
        centred: shift the analysis members so that their mean is the denoiser's at diffusion time 1: E[x | z]
            itself, without the sampling error of N draws. Of a denoiser that does not ignore pure noise (a
            network) its mean over the members' own noise where nothing is measured.
    """

    moves_members: ClassVar[bool] = True
    n_steps: int = eqx.field(static=True, default=1)
    grid: TimeGrid = eqx.field(static=True, default="uniform")
    corrected: bool = eqx.field(static=True, default=True)
    centred: bool = eqx.field(static=True, default=True)  # pyright: ignore[reportIncompatibleMethodOverride]

    def __check_init__(self) -> None:
        self.times()

    def times(self) -> Float[Array, " n_times"]:
        """Where it stops."""
        return time_grid(self.n_steps, self.grid)

    def draw(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, member: Float[Array, "*v"] | None
    ) -> Float[Array, "*v"]:
        own = (denoiser if member is None else denoiser.for_member(member)).at_end()
        first = None if own is denoiser else own
        return bridge(key, process, denoiser, self.times(), self.corrected, first)

    def mean(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, n_members: int
    ) -> Float[Array, "*v"]:
        """The denoiser at diffusion time 1."""
        one_time, denoiser = jnp.ones((), process.measured.dtype), denoiser.at_end()

        def expected(start: Array) -> Array:
            return denoiser(process.rescaled(start, one_time), process.angle(one_time))

        if denoiser.ignores_noise:
            return expected(process.endpoint(jax.random.fold_in(key, n_members)))
        # one draw of what is not measured would be an error that all members share
        keys = member_keys(key, n_members)
        return jax.vmap(lambda key: expected(bridge_start(key, process)[0]))(keys).mean(0)


class Guided(Sampler):
    """`guided`, the paper's sampler, from forecast members: it counts the measurement twice.

    Args:
        n_steps, grid, first: number of reverse steps, their spacing, and the first diffusion time. It needs
            at least 64 steps on the "quadratic" grid.
        paper_scales: the paper's c_s and c_g; else both are 1.
    """

    n_steps: int = eqx.field(static=True, default=150)
    grid: TimeGrid = eqx.field(static=True, default="quadratic")
    first: float = eqx.field(static=True, default=0.992)
    paper_scales: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if not self.first < 1:
            raise ValueError(
                f"the guided sampler has no score at diffusion time 1: first < 1; got {self.first}."
            )
        if self.n_steps < 3:
            raise ValueError(
                "the guided sampler diverges in 1 or 2 steps, whatever the noise; got "
                f"n_steps={self.n_steps}. Give it 64 or more (the paper: 150), or use the bridge."
            )
        self.times()

    def times(self, n_steps: int | None = None) -> Float[Array, " n_times"]:
        """Where it stops; in as many steps as given instead of its own."""
        return time_grid(self.n_steps if n_steps is None else n_steps, self.grid, self.first)

    def draw(
        self, key: PRNGKeyArray, process: Process, denoiser: Denoiser, member: Float[Array, "*v"] | None
    ) -> Float[Array, "*v"]:
        if member is None:
            raise ValueError("the guided sampler starts from forecast members; it was given none.")
        scales = (paper_score_scale, paper_guidance_scale) if self.paper_scales else (jnp.ones_like,) * 2
        return guided(key, process, denoiser, self.times(), member, *scales)
