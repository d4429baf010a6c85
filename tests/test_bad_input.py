"""Mistakes of the caller: each message names what came and what was expected."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import masf_jax
from masf_jax import MASF, GrossErrorCheck, assimilate, dynamics, filters, measurements
from masf_jax.amortised import train_on_policy
from masf_jax.arrays import check_key, real_array
from masf_jax.dynamics import Function, Linear as LinearModel, Lorenz96, spun_up_ensemble
from masf_jax.estimation import estimate
from masf_jax.filters import (
    ETKF,
    LETKF,
    EnKFN,
    EnSRF,
    IEnKF,
    KalmanFilter,
    OptimalInterpolation,
    ParticleFilter,
    ThreeDVar,
)
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear,
    Measurement,
    Observations,
    Subset,
    join,
)
from masf_jax.measurements.rows import as_observations
from masf_jax.smoothers import FourDVar, ienks
from masf_jax.smoothers.sda_training import climatological_trajectories
from masf_jax.training import fit, pretrain
from masf_jax.twin import Twin

RING = Lorenz96(8)
PLAIN = Function(lambda x, time: x, (8,))
WHOLE = Measurement(Identity(), Gaussian(1.0))


def run(
    filter=None,
    dynamics=RING,
    measurement=WHOLE,
    values=np.zeros((3, 8)),
    ensemble=np.ones((4, 8)),
    **options,
):
    filter = ETKF() if filter is None else filter
    observations = Observations(values, 1)
    return assimilate(jax.random.key(0), filter, dynamics, measurement, observations, ensemble, **options)


def with_nan(index):
    ensemble = np.ones((4, 8))
    ensemble[index, 3] = np.nan
    return ensemble


CASES = {
    "state shape": (
        {"ensemble": np.ones((4, 7))},
        r"ensemble must have shape \(N, \*state_shape\) = \(N, 8\) for Lorenz96; got \(4, 7\)",
    ),
    "one state, no members": ({"ensemble": np.ones(8)}, r"= \(N, 8\) for Lorenz96; got \(8,\)"),
    "one member": ({"ensemble": np.ones((1, 8))}, "at least 2 members to have a spread; got 1"),
    "NaN in the ensemble": (
        {"ensemble": with_nan(2)},
        r"first ensemble is not finite: member\(s\) \[2\] hold NaN or Inf",
    ),
    "spread without a square": (
        {"ensemble": 1e-20 * np.random.default_rng(0).normal(size=(4, 8))},
        r"differ by .*e-20 at most, whose square is too small for float32: take another unit",
    ),
    "observation shape": (
        {"values": np.zeros((3, 5))},
        r"observations have shape \(5,\) per cycle, but .* shape \(8,\) has shape \(8,\)",
    ),
    "truth shape": (
        {"truth": np.zeros((2, 8))},
        r"one state per cycle, shape \(3, 8\); got \(2, 8\): the observations have 3 cycles \(their rows",
    ),
    "save": ({"save": ("mean", "median")}, r"save must be a tuple .*'spread', .*; got \('mean', 'median'\)"),
    "save as text": ({"save": "mean"}, "save must be a tuple of names from .*; got 'mean'"),
    "scores": ({"scores": ("rmsd",)}, r"scores must be a tuple of names from \('rmse', .*; got \('rmsd',\)"),
    "chunk": ({"chunk": 0}, "chunk must be at least 1; got 0"),
    "threshold shape": (
        {"quality_control": GrossErrorCheck(np.ones(5))},
        r"threshold of the gross-error check must be .* shape \(8,\); got shape \(5,\)",
    ),
    "joined for another state": (
        {
            "measurement": join([WHOLE, WHOLE], (9,)),
            "values": np.zeros((3, 16)),
        },
        r"Concatenate does not apply to .* \(8,\): these instruments were joined for states of shape \(9,\)",
    ),
    "index outside": (
        {"measurement": Measurement(Subset([9]), Gaussian(1.0)), "values": np.zeros((3, 1))},
        r"Subset does not apply to a state of shape \(8,\): index 9 is outside",
    ),
    "noise shape": (
        {"measurement": Measurement(Identity(), Gaussian(np.ones(5)))},
        r"Gaussian noise does not fit a measurement of shape \(8,\)",
    ),
    "noise covariance shape": (
        {"measurement": Measurement(Identity(), CorrelatedGaussian(np.eye(5)))},
        r"CorrelatedGaussian noise does not fit a measurement of shape \(8,\)",
    ),
    "LETKF without coordinates": (
        {"filter": LETKF(2.0), "dynamics": PLAIN},
        "LETKF with localisation radius 2.0 needs coordinates, and Function has none: give .* radius inf",
    ),
    "EnSRF without coordinates": (
        {"filter": EnSRF(radius=2.0), "dynamics": PLAIN},
        "EnSRF with localisation radius 2.0 needs coordinates, and Function has none",
    ),
    "LETKF without positions": (
        {
            "filter": LETKF(2.0),
            "measurement": Measurement(Linear(np.ones((2, 8))), Gaussian(1.0)),
            "values": np.zeros((3, 2)),
        },
        "needs positions of the measured values, and Linear has none: give it positions, or use radius inf",
    ),
    "LETKF with correlated noise": (
        {"filter": LETKF(2.0), "measurement": Measurement(Identity(), CorrelatedGaussian(np.eye(8)))},
        "LETKF with localisation radius 2.0 needs uncorrelated .* CorrelatedGaussian: use .*, or radius inf",
    ),
    "EnSRF with correlated noise": (
        {"filter": EnSRF(radius=2.0), "measurement": Measurement(Identity(), CorrelatedGaussian(np.eye(8)))},
        "EnSRF with localisation radius 2.0 needs uncorrelated",
    ),
    "state too large for a covariance": (
        {
            "filter": KalmanFilter(),
            "dynamics": Lorenz96(10_001),
            "ensemble": np.ones((2, 10_001)),
            "values": np.zeros((1, 10_001)),
        },
        "n × n covariance; n = 10001 is too large",
    ),
    "climatology of a large state": (
        {
            "filter": OptimalInterpolation(),
            "dynamics": Lorenz96(6000),
            "ensemble": np.ones((2, 6000)),
            "values": np.zeros((1, 6000)),
        },
        "optimal interpolation holds an n × n climatological covariance; n = 6000 exceeds 5000",
    ),
}


@pytest.mark.slow_cases("observation shape", "state shape")
@pytest.mark.parametrize("name", CASES)
def test_of_a_run(name):
    arguments, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        run(**arguments)


@pytest.mark.parametrize(
    ("argument", "given", "message"),
    [
        ("ensemble", np.full((4, 8), 1j), "ensemble must be real; got complex128"),
        ("ensemble", np.ma.masked_equal(np.arange(32.0).reshape(4, 8), 9), r"member\(s\) \[1\] hold NaN"),
        ("ensemble", np.full((4, 8), 1e300), r"ensemble holds 1e\+300 at \[0, 0\], beyond float32"),
        ("truth", np.full((3, 8), "a"), "truth must hold numbers; got <U1"),
        ("truth", np.full((3, 8), 1j, np.complex64), "truth must be real; got complex64"),
    ],
)
def test_arrays_of_a_run(argument, given, message):
    with pytest.raises(ValueError, match=message):
        run(**{argument: given})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LETKF(-2.0), "localisation radius must be positive .* got -2.0"),
        (lambda: LETKF(float("nan")), "localisation radius must be positive .* got nan"),
        (lambda: LETKF(2.0, solver="svd"), 'solver must be "cg" or "eigh"; got \'svd\''),
        (lambda: LETKF(2.0, batch_size=0), "batch_size must be at least 1; got 0"),
        (lambda: EnSRF(radius=-2.0), "localisation radius must be positive .* got -2.0"),
        (lambda: EnSRF(radius=-np.inf), "localisation radius must be positive .* got -inf"),
        (lambda: EnKFN(certainty=0.0), "certainty must be positive; got 0.0"),
        (lambda: ParticleFilter(threshold=1.5), r"threshold must lie in \(0, 1\]; got 1.5"),
        (lambda: ParticleFilter(regularization=-1.0), "regularization must not be negative; got -1.0"),
        (lambda: KalmanFilter(inflation=-1.0), "inflation .* must not be negative; got -1.0"),
        (lambda: ThreeDVar(scale=-0.1), "scale .* must be positive; got -0.1"),
        (lambda: ThreeDVar(iterations=0), "iterations must be at least 1; got 0"),
    ],
)
def test_of_a_filter(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (LETKF(2.0), r"LETKF needs its neighbour lists: call filter.prepare\(dynamics, measurement\)"),
        (EnSRF(radius=2.0), r"EnSRF needs its taper: call filter.prepare\(dynamics, measurement\)"),
        (ThreeDVar(), r"needs the climatology: call filter.prepare\(dynamics, measurement\)"),
    ],
)
def test_unprepared_filters_say_so(filter, message):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=message):
        filter.analysis(key, filter.init(key, jnp.ones((3, 8))), jnp.zeros(8), WHOLE)


def test_a_model_without_initial_states():
    model = LinearModel(np.eye(2))
    assert model.sample_climatology(jax.random.key(0)).shape == (2,)
    with pytest.raises(NotImplementedError, match="give the initial ensemble and truth yourself"):
        PLAIN.sample_climatology(jax.random.key(0))


@pytest.mark.parametrize(
    "half", [np.ones(2, np.float16), jnp.ones(2, jnp.float16), jnp.ones(2, jnp.bfloat16)]
)
def test_half_precision_is_not_computed_in(half):
    """Half of the filters ended in a LAPACK error of JAX's, the others lost digits in silence."""
    assert real_array("ensemble", half).dtype == jnp.asarray(1.0).dtype


def test_a_table_in_place_of_observations():
    """Its times would be ignored. (An array has none: its rows are a step apart.)"""
    table = pd.DataFrame(np.zeros((3, 8)))
    with pytest.raises(TypeError, match=r"Observations\(values, steps\)(.|\n)*got DataFrame\. From a table"):
        as_observations(table)
    with pytest.raises(TypeError, match="got DataArray"):
        as_observations(xr.DataArray(table))
    with pytest.raises(TypeError, match=r"got Twin: give its \.observations"):
        as_observations(Twin(jnp.zeros((3, 8)), Observations(np.zeros((3, 8)), 1)))
    given = Observations(np.zeros((3, 8)), 1)
    assert as_observations(given) is given


INFLATED = {
    "masf": MASF,
    "function": lambda inflation: filters.Function(lambda key, x, d: x, inflation),
    "letkf": lambda inflation: LETKF(2.0, inflation),
} | {
    name: getattr(filters, name)
    for name in ("EnKF", "ETKF", "EnSRF", "IEnKF", "EnKFN", "EnSF", "EnFF", "SSLS")
}


@pytest.mark.parametrize("name", INFLATED)
def test_an_inflation_is_an_object(name):
    with pytest.raises(TypeError, match=r"must be masf_jax\.ensemble\.Inflation\(1\.05\); got float"):
        INFLATED[name](inflation=1.05)


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (filters, "EKTF", "do you mean ETKF or"),
        (filters, "etkf", "do you mean ETKF or"),
        (filters, "GaussianPrior", r"there is masf_jax\.masf\.GaussianPrior"),
        (masf_jax, "ETKF", r"there is masf_jax\.filters\.ETKF"),
        (measurements, "Gausian", r"do you mean Gaussian\?"),
        (dynamics, "lorenz_96", "do you mean"),
        (masf_jax, "nothing_like_it", "attribute 'nothing_like_it'$"),
    ],
)
def test_names_that_nobody_knows(module, name, said):
    with pytest.raises(AttributeError, match=said):
        getattr(module, name)


def test_where_arguments_go():
    with pytest.raises(TypeError, match=r"MASF\(masf_jax\.masf\.GaussianPrior\(radius=7\)\)"):
        MASF(radius=7)
    with pytest.raises(ValueError, match=r"'etkf': a filter is an object, filters\.ETKF"):
        run("etkf")
    with pytest.raises(ValueError, match=r"the order is StudentT\(df, scale\)"):
        measurements.StudentT(1.0, 3.0)


def test_a_number_is_no_key(key):
    check_key(key)
    check_key(jax.random.PRNGKey(0))
    for given in (0, np.int64(0), None):
        with pytest.raises(TypeError, match=r"a key was expected: jax\.random\.key\(0\); got"):
            check_key(given)
    calls = {
        estimate: (0, ETKF(), RING, WHOLE, None, np.zeros((3, 8))),
        ienks: (0, IEnKF(), RING, WHOLE, None, None),
        train_on_policy: (0, None, RING, WHOLE, None, None),
        spun_up_ensemble: (RING, 0, 3),
        Lorenz96.sample_climatology: (RING, 0),
        climatological_trajectories: (RING, 0, 3, 4),
        fit: (0, None, None, None, None),
        pretrain: (0, None, None, None, None),
    }
    more = {estimate: {"unknown": {}}, ienks: {"lag": 1}}
    for call, arguments in calls.items():  # without the tests' own check of types
        with pytest.raises(TypeError, match=r"a key was expected: jax\.random\.key\(0\); got 0"):
            inspect.unwrap(call)(*arguments, **more.get(call, {}))
    with pytest.raises(TypeError):  # in a run, the tests' own check of types comes first
        masf_jax.simulate(0, RING, WHOLE, 3)


@pytest.mark.slow
def test_what_is_likely_a_mistake_is_said():
    with pytest.warns(UserWarning, match="no value was measured"):
        Observations(np.full((3, 8), np.nan), 1)
    values = np.random.default_rng(0).normal(size=(3, 8))
    with pytest.warns(UserWarning, match=r"2 of 24 observed values are -999, .* mask=values != -999"):
        Observations(np.where(np.arange(24).reshape(3, 8) % 16 == 3, -999.0, values), 1)
    with pytest.warns(UserWarning, match="all members of the first ensemble are the same"):
        run(lambda key, x, d: x, values=values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sound in (values, 1000 * values, np.asarray([[-99.0], [-80.0]])):
            Observations(sound, 1)


def test_a_missing_folder_is_named(tmp_path):
    members = np.random.default_rng(0).normal(size=(4, 8))
    found = run(lambda key, x, d: x, ensemble=members)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nofolder to write x\.nc into"):
        found.to_netcdf(tmp_path / "nofolder" / "x.nc")


COUNTS = {
    "advance": lambda n: dynamics.advance(MODEL_OF_COUNTS, np.ones((2, 40)), 0, jax.random.key(0), n),
    "rollout": lambda n: dynamics.rollout(MODEL_OF_COUNTS, np.ones(40), jax.random.key(0), n),
    "climatology": lambda n: dynamics.climatology(MODEL_OF_COUNTS, jax.random.key(0), n),
    "size": dynamics.Lorenz96,
    "members": lambda n: spun_up_ensemble(MODEL_OF_COUNTS, jax.random.key(0), n),
    "states": lambda n: dynamics.climatological_states(MODEL_OF_COUNTS, jax.random.key(0), n),
    "grid": dynamics.Kolmogorov,
    "iterations": lambda n: filters.IEnKF(iterations=n),
    "diffusion steps": lambda n: filters.EnFF(n_steps=n),
    "search": lambda n: FourDVar(std=1.0, iterations=n),
    "inner steps": lambda n: dynamics.Kolmogorov(16, forcing_waves=2, n_inner=n),
    "interval": lambda n: masf_jax.simulate(jax.random.key(0), MODEL_OF_COUNTS, SENSOR_OF_COUNTS, 3, n),
}
MODEL_OF_COUNTS = dynamics.Lorenz96()
SENSOR_OF_COUNTS = measurements.Measurement(measurements.Identity(), measurements.Gaussian(1.0))


@pytest.mark.parametrize(
    ("what", "count"),  # annotations, which the tests check, keep 2.5 from `advance`
    [(what, count) for what in COUNTS for count in (-3, 2.5) if (what, count) != ("advance", 2.5)],
)
def test_counts_are_whole_numbers(what, count):
    with pytest.raises(ValueError, match=f"at least .*got {count}"):
        COUNTS[what](count)


@pytest.mark.parametrize(
    "make",
    [
        lambda nan: dynamics.Lorenz63(rho=nan),
        lambda nan: Lorenz96(forcing=nan),
        lambda nan: dynamics.Kolmogorov(16, forcing_waves=2, forcing=nan),
        lambda nan: dynamics.Kolmogorov(16, forcing_waves=2, drag=nan),
        lambda nan: dynamics.Kolmogorov(16, forcing_waves=2, hyperviscosity=nan),
    ],
)
def test_numbers_of_models_are_numbers(make):
    with pytest.raises(ValueError, match=r"got.* nan"):
        make(float("nan"))


E = np.random.default_rng(0).normal(size=(9, 2))


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        (
            lambda: filters.KalmanFilter(np.zeros(3), np.eye(2)),
            "first mean must be one number or of the state",
        ),
        (lambda: filters.KalmanFilter(np.full(2, np.nan), np.eye(2)), "first mean"),
        (lambda: filters.KalmanFilter(covariance=np.eye(3)), "first covariance must be 2 × 2"),
        (lambda: _interpolation(3, 1.0), "moments of optimal interpolation .* got .3,. and .3, 3."),
        (lambda: _interpolation(2, -1.0), "negative variance"),
        (
            lambda: filters.ETKF(masf_jax.ensemble.Inflation(additive=[0.1] * 3)),
            "additive inflation must be one",
        ),
        (lambda: masf_jax.ensemble.AdaptiveInflation(lower=3.0, upper=2.0), "lower must not exceed upper"),
    ],
)
def test_first_gaussians_and_moments_have_the_state_s_shape(filter, said):
    with pytest.raises(ValueError, match=said):
        assimilate(
            jax.random.key(0),
            filter(),
            LinearModel(np.eye(2)),
            SENSOR_OF_COUNTS,
            np.ones((1, 2)),
            jnp.asarray(E, float),
        )


def _interpolation(n, variance):
    moments = dynamics.Climatology(jnp.zeros(n), variance * jnp.eye(n))
    return filters.OptimalInterpolation(moments)
