"""Score-based data assimilation: draws of a whole trajectory given any of its measurements."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from ..arrays import check_key
from ..denoisers.base import Denoiser
from ..loops import counted
from ..measurements.measurement import Measurement
from ..measurements.rows import ObservationsLike, as_observations
from ..numbers import within
from .guidance import Guidance, InflatedNoise, Measured

__all__ = ["SDA", "diffusion_angle"]

_OMEGA = math.acos(math.sqrt(1e-3))
_LEAST_VARIANCE = 1e-6


def diffusion_angle(t: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """φ with tan φ = σ/μ, μ = cos²(ω t), σ² = 1 - μ² + 10⁻⁶, ω = arccos √10⁻³: from 10⁻³ to 1.57 (radians).

    x_t = μ x0 + σ η is √(μ² + σ²), which is √(1 + 10⁻⁶) at all t, times cos φ · x0 + sin φ · η.
    """
    mu = jnp.cos(_OMEGA * t) ** 2
    variance = jnp.sin(_OMEGA * t) ** 2 * (1 + mu) + _LEAST_VARIANCE  # 1 - μ², without cancellation
    return jnp.arctan2(jnp.sqrt(variance), mu)


class SDA(eqx.Module):
    """Draws of p(x_0, …, x_{L-1} | z) by reverse diffusion of the trajectory as one array.

    The prior is a denoiser of trajectories, made without any measurement; the likelihood comes in by the
    guidance. With x = cos φ · x0 + sin φ · η and ε(x) = (x - cos φ · x̂)/sin φ - sin φ · ∇_x log p(z | x),
    each of n_steps equal steps of t from 1 to 0 (φ to φ', see `diffusion_angle`) is

        x ← r x + (sin φ' - r sin φ) ε(x),   r = cos φ'/cos φ,

    and `corrections` times, at φ', with ξ ~ N(0, I) and δ = τ/mean(ε(x)²),

        x ← x - (δ ε(x) + √(2 δ) ξ) sin φ'.

    Source: Rozet & Louppe (2023), arXiv 2306.10574, algorithms 3 and 4.

    Args:
        denoiser: of normalised trajectories (L, *state); see `TrajectoryDenoiser`.
        mean, scale: of the states: the denoiser sees (x - mean)/scale. Of the state's shape.
        guidance: `InflatedNoise` (as published) or `MMPS`.
        n_steps: of the diffusion.
        corrections: C; n_steps (1 + C) evaluations of denoiser and guidance in all.
        tau: τ.
    """

    denoiser: Denoiser
    mean: Float[Array, "*state"] = eqx.field(converter=within("mean", "(-inf, inf)", "be finite"))
    scale: Float[Array, "*state"] = eqx.field(converter=within("scale", "(0, inf)"))
    guidance: Guidance = eqx.field(default_factory=InflatedNoise)
    n_steps: int = eqx.field(static=True, default=256)
    corrections: int = eqx.field(static=True, default=1)
    tau: Float[Array, ""] = eqx.field(converter=within("tau", "(0, inf]"), default=0.25)

    def __check_init__(self) -> None:
        if self.n_steps < 1 or self.corrections < 0:
            raise ValueError(
                "n_steps must be at least 1 and corrections at least 0; got "
                f"n_steps={self.n_steps}, corrections={self.corrections}."
            )
        if self.mean.shape != self.scale.shape:
            raise ValueError(
                f"mean and scale must both have the state's shape; got {self.mean.shape}, {self.scale.shape}."
            )

    def draws(
        self,
        key: PRNGKeyArray,
        n: int,
        n_states: int,
        measurement: Measurement | None = None,
        observations: ObservationsLike | None = None,
        at_once: int | None = None,
    ) -> Float[Array, "n L *state"]:
        """n independent draws of the trajectory, in the state's units; compiled. Draw i uses fold_in(key, i).

        Args:
            n_states: L. State j is j intervals of the training trajectories after the first.
            measurement, observations: of the states at `observations.steps`, which count states (0 is the
                first); any operator, any gaps, any times. An array (K, *z) is of states 1, 2, …, K. None:
                draws of the prior.
            at_once: draws computed together; None: all.

        Raises:
            ValueError: measurements that do not fit, or of states beyond the trajectory.
        """
        check_key(key)
        if n < 1 or (at_once is not None and at_once < 1):
            raise ValueError(f"n and at_once must be at least 1; got n={n}, at_once={at_once}.")
        measured = self.measured(n_states, measurement, observations)
        return _draws(self, key, measured, n, n_states, at_once)

    def measured(
        self, n_states: int, measurement: Measurement | None, observations: ObservationsLike | None
    ) -> Measured | None:
        """The measurements of a trajectory of `n_states` states, checked."""
        if measurement is None or observations is None:
            if measurement is not observations:
                raise ValueError("give both measurement and observations, or neither for draws of the prior.")
            return None
        observations = as_observations(observations)
        shape = measurement.output_shape(self.mean.shape)
        if observations.values.shape[1:] != shape:
            raise ValueError(
                f"observations have shape {observations.values.shape[1:]} each, but the measurement of a "
                f"state of shape {self.mean.shape} has shape {shape}."
            )
        measurement.check_noise(self.mean.shape)
        steps = observations.steps
        if not isinstance(steps, Tracer) and int(np.asarray(steps)[-1]) >= n_states:
            raise ValueError(
                f"the last measured state is number {int(np.asarray(steps)[-1])}, counted from 0, but the "
                f"trajectory has {n_states} states."
            )
        values = observations.values.astype(self.mean.dtype)
        measured = Measured(measurement, values, observations.mask, steps, self.mean, self.scale)
        return self.guidance.prepared(measured)

    def draw(self, key: PRNGKeyArray, measured: Measured | None, n_states: int) -> Float[Array, "L *state"]:
        """One draw of the trajectory, in the state's units."""
        key_start, key_steps = jax.random.split(key)
        x = jax.random.normal(key_start, (n_states, *self.mean.shape), self.mean.dtype)
        return self.transport(key_steps, x, measured)

    def transport(
        self, key: PRNGKeyArray, x: Float[Array, "L *state"], measured: Measured | None
    ) -> Float[Array, "L *state"]:
        """The trajectory that the noise x, a draw of N(0, I), is carried to, in the state's units."""
        dtype = x.dtype
        tau = self.tau.astype(dtype)
        times = jnp.linspace(1.0, 0.0, self.n_steps + 1, dtype=dtype)
        angles = diffusion_angle(times)

        def step(x: Array, item: tuple[Array, Array, Array]) -> tuple[Array, None]:
            number, before, after = item
            r = jnp.cos(after) / jnp.cos(before)
            x = r * x + (jnp.sin(after) - r * jnp.sin(before)) * self.noise(x, before, measured)

            def correct(c: Array, x: Array) -> Array:
                own = jax.random.fold_in(jax.random.fold_in(key, number), c)
                noise = self.noise(x, after, measured)
                delta = tau / jnp.mean(noise**2)
                fresh = jax.random.normal(own, x.shape, dtype)
                return x - (delta * noise + jnp.sqrt(2 * delta) * fresh) * jnp.sin(after)

            if self.corrections:
                x = counted(self.corrections, correct, x)
            return x, None

        numbers = jnp.arange(self.n_steps, dtype=jnp.uint32)
        x, _ = jax.lax.scan(step, x, (numbers, angles[:-1], angles[1:]))
        return self.mean[None] + self.scale[None] * x

    def noise(
        self, x: Float[Array, "L *state"], angle: Float[Array, ""], measured: Measured | None
    ) -> Float[Array, "L *state"]:
        """ε(x): minus sin φ times the score of the posterior, noised."""

        def denoise(x: Array) -> Array:
            return self.denoiser(x, jnp.broadcast_to(angle, x.shape))

        if measured is None:
            return (x - jnp.cos(angle) * denoise(x)) / jnp.sin(angle)
        x0, score = self.guidance(denoise, x, angle, measured)
        return (x - jnp.cos(angle) * x0) / jnp.sin(angle) - jnp.sin(angle) * score


@eqx.filter_jit
def _draws(
    method: SDA, key: PRNGKeyArray, measured: Any, n: int, n_states: int, at_once: int | None
) -> Float[Array, "n L *state"]:
    def one(i: Array) -> Array:
        return method.draw(jax.random.fold_in(key, i), measured, n_states)

    numbers = jnp.arange(n, dtype=jnp.uint32)
    if at_once is None or at_once >= n:
        return jax.vmap(one)(numbers)
    return jax.lax.map(one, numbers, batch_size=at_once)
