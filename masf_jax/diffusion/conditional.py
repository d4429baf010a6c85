"""The way from a state to its measurement by any operator, and back given the measured values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Scalar

from ..bases import IdentityBasis
from ..measurements.base import Operator
from ..measurements.measurement import Measurement
from .lift import lift
from .process import Frame
from .schedules import cosine_schedule
from .vp_bridge import VPBridge

__all__ = ["Law", "LiftedProcess", "conditional_bridge", "lifted_process", "towards_noise"]

Law: TypeAlias = Callable[[PRNGKeyArray, Array, Scalar], tuple[Array, Array]]
"""From a key, X_t and t to v_0 and w: a draw of both given X_t and z, or their means."""


class LiftedProcess(eqx.Module):
    """X_t = a_t v_0 + (1 - a_t) w + √(1 - a_t²) r η, η ~ N(0, I): the state at t = 0, its measurement at 1.

    v_0 = (x - centre)/scale is the state, w = (H(x) - H(centre))/scale its measurement, both state-shaped
    (see `lift`; w = 0 where nothing is measured), r the noise in the same units, and a_0 = 1, a_1 = 0. With
    v = 1 - a_t² for time, X_t less its mean is a Brownian motion of variance r² v. Given z = X_1 it is a
    Brownian bridge:

        X_t | v_0, z ~ N(a_t v_0 + (1 - a_t) w + v (z - w), v (1 - v) r²).

    That law may be taken whatever the law of z given the state: H only shapes the way. For a
    nonlinear H the mean path makes X not Markov, and what is known of v_0 from X_t alone is not all that is
    known with z, so a denoiser must see both (`conditional_bridge`).

    Source: Yoon, Chang, Kim & Kim, arXiv 2604.02889 (the process), docs/masf.md (the bridge).

    Args:
        frame: of v_0.
        operator: H; mask: which measured values are there.
        measured: z, lifted, less H(centre), in units of the scale; observed: where there is one.
        noise_std: r > 0.
        schedule_offset: s of `cosine_schedule`, which gives a_t.
    """

    frame: Frame
    operator: Operator
    mask: Bool[Array, "*z"]
    measured: Float[Array, "*v"]
    observed: Bool[Array, "*v"]
    noise_std: Float[Array, "*v"]
    schedule_offset: float = eqx.field(static=True, default=0.008)

    def signal(self, t: Scalar) -> Scalar:
        """a_t."""
        return cosine_schedule(t, self.schedule_offset)

    def lifted(self, v0: Float[Array, "*v"]) -> Float[Array, "*v"]:
        """w of this state."""
        x = self.frame.decode(v0)
        values = jnp.where(self.mask, self.operator(x) - self.operator(self.frame.decode(0 * v0)), 0.0)
        return lift(self.operator, values, x.shape) / jnp.broadcast_to(self.frame.scale, x.shape)

    def mean(self, v0: Float[Array, "*v"], w: Float[Array, "*v"], t: Scalar) -> Float[Array, "*v"]:
        """E[X_t | v_0] = a_t v_0 + (1 - a_t) w."""
        a = self.signal(t)
        return a * v0 + (1 - a) * w

    def std(self, t: Scalar) -> Float[Array, "*v"]:
        """√(1 - a_t²) r."""
        return jnp.sqrt(jnp.maximum(1 - self.signal(t) ** 2, 0.0)) * self.noise_std

    def noised(
        self, key: PRNGKeyArray, v0: Float[Array, "*v"], w: Float[Array, "*v"], t: Scalar
    ) -> Float[Array, "*v"]:
        """A draw of X_t given v_0, whatever z."""
        return self.mean(v0, w, t) + self.std(t) * jax.random.normal(key, v0.shape, v0.dtype)

    def pinned(
        self, v0: Float[Array, "*v"], w: Float[Array, "*v"], t: Scalar
    ) -> tuple[Float[Array, "*v"], Float[Array, "*v"]]:
        """Mean and standard deviation of X_t given v_0 and z; no pin where nothing is measured."""
        a = self.signal(t)
        passed = 1 - a**2
        to_z = jnp.where(self.observed, passed * (self.measured - w), 0.0)
        left = jnp.where(self.observed, a**2, 1.0)
        return self.mean(v0, w, t) + to_z, jnp.sqrt(jnp.maximum(passed * left, 0.0)) * self.noise_std

    def endpoint(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        """X_1 given z: z, and noise where nothing is measured."""
        noise = self.noise_std * jax.random.normal(key, self.measured.shape, self.measured.dtype)
        return jnp.where(self.observed, self.measured, noise)

    def reverse(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "*v"],
        v0: Float[Array, "*v"],
        w: Float[Array, "*v"],
        s: Scalar,
        t: Scalar,
    ) -> Float[Array, "*v"]:
        """A draw of X_t given X_s = `x`, v_0 and z, for t < s.

        With u and v the times 1 - a² at t and s, the deviation from the mean is u/v of what it was, plus
        √(u (v - u)/v) r ξ, pinned or not.
        """
        u, v = 1 - self.signal(t) ** 2, 1 - self.signal(s) ** 2
        share = u / v
        fresh = jnp.sqrt(jnp.maximum(share * (v - u), 0.0)) * self.noise_std
        carried = share * (x - self.pinned(v0, w, s)[0])
        return self.pinned(v0, w, t)[0] + carried + fresh * jax.random.normal(key, x.shape, x.dtype)


def lifted_process(
    measurement: Measurement,
    z: Float[Array, "*z"],
    mask: Bool[Array, "*z"],
    centre: Float[Array, "*x"],
    scale: Float[Array, "..."],
    schedule_offset: float = 0.008,
) -> LiftedProcess:
    """The process between states around `centre` and the measured values z.

    Components of which nothing is measured end in noise of the mean measured noise level.

    Raises:
        ValueError: values that cannot be written as a state (see `lift`), or correlated noise.
    """
    operator, shape = measurement.operator, centre.shape
    if not measurement.noise.diagonal:
        raise ValueError(
            "a measurement written as a state needs independent noise; got "
            f"{type(measurement.noise).__name__}."
        )
    wide = jnp.broadcast_to(scale.astype(centre.dtype), shape)
    observed = lift(operator, mask.astype(centre.dtype), shape) > 0
    std = lift(operator, measurement.noise.standard_deviation(z), shape) / wide
    mean_std = jnp.where(observed, std, 0.0).sum() / jnp.maximum(observed.sum(), 1).astype(std.dtype)
    innovation = jnp.where(mask, measurement.innovation(z, centre), 0.0)
    return LiftedProcess(
        frame=Frame(centre, scale, IdentityBasis()),
        operator=operator,
        mask=mask,
        measured=lift(operator, innovation, shape) / wide,
        observed=observed,
        noise_std=jnp.where(observed, std, jnp.where(mean_std > 0, mean_std, 1.0)),
        schedule_offset=schedule_offset,
    )


def conditional_bridge(
    key: PRNGKeyArray, process: LiftedProcess, law: Law, times: Float[Array, " n_times"]
) -> Float[Array, "*v"]:
    """A draw of v_0 given z: from X_1 = z, each step takes v_0 and w from `law` and draws X_t given them.

    Exact after any number of steps where `law` draws from p(v_0 | X_t, z), with w = w(v_0), for any H and
    any law of z: it takes no likelihood. Where `law` gives their means, exact for many steps.

    Args:
        times: diffusion times from 1 down to 0 (see `time_grid`).
    """
    key_start, key_steps = jax.random.split(key)
    start = process.endpoint(key_start)
    times = times.astype(start.dtype)

    def step(carry: tuple[Array, PRNGKeyArray], ends: Array) -> tuple[tuple[Array, PRNGKeyArray], None]:
        x, key = carry
        key, key_law, key_step = jax.random.split(key, 3)
        v0, w = law(key_law, x, ends[0])
        return (process.reverse(key_step, x, v0, w, ends[0], ends[1]), key), None

    (x, _), _ = jax.lax.scan(step, (start, key_steps), jnp.stack([times[:-1], times[1:]], 1))
    return x


def towards_noise(frame: Frame, like: Float[Array, "*v"]) -> VPBridge:
    """The process cos φ v_0 + sin φ η, φ = tπ/2, that ends in N(0, I) and so in nothing that is measured.

    Its reverse from noise draws from p(v_0 | z) for a denoiser that sees z, D(x, φ, z) = E[v_0 | x, z]: the
    simplest exact construction, for any H, any shape of z and any noise. Unlike the way to z, its mean
    steps need E[v_0 | x, z] only.
    """
    return VPBridge(
        frame=frame,
        theta=jnp.full_like(like, 0.5 * jnp.pi),
        measured=jnp.zeros_like(like),
        observed=jnp.zeros(like.shape, bool),
    )
