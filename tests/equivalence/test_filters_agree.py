"""Method A in a limit is method B; gaps of any kind are what they should be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from masf_jax.dynamics import Climatology as Moments, Linear, Lorenz96
from masf_jax.ensemble import Inflation, gaspari_cohn, points
from masf_jax.filters import (
    ETKF,
    LETKF,
    Climatology,
    EnKF,
    EnKFN,
    EnSRF,
    KalmanFilter,
    OptimalInterpolation,
    ParticleFilter,
    ThreeDVar,
)
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear as LinearOperator,
    Measurement,
    Subset,
    square,
)

N = 10
RNG = np.random.default_rng(0)
MEMBERS = RNG.normal(2.0, 1.5, size=(7, N))
VALUES = RNG.normal(2.0, 2.0, size=N)
MASK = np.asarray([1, 0, 1, 1, 0, 1, 1, 1, 0, 1], bool)
STD = np.linspace(0.5, 1.5, N)
RING = Lorenz96(N)


def moments():
    return Moments(jnp.asarray(np.full(N, 2.0)), jnp.asarray(2.0 * np.eye(N) + 0.5))


FILTERS = {
    "enkf": lambda: EnKF(Inflation(rtps=0.3)),
    "etkf": lambda: ETKF(Inflation(multiplicative=1.05)),
    "etkf-rotation": lambda: ETKF(Inflation(adaptive=True, additive=0.1), rotation=True),
    "ensrf": lambda: EnSRF(),
    "ensrf-local": lambda: EnSRF(Inflation(rtpp=0.2), radius=2.0),
    "letkf": lambda: LETKF(2.0, Inflation(prior=1.1)),
    "letkf-eigh": lambda: LETKF(2.0, solver="eigh"),
    "enkf-n": lambda: EnKFN(),
    "particle": lambda: ParticleFilter(),
    "kalman": lambda: KalmanFilter(),
    "3dvar": lambda: ThreeDVar(iterations=2, moments=moments()),
    "oi": lambda: OptimalInterpolation(moments=moments()),
    "climatology": lambda: Climatology(moments=moments()),
}


@eqx.filter_jit
def _analyse(filter, key, state, z, measurement, mask):
    return filter.analysis(key, state, z, measurement, mask)


@eqx.filter_jit
def _init(filter, key, members):
    return filter.init(key, members)


def analyse(filter, key, measurement, z, mask=None, members=MEMBERS, dynamics=RING):
    filter = filter.prepare(dynamics, measurement)
    state = _init(filter, key, jnp.asarray(members, dtype=float))
    mask = None if mask is None else jnp.asarray(mask)
    return state, _analyse(filter, key, state, jnp.asarray(z, dtype=float), measurement, mask)[0]


def _equal(x, y):
    return (np.asarray(x) == np.asarray(y)).all()


def identical(a, b):
    return all(_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.mark.quick_cases("climatology", "etkf", "letkf-eigh")
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.usefixtures("x64")
def test_nothing_measured_leaves_the_forecast_bit_for_bit(name, key):
    """All masked, or all NaN: state, weights and memory are untouched; and types are kept.

    In single precision: tests/filters/test_faults.py.
    """
    measurement = Measurement(Identity(), Gaussian(STD))
    before, after = analyse(FILTERS[name](), key, measurement, VALUES, np.zeros(N, bool))
    assert identical(before, after)
    before, after = analyse(FILTERS[name](), key, measurement, np.full(N, np.nan), np.ones(N, bool))
    assert identical(before, after)
    before, after = analyse(FILTERS[name](), key, measurement, VALUES, np.ones(N, bool))
    assert name == "climatology" or not identical(before, after)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert x.dtype == y.dtype
        assert np.isfinite(np.asarray(y)).all()


@pytest.mark.quick_cases(
    "climatology-*", "enkf-diagonal", "ensrf-local-full", "etkf-diagonal", "letkf-eigh-full", "letkf-full"
)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noise", ["diagonal", "full"])
@pytest.mark.parametrize("name", FILTERS)
def test_masked_values_are_as_if_never_measured(name, noise, key):
    """The analysis equals that of the same filter with the smaller operator; NaN counts as masked.

    The stochastic EnKF draws its noise over all values, so its smaller twin draws other numbers.
    """
    if noise == "full" and name in ("letkf", "letkf-eigh", "ensrf-local"):
        pytest.skip("localisation needs uncorrelated errors")
    if noise == "full":
        factor = np.random.default_rng(1).normal(size=(N, N)) / 3
        r = factor @ factor.T + np.eye(N)
        whole = Measurement(Identity(), CorrelatedGaussian(r))
        part = Measurement(Subset.from_mask(MASK), CorrelatedGaussian(r[np.ix_(MASK, MASK)]))
    else:
        whole = Measurement(Identity(), Gaussian(STD))
        part = Measurement(Subset.from_mask(MASK), Gaussian(STD[MASK]))
    filter = FILTERS[name]()
    _, masked = analyse(filter, key, whole, VALUES, MASK)
    _, from_nan = analyse(filter, key, whole, np.where(MASK, VALUES, np.nan), np.ones(N, bool))
    assert identical(masked, from_nan)
    _, ignored = analyse(filter, key, whole, np.where(MASK, VALUES, 1e6), MASK)
    assert identical(masked, ignored)
    if name != "enkf":
        _, smaller = analyse(filter, key, part, VALUES[MASK])
        close(masked, smaller, 1e-10)


@pytest.mark.quick_cases("float64-sparse")
def test_global_letkf_is_the_etkf(dtype, route, key):
    """Infinite radius, both solvers; a nonlinear operator of several channels too."""
    tolerance = {"float64": {"eigh": 1e-10, "cg": 1e-9}, "float32": {"eigh": 1e-4, "cg": 1e-4}}[dtype]
    measurement = Measurement(square() @ Subset([1, 4, 5, 8]), Gaussian(2.0))
    _, expected = analyse(ETKF(), key, measurement, VALUES[:4])
    for solver, atol in tolerance.items():
        _, found = analyse(LETKF(np.inf, solver=solver), key, measurement, VALUES[:4])
        np.testing.assert_allclose(found.ensemble, expected.ensemble, atol=atol)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_global_letkf_with_correlated_noise_is_the_etkf(key):
    h = np.random.default_rng(2).normal(size=(3, N))
    measurement = Measurement(LinearOperator(h), CorrelatedGaussian(np.eye(3) + 0.3))
    _, expected = analyse(ETKF(), key, measurement, VALUES[:3])
    _, found = analyse(LETKF(np.inf), key, measurement, VALUES[:3])
    np.testing.assert_allclose(found.ensemble, expected.ensemble, atol=1e-9)


@pytest.mark.quick_cases("10")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("m", [4, N])
def test_ensrf_and_rotated_etkf_share_the_etkfs_moments(m, key):
    """N = 7 members: 4 values take the measurement-space branch, 10 the ensemble-space branch."""
    measurement = Measurement(Subset(np.arange(m)), Gaussian(STD[:m]))
    _, etkf = analyse(ETKF(), key, measurement, VALUES[:m])
    for other in (EnSRF(), EnSRF(rotation=True), ETKF(rotation=True), LETKF(np.inf, rotation=True)):
        _, state = analyse(other, key, measurement, VALUES[:m])
        np.testing.assert_allclose(state.mean, etkf.mean, atol=1e-9)
        np.testing.assert_allclose(
            np.cov(np.asarray(state.ensemble).T), np.cov(np.asarray(etkf.ensemble).T), atol=1e-9
        )
    _, one = analyse(ETKF(rotation=True), key, measurement, VALUES[:m])
    _, two = analyse(ETKF(rotation=True), jax.random.key(1), measurement, VALUES[:m])
    assert np.abs(np.asarray(one.ensemble) - two.ensemble).max() > 0.05  # yet the members differ


@pytest.fixture(params=["dense", "sparse"])
def route(request, monkeypatch):
    """The LETKF's two ways to its local matrices: a dense taper (small networks) and neighbour lists."""
    monkeypatch.setattr(points, "DENSE_RATIO", 16 if request.param == "dense" else 0)

    def check(filter, measurement, dynamics=RING):
        prepared = filter.prepare(dynamics, measurement)
        assert (prepared.taper is None) == (prepared.localization is not None) == (request.param == "sparse")

    return check


@pytest.mark.quick_cases("sparse-cg", "dense-cg")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("solver", ["cg", "eigh"])
def test_letkf_against_a_loop_over_grid_points(solver, route, key):
    """Local ETKFs with R divided by the taper, written out in NumPy."""
    radius, indices = 1.4, np.asarray([2, 3, 4, 5])
    measurement = Measurement(Subset(indices), Gaussian(STD[:4]))
    route(LETKF(radius), measurement)
    _, state = analyse(LETKF(radius, solver=solver), key, measurement, VALUES[:4])
    mean, dev = MEMBERS.mean(0), MEMBERS - MEMBERS.mean(0)
    expected = np.empty_like(MEMBERS)
    for i in range(N):
        gap = np.abs(indices - i)
        taper = gaspari_cohn(np.minimum(gap, N - gap) / radius)
        near = taper > 0
        precision = np.diag(taper[near] / STD[:4][near] ** 2)
        y = dev[:, indices][:, near]
        a = 6 * np.eye(7) + y @ precision @ y.T
        w = np.linalg.solve(a, y @ precision @ (VALUES[:4] - mean[indices])[near])
        values, vectors = np.linalg.eigh(a)
        root = np.sqrt(6) * vectors / np.sqrt(values) @ vectors.T
        expected[:, i] = mean[i] + w @ dev[:, i] + root @ dev[:, i]
    np.testing.assert_allclose(state.ensemble, expected, atol=1e-10)
    far = [8, 9]  # no measurement within 2·radius: nothing happens there
    np.testing.assert_allclose(np.asarray(state.ensemble)[:, far], MEMBERS[:, far], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_local_ensrf_against_a_loop(key):
    radius, indices = 2.2, np.asarray([1, 2, 7])
    measurement = Measurement(Subset(indices), Gaussian(STD[:3]))
    _, state = analyse(EnSRF(radius=radius), key, measurement, VALUES[:3])
    x = MEMBERS.copy()
    for j, (i, z, std) in enumerate(zip(indices, VALUES, STD, strict=False)):
        assert j < 3
        gap = np.abs(np.arange(N) - i)
        taper = gaspari_cohn(np.minimum(gap, N - gap) / radius)
        mean, dev = x.mean(0), x - x.mean(0)
        total = dev[:, i] @ dev[:, i] / 6 + std**2
        gain = taper * (dev.T @ dev[:, i]) / 6 / total
        alpha = 1 / (1 + std / np.sqrt(total))
        x = mean + gain * (z - mean[i]) + dev - alpha * np.outer(dev[:, i], gain)
    np.testing.assert_allclose(state.ensemble, x, atol=1e-10)


@pytest.mark.quick_cases("dense")
@pytest.mark.usefixtures("x64")
def test_letkf_batches_change_nothing(route, key):
    measurement = Measurement(Identity(), Gaussian(STD))
    _, whole = analyse(LETKF(2.0), key, measurement, VALUES)
    for batch_size in (1, 4):
        _, found = analyse(LETKF(2.0, batch_size=batch_size), key, measurement, VALUES)
        np.testing.assert_allclose(found.ensemble, whole.ensemble, atol=1e-12)


class Channels(Linear):
    """A state of two channels on five points of a ring."""

    def __init__(self):
        super().__init__(np.eye(N))
        self.state_shape = (2, 5)

    @property
    def coordinates(self):
        return Lorenz96(5).coordinates


@pytest.mark.quick_cases("sparse-ensrf")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make", [lambda: LETKF(1.5), lambda: EnSRF(radius=1.5)], ids=["letkf", "ensrf"])
def test_channels_share_their_grid_point(make, route, key):
    """Measuring channel 0 at point 2 updates both channels there, and nothing beyond the taper.

    Measuring everything of a channels-first state equals measuring it with the flat list of positions.
    """
    members = MEMBERS.reshape(7, 2, 5)
    measurement = Measurement(Subset([2]), Gaussian(0.5))
    _, state = analyse(make(), key, measurement, VALUES[:1], members=members, dynamics=Channels())
    changed = np.abs(np.asarray(state.ensemble) - members).max(0) > 1e-9
    np.testing.assert_array_equal(changed, np.asarray([[1, 1, 1, 1, 1]] * 2, bool))
    smaller = LETKF(0.9) if isinstance(make(), LETKF) else EnSRF(radius=0.9)
    _, state = analyse(smaller, key, measurement, VALUES[:1], members=members, dynamics=Channels())
    changed = np.abs(np.asarray(state.ensemble) - members).max(0) > 1e-9
    np.testing.assert_array_equal(changed, np.asarray([[0, 1, 1, 1, 0]] * 2, bool))
    field = Measurement(Identity(), Gaussian(0.5))
    flat = Measurement(Subset(np.arange(N)), Gaussian(0.5))
    _, one = analyse(make(), key, field, VALUES.reshape(2, 5), members=members, dynamics=Channels())
    _, two = analyse(make(), key, flat, VALUES, members=members, dynamics=Channels())
    np.testing.assert_allclose(one.ensemble, two.ensemble, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_relaxation_is_towards_the_forecast_before_inflation(key):
    """Prior inflation 1.5 with RTPP: the anomalies mixed in are the forecast's own."""
    measurement = Measurement(Identity(), Gaussian(STD))
    _, plain = analyse(ETKF(Inflation(prior=1.5)), key, measurement, VALUES)
    _, both = analyse(ETKF(Inflation(prior=1.5, rtpp=0.4)), key, measurement, VALUES)
    x = np.asarray(plain.ensemble)
    expected = x.mean(0) + 0.6 * (x - x.mean(0)) + 0.4 * (MEMBERS - MEMBERS.mean(0))
    np.testing.assert_allclose(both.ensemble, expected, atol=1e-10)


def mean_noise_share(y):
    """k = mean over the N directions of ensemble space of (N-1)/(σ² + N-1)."""
    members = y.shape[0]
    return ((members - 1) / (np.linalg.eigvalsh(y @ y.T) + members - 1)).mean()


@pytest.mark.usefixtures("x64")
def test_certain_finite_size_filter_is_an_inflated_etkf(key):
    """With an infinitely certain hyperprior λ = (e/c)^{1-k}, e/c = (N² - 1)/N², whatever the innovation."""
    measurement = Measurement(Identity(), Gaussian(STD))
    _, certain = analyse(EnKFN(certainty=1e9), key, measurement, VALUES)
    lam = (48 / 49) ** (1 - mean_noise_share((MEMBERS - MEMBERS.mean(0)) / STD))
    _, etkf = analyse(ETKF(Inflation(prior=np.sqrt(lam))), key, measurement, VALUES)
    np.testing.assert_allclose(certain.ensemble, etkf.ensemble, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0])
def test_finite_size_filter_minimises_its_cost(scale, key):
    """Against SciPy on the dual cost as documented; calm, ordinary and surprising innovations."""
    members = 7
    measurement = Measurement(Identity(), Gaussian(STD))
    z = MEMBERS.mean(0) + scale * (VALUES - MEMBERS.mean(0))
    filter = EnKFN()
    state = filter.init(key, jnp.asarray(MEMBERS))
    state, info = _analyse(filter, key, state, jnp.asarray(z), measurement, None)
    y = (MEMBERS - MEMBERS.mean(0)) / STD
    d = (z - MEMBERS.mean(0)) / STD
    _, sigma, vt = np.linalg.svd(y, full_matrices=False)
    along = (vt @ d) ** 2
    e, c = (members + 1) / members, members / (members - 1)
    correction = (e / c) ** (0.5 * mean_noise_share(y))
    e, c = e / correction, c * correction

    def cost(log_lam):
        lam = np.exp(log_lam)
        return (along / (lam * sigma**2 + members - 1)).sum() + e / lam + c * log_lam

    best = minimize_scalar(cost, bounds=(-3, 8), method="bounded", options={"xatol": 1e-12})
    np.testing.assert_allclose(info["inflation"], np.sqrt(np.exp(best.x)), rtol=1e-5)
    _, etkf = analyse(ETKF(Inflation(prior=float(info["inflation"]))), key, measurement, z)
    np.testing.assert_allclose(state.ensemble, etkf.ensemble, atol=1e-9)
