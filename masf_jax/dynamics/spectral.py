"""Fourier analysis of velocity fields on a doubly periodic box: wavenumbers, filters, diagnostics.

A velocity is an array (2, ny, nx): component 0 is u, along x (the last axis); component 1 is v, along y.
`length` is (Ly, Lx), in the order of the axes, or one number for a square. Transforms are `rfft2`, whose
coefficients have shape (ny, nx // 2 + 1).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

__all__ = [
    "SpectralGrid",
    "computing",
    "divergence",
    "energy",
    "energy_spectrum",
    "enstrophy",
    "enstrophy_spectrum",
    "exponential_filter",
    "random_velocity",
    "stream_function",
    "two_thirds_filter",
    "velocity_from_vorticity",
    "vorticity",
]

Length = float | tuple[float, float]


@dataclasses.dataclass(frozen=True)
class SpectralGrid:
    """Wavenumbers of a periodic grid, as NumPy arrays that broadcast to (ny, nx // 2 + 1).

    Args:
        shape: (ny, nx), grid points.
        length: (Ly, Lx), sides of the box.
    """

    shape: tuple[int, int]
    length: tuple[float, float]

    @classmethod
    def of(cls, shape: tuple[int, ...], length: Length) -> SpectralGrid:
        """From the shape of a field (its last two axes count) and one or two sides."""
        ny, nx = int(shape[-2]), int(shape[-1])
        if min(ny, nx) < 4:
            raise ValueError(f"shape (ny, nx) must have at least 4 points each way; got {(ny, nx)}.")
        sides = (length, length) if isinstance(length, int | float | np.number) else tuple(length)
        if len(sides) != 2 or not all(np.isfinite(side) and side > 0 for side in sides):
            raise ValueError(f"length must be one or two (Ly, Lx) positive numbers; got {length}.")
        return cls((ny, nx), (float(sides[0]), float(sides[1])))

    @property
    def spacing(self) -> tuple[float, float]:
        """(dy, dx)."""
        return self.length[0] / self.shape[0], self.length[1] / self.shape[1]

    @property
    def waves(self) -> tuple[np.ndarray, np.ndarray]:
        """Signed numbers of waves across the box: my (ny, 1) and mx (1, nx // 2 + 1)."""
        ny, nx = self.shape
        return np.fft.fftfreq(ny, 1 / ny)[:, None], np.fft.rfftfreq(nx, 1 / nx)[None, :]

    @property
    def derivative(self) -> tuple[np.ndarray, np.ndarray]:
        """ky (ny, 1) and kx (1, nx // 2 + 1) for first derivatives: zero at the Nyquist wavenumber."""
        (ny, nx), (my, mx) = self.shape, self.waves
        my, mx = np.where(2 * np.abs(my) == ny, 0.0, my), np.where(2 * mx == nx, 0.0, mx)
        return 2 * np.pi / self.length[0] * my, 2 * np.pi / self.length[1] * mx

    @property
    def k_squared(self) -> np.ndarray:
        """|k|² (ny, nx // 2 + 1)."""
        my, mx = self.waves
        return (2 * np.pi / self.length[0] * my) ** 2 + (2 * np.pi / self.length[1] * mx) ** 2

    @property
    def inverse_k_squared(self) -> np.ndarray:
        """1 / |k|², zero for the mean."""
        k2 = self.k_squared
        return np.where(k2 > 0, 1 / np.where(k2 > 0, k2, 1.0), 0.0)

    @property
    def multiplicity(self) -> np.ndarray:
        """How many coefficients of the full transform each one of `rfft2` stands for: 1 or 2."""
        nx = self.shape[1]
        mx = self.waves[1]
        return np.where((mx == 0) | (2 * mx == nx), 1.0, 2.0)


def two_thirds_filter(grid: SpectralGrid) -> np.ndarray:
    """1 where 3|m| < n in both directions, else 0: quadratic products leave no aliases (Orszag 1971)."""
    (ny, nx), (my, mx) = grid.shape, grid.waves
    return ((3 * np.abs(my) < ny) & (3 * mx < nx)).astype(float)


def exponential_filter(grid: SpectralGrid, order: int = 36, strength: float = 36.0) -> np.ndarray:
    """exp(-strength·|2m/n|^order), both directions multiplied; zero at the Nyquist wavenumber.

    Source: Hou & Li (2007), doi 10.1016/j.jcp.2007.04.014.
    """
    (ny, nx), (my, mx) = grid.shape, grid.waves
    each = (np.abs(2 * my / ny), 2 * mx / nx)
    y, x = (np.where(r < 1, np.exp(-strength * r**order), 0.0) for r in each)
    return y * x


def computing(dtype: Any) -> Any:
    """The type to transform in: float32 for half-precision input, else the input's own."""
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def _transform(field: Array, length: Length) -> tuple[SpectralGrid, Array]:
    return SpectralGrid.of(field.shape, length), jnp.fft.rfft2(field.astype(computing(field.dtype)))


def _times(real: np.ndarray, spectrum: Array) -> Array:
    """A real multiplier of any modes, in the spectrum's precision."""
    return jnp.asarray(real, spectrum.real.dtype).astype(spectrum.dtype) * spectrum


def _back(spectrum: Array, grid: SpectralGrid, dtype: Any) -> Array:
    return jnp.fft.irfft2(spectrum, grid.shape).astype(dtype)


def vorticity(velocity: Float[Array, "2 ny nx"], length: Length = 2 * np.pi) -> Float[Array, "ny nx"]:
    """ω = ∂v/∂x - ∂u/∂y."""
    grid, (u, v) = _transform(velocity, length)
    ky, kx = grid.derivative
    return _back(1j * (_times(kx, v) - _times(ky, u)), grid, velocity.dtype)


def divergence(velocity: Float[Array, "2 ny nx"], length: Length = 2 * np.pi) -> Float[Array, "ny nx"]:
    """∂u/∂x + ∂v/∂y."""
    grid, (u, v) = _transform(velocity, length)
    ky, kx = grid.derivative
    return _back(1j * (_times(kx, u) + _times(ky, v)), grid, velocity.dtype)


def stream_function(velocity: Float[Array, "2 ny nx"], length: Length = 2 * np.pi) -> Float[Array, "ny nx"]:
    """ψ of mean zero with u = ∂ψ/∂y, v = -∂ψ/∂x up to the mean flow: -∇²ψ = ω."""
    grid, (u, v) = _transform(velocity, length)
    ky, kx = grid.derivative
    w = 1j * (_times(kx, v) - _times(ky, u))
    return _back(_times(grid.inverse_k_squared, w), grid, velocity.dtype)


def velocity_from_vorticity(
    field: Float[Array, "ny nx"],
    length: Length = 2 * np.pi,
    mean_flow: Float[Array, " 2"] | None = None,
) -> Float[Array, "2 ny nx"]:
    """The divergence-free velocity of vorticity ω, plus `mean_flow` (u, v).

    The mean of ω is ignored, and on an even grid part of what it has at the Nyquist wavenumbers, where a real
    field has no derivative.
    """
    grid, w = _transform(field, length)
    ky, kx = grid.derivative
    stream = _times(grid.inverse_k_squared, w)
    out = _back(1j * jnp.stack([_times(ky, stream), _times(-kx, stream)]), grid, field.dtype)
    return out if mean_flow is None else out + mean_flow.astype(out.dtype)[:, None, None]


def energy(velocity: Float[Array, "2 ny nx"]) -> Float[Array, ""]:
    """Kinetic energy per unit area, ½⟨u² + v²⟩, mean flow included."""
    x = velocity.astype(computing(velocity.dtype))
    return 0.5 * (x**2).sum(0).mean()


def enstrophy(velocity: Float[Array, "2 ny nx"], length: Length = 2 * np.pi) -> Float[Array, ""]:
    """½⟨ω²⟩."""
    x = velocity.astype(computing(velocity.dtype))
    return 0.5 * (vorticity(x, length) ** 2).mean()


def _by_shell(spectra: Array, grid: SpectralGrid) -> tuple[Array, Array]:
    """½ Σ|coefficients|² of each shell of width k0 = 2π / longer side, as a density in k."""
    k0 = 2 * np.pi / max(grid.length)
    shell = np.rint(np.sqrt(grid.k_squared) / k0).astype(np.int32)
    dtype = spectra.real.dtype
    weight = jnp.asarray(0.5 * grid.multiplicity / np.prod(grid.shape, dtype=float) ** 2 / k0, dtype)
    power = weight * (spectra.real**2 + spectra.imag**2).sum(0)
    total = jnp.zeros(int(shell.max()) + 1, dtype).at[shell.ravel()].add(power.ravel())
    return jnp.asarray(k0 * np.arange(total.size), dtype), total


def energy_spectrum(
    velocity: Float[Array, "2 ny nx"], length: Length = 2 * np.pi
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Wavenumbers k = 0, k0, 2k0, … (k0 = 2π / longer side) and E(k), where Σ E(k) k0 = `energy`.

    Shell j holds the modes with |k| nearest to j·k0; shells past the shorter side's k_max are incomplete.
    """
    grid, spectra = _transform(velocity, length)
    return _by_shell(spectra, grid)


def enstrophy_spectrum(
    velocity: Float[Array, "2 ny nx"], length: Length = 2 * np.pi
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """The same of the enstrophy: Σ Z(k) k0 = `enstrophy`."""
    grid, (u, v) = _transform(velocity, length)
    ky, kx = grid.derivative
    return _by_shell((_times(kx, v) - _times(ky, u))[None], grid)


def random_velocity(
    key: PRNGKeyArray,
    grid: SpectralGrid,
    waves: float,
    speed: float | Float[Array, ""],
    retained: Float[Array, "ny modes"] | None = None,
) -> Float[Array, "2 ny nx"]:
    """A Gaussian random velocity field without divergence or mean, scaled to a largest |velocity| of `speed`.

    The expected energy spectrum is log-normal in |k|, proportional to exp(-(ln(k/k_p) - ¼)²·2)/k: its mode is
    k_p, `waves` across Ly, and ln k has standard deviation ½. jax-cfd's initial fields are of this kind.

    Args:
        retained: factor of each Fourier coefficient; None: 1.
    """
    k2 = grid.k_squared
    k = np.sqrt(np.where(k2 > 0, k2, 1.0)) * grid.length[0] / (2 * np.pi * waves)
    density = np.where(k2 > 0, np.exp(-2 * (np.log(k) - 0.25) ** 2) / k, 0.0)
    noise = jax.random.normal(key, grid.shape, float if retained is None else retained.dtype)
    spectrum = _times(
        np.sqrt(density / k), jnp.fft.rfft2(noise)
    )  # of the speed: E(k) is spread over 2πk modes
    if retained is not None:
        spectrum = retained.astype(spectrum.dtype) * spectrum
    ky, kx = grid.derivative
    over_k = np.sqrt(grid.inverse_k_squared)
    along = 1j * jnp.stack([_times(ky * over_k, spectrum), _times(-kx * over_k, spectrum)])
    x = jnp.fft.irfft2(along, grid.shape)
    return x * (jnp.asarray(speed, x.dtype) / jnp.sqrt((x**2).sum(0).max()))
