"""Periodic fields on other grids, by their Fourier modes."""

from __future__ import annotations

import numpy as np


def shared_modes(x: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Full Fourier coefficients on n² points of the modes that m² and n² points both carry; their numbers."""
    m = x.shape[-1]
    most = (min(m, n) - 1) // 2
    waves = np.arange(-most, most + 1)
    at = np.ix_(waves, waves)
    out = np.zeros((*x.shape[:-2], n, n), complex)
    out[..., *at] = np.fft.fft2(np.asarray(x, np.float64))[..., *at] * (n / m) ** 2
    return out, np.fft.fftfreq(n, 1 / n)


def truncated(x: np.ndarray, n: int) -> np.ndarray:
    """Fields (…, m, m) on n² points, without the modes these do not carry."""
    return np.fft.ifft2(shared_modes(x, n)[0]).real


def sampled(x: np.ndarray, n: int, shifts: tuple[tuple[float, float], ...] = ((0, 0), (0, 0))) -> np.ndarray:
    """Fields (…, 2, m, m) evaluated on n² points, component c moved by shifts[c] spacings in (y, x)."""
    m = x.shape[-1]
    if m > n:  # all modes count at a coarse point: evaluate on a multiple of the coarse grid, and pick
        if m % n:
            raise ValueError(f"n must divide the field's {m} points each way; got {n}.")
        fine = sampled(x, m, tuple((a * m / n, b * m / n) for a, b in shifts))
        return fine[..., :: m // n, :: m // n]
    wide, waves = shared_modes(x, n)
    for c, (sy, sx) in enumerate(shifts):
        wide[..., c, :, :] *= np.exp(2j * np.pi / n * (sy * waves[:, None] + sx * waves[None, :]))
    return np.fft.ifft2(wide).real
