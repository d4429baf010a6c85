"""The analysis does not depend on units, origin, or order, and is exact whatever the sensors' precision."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from often import often

from masf_jax.dynamics import Lorenz96
from masf_jax.masf import (
    MASF,
    Bridge,
    GaussianPrior,
    KernelPrior,
    Linearized,
    MeasurementAware,
    masf_analysis,
)
from masf_jax.measurements import Gaussian, Linear, Measurement, Subset
from masf_jax.measurements.base import Operator

KEY = jax.random.key(0)
N = 6
ROWS = np.array([0, 2, 4])


@eqx.filter_jit
def _analyse(filter, members, measurement, z):
    return masf_analysis(
        KEY,
        members,
        measurement,
        z,
        prior=filter.prior,
        process=filter.process,
        sampler=filter.sampler,
        route=filter.route,
    )[0]


def analyse(filter, members, operator, std, z):
    members, std, z = (jnp.asarray(value, dtype=float) for value in (members, std, z))
    return np.asarray(_analyse(filter, members, Measurement(operator, Gaussian(std)), z), np.float64)


def exact(members, h, std, z):
    """Mean and standard deviations of the members' own posterior, in double precision."""
    x = np.asarray(members, np.float64)
    mean, root = x.mean(0), (x - x.mean(0)) / np.sqrt(len(x) - 1)
    s, d = root @ h.T / std, (z - h @ mean) / std
    order = np.argsort(-np.abs(s).max(0))
    q, r = np.linalg.qr(np.vstack([s.T[order], np.eye(len(x))]))
    left = np.linalg.solve(r.T, root)
    return mean + root.T @ np.linalg.solve(r, q[: len(d)].T @ d[order]), np.sqrt((left**2).sum(0))


FILTERS = {
    "transported": MASF(GaussianPrior()),
    "perturbed": MASF(GaussianPrior(members="perturbed")),
    "fresh, 2 steps": MASF(GaussianPrior(members="fresh"), sampler=Bridge(2)),
    "kernel": MASF(KernelPrior()),
    "measurement-aware": MASF(process=MeasurementAware()),
}
MEMBERS = np.random.default_rng(0).normal(1.0, 1.5, (10, N))
STD = np.array([0.3, 0.5, 0.4])
Z = np.array([1.4, 0.2, 2.1])


@pytest.mark.parametrize("name", often(FILTERS, ("transported", "kernel")))
def test_units_and_origin_change_nothing(name, x64):
    filter, half = FILTERS[name], Subset(ROWS)
    base = analyse(filter, MEMBERS, half, STD, Z)
    units = 10.0 ** np.array([5, -20, -3, 2, 20, 0])
    scaled = analyse(filter, MEMBERS * units, half, STD * units[ROWS], Z * units[ROWS])
    np.testing.assert_allclose(scaled / units, base, rtol=1e-7, atol=1e-9)
    origin = np.linspace(-50, 70, N)
    moved = analyse(filter, MEMBERS + origin, half, STD, Z + origin[ROWS])
    np.testing.assert_allclose(moved - origin, base, atol=1e-9)


@pytest.mark.slow
def test_order_repetition_splitting_and_blind_sensors(x64):
    """Of transported members: in the order of sensors, components, and members, and in law."""
    filter, h = FILTERS["transported"], np.eye(N)[ROWS]
    base = analyse(filter, MEMBERS, Linear(h), STD, Z)
    turn = [2, 0, 1]
    np.testing.assert_allclose(analyse(filter, MEMBERS, Linear(h[turn]), STD[turn], Z[turn]), base, atol=1e-9)
    order = np.array([3, 1, 5, 0, 2, 4])
    permuted = analyse(filter, MEMBERS[:, order], Linear(h[:, order]), STD, Z)
    np.testing.assert_allclose(permuted, base[:, order], atol=1e-9)
    np.testing.assert_allclose(analyse(filter, MEMBERS[::-1], Linear(h), STD, Z), base[::-1], atol=1e-9)
    twice = analyse(filter, MEMBERS, Linear(np.vstack([h, h])), np.tile(STD, 2), np.tile(Z, 2))
    half = analyse(filter, MEMBERS, Linear(h), STD / np.sqrt(2), Z)
    np.testing.assert_allclose(twice, half, atol=1e-9)
    blind = np.append(STD, 1e30)
    with_blind = analyse(filter, MEMBERS, Linear(np.vstack([h, np.eye(N)[1]])), blind, np.append(Z, 9.0))
    np.testing.assert_allclose(with_blind, base, atol=1e-9)
    first = analyse(filter, MEMBERS, Linear(h[:1]), STD[:1], Z[:1])
    both = analyse(filter, first, Linear(h[1:]), STD[1:], Z[1:])
    np.testing.assert_allclose(both.mean(0), base.mean(0), atol=1e-9)
    np.testing.assert_allclose(np.cov(both.T), np.cov(base.T), atol=1e-9)


H = {
    "mask": np.eye(N)[ROWS],
    "redundant": np.eye(N)[np.arange(12) % N],
    "dense": np.random.default_rng(1).normal(size=(4, N)),
}
RATIOS = (1e-5, 1e-2, 1.0, 1e2, 1e4, 1e5, 1e6)


@pytest.mark.quick_cases("float32-dense", "float32-redundant")
@pytest.mark.parametrize("name", H)
def test_exact_at_any_precision_of_the_sensors(name, dtype):
    """For more members than components; float32 within .1 posterior deviations and one unit in the last place
    of the sample's own law (at 10⁶ a unit is .1 of a deviation)."""
    filter, operator = FILTERS["transported"], Linear(H[name])
    h = np.asarray(operator.matrix, np.float64)
    members = np.asarray(jnp.asarray(MEMBERS, dtype=float), np.float64)
    single = dtype == "float32"
    for ratio in RATIOS:
        std = np.asarray(jnp.full(len(h), 1 / ratio, dtype=float), np.float64)
        z = np.asarray(jnp.asarray(h @ members[0], dtype=float), np.float64)
        got = analyse(filter, members, operator, std, z)
        mean, spread = exact(members, h, std, z)
        allowed = 0.1 + np.spacing(np.abs(mean).astype(np.float32)) / spread if single else 1e-6
        assert np.all(np.abs((got.mean(0) - mean) / spread) < allowed), ratio
        np.testing.assert_allclose(got.std(0, ddof=1), spread, rtol=0.1 if single else 1e-6)


def test_sensors_of_very_different_precision(dtype):
    """A sensor as uncertain as the forecast counts fully beside one that is 10⁵ times as precise."""
    h, single = np.random.default_rng(1).normal(size=(4, N)), dtype == "float32"
    operator = Linear(h)
    std = np.array([1e-5, 1.0, 1e-5, 1.0])
    z = h @ MEMBERS[0]
    got = analyse(FILTERS["transported"], MEMBERS, operator, std, z)
    mean, spread = exact(MEMBERS, h, std, z)
    assert np.abs((got.mean(0) - mean) / spread).max() < (0.1 if single else 1e-6)
    np.testing.assert_allclose(got.std(0, ddof=1), spread, rtol=0.1 if single else 1e-6)


def test_what_float32_cannot_hold_is_reported():
    """Values that contradict the members' span."""
    members = jnp.asarray(np.random.default_rng(0).normal(size=(5, N)), jnp.float32)

    def rounding(std):
        measurement = Measurement(Subset(range(N)), Gaussian(std))
        return float(masf_analysis(KEY, members, measurement, jnp.linspace(-1.0, 1.0, N))[2]["rounding"])

    assert rounding(1.0) < 1e-5
    assert rounding(1e-8) > 0.1


class Bent(Operator):
    matrix: Array

    def __call__(self, x):
        u = self.matrix @ x
        return u + 0.2 * jnp.tanh(u)


WIDE = np.random.default_rng(2).normal(size=(30, N)).astype(np.float32)
OTHERS = {
    "kernel": (MASF(KernelPrior()), Linear(WIDE)),
    "linearized": (MASF(route=Linearized("mean", iterations=2)), Bent(jnp.asarray(WIDE))),
    "localised, iterative": (MASF(GaussianPrior(radius=4.0)), Subset(range(0, 516, 2))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", often(OTHERS, ["kernel"]))
def test_what_is_not_factored_is_exact_in_float32_too(name):
    """Against itself in double, .1 deviations in the mean and 10 % in the spread; and no flag."""
    filter, operator = OTHERS[name]
    n = 516 if name.startswith("local") else N
    rng = np.random.default_rng(3)
    members = (rng.normal(size=(10, 1)) + rng.normal(size=(10, n))).astype(np.float32)
    ratios = np.asarray([1e-3, 1.0, 1e3, 1e6], np.float32)
    with jax.enable_x64(True):
        doubled = jax.tree.map(lambda a: jnp.asarray(a, float) if eqx.is_inexact_array(a) else a, operator)
        truth = np.stack([doubled(jnp.full(n, 3 / ratio)) for ratio in ratios.astype(float)])
    z = (truth + rng.normal(size=truth.shape) / ratios[:, None]).astype(np.float32)

    def run(operator):
        prepared = filter.prepare(Lorenz96(n), Measurement(operator, Gaussian(1.0)))

        def one(given):
            z, std = given
            measurement = Measurement(operator, eqx.tree_at(lambda g: g.std, Gaussian(1.0), std))
            state = prepared.init(KEY, jnp.asarray(members, float))
            state, info = prepared.analysis(KEY, state, z, measurement)
            return state.mean, jnp.sqrt(state.variance), info["rounding"]

        arrays = jnp.asarray(z, float), jnp.asarray(1 / ratios, float)
        return jax.tree.map(np.asarray, jax.jit(lambda arrays: jax.lax.map(one, arrays))(arrays))

    mean, spread, rounding = run(operator)
    with jax.enable_x64(True):
        mean64, spread64, _ = run(doubled)
    assert np.abs((mean - mean64) / spread64).max() < 0.1
    if name != "kernel":  # which draws its points, others in double
        np.testing.assert_allclose(spread, spread64, rtol=0.05)
    assert (rounding < 0.1).all()
    if name.startswith("local"):  # and converged: the tapered covariance's own posterior
        x, prepared = members.astype(float), filter.prepare(Lorenz96(n), Measurement(operator, Gaussian(1.0)))
        deviations = (x - x.mean(0)) / np.sqrt(len(x) - 1)
        covariance = deviations.T @ deviations * np.asarray(prepared.prior.taper.apply(jnp.eye(n)), float)
        h = np.eye(n)[::2]
        for k, ratio in enumerate(ratios.astype(float)):
            system = h @ covariance @ h.T + np.eye(len(h)) / ratio**2
            gain = np.linalg.solve(system, h @ covariance).T
            std = np.sqrt(np.diagonal(covariance - gain @ h @ covariance))
            wanted = x.mean(0) + gain @ (z[k] - h @ x.mean(0))
            assert np.abs((mean[k] - wanted) / np.maximum(std, 1e-3 / ratio)).max() < 0.1, ratio
