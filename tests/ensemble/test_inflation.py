"""Each inflation's formula, and the adaptive one on a problem with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.ensemble import AdaptiveInflation, Inflation

RNG = np.random.default_rng(8)
FORECAST = RNG.normal(1.0, 3.0, size=(6, 2, 4))
ANALYSIS = RNG.normal(2.0, 1.0, size=(6, 2, 4))


def dev(x):
    return x - x.mean(0)


def after(inflation, dtype, key=None):
    key = jax.random.key(0) if key is None else key
    out = inflation.after(key, jnp.asarray(FORECAST, dtype), jnp.asarray(ANALYSIS, dtype))
    assert out.dtype == dtype
    return np.asarray(out)


def check(found, expected, dtype):
    np.testing.assert_allclose(found, expected, rtol=1e-12 if dtype == "float64" else 1e-5, atol=1e-5)


@pytest.mark.quick_cases("float32")
def test_multiplicative(dtype):
    check(after(Inflation(multiplicative=1.3), dtype), ANALYSIS.mean(0) + 1.3 * dev(ANALYSIS), dtype)


def test_rtpp(dtype):
    expected = ANALYSIS.mean(0) + 0.7 * dev(ANALYSIS) + 0.3 * dev(FORECAST)
    check(after(Inflation(rtpp=0.3), dtype), expected, dtype)


@pytest.mark.quick_cases("float64")
def test_rtps(dtype):
    sf, sa = FORECAST.std(0), ANALYSIS.std(0)
    found = after(Inflation(rtps=0.6), dtype)
    check(found, ANALYSIS.mean(0) + dev(ANALYSIS) * (1 + 0.6 * (sf - sa) / sa), dtype)
    check(found.std(0), 0.6 * sf + 0.4 * sa, dtype)
    check(after(Inflation(rtps=1.0), dtype).std(0), sf, dtype)


@pytest.mark.slow
def test_rtps_of_a_collapsed_component_stays_finite():
    flat = jnp.ones((4, 3))
    out = Inflation(rtps=0.5).after(
        jax.random.key(0), flat + jnp.arange(4.0)[:, None] * jnp.ones((1, 3)), flat
    )
    np.testing.assert_array_equal(out, flat)


@pytest.mark.quick_cases("float64")
def test_additive(dtype, key):
    std = np.linspace(0.5, 2.0, 8).reshape(2, 4)
    x = jnp.zeros((3000, 2, 4), dtype)
    inflation = Inflation(additive=std)
    out = np.asarray(inflation.after(key, x, x))
    assert out.dtype == dtype
    np.testing.assert_allclose(out.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(out.std(0), std, rtol=4 / np.sqrt(2 * 3000))
    assert (np.asarray(Inflation(additive=0.5).after(key, x, x)).std(0) < 0.55).all()


def test_order_relaxation_then_factor(dtype):
    relaxed = 0.5 * dev(ANALYSIS) + 0.5 * dev(FORECAST)
    expected = ANALYSIS.mean(0) + 1.1 * relaxed
    check(after(Inflation(multiplicative=1.1, rtpp=0.5), dtype), expected, dtype)


def test_prior(dtype):
    x = jnp.asarray(FORECAST, dtype)
    inflation = Inflation(prior=1.2)
    assert inflation.changes_forecast
    inflated, memory = inflation.before(x, None, jnp.zeros((6, 3), dtype), jnp.asarray(3.0))
    assert memory is None
    check(inflated, FORECAST.mean(0) + 1.2 * dev(FORECAST), dtype)
    assert not Inflation(multiplicative=1.2).changes_forecast


def test_neutral_values_cost_nothing():
    inflation = Inflation(multiplicative=1.0, prior=1.0, rtps=0.0, rtpp=0.0, additive=0.0)
    assert jax.tree.leaves(inflation) == []
    np.testing.assert_array_equal(after(inflation, "float32"), ANALYSIS.astype(np.float32))


@pytest.mark.quick_cases("float32-2.5")
@pytest.mark.parametrize("truth", [1.0, 2.5])
def test_adaptive_inflation_finds_the_missing_variance(truth, dtype):
    """Innovations of covariance λ S Sᵀ + I with known λ: the running estimate converges to it.

    What is known beforehand, 1.06 ± .1, is 14 standard deviations from the second truth.
    """
    adaptive = AdaptiveInflation()
    members, m, cycles = 30, 20, 600

    def cycle(state, key):
        key_y, key_d = jax.random.split(key)
        y = jax.random.normal(key_y, (members, m))
        y = y - y.mean(0, keepdims=True)
        d = jnp.sqrt(truth + 1.0) * jax.random.normal(key_d, (m,))
        state = adaptive.update(state, d[None] - y, jnp.asarray(float(m)))
        return state, state.factor

    start = adaptive.init(jnp.dtype(dtype))
    _, factors = jax.jit(lambda s: jax.lax.scan(cycle, s, jax.random.split(jax.random.key(1), cycles)))(start)
    assert factors.dtype == dtype
    assert abs(float(factors[300:].mean()) - truth) < 0.1 * truth
    assert abs(float(factors[0]) - 1.0) < 0.5


def test_adaptive_inflation_stays_where_innovations_say_nothing():
    """Spread a thousandth of the noise's: λ keeps its mean and variance over any number of cycles."""
    adaptive = AdaptiveInflation(mean=1.1)
    innovations = jnp.asarray(
        RNG.normal(size=(1000, 1, 20)) + 1e-3 * RNG.normal(size=(1, 8, 20)), jnp.float32
    )
    last, _ = jax.lax.scan(
        lambda s, d: (adaptive.update(s, d, jnp.asarray(20.0)), None),
        adaptive.init(jnp.dtype("float32")),
        jnp.asarray(innovations, jnp.float32),
    )
    np.testing.assert_allclose(last.factor, 1.1, atol=1e-3)
    np.testing.assert_allclose(last.variance, 0.01, rtol=1e-3)


@pytest.mark.slow
def test_adaptive_inflation_is_clipped():
    adaptive = AdaptiveInflation(std=3.0, lower=0.9, upper=3.0)
    y = jnp.asarray(RNG.normal(size=(10, 5)), jnp.float32)
    y = y - y.mean(0, keepdims=True)
    state = adaptive.init(jnp.dtype("float32"))
    high = adaptive.update(state, 1e3 - y, jnp.asarray(5.0))
    low = adaptive.update(state, -y, jnp.asarray(5.0))
    np.testing.assert_allclose(high.factor, 3.0)
    np.testing.assert_allclose(low.factor, 0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiplicative": -1.0}, "multiplicative inflation must be positive; got -1.0"),
        ({"prior": -0.1}, "prior inflation must be positive; got -0.1"),
        ({"prior": 0.0}, "prior inflation must be positive; got 0.0"),  # no spread would be left
        ({"multiplicative": 0.0}, "multiplicative inflation must be positive; got 0.0"),
        ({"additive": -0.1}, "additive inflation must not be negative; got -0.1"),
        ({"multiplicative": float("nan")}, "multiplicative inflation must be positive; got nan"),
        ({"rtps": 1.5}, r"rtps must lie in \[0, 1.0\]; got 1.5"),
        ({"rtpp": -0.5}, r"rtpp must lie in \[0, 1.0\]; got -0.5"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Inflation(**arguments)
