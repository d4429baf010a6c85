"""A user's subclass of a filter stays one when it is prepared, spread and run."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate, filters, masf
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Climatology, Lorenz96
from masf_jax.dynamics.layout import ALL_AT_ONCE
from masf_jax.ensemble import Inflation
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations

MODEL, SENSOR = Lorenz96(n=16), Measurement(Identity(), Gaussian(1.0))
CLIMATE = Climatology(jnp.zeros(16), jnp.eye(16))
FILTERS = {
    type(each).__name__: each
    for each in (
        filters.EnKF(),
        filters.ETKF(),
        filters.EnSRF(radius=3.0),
        filters.LETKF(3.0),
        filters.EnKFN(),
        filters.IEnKF(),
        filters.KalmanFilter(),
        filters.ParticleFilter(),
        filters.Climatology(CLIMATE),
        filters.OptimalInterpolation(CLIMATE),
        filters.ThreeDVar(moments=CLIMATE),
        filters.MASF(masf.GaussianPrior(radius=3.0)),
        filters.EnFF(),
        filters.EnSF(),
        filters.EnSFLR(),
        filters.IEnSF(),
        filters.AmortisedMASF(filters.ETKF(), architecture=Architecture(channels=4), climatology=20),
        filters.Gate(filters.ETKF(), filters.LETKF(3.0)),
    )
}


def own(filter):
    """The same as an instance of a subclass that counts its members' analyses in `info`."""

    def update(self, *given):
        state, info = super(made, self).update(*given)
        return state, info | {"own": jnp.ones(())}

    made = type(f"Own{type(filter).__name__}", (type(filter),), {"update": update})
    same = object.__new__(made)
    for field in dataclasses.fields(filter):
        object.__setattr__(same, field.name, getattr(filter, field.name))
    return same


class Nudging(filters.EnsembleFilter):
    inflation: Inflation = eqx.field(default_factory=Inflation)

    def transform(self, key, x, innovations, mask):
        return x + 0.1 * innovations, {}


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            lambda self, key, x, d, mask: (x[:-1], {}),
            r"must return members of shape \(5, 16\).* got \(4, 16\)",
        ),
        (lambda self, key, x, d, mask: x, "must return members and what it reports, .* got a"),
        (lambda self, key, x, d, mask: (x, {}, 1), "got a tuple of 3"),
        (lambda self, key, x, d, mask: None, "got a NoneType"),
        (
            lambda self, key, x, d: (x, {}),
            r"transform\(self, key, x, innovations, mask\), and this one does not",
        ),
    ],
)
def test_a_transform_of_another_form_is_refused_in_words(transform, message):
    made = type("Mine", (Nudging,), {"transform": transform})
    given = MODEL, SENSOR, Observations(np.zeros((2, 16)), 1), np.eye(5, 16, dtype=np.float32)
    assimilate(jax.random.key(0), Nudging(), *given)
    with pytest.raises(ValueError, match=message) as refused:
        assimilate(jax.random.key(0), made(), *given)
    assert "Mine.transform" in str(refused.value)


@pytest.mark.slow_cases("AmortisedMASF")
@pytest.mark.parametrize("name", FILTERS)
def test_prepared_and_spread_it_is_of_its_class(name):
    filter = own(FILTERS[name])
    ready = filter.prepare(MODEL, SENSOR)
    assert type(ready) is type(filter)
    assert type(ready.spread(ALL_AT_ONCE)) is type(filter)


@pytest.mark.parametrize("name", ["LETKF", pytest.param("ThreeDVar", marks=pytest.mark.slow)])
def test_a_run_calls_its_update(name):
    seen = Observations(np.zeros((2, 16)), 1)
    members = jax.random.normal(jax.random.key(1), (5, 16))
    run = assimilate(jax.random.key(0), own(FILTERS[name]), MODEL, SENSOR, seen, members, scores=())
    np.testing.assert_array_equal(run.info["own"], 1.0)
