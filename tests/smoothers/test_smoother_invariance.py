"""What must not change a smoother's result: units, origin, order, how a value is told.

A linear chain of three states, in double precision; means of `rts`, members of `enks` and `ienks`, 4D-Var's
start, SDA's draws.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from often import often

from masf_jax import filters, smoothers
from masf_jax.denoisers.covariance import DiagonalCovariance
from masf_jax.denoisers.gaussian import GaussianDenoiser
from masf_jax.dynamics import Linear as Model
from masf_jax.measurements import Gaussian, Linear, Measurement, Observations
from masf_jax.smoothers import MMPS, SDA, InflatedNoise

STEPS, N = 3, 8
MATRIX = np.asarray([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.1], [0.0, 0.1, 0.8]])
MEMBERS = np.random.default_rng(0).normal(size=(N, 3)) * [1.0, 2.0, 0.5] + [1.0, -1.0, 0.3]
ROWS, STD = np.asarray([[1.0, 0.3, 0.0], [0.0, 1.0, -0.5]]), np.asarray([0.8, 1.1])
VALUES = np.random.default_rng(1).normal(size=(STEPS, 2))


class Shifted(Model):
    """A linear model about another origin."""

    origin: Array

    def __init__(self, matrix, origin):
        super().__init__(matrix)
        self.origin = jnp.asarray(origin)

    def __call__(self, x, time, key):
        return self.origin + super().__call__(x - self.origin, time, key)


@dataclasses.dataclass
class Told:
    """The same problem in other words; states come back by (x[place] - shift)/scale."""

    rows: np.ndarray
    std: np.ndarray
    values: np.ndarray
    scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(3))
    shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    order: tuple[int, ...] = (0, 1, 2)


SCALE, SHIFT, ORDER = np.asarray([1e5, 1.0, 1e-3]), np.asarray([10.0, -20.0, 5.0]), [2, 0, 1]
SAME = Told(ROWS, STD, VALUES)
FIRST = [0, 1, 0]
TOLD = {
    "units of the state": Told(ROWS / SCALE, STD, VALUES, scale=SCALE),
    "units of z, small": Told(1e-4 * ROWS, 1e-4 * STD, 1e-4 * VALUES),
    "units of z, large": Told(1e6 * ROWS, 1e6 * STD, 1e6 * VALUES),
    "translation": Told(ROWS, STD, VALUES + ROWS @ SHIFT, shift=SHIFT),
    "order of sensors": Told(ROWS[::-1], STD[::-1], VALUES[:, ::-1]),
    "order of components": Told(ROWS[:, ORDER], STD, VALUES, order=tuple(ORDER)),
    "a repeated sensor": Told(ROWS[FIRST], STD[FIRST] * [2**0.5, 1, 2**0.5], VALUES[:, FIRST]),
    "infinite noise": Told(ROWS[FIRST], np.append(STD, 1e30), np.c_[VALUES, VALUES[:, 0] + 7]),
    "masked": Told(ROWS[FIRST], np.append(STD, 1.0), np.c_[VALUES, np.full(STEPS, np.nan)]),
}
DRAWN = {"order of components": "no: noise by number of the component, the same in law"}
PERTURBED: dict[str, str] = dict.fromkeys(
    ("order of sensors", "a repeated sensor", "infinite noise", "masked"),
    "no: perturbations by number of the sensor, the same in law",
)
ONE_BY_ONE = {"a repeated sensor": "no: Γ widens each value by itself"}
SMOOTHERS: dict[str, dict[str, str]] = {
    "rts": {},
    "enks, etkf": {},
    "enks, enkf": PERTURBED,
    "ienks": {},
    "4d-var": {},
    "weak 4d-var": {},
    "sda, inflated noise": DRAWN | ONE_BY_ONE,
    "sda, mmps": DRAWN,
}
SELDOM = ("enks, enkf", "weak 4d-var", "sda, mmps")


def smoothed(name: str, told: Told) -> np.ndarray:
    """States (…, 3) of the smoother, told back."""
    order = list(told.order)
    scale, shift = jnp.asarray(told.scale), jnp.asarray(told.shift)
    members = jnp.asarray(MEMBERS[:, order] * told.scale + told.shift)
    model = Shifted(MATRIX[np.ix_(order, order)] * np.outer(told.scale, 1 / told.scale), told.shift)
    measurement = Measurement(Linear(told.rows), Gaussian(told.std))
    observations, key = Observations(told.values, np.arange(1, STEPS + 1)), jax.random.key(0)
    problem: Any = (model, measurement, observations, members)
    if name == "rts":
        found = smoothers.rts(filters.KalmanFilter(), *problem, scores=()).smoothed["mean"]
    elif name.startswith("enks"):
        filter = filters.ETKF() if "etkf" in name else filters.EnKF()
        found = smoothers.enks(key, filter, *problem, save=("ensemble",), scores=()).smoothed["ensemble"]
    elif name == "ienks":
        found = smoothers.ienks(key, filters.IEnKF(), *problem, lag=2, save=("ensemble",), scores=())
        found = found.smoothed["ensemble"]
    elif name.endswith("4d-var"):
        columns = (members - members.mean(0)[None]) / np.sqrt(N - 1)
        method = smoothers.FourDVar(columns=columns, tolerance=1e-10)
        if name.startswith("weak"):
            q = np.outer(told.scale, told.scale) * (0.1 * np.eye(3) + 0.02)[np.ix_(order, order)]
            method = smoothers.WeakFourDVar(columns=columns, q=q, tolerance=1e-10)
        found = method(members.mean(0), model, measurement, observations).start
    else:
        denoiser = GaussianDenoiser(jnp.zeros((STEPS + 1, 3)), DiagonalCovariance(jnp.ones((STEPS + 1, 3))))
        guidance = MMPS(2) if "mmps" in name else InflatedNoise()
        method = SDA(denoiser, shift, scale, guidance, n_steps=16)
        found = method.draws(key, 2, STEPS + 1, measurement, observations)
    return ((np.asarray(found) - told.shift) / told.scale)[..., np.argsort(order)]


@pytest.mark.quick_cases("enks, etkf", "sda, inflated noise")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", often(SMOOTHERS, [name for name in SMOOTHERS if name not in SELDOM]))
def test_what_must_not_change_a_smoother(name):
    wanted, wrong = smoothed(name, SAME), []
    assert np.isfinite(wanted).all()
    for case, told in TOLD.items():
        if not SMOOTHERS[name].get(case, "").startswith("no: "):
            difference = np.abs(smoothed(name, told) - wanted).max()
            if not difference < 1e-6:
                wrong.append(f"{case}: {difference:.2g}")
    assert wrong == []
