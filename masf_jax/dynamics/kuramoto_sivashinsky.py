"""The Kuramoto-Sivashinsky equation on a periodic line."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from ..coordinates import Coordinates
from ..numbers import positive, whole
from .base import Dynamics, members_in_cache
from .integrate import ETDRK4Coefficients, etdrk4_coefficients, etdrk4_step

__all__ = ["KuramotoSivashinsky"]


class KuramotoSivashinsky(Dynamics):
    """u_t = -u u_x - u_xx - u_xxxx on [0, length), pseudo-spectral in space, ETDRK4 steps of `dt`.

    In Fourier space L = k² - k⁴ is integrated exactly and N = -(i k / 2) F[u²] by fourth-order
    exponential Runge-Kutta: nine real transforms a step. The step is fixed at construction (it sits in
    the ETDRK4 weights). No dealiasing by default, as in Kassam & Trefethen (2005): at the resolutions
    used here the fourth-order diffusion removes aliased energy.

    Args:
        n: grid points (even).
        length: domain length; 32π gives the setup of Bocquet et al. (2019).
        dt: step.
        dealias: apply the 2/3 rule to the nonlinear term: waves m with 3m ≥ n are left out of what is squared
            and of the square.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    dt: Float[Array, ""]
    weights: ETDRK4Coefficients
    derivative: Float[Array, " modes"]
    kept: Float[Array, " modes"] | None
    """1 for the modes that are squared, 0 for the others; None: all."""
    length: Float[Array, ""]
    state_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, n: int = 128, length: float = 32 * np.pi, dt: float = 0.5, dealias: bool = False):
        if whole("n", n) < 8 or n % 2:
            raise ValueError(f"n must be an even number of at least 8 grid points; got {n}.")
        self.state_shape, self.length = (int(n),), positive("length", length)
        self.dt = positive("dt", dt)
        k = 2 * np.pi / float(self.length) * np.arange(n // 2 + 1)
        self.weights = jax.tree.map(jnp.asarray, etdrk4_coefficients(k**2 - k**4, float(dt)))
        derivative = -0.5 * k
        derivative[-1] = 0.0  # the Nyquist mode of an odd derivative of a real field is zero
        kept = 3 * np.arange(n // 2 + 1) < n
        self.derivative = jnp.asarray(derivative * kept if dealias else derivative)
        self.kept = jnp.asarray(kept, self.derivative.dtype) if dealias else None

    def __call__(
        self, x: Float[Array, " n"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, " n"]:
        n = self.state_shape[0]
        spectrum = jnp.fft.rfft(x)
        weights = jax.tree.map(lambda w: w.astype(spectrum.dtype), self.weights)
        i_derivative = jax.lax.complex(jnp.zeros_like(self.derivative), self.derivative).astype(
            spectrum.dtype
        )

        def advection(u: Array) -> Array:
            return i_derivative * jnp.fft.rfft(u**2)

        def nonlinear(v: Array) -> Array:
            low = v if self.kept is None else self.kept.astype(v.dtype) * v
            return advection(jnp.fft.irfft(low, n))

        first = advection(x) if self.kept is None else nonlinear(spectrum)
        return jnp.fft.irfft(etdrk4_step(nonlinear, spectrum, weights, first), n)

    @property
    def coordinates(self) -> Coordinates:
        """Grid-point index on a ring of n points (radii are in grid points, as in the papers)."""
        return Coordinates.grid(self.state_shape, (float(self.state_shape[0]),))

    @property
    def cached_members(self) -> int:
        return members_in_cache(self.state_shape)

    @property
    def spin_up_steps(self) -> int:
        return 600

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """The Kassam-Trefethen wave cos(x/16)(1 + sin(x/16)), scaled to the domain, plus noise of .1.

        The noise has zero mean: the equation conserves the mean, and the attractor is that of mean 0.
        """
        x = 2 * jnp.pi / self.state_shape[0] * jnp.arange(self.state_shape[0], dtype=float)
        noise = 0.1 * jax.random.normal(key, self.state_shape)
        return jnp.cos(x) * (1 + jnp.sin(x)) + noise - noise.mean()
