"""What figures of two-dimensional flows show, from a run's dataset: vorticity, points, spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .style import times

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Vorticity",
    "energy_spectra",
    "is_flow",
    "measured_points",
    "moments",
    "sides",
    "vorticity_fields",
    "vorticity_units",
]


class Vorticity(NamedTuple):
    """Vorticity by cycle, each (cycles, ny, nx): a reference, the analysis mean, and how they differ."""

    reference: np.ndarray
    analysis: np.ndarray
    difference: np.ndarray
    names: tuple[str, str, str]
    cycle: np.ndarray
    moment: list[str]


def is_flow(data: xr.Dataset) -> bool:
    """Whether states are velocities (u, v) on a grid, and analysis means were saved."""
    channels = data["channel"].values.tolist() if "channel" in data.coords else []
    found = channels == ["u", "v"] and "analysis_mean" in data
    return found and data["analysis_mean"].dims == ("cycle", "channel", "y", "x")


def moments(data: xr.Dataset) -> list[str]:
    """When each cycle was, in words: its date, or "t = " its time."""
    at, label = times(data)
    if np.issubdtype(at.dtype, np.datetime64):
        return [str(date.astype("datetime64[m]")).replace("T", " ") for date in at]
    units = label.removeprefix("model time").strip(" ()") if label.startswith("model time") else ""
    return [f"t = {time:.4g} {units}".rstrip() for time in at]


def sides(data: xr.Dataset) -> tuple[float, float]:
    """(Ly, Lx) of the periodic box, from the positions of its grid points."""
    y, x = data["y"].values, data["x"].values
    return float(y[1] - y[0]) * y.size, float(x[1] - x[0]) * x.size


def vorticity_units(data: xr.Dataset) -> str:
    """Of ∂v/∂x - ∂u/∂y: those of velocities over those of positions; "1" where either is not known."""
    velocity, length = (str(data[name].attrs.get("units", "1")) for name in ("analysis_mean", "x"))
    if "1" in (velocity, length):
        return "1"
    over, _, time = velocity.replace(" s-1", "/s").partition("/")
    return f"1/{time}" if over == length else f"{velocity}/{length}"


def _references(data: xr.Dataset) -> tuple[str, tuple[str, str, str]]:
    """The variable to compare the analysis with, and names of the three panels."""
    if "truth" in data:
        return "truth", ("truth", "analysis mean", "error of the analysis mean")
    return "forecast_mean", ("forecast mean", "analysis mean", "increment")


def _vorticity(velocity: np.ndarray, length: tuple[float, float]) -> np.ndarray:
    """ω = ∂v/∂x - ∂u/∂y of velocities (…, 2, ny, nx), by NumPy: nothing is compiled for a figure."""
    from ..dynamics.spectral import SpectralGrid

    grid = SpectralGrid.of(velocity.shape, length)
    ky, kx = grid.derivative
    spectrum = np.fft.rfft2(velocity)
    w = 1j * (kx * spectrum[..., 1, :, :] - ky * spectrum[..., 0, :, :])
    return np.fft.irfft2(w, grid.shape).astype(velocity.dtype)


def _energy_spectrum(
    power: np.ndarray, shape: tuple[int, ...], length: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """k and E(k), see `masf_jax.dynamics.spectral.energy_spectrum`; power: mean of Σ|F[velocity]|²."""
    from ..dynamics.spectral import SpectralGrid

    grid = SpectralGrid.of(shape, length)
    k0 = 2 * np.pi / max(grid.length)
    shell = np.rint(np.sqrt(grid.k_squared) / k0).astype(int)
    power = power * (0.5 * grid.multiplicity / np.prod(grid.shape, dtype=float) ** 2 / k0)
    return k0 * np.arange(shell.max() + 1), np.bincount(shell.ravel(), power.ravel())


def vorticity_fields(data: xr.Dataset, cycles: Sequence[int]) -> Vorticity:
    """Vorticity ω = ∂v/∂x - ∂u/∂y at the given cycles.

    Raises:
        ValueError: a cycle that the run does not have.
    """
    n = data.sizes["cycle"]
    bad = [cycle for cycle in cycles if not 0 <= cycle < n]
    if bad or len(cycles) == 0:
        raise ValueError(f"cycles must be one or more of 0 … {n - 1}, those of the run; got {bad or 'none'}.")
    chosen = data.isel(cycle=list(cycles))
    variable, names = _references(data)
    length = sides(data)
    reference, analysis = (_vorticity(chosen[name].values, length) for name in (variable, "analysis_mean"))
    cycle = chosen["cycle"].values
    moment = [moments(data)[number] for number in cycles]  # in units that suit the whole run
    return Vorticity(reference, analysis, analysis - reference, names, cycle, moment)


def measured_points(data: xr.Dataset, cycle: int) -> np.ndarray | None:
    """Which grid points (ny, nx) have a valid measurement in the cycle; None if their places are unknown."""
    shape = (data.sizes["y"], data.sizes["x"])
    mask = data["observation_mask"].isel(cycle=cycle).values.astype(bool)
    if mask.shape[-2:] == shape:
        return np.asarray(mask.reshape(-1, *shape).any(axis=0))
    if "observation_y" not in data.coords:
        return None
    points = np.zeros(shape, bool)
    points[tuple(_nearest(data[axis].values, data[f"observation_{axis}"].values[mask]) for axis in "yx")] = (
        True
    )
    return points


def _nearest(axis: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Number of the grid point next to each place, on a periodic axis."""
    steps = np.rint((places - axis[0]) / (axis[1] - axis[0]))
    return np.mod(steps, len(axis)).astype(int)


def energy_spectra(data: xr.Dataset, first: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Wavenumbers k and energy spectra E(k) by name, averages over the cycles from `first` on.

    Shells 0 (the mean flow) and those past the shorter side's largest wavenumber are left out, and so are
    cycles that are not finite. The members' spectrum is there if the run saved them (`save` with `ensemble`).
    """
    from ..dynamics.spectral import SpectralGrid

    length, shape = sides(data), data["analysis_mean"].shape
    variable, names = _references(data)
    sums: dict[str, tuple[Any, int]] = {}
    for cycle in range(first, data.sizes["cycle"]):  # read one by one
        now = data.isel(cycle=[cycle])
        reference, analysis = now[variable].values, now["analysis_mean"].values
        fields = dict(zip(names, (reference, analysis, analysis - reference), strict=True))
        if "analysis_ensemble" in now:
            fields["analysis members"] = now["analysis_ensemble"].values[0]
        for name, velocities in fields.items():
            for each in velocities[np.isfinite(velocities).all((1, 2, 3))]:
                total, count = sums.get(name, (0, 0))
                sums[name] = total + (np.abs(np.fft.rfft2(each)) ** 2).sum(0), count + 1
    spectra = {}
    k = np.zeros(0)
    for name, (total, count) in sums.items():
        k, spectra[name] = _energy_spectrum(total / count, shape, length)
    grid = SpectralGrid.of(shape, length)
    largest = min(np.pi / step for step in grid.spacing)
    kept = (k > 0) & (k <= largest)
    return k[kept], {name: values[kept] for name, values in spectra.items()}
