"""Kolmogorov flow: two-dimensional Navier-Stokes turbulence on a periodic box, stirred by a shear force."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Scalar
from numpy.typing import ArrayLike

from ..coordinates import Coordinates
from ..numbers import number, positive, whole
from . import integrate, spectral
from .base import Dynamics, members_in_cache
from .kolmogorov_setup import (
    FILTERS,
    SCHEMES,
    courant_limits,
    force_spectrum,
    inner_steps,
    noise_spectrum,
    nonlinear_weights,
)

__all__ = ["EnergyBudget", "Kolmogorov"]


class EnergyBudget(NamedTuple):
    """Energy per unit area and its rates of change: d(energy)/dt = input - drag - viscous - hyperviscous."""

    energy: Float[Array, ""]
    input: Float[Array, ""]
    drag: Float[Array, ""]
    viscous: Float[Array, ""]
    hyperviscous: Float[Array, ""]


class Kolmogorov(Dynamics):
    """∂u/∂t + u·∇u = -∇p + ν∇²u - μu + A sin(κy) x̂, ∇·u = 0; ν = 1 / reynolds, κ = 2π·forcing_waves / Ly.

    The state is the velocity (2, ny, nx): u along x (the last axis), then v along y. A step `dt` goes to the
    vorticity's Fourier coefficients once, makes `n_inner` steps there, and comes back once, so what is not
    divergence-free or not resolved in the state (in an analysis increment, say) is projected out. There

        dω/dt = -(ν|k|² + μ + ν_h|k|^2p) ω + (kx² - ky²) F[uv] - kx ky F[u² - v²] - κA F[cos κy],

    with two inverse and two forward real transforms per right-hand side, the products filtered. The mean flow
    is kept: it decays by the drag and carries the vortices along.

    Sources: Basdevant (1983, doi 10.1016/0021-9991(83)90095-4) for the products; Chandler & Kerswell (2013),
    Kochkov et al. (2021, doi 10.1073/pnas.2101784118) for the flow.

    Args:
        shape: grid points, (ny, nx) or one number for both; at least 8 each way.
        reynolds: 1 / ν; inf for an inviscid flow.
        dt: time of one transition.
        length: (Ly, Lx), or one number for a square.
        drag: μ ≥ 0.
        forcing: A.
        forcing_waves: waves of the force across Ly; with Ly = 2π this is k_f.
        stepper: "etdrk4", "etdrk2", "cnab2" (Crank-Nicolson, Adams-Bashforth), "rkcn" (five-stage RK-CN).
        dealias: "two_thirds" (no aliasing: the products conserve energy and enstrophy), or "exponential"
            (36th order: 1.4 times the wavenumbers of the same grid, few aliases); see docs/kolmogorov.md.
        max_speed: largest |velocity| the inner step is made for.
        cfl: the Courant number h·(|u|/dx + |v|/dy) at that speed, 45° to the grid; None: `cfl_default`.
        n_inner: inner steps per transition, instead of what `max_speed` and `cfl` give.
        hyperviscosity, hyperviscosity_order: ν_h and p of the optional term -ν_h (-∇²)^p u.
        random_forcing: energy per unit area and time put in by noise that is white in time (added once per
            transition) in the ring of wavenumbers within half a wave of `random_waves` across Ly.
        initial_speed, initial_waves: largest speed, and most energetic waves across Ly, of `initial_state`.
    """

    numbers: ClassVar[tuple[str, ...]] = ("reynolds", "drag", "forcing")
    dt: Float[Array, ""]
    weights: Any
    velocity_weights: Float[Array, "2 ny modes"]
    product_weights: Float[Array, "2 ny modes"]
    force: Float[Array, "ny modes"]
    noise: Float[Array, "ny modes"] | None
    grid: spectral.SpectralGrid = eqx.field(static=True)
    viscosity: Float[Array, ""]
    drag: Float[Array, ""]
    forcing: Float[Array, ""]
    forcing_waves: int = eqx.field(static=True)
    hyperviscosity: Float[Array, ""]
    hyperviscosity_order: int = eqx.field(static=True)
    initial_speed: Float[Array, ""]
    initial_waves: float = eqx.field(static=True)
    stepper: str = eqx.field(static=True)
    dealias: str = eqx.field(static=True)
    n_inner: int = eqx.field(static=True)

    def __init__(
        self,
        shape: int | tuple[int, int] = 64,
        reynolds: float = 1000.0,
        dt: float = 0.2,
        *,
        length: float | tuple[float, float] = 2 * np.pi,
        drag: float = 0.1,
        forcing: float = 1.0,
        forcing_waves: int = 4,
        stepper: Literal["etdrk4", "etdrk2", "cnab2", "rkcn"] = "etdrk4",
        dealias: Literal["two_thirds", "exponential"] = "two_thirds",
        max_speed: float = 5.0,
        cfl: float | None = None,
        n_inner: int | None = None,
        hyperviscosity: float = 0.0,
        hyperviscosity_order: int = 4,
        random_forcing: float = 0.0,
        random_waves: float = 4.0,
        initial_speed: float = 3.0,
        initial_waves: float = 4.0,
    ):
        sides: Any = (shape, shape) if np.ndim(shape) == 0 else shape
        shape = tuple(whole("the number of points", n) for n in sides)
        if len(shape) != 2 or min(shape) < 8:
            raise ValueError(f"shape must be (ny, nx), at least 8 points each way; got {shape}.")
        if stepper not in SCHEMES or dealias not in FILTERS:
            known = f"{', '.join(SCHEMES)}; {', '.join(FILTERS)}"
            raise ValueError(f"stepper and dealias must be among {known}; got {stepper!r}, {dealias!r}.")
        number("forcing", forcing, "(-inf, inf)", must="be a finite number")
        rates = drag, hyperviscosity, random_forcing
        if not all(rate >= 0 for rate in rates) or hyperviscosity_order < 1:
            raise ValueError(
                "drag, hyperviscosity and random_forcing must not be negative and hyperviscosity_order be at "
                f"least 1; got {drag}, {hyperviscosity}, {random_forcing}, {hyperviscosity_order}."
            )
        self.grid = grid = spectral.SpectralGrid.of(shape, length)
        self.dt = positive("dt", dt)
        viscosity = 1 / float(positive("reynolds", reynolds))
        self.viscosity, self.drag, self.forcing, self.hyperviscosity = (
            jnp.asarray(value, dtype=float) for value in (viscosity, drag, forcing, hyperviscosity)
        )
        self.forcing_waves, self.hyperviscosity_order = int(forcing_waves), int(hyperviscosity_order)
        self.initial_speed = positive("initial_speed", initial_speed)
        self.initial_waves = float(positive("initial_waves", initial_waves))
        self.stepper, self.dealias = stepper, dealias
        retain = FILTERS[dealias][0](grid)
        velocity, product = nonlinear_weights(grid, retain)
        self.velocity_weights = jnp.asarray(velocity, dtype=float)
        self.product_weights = jnp.asarray(product, dtype=float)
        self.force = jnp.asarray(force_spectrum(grid, retain, float(forcing), forcing_waves), dtype=float)
        self.noise = None
        if random_forcing > 0:
            noise = noise_spectrum(grid, retain, random_forcing * float(dt), random_waves)
            self.noise = jnp.asarray(noise, dtype=float)
        if n_inner is None:
            courant = self.cfl_default if cfl is None else float(positive("cfl", cfl))
            n_inner = inner_steps(float(dt), grid.spacing, max_speed, courant)
        self.n_inner = whole("n_inner", n_inner, 1)
        self.weights = self._weights(float(drag), viscosity, float(hyperviscosity), float(dt))

    def _weights(self, drag: Any, viscosity: Any, hyperviscosity: Any, dt: Any) -> Any:
        """Of the stepper, for the decay of each mode."""
        values, where = np.unique(self.grid.k_squared, return_inverse=True)
        k2 = jnp.asarray(values, float) if isinstance(drag, jax.Array) else values
        linear = -drag - viscosity * k2 - hyperviscosity * k2**self.hyperviscosity_order
        weights = SCHEMES[self.stepper].coefficients(linear, dt / self.n_inner)
        return jax.tree.map(
            lambda w: jnp.asarray(w[where].reshape(1, *self.force.shape) if w.ndim else w, dtype=float),
            weights,
        )

    @property
    def reynolds(self) -> Float[Array, ""]:
        """1 / ν."""
        return 1 / self.viscosity

    def with_numbers(self, **numbers: ArrayLike) -> Kolmogorov:
        """The flow with another reynolds, drag or forcing, which may be traced; its inner step stays."""
        given = {name: jnp.asarray(value, float) for name, value in numbers.items()}
        if unknown := set(given) - set(self.numbers):
            raise ValueError(f"numbers of a Kolmogorov flow are {', '.join(self.numbers)}; got {unknown}.")
        viscosity = 1 / given["reynolds"] if "reynolds" in given else self.viscosity
        drag, forcing = given.get("drag", self.drag), given.get("forcing", self.forcing)
        retain = FILTERS[self.dealias][0](self.grid)
        force = forcing * jnp.asarray(force_spectrum(self.grid, retain, 1.0, self.forcing_waves), float)
        weights = self._weights(drag, viscosity, self.hyperviscosity, self.dt)
        return eqx.tree_at(
            lambda m: (m.viscosity, m.drag, m.forcing, m.force, m.weights),
            self,
            (viscosity, drag, forcing, force, weights),
        )

    def _retained(self) -> np.ndarray:
        return FILTERS[self.dealias][0](self.grid) > 0

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (2, *self.grid.shape)

    @property
    def length(self) -> tuple[float, float]:
        """(Ly, Lx)."""
        return self.grid.length

    @property
    def cfl_limit(self) -> float:
        """Largest Courant number max(|u|/dx + |v|/dy)·h at which stepper and filter proved stable."""
        return courant_limits(self.stepper, self.dealias, self.grid.shape)[0]

    @property
    def cfl_default(self) -> float:
        """The Courant number that the default inner step has at `max_speed`."""
        return courant_limits(self.stepper, self.dealias, self.grid.shape)[1]

    @property
    def ffts_per_transition(self) -> int:
        """Real two-dimensional transforms in one call without random forcing."""
        first = 1 if self.stepper == "cnab2" else 0
        return 4 * (SCHEMES[self.stepper].stages * self.n_inner + first) + 4

    def __call__(
        self, x: Float[Array, "2 ny nx"], time: Scalar | float, key: PRNGKeyArray | None
    ) -> Float[Array, "2 ny nx"]:
        if self.noise is not None and key is None:
            raise ValueError(
                "Kolmogorov with random_forcing is random: call it with a key, or use mean_step."
            )
        return self._transition(x, key)

    def mean_step(self, x: Float[Array, "2 ny nx"], time: Scalar | float) -> Float[Array, "2 ny nx"]:
        return self._transition(x, None)

    def _transition(self, x: Array, key: PRNGKeyArray | None) -> Array:
        model = self._in(x.dtype)
        w = model._advance(model._from_velocity(x))
        if model.noise is not None and key is not None:
            drawn = jnp.fft.rfft2(jax.random.normal(key, x.shape[1:], model.force.dtype))
            w = w + model.noise[None] * jnp.stack([drawn.real, drawn.imag])
        return jnp.stack(model._to_velocity(w)).astype(x.dtype)

    def _in(self, dtype: Any) -> Kolmogorov:
        """The model with its arrays in the type that a state of `dtype` is computed in."""
        dtype = spectral.computing(dtype)
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self)

    def _advance(self, w: Array) -> Array:
        """`n_inner` steps of w, the real and imaginary part (2, ny, modes) of the vorticity's coefficients.

        The mean coefficient of a vorticity is 0; its two numbers hold the sums of u and of v instead, which
        any stepper takes through the linear decay -μ.
        """
        scheme = SCHEMES[self.stepper]

        def body(i: Any, carry: Any) -> Any:
            return scheme.step(self._nonlinear, carry, self.weights)

        if self.stepper == "cnab2":
            start = integrate.cnab2_start(self._nonlinear, w, self.weights)
            return jax.lax.fori_loop(1, self.n_inner, body, start)[0]
        return jax.lax.fori_loop(0, self.n_inner, body, w)

    def _from_velocity(self, x: Array) -> Array:
        u, v = jnp.fft.rfft2(x.astype(self.force.dtype))
        ky, kx = (jnp.asarray(k, self.force.dtype) for k in self.grid.derivative)
        retain = jnp.asarray(self._retained(), self.force.dtype)
        parts = jnp.stack([ky * u.imag - kx * v.imag, kx * v.real - ky * u.real]) * retain[None]
        return parts.at[:, 0, 0].set(jnp.stack([u[0, 0].real, v[0, 0].real]))

    def _to_velocity(self, w: Array) -> tuple[Array, Array]:
        """u = ∂ψ/∂y and v = -∂ψ/∂x plus the mean flow, with ψ = ω / |k|²."""
        n = self.grid.shape[0] * self.grid.shape[1]

        def component(weights: Array, total: Array) -> Array:
            spectrum = jax.lax.complex(-weights * w[1], weights * w[0])
            return jnp.fft.irfft2(spectrum, self.grid.shape) + total / n

        return (
            component(self.velocity_weights[0], w[0, 0, 0]),
            component(self.velocity_weights[1], w[1, 0, 0]),
        )

    def _nonlinear(self, w: Array) -> Array:
        u, v = self._to_velocity(w)
        cross, difference = jnp.fft.rfft2(u * v), jnp.fft.rfft2(u * u - v * v)
        first, second = self.product_weights
        real = first * cross.real + second * difference.real + self.force
        return jnp.stack([real, first * cross.imag + second * difference.imag])

    @property
    def step_noise_variance(self) -> Array | None:
        """Variance at a grid point of what random forcing adds in one transition (correlated in space)."""
        if self.noise is None:
            return None
        each = self.noise**2 * jnp.asarray(self.grid.multiplicity / np.prod(self.grid.shape), dtype=float)
        variance = (self.velocity_weights**2 * each[None]).sum((1, 2))
        return jnp.broadcast_to(variance[:, None, None], self.state_shape)

    @property
    def coordinates(self) -> Coordinates:
        """Positions in grid spacings of the x axis: grid points, where cells are square."""
        dy, dx = self.grid.spacing
        ny, nx = self.grid.shape
        return Coordinates.grid((ny, nx), (ny * (dy / dx), float(nx)))

    @property
    def unit_length(self) -> float:
        return self.grid.spacing[1]

    @property
    def variable_names(self) -> tuple[str, ...]:
        return "u", "v"

    @property
    def cached_members(self) -> int:
        return members_in_cache(self.state_shape)

    @property
    def spin_up_steps(self) -> int:
        return 50

    def initial_state(self, key: PRNGKeyArray) -> Float[Array, "2 ny nx"]:
        """A Gaussian divergence-free field, scaled to a largest speed of `initial_speed`.

        See `spectral.random_velocity`; the spectrum's peak is at `initial_waves` across Ly.
        """
        return spectral.random_velocity(
            key, self.grid, self.initial_waves, self.initial_speed, jnp.asarray(self._retained(), dtype=float)
        )

    def courant_number(self, x: Float[Array, "2 ny nx"]) -> Float[Array, ""]:
        """max(|u|/dx + |v|/dy) times the inner step, of one member; inf if it is not finite."""
        dy, dx = self.grid.spacing
        u, v = jnp.abs(x.astype(spectral.computing(x.dtype)))
        rate = jnp.where(jnp.isfinite(u + v), u / dx + v / dy, jnp.inf).max()  # XLA's max may drop NaN
        return rate * (self.dt / self.n_inner).astype(u.dtype)

    def energy_budget(self, x: Float[Array, "2 ny nx"]) -> EnergyBudget:
        """Energy of one member and what feeds and drains it, per unit area (random forcing left out)."""
        x = x.astype(spectral.computing(x.dtype))
        ny = self.grid.shape[0]
        wave = jnp.asarray(np.sin(2 * np.pi * self.forcing_waves * np.arange(ny) / ny), x.dtype)
        k2, power = self.grid.k_squared, (jnp.abs(jnp.fft.rfft2(x)) ** 2).sum(0)
        weight = self.grid.multiplicity / np.prod(self.grid.shape, dtype=float) ** 2

        def moment(p: int) -> Array:
            return (power * jnp.asarray(weight * k2**p, x.dtype)).sum()

        total = spectral.energy(x)
        return EnergyBudget(
            energy=total,
            input=self.forcing.astype(x.dtype) * (x[0] * wave[:, None]).mean(),
            drag=2 * self.drag.astype(x.dtype) * total,
            viscous=self.viscosity.astype(x.dtype) * moment(1),
            hyperviscous=self.hyperviscosity.astype(x.dtype) * moment(self.hyperviscosity_order),
        )
