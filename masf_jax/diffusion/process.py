"""Linear diffusion processes from a state to its measurement, and the exact algebra all of them share."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Scalar

from ..bases import Basis
from ..derivatives import root_or_zero
from ..measurements.measurement import Measurement

__all__ = ["Frame", "Process", "ProcessFamily", "Transition"]


class Frame(eqx.Module):
    """The coordinates v = V⁻¹ (x - centre)/scale in which a process acts on each component alone.

    Args:
        centre, scale: state-shaped or broadcastable to the state; in the state's units.
        basis: V.
    """

    centre: Float[Array, "..."]
    scale: Float[Array, "..."]
    basis: Basis

    def encode(self, x: Float[Array, "*x"]) -> Float[Array, "*v"]:
        """The coordinates of the state x."""
        return self.basis.to((x - self._like(self.centre, x)) / self._like(self.scale, x))

    def decode(self, v: Float[Array, "*v"]) -> Float[Array, "*x"]:
        """The state with coordinates v."""
        x = self.basis.back(v)
        return self._like(self.centre, x) + self._like(self.scale, x) * x

    def _like(self, value: Array, x: Array) -> Array:
        return jnp.broadcast_to(value.astype(x.dtype), x.shape)


class Transition(NamedTuple):
    """v_t | v_s ~ N(factor · v_s, variance), componentwise."""

    factor: Float[Array, "*v"]
    variance: Float[Array, "*v"]


class Process(eqx.Module):
    """v_t = g(t) v_0 + s(t) η with η ~ N(0, I), t ∈ [0, 1]: the data at t = 0, the measurement at 1.

    It is the Markov process dv = F v dt + G dw with F = ġ/g, G² = d(s²)/dt - 2 F s², independent for each
    component. (An offset of an affine H is gone: the frame's centre is subtracted from states, H(centre)
    from measured values.) The measurement itself is a draw of v_1 given v_0, where anything is
    measured; `endpoint` gives that value. Conditioned on v_1 it is the unconditional reverse process
    started there that draws from p(v_0 | v_1) (`bridge`): no likelihood term is left over.
    """

    frame: eqx.AbstractVar[Frame]
    measured: eqx.AbstractVar[Float[Array, "*v"]]
    """The value of v_1 where something is measured."""
    observed: eqx.AbstractVar[Bool[Array, "*v"]]
    """Where v_1 is known; elsewhere it is noise, drawn afresh for each member."""

    @abc.abstractmethod
    def gain(self, t: Scalar) -> Float[Array, "*v"]:
        """g(t), with g(0) = 1, positive below t = 1."""

    @abc.abstractmethod
    def std(self, t: Scalar) -> Float[Array, "*v"]:
        """s(t), with s(0) = 0."""

    def variance(self, t: Scalar) -> Float[Array, "*v"]:
        """s(t)², differentiable at t = 0 too."""
        return self.std(t) ** 2

    def angle(self, t: Scalar) -> Float[Array, "*v"]:
        """The noise level φ = atan2(s, g) that denoisers are given."""
        return jnp.arctan2(self.std(t), self.gain(t))

    def rescaled(self, v: Float[Array, "*v"], t: Scalar) -> Float[Array, "*v"]:
        """v_t/√(g² + s²) = cos φ · v_0 + sin φ · η: what denoisers are given."""
        return v / jnp.hypot(self.gain(t), self.std(t))

    def endpoint(self, key: PRNGKeyArray) -> Float[Array, "*v"]:
        """v_1: the measurement, and noise where nothing is measured."""
        one = jnp.ones((), self.measured.dtype)
        noise = self.std(one) * jax.random.normal(key, self.measured.shape, self.measured.dtype)
        return jnp.where(self.observed, self.measured, noise)

    def noised(self, key: PRNGKeyArray, v0: Float[Array, "*v"], t: Scalar) -> Float[Array, "*v"]:
        """A draw of v_t given v_0."""
        noise = jax.random.normal(key, v0.shape, v0.dtype)
        return self.gain(t) * v0 + self.std(t) * noise

    def transition(self, s: Scalar, t: Scalar) -> Transition:
        """v_t given v_s; for t < s the formulas of the paper's reverse step, with a negative variance."""
        factor = self.gain(t) / self.gain(s)
        return Transition(factor, self.std(t) ** 2 - factor**2 * self.std(s) ** 2)

    def reverse(
        self, key: PRNGKeyArray, v: Float[Array, "*v"], v0: Float[Array, "*v"], s: Scalar, t: Scalar
    ) -> Float[Array, "*v"]:
        """A draw of v_t given v_s = `v` and v_0, for t < s.

        With the noise η_s = (v_s - g_s v_0)/s_s and k = (g_s/s_s)/(g_t/s_t), the ratio of signal-to-noise
        ratios, v_t = g_t v_0 + s_t (k η_s + √(1 - k²) ξ), ξ ~ N(0, I).
        """
        fresh = jax.random.normal(key, v.shape, v.dtype)
        gain, std = self.gain(s), self.std(s)
        carried = (v - gain * v0) / std
        k = gain * self.std(t) / (std * self.gain(t))
        noise = k * carried + root_or_zero(1 - k**2) * fresh
        return self.gain(t) * v0 + self.std(t) * noise

    def score(self, v: Float[Array, "*v"], v0: Float[Array, "*v"], t: Scalar) -> Float[Array, "*v"]:
        """∇ log p_t(v) = -(v - g E[v_0 | v])/s², given that mean."""
        return -(v - self.gain(t) * v0) / self.std(t) ** 2

    def likelihood_score(self, v: Float[Array, "*v"], t: Scalar) -> Float[Array, "*v"]:
        """∇ log p(v_1 | v_t = v) = M S⁻¹ (v_1 - M v), M and S of t → 1; zero where nothing is measured."""
        m, variance = self.transition(t, jnp.ones_like(t))
        safe = jnp.where(self.observed, variance, 1.0)
        return jnp.where(self.observed, m * (self.measured - m * v) / safe, 0.0)

    def rates(self, t: Scalar) -> tuple[Float[Array, "*v"], Float[Array, "*v"]]:
        """F and G of the process's stochastic differential equation at time t."""
        one = jnp.ones_like(t)
        g, g_dot = jax.jvp(self.gain, (t,), (one,))
        variance, variance_dot = jax.jvp(self.variance, (t,), (one,))
        f = g_dot / g
        return f, root_or_zero(variance_dot - 2 * f * variance)


class ProcessFamily(eqx.Module):
    """A process for each measurement: what `MASF(process=…)` takes. A subclass gives `__call__`."""

    linearizes: ClassVar[bool] = False
    """Whether it takes a nonlinear operator by its tangent (`at`) and scales the noise (`tempering`)."""
    keeps_levels: ClassVar[bool] = False
    """Whether noise levels of a linear measurement do not depend on `centre`: used to find things once."""

    @abc.abstractmethod
    def __call__(
        self,
        measurement: Measurement,
        z: Float[Array, "*z"],
        mask: Bool[Array, "*z"],
        centre: Float[Array, "*x"],
        scale: Float[Array, "..."],
        at: Float[Array, "*x"] | None = None,
        tempering: Scalar | float = 1.0,
    ) -> Process:
        """The process between states around `centre` and the measured values z.

        Args:
            z, mask: measured values, and which of them are valid.
            scale: typical deviation from `centre`, broadcastable to the state.
            at: where a nonlinear operator is linearised; None: at `centre`.
            tempering: factor on the noise variance.
        """

    def check(
        self, measurement: Measurement, state_shape: tuple[int, ...], scale_shape: tuple[int, ...]
    ) -> None:
        """Raises ValueError where the process cannot end in this measurement; called outside jit."""
