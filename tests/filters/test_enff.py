"""The ensemble flow filter: its own law where all is Gaussian, its bias there, and both its paths."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from masf_jax import assimilate
from masf_jax.dynamics import Linear
from masf_jax.filters import EnFF
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

SIGMA = 0.05
GROWTH = 1.3


def law(path, noise, z, guidance, steps=100, prior=1.0, sigma=SIGMA):
    """Mean and variance for a N(0, prior) forecast, in the limit of many members: every step is linear.

    "f2p": the forecast is `GROWTH` times the analysis before.
    """
    before = prior / GROWTH**2
    mean, variance = 0.0, 1.0 if path == "ot" else before + sigma**2
    for k in range(steps):
        t, dt = k / steps, 1 / steps
        if path == "ot":
            std, rate = 1 - (1 - sigma) * t, -(1 - sigma)
            u = (t * prior + std * rate) / (t**2 * prior + std**2)  # E[ẋ | x] = u x
        else:
            m = t * GROWTH + 1 - t
            u = (GROWTH - 1) * m * before / (m**2 * before + sigma**2)
        seen = 1 + (1 - t) * u
        keep = 1 + dt * (u - guidance * seen / noise)
        mean = keep * mean + dt * guidance * z / noise
        variance = keep**2 * variance
    return mean, variance


@pytest.mark.parametrize("path", ["ot", "f2p"])
def test_its_law_for_a_gaussian_forecast_is_that_of_its_linear_steps(path, x64):
    n = 400
    prior, guidance = 1.0, 0.4
    last = jnp.asarray(norm.ppf((np.arange(n) + 0.5) / n)[:, None]) * np.sqrt(prior) / GROWTH
    filter = EnFF(path=path, n_steps=100, guidance=guidance, sigma_min=SIGMA)
    measurement, model = Measurement(Identity(), Gaussian(0.7)), Linear(np.asarray([[GROWTH]]))

    @jax.jit
    def cycle(key, last):
        state = filter.init(key, last)
        forecast = filter.forecast(key, state, model, jnp.asarray(0, jnp.int32), 1)
        return filter.analysis(key, forecast, jnp.asarray([1.5]), measurement)[0]

    found = cycle(jax.random.key(0), last)
    mean, variance = law(path, 0.49, 1.5, guidance)
    assert found.mean[0] == pytest.approx(mean, abs=4 * np.sqrt(variance / n) + 0.02)
    assert found.variance[0] == pytest.approx(variance, rel=0.15)


@pytest.mark.slow
def test_without_guidance_it_draws_from_the_forecast_mixture(x64):
    n = 1000
    members = jnp.asarray(3 + 0.5 * norm.ppf((np.arange(n) + 0.5) / n)[:, None])
    filter = EnFF(n_steps=200, guidance=0.0, sigma_min=SIGMA)
    measurement = Measurement(Identity(), Gaussian(0.1))
    state = filter.init(jax.random.key(0), members)
    after = jax.jit(lambda s: filter.analysis(jax.random.key(1), s, jnp.zeros(1), measurement)[0])(state)
    assert after.mean[0] == pytest.approx(3.0, abs=0.06)
    assert after.variance[0] == pytest.approx(0.25 + SIGMA**2, rel=0.12)


@pytest.mark.parametrize(
    ("path", "noise", "guidance", "posterior", "enff"),
    [
        ("ot", 1.0, 0.2, (1.0, 0.5), (0.445, 0.727)),
        ("ot", 1.0, 1.0, (1.0, 0.5), (1.530, 0.202)),
        ("f2p", 1.0, 0.2, (1.0, 0.5), (0.407, 0.636)),
        ("f2p", 1.0, 1.0, (1.0, 0.5), (1.358, 0.103)),
        ("ot", 0.01, 0.2, (1.980, 0.0099), (2.006, 0.0)),  # all spread is gone
        ("f2p", 0.01, 0.2, (1.980, 0.0099), (2.000, 0.0)),
    ],
)
def test_its_bias_where_the_posterior_is_known(path, noise, guidance, posterior, enff):
    """A N(0, 1) forecast and z = 2, by the law that the filter was seen to have above."""
    found = law(path, noise, 2.0, guidance, steps=2000 if noise == 1 else 20_000)
    assert found == pytest.approx(enff, abs=6e-4)
    assert posterior == pytest.approx((2 / (1 + noise), noise / (1 + noise)), abs=6e-4)


@pytest.mark.slow
def test_the_path_starts_at_the_last_analysis():
    """A cycle without measurements makes its forecast the analysis that the next one starts from."""
    model, measurement = Linear(np.asarray([[GROWTH]])), Measurement(Identity(), Gaussian(1.0))
    ensemble = jnp.linspace(1.0, 2.0, 5)[:, None]
    values = jnp.asarray([[jnp.nan], [1.0]])
    run = assimilate(
        jax.random.key(0), EnFF(path="f2p"), model, measurement, Observations(values, 1), ensemble
    )
    np.testing.assert_allclose(run.final.memory[1][1], GROWTH * ensemble, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "straight"}, "path must be one of"),
        ({"n_steps": 0}, "n_steps must be at least 1"),
        ({"guidance": -1.0}, "guidance must not be negative"),
        ({"sigma_min": 0.0}, "sigma_min must lie in"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnFF(**arguments)
