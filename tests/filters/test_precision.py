"""Analyses in float32 against double precision, from wide noise to hopelessly small noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often
from suite.precision_cases import case, errors

from masf_jax.dynamics import Linear as LinearModel, Lorenz96
from masf_jax.dynamics.rollout import Climatology
from masf_jax.ensemble import Inflation
from masf_jax.filters import (
    ETKF,
    LETKF,
    EnKF,
    EnKFN,
    EnSRF,
    IEnKF,
    KalmanFilter,
    OptimalInterpolation,
    ThreeDVar,
)
from masf_jax.measurements import CorrelatedGaussian, Gaussian, Linear, Measurement, Observations
from masf_jax.smoothers import enks, ienks

RATIOS = (1e-5, 1.0, 30.0, 1e3, 1e6)
EXACT = {
    "kalman": KalmanFilter(),
    "enkf": EnKF(),
    "etkf": ETKF(),
    "etkf rotated": ETKF(rotation=True),
    "ensrf": EnSRF(),
    "letkf": LETKF(None),
    "letkf eigh": LETKF(None, solver="eigh"),
    "ienkf": IEnKF(),
}


@pytest.mark.slow_cases(
    "correlated-12-5-enkf",
    "correlated-12-5-ienkf",
    "correlated-12-5-kalman",
    "correlated-12-5-letkf",
    "redundant-20-30-enkf",
    "redundant-20-30-letkf",
)
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("kind", "n_members", "m"), [("redundant", 20, 30), ("correlated", 12, 5)])
def test_the_posterior_in_float32(name, kind, n_members, m):
    """.1 posterior std in the mean and 10 % in the spread, with a margin; and no flag."""
    found = errors(EXACT[name], [case(kind, n_members, m, ratio) for ratio in RATIOS])
    for ratio, (mean, spread, rounding) in zip(RATIOS, found, strict=True):
        assert mean < 0.02, (ratio, mean)
        assert abs(spread - 1) < 0.01, (ratio, spread)
        assert rounding < 0.02, (ratio, rounding)


def test_what_float32_cannot_hold_is_flagged():
    """Values around 100, wide to narrow posteriors: wrong is flagged, and what is flagged is not right."""
    ratios = [1.0, 1e2, 1e3, 3e3, 1e4, 1e5, 1e6]
    found = errors(
        ETKF(), [case("distinct", 20, 30, ratio, seed, 100.0) for ratio in ratios for seed in (0, 1)]
    )
    assert all(rounding > 0.1 for mean, _, rounding in found if mean > 0.1)
    assert all(rounding > 0.1 for _, spread, rounding in found if abs(spread - 1) > 0.1)
    assert all(mean > 0.003 for mean, _, rounding in found if rounding > 0.1)
    flags = [rounding > 0.1 for _, _, rounding in found]
    assert flags[:4] == [False] * 4
    assert flags[-4:] == [True] * 4


@eqx.filter_jit
def _run(filter, x, z, measurement):
    state, info = filter.analysis(jax.random.key(1), filter.init(jax.random.key(2), x), z, measurement)
    return state.mean, jnp.sqrt(state.variance), info


def analysis(filter, dynamics, measurement, x, z):
    """Mean, spread and report of one analysis by a compiled program."""
    filter = filter.prepare(dynamics, measurement)
    return jax.tree.map(np.asarray, _run(filter, jnp.asarray(x, float), jnp.asarray(z, float), measurement))


OTHERS = {
    "letkf local": lambda: LETKF(2.0),
    "letkf lists": lambda: LETKF(1.0, batch_size=5, reach=1.2),
    "letkf local eigh": lambda: LETKF(2.0, solver="eigh"),
    "ensrf local": lambda: EnSRF(radius=2.0),
    "ienkf local": lambda: IEnKF(radius=2.0),
    "enkf_n": lambda: EnKFN(Inflation()),
    "3d-var": lambda: ThreeDVar(
        0.5, moments=Climatology(jnp.asarray(np.zeros(12), float), jnp.asarray(0.9 + 0.1 * np.eye(12), float))
    ),
    "oi": lambda: OptimalInterpolation(
        Climatology(jnp.asarray(np.zeros(12), float), jnp.asarray(0.9 + 0.1 * np.eye(12), float))
    ),
}


PLACES = np.repeat(np.arange(0.0, 12.0, 2.0), 3)
SEEN = np.float32(np.eye(12)[PLACES.astype(int)])


@pytest.mark.parametrize("name", often(OTHERS, ("letkf local", "ensrf local", "3d-var")))
def test_float32_is_float64(name):
    """Of localised filters and of those with another law, against themselves under x64."""
    rng = np.random.default_rng(3)
    x = np.float32(rng.normal(size=(10, 12)) + rng.normal(size=(10, 1)))
    found = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            dynamics = Lorenz96(n=12)
            for std in (1e3, np.float32(1e-4), np.float32(1e-6)):
                measurement = Measurement(Linear(SEEN, positions=PLACES), Gaussian(std))
                z = np.float32(3 * std * rng.normal(size=18)) if not x64 else found[len(found) - 3][0]
                found.append((z, *analysis(OTHERS[name](), dynamics, measurement, x, z)))
    for (_, mean, spread, info), (_, mean64, spread64, _) in zip(found[:3], found[3:], strict=True):
        assert np.abs((mean - mean64) / spread64).max() < 0.02
        np.testing.assert_allclose(spread, spread64, rtol=0.01)
        assert info["rounding"] < 0.1


STRANGE = {
    "tiny R": dict(std=1e-24),
    "huge R": dict(std=1e30),
    "members all equal": dict(spread=0.0),
    "two members": dict(n_members=2, std=1e-5),
    "huge value": dict(z=1e10),
}


@pytest.mark.quick_cases("enkf", "ensrf")
@pytest.mark.parametrize("name", [name for name in EXACT if name != "letkf eigh"])
def test_strange_numbers_give_finite_analyses(name):
    rng = np.random.default_rng(4)
    model, operator = LinearModel(np.eye(2)), Linear(np.ones((3, 2)))
    for strange, given in STRANGE.items():
        settings = dict(std=1.0, spread=1.0, n_members=5, z=0.5) | given
        x = settings["spread"] * rng.normal(size=(settings["n_members"], 2)) + 2.0
        measurement = Measurement(operator, Gaussian(settings["std"]))
        mean, spread, info = analysis(EXACT[name], model, measurement, x, np.full(3, settings["z"]))
        assert np.isfinite(mean).all(), strange
        assert np.isfinite(spread).all(), strange
        assert not np.isnan(info["rounding"]), strange
        if strange in ("huge R", "members all equal"):
            np.testing.assert_allclose(mean, np.float32(x).mean(0), rtol=1e-6)
            assert info["rounding"] < 0.01
        if strange == "tiny R":
            assert info["rounding"] > 0.1


def test_a_kalman_filter_keeps_small_variances_beside_large_ones():
    """Two components whose sum alone is measured: the covariance cancels to 1e-8 of its entries."""
    ratio, rows = 1e5, []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            filter = KalmanFilter(np.zeros(2), np.eye(2)).prepare(LinearModel(np.eye(2)), None)
            state = filter.init(jax.random.key(0), jnp.zeros((2, 2)))
            for h in ([[1.0, 1.0]], [[1.0, 1.0]], [[1.0, -1.0]]):
                measurement = Measurement(Linear(np.float32(h)), Gaussian(np.float32(1 / ratio)))
                z = jnp.full(1, 3 / ratio, float)
                state, _ = eqx.filter_jit(filter.analysis)(jax.random.key(1), state, z, measurement)
            rows.append((np.asarray(state.mean), np.sqrt(np.asarray(state.variance))))
    np.testing.assert_allclose(rows[0][0], rows[1][0], atol=0.02 * rows[1][1].min())
    np.testing.assert_allclose(rows[0][1], rows[1][1], rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("smoother", often(["enks", "ienks"], ["enks"]))
def test_smoothers(smoother):
    rng = np.random.default_rng(5)
    x, std, found = np.float32(rng.normal(size=(8, 2))), np.float32(1e-5), []
    z = np.float32(3 * std + std * rng.normal(size=(2, 6)))
    for x64 in (False, True):
        with jax.enable_x64(x64):
            model = LinearModel(np.float32([[1.0, 0.5], [0.0, 1.0]]))
            measurement = Measurement(Linear(np.float32(np.tile(np.eye(2), (3, 1)))), Gaussian(std))
            arguments = (jax.random.key(0), model, measurement, Observations(jnp.asarray(z, float), 1))
            run, filter = (enks, ETKF()) if smoother == "enks" else (ienks, IEnKF())
            out = run(arguments[0], filter, *arguments[1:], jnp.asarray(x, float), lag=1)
            found.append(jax.tree.map(np.asarray, (out.smoothed, out.info["rounding"])))
    (one, rounding), (double, _) = found
    assert np.abs((one["mean"] - double["mean"]) / double["spread"]).max() < 0.05
    np.testing.assert_allclose(one["spread"], double["spread"], rtol=0.05)
    assert (rounding < 0.1).all()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_covariances_are_checked_relative_to_their_scale(scale):
    CorrelatedGaussian(scale * np.asarray([[1.0, 0.9], [0.9, 1.0]]))
    with pytest.raises(ValueError, match="not symmetric: correlations differ"):
        CorrelatedGaussian(scale * np.asarray([[1.0, 0.9], [0.1, 1.0]]))
    with pytest.raises(ValueError, match="smallest correlation eigenvalue"):
        CorrelatedGaussian(scale * np.asarray([[1.0, 1.2], [1.2, 1.0]]))
