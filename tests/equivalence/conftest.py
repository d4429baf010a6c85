"""The linear-Gaussian problem: n = 10, m = 4, full R, known moments; and its solution in plain NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest

N_STATE, N_OBS = 10, 4


def make_problem():
    rng = np.random.default_rng(42)
    a = rng.normal(size=(N_STATE, N_STATE))
    a *= 0.95 / np.abs(np.linalg.eigvals(a)).max()
    b = rng.normal(size=(N_STATE, N_STATE)) / np.sqrt(N_STATE)
    r = rng.normal(size=(N_OBS, N_OBS))
    return SimpleNamespace(
        rng=rng,
        model=a,
        model_std=0.3,
        dt=0.5,
        h=rng.normal(size=(N_OBS, N_STATE)),
        r=0.5 * r @ r.T + np.eye(N_OBS),
        mean=rng.normal(size=N_STATE),
        covariance=b @ b.T + 0.2 * np.eye(N_STATE),
        z=rng.normal(size=(6, N_OBS)) * 2,
    )


@pytest.fixture
def problem():
    return make_problem()


def kalman_update(mean, covariance, h, r, z, mask):
    """The textbook analysis, on the values that are there."""
    h, r, z = h[mask], r[np.ix_(mask, mask)], z[mask]
    gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + r)
    return mean + gain @ (z - h @ mean), covariance - gain @ h @ covariance


@pytest.fixture
def textbook():
    return kalman_update
