"""Unknown numbers are found: as their exact posterior, where there is one; else near the truth."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Likelihood, filters, masf, simulate
from masf_jax.dynamics import (
    Function,
    Kolmogorov,
    KuramotoSivashinsky,
    Linear as LinearModel,
    Lorenz96,
    ModelError,
)
from masf_jax.ensemble import Inflation
from masf_jax.estimation import (
    EM,
    AugmentedState,
    Gradient,
    LogitNormal,
    LogNormal,
    Normal,
    Problem,
    Unknown,
    Unknowns,
    estimate,
    gradient,
)
from masf_jax.estimation.acts import acts_on_mean
from masf_jax.estimation.unknown import scalars
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

RING = Lorenz96(40, forcing=5.0)
SENSOR = Measurement(Identity(), Gaussian(1.0))
FORCING = {"dynamics.forcing": Normal(5.0, 1.0)}


class Drift(LinearModel):
    """x ← x + b: linear in x and b together; `unused` is there and changes nothing."""

    bias: jax.Array
    unused: jax.Array

    def __init__(self, n, bias):
        super().__init__(np.eye(n))
        self.bias, self.unused = jnp.asarray(bias, dtype=float), jnp.zeros(())

    def __call__(self, x, time, key):
        return x + self.bias + 0.0 * self.unused.astype(x.dtype)


def posterior_of_drift(values, std, x0, x0_std, prior_mean, prior_std):
    """Mean and std of b for x_k = x_0 + k b, z_k = x_k + ε, by generalised least squares; one component."""
    k = np.arange(1, len(values) + 1)
    covariance = std**2 * np.eye(len(k)) + x0_std**2
    precision = k @ np.linalg.solve(covariance, k) + 1 / prior_std**2
    away = values - x0 - k * prior_mean
    return prior_mean + k @ np.linalg.solve(covariance, away) / precision, precision**-0.5


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_drift_is_found_as_its_exact_posterior():
    """By the Kalman filter of state and parameter, and by the likelihood's maximum."""
    rng = np.random.default_rng(0)
    values = 1.0 + 0.3 * np.arange(1, 11)[:, None] + 0.5 * rng.normal(size=(10, 1))
    sensor, prior = Measurement(Identity(), Gaussian(0.5)), {"dynamics.bias": Normal([0.1], 0.4)}
    members = rng.normal(size=(400, 1))
    members = jnp.asarray(1.0 + np.sqrt(2.0) * (members - members.mean()) / members.std(ddof=1))
    mean, std = posterior_of_drift(values[:, 0], 0.5, 1.0, np.sqrt(2.0), 0.1, 0.4)
    seen = Observations(values, 1)
    for engine, tolerance in ((Gradient(steps=150), 1e-3), (AugmentedState(), 0.1)):  # members' correlation
        found = estimate(
            jax.random.key(0), filters.KalmanFilter(), Drift(1, [0.0]), sensor, seen, members,
            unknown=prior, engine=engine,
        )  # fmt: skip
        assert found.mean["dynamics.bias"][0] == pytest.approx(mean, abs=tolerance * std)
        assert found.std["dynamics.bias"][0] == pytest.approx(std, rel=tolerance)
        assert found.problem.dynamics.bias[0] == found.mean["dynamics.bias"][0]


FILTERS = {
    "etkf": (filters.ETKF(Inflation(1.02)), 50),
    "masf": (masf.MASF(inflation=Inflation(1.02)), 50),
    "letkf": (filters.LETKF(4.0, Inflation(1.05)), 20),
    "masf localised": (masf.MASF(masf.GaussianPrior(radius=4.0), inflation=Inflation(1.05)), 20),
    "ensrf": (filters.EnSRF(Inflation(1.05), radius=4.0), 20),
}


@pytest.fixture(scope="module")
def twin():
    return simulate(jax.random.key(3), Lorenz96(40), SENSOR, 150)


def start(twin, n):
    return twin.truth[0][None] + jax.random.normal(jax.random.key(4), (n, 40))


@pytest.mark.parametrize(
    "name",
    [
        "etkf",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("letkf", "masf", "masf localised", "ensrf")),
    ],
)
def test_the_forcing_with_the_state(name, twin):
    """Three prior standard deviations away; a localised filter's parameter has no place."""
    filter, n = FILTERS[name]
    found = estimate(
        jax.random.key(1),
        filter,
        RING,
        SENSOR,
        twin.observations,
        start(twin, n),
        unknown=FORCING,
        truth=twin.truth,
        likelihood=Likelihood(),
    )
    assert found.mean["dynamics.forcing"] == pytest.approx(8.0, abs=0.1)
    assert 0.015 < found.std["dynamics.forcing"] < 0.1
    assert found.course_mean["dynamics.forcing"].shape == (150,)
    assert found.run.analysis["mean"].shape == (150, 40)
    assert found.run.analysis_scores["rmse"][100:].mean() < 0.35
    assert np.isfinite(found.log_likelihood).all()


@pytest.mark.slow
def test_the_forcing_by_the_gradient(twin):
    """Another run's values compile nothing."""
    seen = Observations(twin.observations.values[:40], 1)
    found = estimate(
        jax.random.key(1), *(FILTERS["etkf"][0], RING, SENSOR), seen, start(twin, 50),
        unknown=FORCING, engine=Gradient(steps=60),
    )  # fmt: skip
    assert found.mean["dynamics.forcing"] == pytest.approx(8.0, abs=0.1)
    assert 0.01 < found.std["dynamics.forcing"] < 0.08
    assert found.log_likelihood[-1] > found.log_likelihood[0]
    programs = gradient._slope._cached._cache_size()
    other = Observations(twin.observations.values[40:80], 1)
    estimate(
        jax.random.key(2), FILTERS["etkf"][0], RING, SENSOR, other, start(twin, 50),
        unknown={"dynamics.forcing": Normal(5.0, 1.0)}, engine=Gradient(steps=1, laplace=False),
    )  # fmt: skip
    assert gradient._slope._cached._cache_size() == programs


@pytest.mark.usefixtures("x64")
def test_the_nile():
    """Durbin & Koopman (2012), table 2.1: variances 15098.5 and 1469.2."""
    import statsmodels.api as sm

    values = np.asarray(sm.datasets.nile.load_pandas().data["volume"], float)[:, None]
    found = estimate(
        jax.random.key(0),
        filters.KalmanFilter(np.asarray([1120.0]), np.asarray([[1e7]])),
        ModelError(LinearModel([[1.0]]), 30.0),
        Measurement(Identity(), Gaussian(100.0)),
        Observations(values, np.arange(100)),
        jnp.asarray([[-1.0], [1.0]]),
        unknown={"dynamics.std": LogNormal(30.0, 10.0), "measurement.noise.std": LogNormal(100.0, 10.0)},
        engine=Gradient(rate=0.05, laplace=False),
    )
    assert found.mean["measurement.noise.std"] ** 2 == pytest.approx(15098.5, rel=0.01)
    assert found.mean["dynamics.std"] ** 2 == pytest.approx(1469.2, rel=0.01)


@pytest.mark.slow
def test_inflation_is_of_the_state_alone_however_deep_it_lies():
    """A parameter without influence gains no spread, with a filter in a filter neither."""
    members = jnp.asarray(np.random.default_rng(1).normal(size=(40, 3)), float)
    seen, spreads = Observations(np.ones((6, 3)), 1), []
    for filter in (filters.ETKF(Inflation(1.5)), filters.AdaptiveNoise(filters.ETKF(Inflation(1.5)))):
        found = estimate(
            jax.random.key(0), filter, Drift(3, np.zeros(3)), SENSOR, seen, members,
            unknown={"dynamics.unused": Normal(0.0, 1.0)}, engine=AugmentedState(relaxation=0.0),
        )  # fmt: skip
        spreads.append(float(found.std["dynamics.unused"]))
    assert all(0.1 < spread <= 1.0 for spread in spreads), spreads


def test_a_number_of_the_sensor_is_estimated_with_the_state():
    """A gain of 1.5 said to be 1, by what the model's own drift tells."""
    n, steps = 3, 40
    rng = np.random.default_rng(2)
    truth = 2.0 + 0.1 * np.arange(1, steps + 1)[:, None] * np.ones(n)
    values = 1.5 * truth + 0.1 * rng.normal(size=truth.shape)
    found = estimate(
        jax.random.key(0), filters.ETKF(), Drift(n, 0.1 * np.ones(n)),
        Measurement(Scaled(jnp.asarray(1.0)), Gaussian(0.1)), Observations(values, 1),
        jnp.asarray(2.0 + 0.2 * rng.normal(size=(30, n))),
        unknown={"measurement.operator.gain": LogNormal(1.0, 0.5)},
    )  # fmt: skip
    assert found.mean["measurement.operator.gain"] == pytest.approx(1.5, abs=0.05)


class Scaled(Identity):
    """x ↦ gain · x."""

    structure = None
    gain: jax.Array

    def __call__(self, x):
        return self.gain.astype(x.dtype) * x


def test_numbers_that_only_scale_noise_are_told_from_others():
    """By what the mean step and the measured value are computed from, however the model is wrapped."""

    def jitted(x, time, *, factor, unused):
        return jax.jit(lambda x, factor, unused: (factor * x, unused))(x, factor, unused)[0]

    model = Function(jitted, (3,), parameters={"factor": 0.9, "unused": 1.0})
    problem = Problem(
        ModelError(ModelError(model, 0.1), 0.2),
        Measurement(Scaled(jnp.asarray(2.0)), Gaussian(1.0)),
        filters.ETKF(),
    )
    seen = {
        "dynamics.std": False,
        "dynamics.dynamics.std": False,
        "dynamics.dynamics.dynamics.parameters.factor": True,
        "dynamics.dynamics.dynamics.parameters.unused": False,
        "measurement.operator.gain": True,
        "measurement.noise.std": False,
    }
    unknowns = Unknowns.of(problem, {name: LogNormal(1.0) for name in seen})
    for name, put, prior, expected in zip(
        unknowns.names, unknowns.puts, unknowns.priors, seen.values(), strict=True
    ):
        assert acts_on_mean(put, prior, (), problem) == expected, name


@pytest.mark.slow
def test_particles_find_the_size_of_model_error_with_the_state():
    """Weights are likelihoods; a transform of members would learn from chance correlations alone."""
    rng = np.random.default_rng(0)
    x = np.zeros(2)
    values = [(x := 0.9 * x + rng.normal(size=2)) + 0.3 * rng.normal(size=2) for _ in range(200)]
    model = ModelError(LinearModel(0.9 * np.eye(2)), 3.0)
    given = (model, Measurement(Identity(), Gaussian(0.3)), Observations(np.array(values), 1))
    unknown = {"dynamics.std": LogNormal(3.0, 0.7)}
    members = rng.normal(size=(1000, 2))
    found = estimate(jax.random.key(0), filters.ParticleFilter(), *given, members, unknown=unknown)
    assert found.mean["dynamics.std"] == pytest.approx(1.0, abs=0.35)
    for filter in (filters.ETKF(), filters.KalmanFilter()):
        with pytest.raises(ValueError, match=r"dynamics.std moves no state(.|\n)*Gradient\(\)"):
            estimate(jax.random.key(0), filter, *given, members[:40], unknown=unknown)


@pytest.mark.parametrize(
    "engine", [Gradient(steps=3), pytest.param(EM(steps=3), marks=pytest.mark.slow)], ids=["gradient", "EM"]
)
def test_a_derivative_that_does_not_exist_is_said_to_be_one(engine):
    """√max(x, 0) of a member below 0; and a likelihood that is not finite is another matter."""
    sensor = Measurement(lambda x: jnp.sqrt(jnp.maximum(x, 0.0)), Gaussian(0.1))
    members = np.array([[-0.5], [0.2], [1.0], [0.7], [0.4]])
    given = ModelError(LinearModel(np.eye(1)), 0.1), sensor, Observations(np.full((4, 1), 0.8), 1), members
    unknown = {"dynamics.std": LogNormal(0.1)}
    with pytest.raises(ValueError, match=r"not finite from step 0 on \(dynamics.std = 0.1\)(.|\n)*√x"):
        estimate(jax.random.key(0), filters.ETKF(), *given, unknown=unknown, engine=engine)
    told = gradient.not_finite(3, jnp.asarray(jnp.nan), {"dynamics.std": jnp.asarray(7.0)})
    assert told.startswith("the log-likelihood is nan at step 3, dynamics.std = 7.: the filter has broken")


def test_priors_hold_their_bounds_and_medians():
    u = jnp.linspace(-4, 4, 9)
    for prior, low, high, median in (
        (Normal(2.0, 3.0), -np.inf, np.inf, 2.0),
        (LogNormal(2.0, 0.5), 0.0, np.inf, 2.0),
        (LogitNormal(1.0, 4.0), 1.0, 4.0, 2.5),
        (LogitNormal(1.0, 4.0, median=2.0), 1.0, 4.0, 2.0),
    ):
        value = np.asarray(prior.value(u))
        assert ((value > low) & (value < high)).all()
        assert (np.diff(value) > 0).all()
        assert value[4] == pytest.approx(median)
        np.testing.assert_allclose(prior.standard(prior.value(u)), u, atol=1e-4)
        fine = jnp.linspace(-6.0, 6.0, 4001)
        density = np.exp(jax.vmap(prior.log_prob)(prior.value(fine)))
        assert np.trapezoid(density, prior.value(fine)) == pytest.approx(1.0, abs=1e-3)
    unknowns = Unknowns.of(Problem(RING, SENSOR, filters.ETKF()), {"dynamics.forcing": LogNormal(8.0, 0.1)})
    zero = jnp.zeros(1)
    assert unknowns.spread(zero, 0.5 * jnp.ones(1))["dynamics.forcing"] == pytest.approx(0.4)


def test_anything_may_be_put_into_a_problem():
    """By a function, a field by its shape, and a list entry by its number."""
    problem = Problem(RING, SENSOR, filters.ETKF())
    put = Unknown(
        Normal(0.1, 0.01), put=lambda p, dt: eqx.tree_at(lambda p: p.dynamics, p, Lorenz96(40, dt=dt))
    )
    unknowns = Unknowns.of(problem, {"time step": put, "dynamics.forcing": Normal(8.0, 1.0)})
    changed = unknowns.put(problem, jnp.asarray([1.0, -1.0]))
    assert changed.dynamics.dt == pytest.approx(0.11)
    assert changed.dynamics.forcing == pytest.approx(7.0)
    where = Unknown(Normal(np.ones(3), 2.0), where=lambda p: p.dynamics.bias)
    drift = Unknowns.of(Problem(Drift(3, np.zeros(3)), SENSOR, filters.ETKF()), {"bias": where})
    assert drift.shapes == ((3,),)


REFUSED = {
    "no such field": ({"dynamics.forcin": Normal(8, 1)}, {}, "do you mean forcing"),
    "no number": ({"dynamics.state_shape": Normal(8, 1)}, {}, "no floating-point number"),
    "off": ({"filter.inflation.prior": Normal(1, 1)}, {}, "is None, that is off"),
    "no prior": ({"dynamics.forcing": 8.0}, {}, "needs a prior"),
    "shape": ({"dynamics.forcing": Normal([8.0, 8.0], 1)}, {}, r"has shape \(\), its prior \(2,\)"),
    "nothing": ({}, {}, "nothing is unknown"),
    "noise with the state": ({"measurement.noise.std": LogNormal(1.0)}, {}, "moves no state"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, twin):
    unknown, options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        estimate(
            jax.random.key(1), filters.ETKF(), RING, SENSOR, twin.observations, start(twin, 4),
            unknown=unknown, **options,
        )  # fmt: skip
    with pytest.raises(ValueError, match="low < median < high"):
        LogitNormal(2.0, 1.0)
    with pytest.raises(TypeError, match="engine must be"):
        estimate(
            jax.random.key(1), filters.ETKF(), RING, SENSOR, twin.observations, start(twin, 4),
            unknown=FORCING, engine="gradient",
        )  # fmt: skip


def test_another_call_compiles_nothing(twin):
    """The unknowns are told anew, and are the same."""
    from masf_jax.scan import _scan

    def found(seed):
        filter = filters.ETKF(Inflation(1.02))
        return estimate(
            jax.random.key(seed), filter, RING, SENSOR, twin.observations, start(twin, 50),
            unknown={"dynamics.forcing": Normal(5.0 + seed, 1.0)},
        )  # fmt: skip

    found(0)
    before = _scan._cached._cache_size()
    found(1)
    assert _scan._cached._cache_size() == before


def test_numbers_that_a_model_was_computed_from_are_put_by_making_it_anew():
    """Of a flow, and of one within a model with error; a number that only stands there is refused."""
    flow, prior = Kolmogorov(16), LogNormal(1.0)
    for dynamics, path in ((flow, "dynamics"), (ModelError(flow, 0.1), "dynamics.dynamics")):
        problem = Problem(dynamics, SENSOR, filters.ETKF())
        unknowns = Unknowns.of(problem, {f"{path}.reynolds": prior, f"{path}.drag": prior})
        put = unknowns.put(problem, jnp.log(jnp.asarray([300.0, 0.3])))
        found = put.dynamics if dynamics is flow else put.dynamics.dynamics
        wanted = Kolmogorov(16, reynolds=300.0, drag=0.3).weights
        assert found.n_inner == flow.n_inner
        np.testing.assert_allclose(found.weights.exp, wanted.exp, rtol=1e-5)
        assert f"{path}.reynolds" in scalars(problem)
        assert f"{path}.viscosity" not in scalars(problem)
    for model, path in ((flow, "dynamics.viscosity"), (KuramotoSivashinsky(16), "dynamics.length")):
        with pytest.raises(ValueError, match="that can change are"):
            Unknowns.of(Problem(model, SENSOR, filters.ETKF()), {path: prior})


def test_the_end_of_a_path_is_a_name():
    """As on the command line; arrays too, and an end that several have is refused."""
    model = ModelError(
        Function(lambda x, *, a, b: a * x + b, (3,), parameters={"a": 0.9, "b": [1, 2, 3]}), 0.1
    )
    problem = Problem(model, SENSOR, filters.ETKF())
    priors = {"a": LogNormal(1.0), "parameters.b": Normal(0.0, 1.0), "noise.std": LogNormal(2.0)}
    unknowns = Unknowns.of(problem, priors)
    assert unknowns.names == tuple(priors)
    assert unknowns.shapes == ((), (3,), ())
    put = unknowns.put(problem, jnp.zeros(5))
    assert put.dynamics.dynamics.parameters["a"] == 1.0
    np.testing.assert_array_equal(put.dynamics.dynamics.parameters["b"], np.zeros(3))
    assert put.measurement.noise.std == 2.0
    with pytest.raises(ValueError, match=r"std may be any of dynamics\.std, measurement\.noise\.std"):
        Unknowns.of(problem, {"std": LogNormal(1.0)})
    with pytest.raises(ValueError, match=r"no number aa; do you mean a\?"):
        Unknowns.of(problem, {"aa": LogNormal(1.0)})


def test_a_leaf_that_is_picked_is_put_as_one_that_is_named():
    problem, prior = Problem(Kolmogorov(16), SENSOR, filters.ETKF()), LogNormal(1.0)
    unknowns = Unknowns.of(problem, {"friction": Unknown(prior, lambda p: p.dynamics.drag)})
    put = unknowns.put(problem, jnp.log(jnp.asarray([0.3])))
    np.testing.assert_allclose(put.dynamics.weights.exp, Kolmogorov(16, drag=0.3).weights.exp, rtol=1e-5)
    with pytest.raises(ValueError, match="that can change are reynolds, drag, forcing"):
        Unknowns.of(problem, {"thickness": Unknown(prior, lambda p: p.dynamics.viscosity)})
