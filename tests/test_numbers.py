"""Numbers are leaves: another value of a filter, model or measurement compiles nothing new."""

import dataclasses
import importlib
import inspect
import pkgutil
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import masf_jax
from masf_jax import GrossErrorCheck, dynamics, filters, measurements, smoothers
from masf_jax.diffusion.linear_schedule import LinearSchedule
from masf_jax.ensemble import AdaptiveInflation, Inflation
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters.rivals.score_filter import ExplodingSampler
from masf_jax.filters.rivals.ssls import LangevinSampler
from masf_jax.numbers import as_float, number, within
from masf_jax.smoothers.guidance import InflatedNoise

OUTSIDE = ("cli", "nn", "amortised")
STATIC = {
    ("LETKF", "reach"): "decides how many neighbours a point has",
    ("Kolmogorov", "initial_waves"): "makes a spectrum on the host, of the first state alone",
    ("Vorticity", "length"): "the wavenumbers, made on the host",
    ("Guided", "first"): "with the number of steps, makes the times on the host",
    ("MeasurementAware", "schedule_offset"): "the shape of the schedule, a constant of the process",
    ("MeasurementAwareProcess", "schedule_offset"): "the same",
    ("LiftedProcess", "schedule_offset"): "the same",
    ("IteratedCovariance", "tolerance"): "ends the iterations of a solver",
    ("FitConfig", "betas"): "of Optax, which takes Python floats",
    ("FitConfig", "validation_fraction"): "decides how many samples are held back",
    ("Likelihood", "radius"): "0 and inf are other programs; the taper made of it is a leaf",
    ("Linear", "positions"): "geometry",
    ("Function", "positions"): "geometry",
    ("Function", "_periods"): "geometry: which values are circular",
    ("_Averages", "centres"): "geometry",
    ("Stations", "positions"): "geometry",
}
"""Static fields with floats, and why."""


def of_scope(module):
    return module.startswith("masf_jax.") and module.split(".")[1] not in OUTSIDE


def modules():
    for found in pkgutil.walk_packages(masf_jax.__path__, "masf_jax."):
        if of_scope(found.name):
            yield importlib.import_module(found.name)


def test_no_number_is_static():
    seen = set()
    for module in modules():
        for cls in vars(module).values():
            if not (inspect.isclass(cls) and issubclass(cls, eqx.Module) and of_scope(cls.__module__)):
                continue
            own = inspect.get_annotations(cls)
            for field in dataclasses.fields(cls):
                static = field.name in own and field.metadata.get("static")
                if static and re.search(r"^[^C]*\bfloat\b", str(field.type)):  # no Callable
                    seen.add((cls.__name__, field.name))
    assert seen == set(STATIC)


GIVEN = {
    filters.LETKF: {"radius": 3.0},
    measurements.StudentT: {"df": 4.0, "scale": 1.0},
    smoothers.FourDVar: {"std": 1.0},
    GrossErrorCheck: {"threshold": 4.0},
    measurements.Gaussian: {"std": 1.0},
    measurements.Laplace: {"scale": 1.0},
    measurements.Multiplicative: {"fraction": 0.1, "floor": 0.1},
    measurements.Quantised: {"step": 0.1},
    Inflation: {"multiplicative": 1.1, "prior": 1.1, "rtps": 0.3, "rtpp": 0.3, "additive": 0.1},
    measurements.Pointwise: {"function": jnp.tanh},
}
"""What constructors need, or leave out unless it is given."""
FILTERS = """EnKF ETKF EnSRF LETKF EnKFN IEnKF KalmanFilter ParticleFilter Climatology OptimalInterpolation
ThreeDVar EnFF EnSF EnSFSampler EnSFLR IEnSF ConditionalDiffusion ScoreFilter SSLS"""
MEASUREMENTS = "Gaussian Laplace StudentT Multiplicative Quantised Log Pointwise Speed"
CLASSES = [
    *(getattr(filters, name) for name in FILTERS.split()),
    *(ExplodingSampler, LangevinSampler, LinearSchedule, Normalization, Inflation, AdaptiveInflation),
    *(dynamics.Lorenz63, dynamics.Lorenz96, dynamics.KuramotoSivashinsky, dynamics.Kolmogorov),
    *(getattr(measurements, name) for name in MEASUREMENTS.split()),
    *(smoothers.FourDVar, InflatedNoise, GrossErrorCheck),
]
DECIDES = {
    "dt": "the number of inner steps",
    "max_speed": "the number of inner steps",
    "initial_waves": STATIC["Kolmogorov", "initial_waves"],
    "length": STATIC["Vorticity", "length"],
    "random_forcing": "at 0 the model is not random",
    "random_waves": "without random forcing it is nothing",
}
"""Floats of Kolmogorov's constructor that are no leaves, and why."""


def numbers_of(cls):
    """Float arguments of a constructor and their values."""
    given = GIVEN.get(cls, {})
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()} | given
    found = {name: value for name, value in defaults.items() if isinstance(value, float)}
    left_out = DECIDES if cls is dynamics.Kolmogorov else ()
    return {name: value for name, value in found.items() if name not in left_out}


@pytest.mark.parametrize(
    ("cls", "name"), [pytest.param(c, n, id=f"{c.__name__}-{n}") for c in CLASSES for n in numbers_of(c)]
)
def test_another_value_is_the_same_program(cls, name):
    """Same structure, shapes and types (weak ones told apart): what `jit` knows a program by."""
    value = numbers_of(cls)[name]
    value = 2.0 if np.isinf(value) else value or 0.5
    one, two = (cls(**GIVEN.get(cls, {}) | {name: factor * value}) for factor in (0.97, 0.9))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    types = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(each)] for each in (one, two)]
    assert types[0] == types[1]
    assert not any(weak for *_, weak in types[0])
    assert not eqx.tree_equal(one, two)  # and the value is in there


INSIDE = {
    **{cls: lambda cls=cls: cls(**GIVEN.get(cls, {})) for cls in CLASSES},
    "AdaptiveNoise": lambda: filters.AdaptiveNoise(filters.ETKF()),
    "Blur": lambda: measurements.Blur(np.ones(5)),
    "Censored": lambda: measurements.Censored(-1.0, 1.0),
    "CorrelatedGaussian": lambda: measurements.CorrelatedGaussian(np.eye(3)),
    "Linear": lambda: measurements.Linear(np.eye(3)),
    "RangeBearing": lambda: measurements.RangeBearing([[0.0, 0.0]]),
    "Scaled": lambda: measurements.Scaled(measurements.Gaussian(1.0), 2.0),
    "Gate": lambda: filters.Gate(filters.ETKF(), filters.EnKF()),
}
"""What is made of known numbers, by name or class."""


@pytest.mark.parametrize("name", INSIDE, ids=[getattr(name, "__name__", name) for name in INSIDE])
def test_made_inside_jit_of_known_numbers_it_is_the_same(name):
    """`AdaptiveNoise` compared its bounds with each other, which `jit` stages, and made a bool of that."""

    def leaves():
        return [jnp.asarray(x) for x in jax.tree.leaves(eqx.filter(INSIDE[name](), eqx.is_array))]

    for inside, outside in zip(jax.jit(leaves)(), leaves(), strict=True):
        np.testing.assert_allclose(inside, outside, rtol=1e-6)


def test_no_number_is_missed():
    assert {"radius"} <= set(numbers_of(filters.EnSRF))
    assert sum(len(numbers_of(cls)) for cls in CLASSES) >= 50


def test_checked_numbers():
    for value in (1, 1.0, np.float64(1), jnp.ones(())):
        found = number("x", value, "(0, 1]")
        assert found.dtype == jnp.ones(()).dtype
        assert not found.weak_type
    traced = jax.jit(lambda x: number("x", x, "(0, 1]"))(jnp.asarray(5.0))  # cannot be checked
    assert float(traced) == 5.0
    assert within("x", "(0, 1]")(None) is None


@pytest.mark.parametrize(
    ("value", "interval", "message"),
    [
        (0.0, "(0, inf]", "x must be positive; got 0.0."),
        (np.inf, "(0, inf)", "x must be positive and finite; got inf."),
        (-1, "[0, inf]", "x must not be negative; got -1."),
        (1.0, "(1, inf]", "x must exceed 1; got 1.0."),
        (1.5, "(0, 1]", "x must lie in (0, 1]; got 1.5."),
        (1.0, "[0, 1)", "x must lie in [0, 1); got 1.0."),
        (np.nan, "[-inf, inf]", "x must lie in [-inf, inf]; got nan."),
        ([1.0, -2.0], "(0, inf]", "x must be positive; got -2.0."),
    ],
)
def test_numbers_out_of_range(value, interval, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        number("x", value, interval)


@pytest.mark.parametrize("value", [7.28, 0.1, 2.2, 1e-7, 12345.0, float("inf")])
def test_a_number_comes_back_as_it_was_written(value, dtype):
    assert as_float(number("x", value)) == value


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.ones(3), r"must be a square matrix; got shape \(3,\)"),
        ([[1.0, np.nan], [np.nan, 1.0]], "must be finite"),
        ([[1.0, 0.0], [0.0, -1e-9]], "has a negative variance, -1e-09"),
        ([[1e10, 0.9e-4], [0.1e-4, 1e-16]], r"must be symmetric; its correlations differ by up to 0\.08"),
        ([[1e10, 2e-3], [2e-3, 1e-16]], r"must be positive semi-definite; .* is -1"),
    ],
    ids=["shape", "finite", "variance", "symmetric", "definite"],
)
def test_what_is_no_covariance(covariance, message):
    """In each component's own unit: beside one of 1e10 nothing of 1e-16 was seen."""
    with pytest.raises(ValueError, match=f"the first covariance {message}"):
        filters.KalmanFilter(covariance=covariance)
    filters.KalmanFilter(covariance=[[1e10, 1e-3], [1e-3, 1e-16]])  # of correlation 1
