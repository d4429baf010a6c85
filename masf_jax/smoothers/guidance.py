"""Scores of the likelihood of a noisy trajectory: what a measurement adds to the prior's score."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..loops import counted
from ..measurements.base import Operator
from ..measurements.measurement import Measurement
from ..numbers import whole, within

__all__ = ["MMPS", "Guidance", "InflatedNoise", "Measured"]

Denoise = Callable[[Float[Array, "L *state"]], Float[Array, "L *state"]]


class Measured(eqx.Module):
    """Measured values z_j of a trajectory's states at `indices`, by one measurement.

    Trajectories come normalised, x̂; states are mean + scale · x̂. `variance`: what the values have over such
    states (see `value_variance`), where the guidance needs it.
    """

    measurement: Measurement
    values: Float[Array, "K *z"]
    mask: Bool[Array, "K *z"]
    indices: Int[Array, " K"]
    mean: Float[Array, "*state"]
    scale: Float[Array, "*state"]
    variance: Float[Array, "*z"] | None = None

    def states(self, x: Float[Array, "L *state"]) -> Float[Array, "K *state"]:
        """The measured states of a normalised trajectory."""
        return self.mean[None] + self.scale[None] * x[self.indices]


@eqx.filter_jit
def value_variance(
    operator: Operator, mean: Float[Array, "*state"], scale: Float[Array, "*state"]
) -> Float[Array, "*z"]:
    """Σ_i (scale_i ∂H/∂x_i)² of each value, a mean over 8 states mean + scale · η.

    Exact where H is linear and components are independent.
    """

    def squares(v: Array) -> Array:
        value, pull = jax.vjp(lambda v: operator(mean + scale * v), v)
        basis = jnp.arange(value.size)

        def row(i: Array) -> Array:
            return (pull((basis == i).astype(value.dtype).reshape(value.shape))[0] ** 2).sum()

        return jax.lax.map(row, basis, batch_size=64).reshape(value.shape)

    return jnp.nanmean(
        jax.lax.map(squares, jax.random.normal(jax.random.key(0), (8, *mean.shape), mean.dtype)), 0
    )


class Guidance(eqx.Module):
    """How ∇_x log p(z | x) is had from a denoiser, where x = cos φ · x0 + sin φ · η."""

    def prepared(self, measured: Measured) -> Measured:
        """With what this guidance needs to know once."""
        return measured

    @abc.abstractmethod
    def __call__(
        self, denoise: Denoise, x: Float[Array, "L *state"], angle: Float[Array, ""], measured: Measured
    ) -> tuple[Float[Array, "L *state"], Float[Array, "L *state"]]:
        """The prior's mean x̂ = E[x0 | x], and the score of the likelihood at x."""


class InflatedNoise(Guidance):
    """∇_x log p(z - H(x̂(x))) with the noise widened by the variance tan² φ · Γ, through the denoiser.

    Γ = γ Var H(x), so that draws do not depend on the units of z (see `value_variance`); raw: Γ = γ.

    Γ stands for H C Hᵀ with C = Cov[x0 | x]/tan² φ, the same at all φ. Gaussian noise gets the covariance
    R + tan² φ · Γ; other laws are stretched about 0 to that variance, value by value.
    Biased: exact only where C really is a known constant (see docs/smoothers.md).

    Source: Rozet & Louppe (2023), arXiv 2306.10574, eq. 15.

    Args:
        gamma: γ, a scalar or of z's shape. The published 10⁻² is for values of about unit variance.
        raw: γ in the units of z², as in the released code.
    """

    gamma: Float[Array, "..."] = eqx.field(converter=within("gamma", "[0, inf]"), default=1e-2)
    raw: bool = eqx.field(static=True, default=False)

    def prepared(self, measured: Measured) -> Measured:
        if self.raw:
            return measured
        variance = value_variance(measured.measurement.operator, measured.mean, measured.scale)
        return dataclasses.replace(measured, variance=variance)

    def __call__(
        self, denoise: Denoise, x: Float[Array, "L *state"], angle: Float[Array, ""], measured: Measured
    ) -> tuple[Float[Array, "L *state"], Float[Array, "L *state"]]:
        variance, measurement = jnp.tan(angle) ** 2 * self.gamma.astype(x.dtype), measured.measurement
        if not self.raw:
            own = measured.variance
            if own is None:
                own = value_variance(measurement.operator, measured.mean, measured.scale)
            variance = variance * own.astype(x.dtype)

        def log_prob(z: Array, mask: Array, state: Array) -> Array:
            value = measurement.operator(state)
            residual = measurement.difference(z, value, state.shape)
            added = jnp.broadcast_to(variance, residual.shape)
            return measurement.noise.at(value).widened(residual, added).log_prob(residual, mask)

        def log_likelihood(x: Array) -> tuple[Array, Array]:
            x0 = denoise(x)
            terms = jax.vmap(log_prob)(measured.values, measured.mask, measured.states(x0))
            return terms.sum(), x0

        (_, x0), score = jax.value_and_grad(log_likelihood, has_aux=True)(x)
        return x0, score


class MMPS(Guidance):
    """Moment matching: J ᵀGᵀ (R + G V Gᵀ)⁻¹ (z - H(x̂)), V = (sin² φ / cos φ) Jᵀ ≈ Cov[x0 | x], G = H'(x̂).

    J is the denoiser's Jacobian at x, so the covariance of what is not known of x0 comes from the denoiser
    itself (Tweedie) instead of a constant Γ. The system is solved by conjugate gradients in whitened
    values, each step a derivative through the denoiser forwards through G and one backwards through J. Exact
    for a Gaussian prior, linear H and Gaussian noise, up to the CG steps; other laws count as
    Gaussians of their covariance.

    Source: Rozet, Andry, Lanusse & Louppe (2024), arXiv 2405.13712, section 4.

    Args:
        iterations: CG steps; few suffice as the guidance is applied at every noise level.
    """

    iterations: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        whole("iterations", self.iterations, 1)

    def __call__(
        self, denoise: Denoise, x: Float[Array, "L *state"], angle: Float[Array, ""], measured: Measured
    ) -> tuple[Float[Array, "L *state"], Float[Array, "L *state"]]:
        measurement = measured.measurement
        x0, through_denoiser = jax.vjp(denoise, x)
        laws = jax.vmap(measurement.operator)(measured.states(x0))

        def misfit(z: Array, mask: Array, law: Array, state: Array) -> Array:
            return measurement.with_noise_at(law).whitened_innovation(z, state, mask)

        def misfits(x0: Array) -> Array:
            return jax.vmap(misfit)(measured.values, measured.mask, laws, measured.states(x0))

        residual, tangent = jax.linearize(misfits, x0)  # tangent: -G of whitened values
        adjoint = jax.linear_transpose(tangent, x0)
        spread = jnp.sin(angle) ** 2 / jnp.cos(angle)

        def pulled(v: Array) -> Array:
            """-Jᵀ Gᵀ v."""
            return through_denoiser(adjoint(v)[0])[0]

        solved = _conjugate_gradients(lambda v: v + spread * tangent(pulled(v)), residual, self.iterations)
        return x0, -pulled(solved)


def _conjugate_gradients(a: Callable[[Array], Array], b: Float[Array, "*b"], n: int) -> Float[Array, "*b"]:
    """x after n steps for A x = b from x = 0. Few do not solve it, so derivatives are those of the steps."""
    settled = (jnp.finfo(b.dtype).eps ** 2) * jnp.vdot(b, b)

    def step(_: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        x, left, along, square = carry
        moved = a(along)
        go = square > settled
        share = jnp.where(go, square / jnp.where(go, jnp.vdot(along, moved), 1.0), 0.0)
        left = left - share * moved
        following = jnp.vdot(left, left)
        turn = jnp.where(go, following / jnp.where(go, square, 1.0), 0.0)
        return x + share * along, left, left + turn * along, following

    return counted(n, step, (jnp.zeros_like(b), b, b, jnp.vdot(b, b)))[0]
