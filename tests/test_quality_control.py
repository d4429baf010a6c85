"""The gross-error check: its rule, and what faulty sensors do to filters behind it (nothing)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import GrossErrorCheck, assimilate
from masf_jax.dynamics import Function, Lorenz96
from masf_jax.filters import (
    ETKF,
    LETKF,
    MASF,
    EnKF,
    EnsembleState,
    GaussianState,
    ParticleFilter,
)
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Laplace,
    Linear,
    Measurement,
    Multiplicative,
    Observations,
    RangeBearing,
    Subset,
    moving_window,
    square,
)

N, STATE, CYCLES = 12, 8, 4


@eqx.filter_jit
def checked(check, state, z, measurement):
    return check(state, z, measurement)


def accepts(threshold, state, z, measurement):
    return np.asarray(checked(GrossErrorCheck(threshold), state, jnp.asarray(z, float), measurement))


def test_rule_for_members(x64):
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(30, 4)), np.asarray([0.5, 9.0, 3.0])
    measurement = Measurement(square() @ Subset([0, 1, 3]), Laplace([0.1, 0.2, 2.0]))
    h = x[:, [0, 1, 3]] ** 2
    ratio = np.abs(z - h.mean(0)) / np.sqrt(h.var(0, ddof=1) + 2 * np.square([0.1, 0.2, 2.0]))
    state = EnsembleState(jnp.asarray(x))
    for j in range(3):
        for factor in (0.999, 1.001):
            found = accepts(factor * ratio[j], state, z, measurement)
            np.testing.assert_array_equal(found, factor * ratio[j] >= ratio)


def test_rule_for_weighted_members(x64):
    x = np.asarray([[0.0], [1.0], [3.0], [100.0]])
    w = np.asarray([0.25, 0.5, 0.25, 0.0])
    mean = (w * x[:, 0]).sum()
    spread = np.sqrt((w * (x[:, 0] - mean) ** 2).sum() / (1 - (w**2).sum()))
    with np.errstate(divide="ignore"):
        state = EnsembleState(jnp.asarray(x), jnp.asarray(np.log(w)))
    edge = mean + 3 * np.hypot(spread, 0.5)
    measurement = Measurement(Identity(), Gaussian(0.5))
    for z, accepted in ((edge - 1e-6, True), (edge + 1e-6, False), (np.nan, False), (np.inf, False)):
        assert accepts(3.0, state, [z], measurement)[0] == accepted


def test_rule_for_a_gaussian_state_and_correlated_noise(x64):
    rng = np.random.default_rng(1)
    root, h = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    r = np.asarray([[0.5, 0.3], [0.3, 0.4]])
    state = GaussianState(jnp.asarray([1.0, -1.0, 2.0]), jnp.asarray(root @ root.T))
    z = np.asarray([10.0, -7.0])
    ratio = np.abs(z - h @ [1, -1, 2]) / np.sqrt(np.diag(h @ root @ root.T @ h.T + r))
    measurement = Measurement(Linear(h), CorrelatedGaussian(r))
    for factor in (0.999, 1.001):
        for j in range(2):
            found = accepts(factor * ratio[j], state, z, measurement)
            np.testing.assert_array_equal(found, factor * ratio[j] >= ratio)


def test_bearings_and_relative_noise(x64):
    """Differences go around the circle; relative noise is that at the mean of H(x)."""
    behind = EnsembleState(jnp.asarray([[-1.0, 0.01], [-1.0, -0.01], [-1.0, 0.0]]))
    bearing = Measurement(RangeBearing([[0.0, 0.0]], quantity="bearing"), Gaussian(0.1))
    for z, accepted in ((np.pi - 0.1, True), (-np.pi + 0.1, True), (0.0, False), (np.pi - 1.0, False)):
        assert accepts(4.0, behind, [z], bearing)[0] == accepted
    far = EnsembleState(jnp.asarray([[100.0], [100.0]]))
    relative = Measurement(Identity(), Multiplicative(0.1, 0.5))
    bound = 3 * np.hypot(0.5, 10.0)
    for z, accepted in ((100 + bound - 1e-6, True), (100 + bound + 1e-6, False)):
        assert accepts(3.0, far, [z], relative)[0] == accepted


def test_what_is_not_finite_is_rejected():
    broken = EnsembleState(jnp.asarray([[0.0, 1.0], [jnp.inf, 2.0]]))
    sensor = Measurement(Identity(), Gaussian(1.0))
    found = accepts(5.0, broken, np.zeros(2), sensor)
    np.testing.assert_array_equal(found, [False, True])
    huge = accepts(5.0, EnsembleState(jnp.asarray(np.ones((3, 1)), float)), [3e38], sensor)
    assert not huge[0]


FILTERS = {
    "enkf": EnKF(),
    "letkf": LETKF(2.0),
    "masf": MASF(),
    "particle": ParticleFilter(),
}


@pytest.mark.quick_cases("particle")
@pytest.mark.parametrize("name", FILTERS)
def test_a_faulty_sensor_changes_nothing(name, key):
    """NaN, ±Inf and 10^6 times the range give the analysis, bit for bit, of the value not being there."""
    model, rng = Lorenz96(STATE), np.random.default_rng(2)
    x = jnp.asarray(3 + rng.normal(size=(N, STATE)), jnp.float32)
    good = 3 + rng.normal(size=(CYCLES, STATE))
    measurement = Measurement(Identity(), Gaussian(2.0))

    def run(values, threshold):
        return assimilate(
            key,
            FILTERS[name],
            model,
            measurement,
            Observations(values, 1),
            x,
            scores=(),
            quality_control=GrossErrorCheck(threshold),
        )

    missing = good.copy()
    missing[1:, 3] = np.nan
    expected = run(missing, 1e3)
    assert not np.asarray(expected.rejected).any()
    for fault in (np.inf, -np.inf, 1e7, -1e7, 1e30):
        values = good.copy()
        values[1:, 3] = fault
        found = run(values, 1e3)
        for a, b in zip(jax.tree.leaves(found.analysis), jax.tree.leaves(expected.analysis), strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.isfinite(a).all()
        rejected = np.zeros((CYCLES, STATE), bool)
        rejected[1:, 3] = np.isfinite(fault)
        np.testing.assert_array_equal(found.rejected, rejected)
    nothing = run(good, 1e-6)  # all rejected: the analysis is the forecast
    assert np.asarray(nothing.rejected).all()
    for a, b in zip(jax.tree.leaves(nothing.analysis), jax.tree.leaves(nothing.forecast), strict=True):
        np.testing.assert_array_equal(a, b)


class Counter:
    """A model that counts how often it is traced."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, time):
        self.count += 1
        return 0.9 * x


@pytest.mark.slow
def test_moving_masks_and_thresholds_share_one_compilation(key):
    counter = Counter()
    dynamics = Function(counter, (STATE,))
    x = jax.random.normal(key, (N, STATE))
    z = np.random.default_rng(3).normal(size=(CYCLES, STATE))

    def run(mask, threshold, **options):
        before = counter.count
        out = assimilate(
            key,
            ETKF(),
            dynamics,
            Measurement(Identity(), Gaussian(0.5)),
            Observations(z, 2, mask=mask),
            x,
            scores=(),
            quality_control=None if threshold is None else GrossErrorCheck(threshold),
            **options,
        )
        return counter.count - before, out

    moving = [moving_window((STATE,), width, shift, CYCLES) for width, shift in ((3, 2), (5, 1))]
    first, whole = run(moving[0], 1.0)
    assert first >= 1
    for mask, threshold in ((moving[1], 1.0), (moving[0], 2.5), (np.zeros_like(moving[0]), 1.0)):
        assert run(mask, threshold)[0] == 0
    rejected = np.asarray(whole.rejected)
    assert rejected.any()
    assert not rejected[~moving[0]].any()
    chunked = run(moving[0], 1.0, chunk=2)[1]
    np.testing.assert_array_equal(chunked.rejected, rejected)
    np.testing.assert_array_equal(chunked.analysis["mean"], whole.analysis["mean"])
    assert run(moving[0], None)[1].rejected is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GrossErrorCheck(0.0), "threshold of the gross-error check must be positive; got 0.0"),
        (lambda: GrossErrorCheck(float("nan")), "threshold .* must be positive; got nan"),
        (lambda: GrossErrorCheck([3.0, 4.0]).check((3,)), r"measurement's shape \(3,\); got shape \(2,\)"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
