"""A localisation radius is a leaf: one program for all radii, mapped over a list of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import Coordinates, assimilate, scan, simulate
from masf_jax.dynamics import Climatology, Lorenz96
from masf_jax.ensemble import Inflation, localize, points, taper, taper_matrix
from masf_jax.filters import LETKF, ConditionalDiffusion, EnFF, EnSFLR, EnSRF, ParticleFilter, ThreeDVar
from masf_jax.measurements import Gaussian, Measurement, Subset

N = 14
RING = Lorenz96(N)
MEASUREMENT = Measurement(Subset(np.arange(0, N, 2)), Gaussian(1.0))
RADII = [1.5, 2.2, 4.0]


@pytest.fixture(scope="module")
def problem():
    key = jax.random.key(5)
    members = 8 + jax.random.normal(key, (6, N))
    return simulate(key, RING, MEASUREMENT, 3, 1, x0=members[0]).observations, members


@pytest.fixture
def sparse(monkeypatch):
    monkeypatch.setattr(points, "DENSE_RATIO", 0)


@pytest.fixture
def traces(monkeypatch):
    """How often a cycle of `assimilate` was traced."""
    count, cycle = [], scan._cycle

    def counted(*args):
        count.append(1)
        return cycle(*args)

    monkeypatch.setattr(scan, "_cycle", counted)
    return count


def run(filter, problem, key):
    observations, members = problem
    return assimilate(key, filter, RING, MEASUREMENT, observations, members, save=("mean", "ensemble"))


FILTERS = {
    "letkf": lambda r: LETKF(r, Inflation(1.05)),
    "letkf reach": lambda r: LETKF(r, Inflation(1.05), reach=5.0),
    "letkf eigh, reach": lambda r: LETKF(r, Inflation(1.05), rotation=True, solver="eigh", reach=5.0),
    "ensrf": lambda r: EnSRF(Inflation(1.05), radius=r),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", often(FILTERS, ["letkf reach"]))
def test_another_radius_compiles_nothing(name, problem, traces, key):
    run(FILTERS[name](3.0), problem, key)
    traces.clear()
    found = [run(FILTERS[name](radius), problem, key).analysis["mean"] for radius in RADII]
    assert not traces
    assert np.abs(np.asarray(found[0]) - found[1]).max() > 1e-3
    run(FILTERS[name](3.0), (problem[0], problem[1][:-1]), key)
    assert traces  # the counter counts


@pytest.mark.slow
@pytest.mark.usefixtures("sparse")
def test_another_radius_of_neighbour_lists_compiles_nothing(problem, traces, key):
    run(FILTERS["letkf reach"](3.0), problem, key)
    traces.clear()
    for radius in RADII:
        run(FILTERS["letkf reach"](radius), problem, key)
    assert not traces


FORMS = [
    (name, form)
    for name in FILTERS
    for form in ("dense", "sparse")
    if (form == "sparse") == ("reach" in name)
]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "form"),
    [pytest.param(*each, marks=[pytest.mark.slow] * (each[0] != "letkf reach")) for each in FORMS],
)
def test_a_list_of_radii_is_as_many_runs(name, form, problem, request, key):
    if form == "sparse":
        request.getfixturevalue("sparse")
    observations, members = problem
    problem = observations, jnp.asarray(np.asarray(members, float))
    found = jax.jit(jax.vmap(lambda r: run(FILTERS[name](r), problem, key).analysis["ensemble"]))(
        jnp.asarray(RADII)
    )
    for radius, each in list(zip(RADII, np.asarray(found), strict=True))[::2]:
        alone = run(FILTERS[name](radius), problem, key).analysis["ensemble"]
        np.testing.assert_allclose(each, alone, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_no_localisation_among_the_radii(problem, key):
    """inf within an infinite reach has weight 1 everywhere."""
    observations, members = problem
    problem, radii = (observations, jnp.asarray(np.asarray(members, float))), jnp.asarray([2.0, jnp.inf])
    filters = (lambda r: LETKF(r, reach=np.inf)), (lambda r: EnSRF(radius=r))
    for make in filters:
        many = jax.vmap(lambda r, make=make: run(make(r), problem, key).analysis["ensemble"])
        found = np.asarray(jax.jit(many)(radii))
        alone = run(make(np.inf), problem, key).analysis["ensemble"]
        np.testing.assert_allclose(found[1], alone, atol=1e-8)


@pytest.mark.usefixtures("sparse")
def test_prepared_lists_serve_again_inside_jit(problem, key):
    """Preparing is idempotent; where the radius is then traced the lists are those it was prepared with."""
    prepared = LETKF(2.2).prepare(RING, MEASUREMENT)
    again = prepared.prepare(RING, MEASUREMENT)
    traced = eqx.filter_jit(lambda filter: filter.prepare(RING, MEASUREMENT))(prepared)
    assert eqx.tree_equal(prepared, again)
    assert prepared.reach == 2.2
    assert prepared.localization is not None
    assert traced.localization is not None
    np.testing.assert_array_equal(prepared.localization.neighbours, traced.localization.neighbours)
    np.testing.assert_allclose(
        prepared.localization.sqrt_weights, traced.localization.sqrt_weights, atol=1e-6
    )


def test_lists_of_a_leaf_are_those_of_the_number(dtype):
    """A radius held in float32 is read as it was written: the same bits as of the Python number."""
    state = RING.coordinates
    radius = LETKF(2.2).radius
    assert radius is not None
    leaf, plain = localize(state, state, radius), localize(state, state, 2.2)
    assert eqx.tree_equal(leaf, plain)


def test_reach_too_small(problem, key):
    with pytest.raises(ValueError, match=r"radius 3\.0 is beyond the reach 2\.0 of the neighbour lists"):
        run(LETKF(3.0, reach=2.0), problem, key)
    with pytest.raises(ValueError, match=r"reach must be positive; got -1\.0"):
        LETKF(3.0, reach=-1.0)
    state = RING.coordinates
    many = jax.jit(jax.vmap(lambda r: localize(state, state, r, reach=2.0).sqrt_weights))
    weights = np.asarray(many(jnp.asarray([1.0, 3.0])))
    assert np.isfinite(weights[0]).all()
    assert np.isnan(weights[1]).all()


def test_a_traced_radius_of_a_large_problem_needs_a_reach(problem, monkeypatch, key):
    monkeypatch.setattr(points, "DENSE_NUMBERS", 50)
    with pytest.raises(ValueError, match="no reach weighs all 7 values at each of 14 points"):
        jax.jit(lambda r: run(LETKF(r), problem, key).analysis["mean"])(2.0)
    jax.jit(lambda r: run(LETKF(r, reach=3.0), problem, key).analysis["mean"])(2.0)


GRIDS = {
    "ring": (Coordinates.grid((16,), (16.0,)), (16,)),
    "field": (Coordinates.grid((6, 8), (6.0, 4.0)), (2, 6, 8)),
    "line": (Coordinates.grid((12,), (12.0,), periodic=False), (12,)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_tapers_of_traced_radii(name, dtype):
    coordinates, shape = GRIDS[name]
    radii = [1.1, 2.0, 7.0, np.inf]

    def matrices(radius):
        return taper(coordinates, shape, radius).matrix(), taper_matrix(coordinates, coordinates, radius)

    found = jax.jit(jax.vmap(matrices))(jnp.asarray(radii))
    expected = jax.jit(lambda: [matrices(radius) for radius in radii])()  # numbers, not traced
    for k, matrix in enumerate(expected):
        for one, number in zip(found, matrix, strict=True):
            np.testing.assert_allclose(one[k], number, atol=1e-12 if dtype == "float64" else 1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_derivative_with_respect_to_the_radius(problem, key):
    observations, members = problem
    problem = observations, jnp.asarray(np.asarray(members, float))
    for make in (lambda r: LETKF(r, solver="eigh", reach=4.0), lambda r: EnSRF(radius=r)):

        def total(r, make=make):
            return (run(make(r), problem, key).analysis["mean"] ** 2).mean()

        slope = jax.jit(jax.jacfwd(total))(3.0)
        numbers = (float(jax.jit(total)(r)) for r in (3.0001, 2.9999))
        np.testing.assert_allclose(slope, np.subtract(*numbers) / 2e-4, rtol=1e-4)


MOMENTS = Climatology(jnp.asarray(np.full(N, 2.0)), jnp.asarray(4.0 * np.eye(N)))
NUMBERS = {
    "letkf inflation": (lambda v: LETKF(3.0, Inflation(prior=v)), [1.02, 1.2]),
    "particle jitter": (lambda v: ParticleFilter(regularization=v), [0.2, 0.9]),
    "3d-var scale": (lambda v: ThreeDVar(v, moments=MOMENTS), [0.02, 0.5]),
    "enff guidance": (lambda v: EnFF(n_steps=10, guidance=v), [0.02, 0.1]),
    "ensf-lr ridge": (lambda v: EnSFLR(ridge=v), [1e-3, 0.5]),
    "conditional h": (lambda v: ConditionalDiffusion(rule="given", h=v, flow=False), [0.1, 0.4]),
}


@pytest.mark.quick_cases("letkf inflation")
@pytest.mark.parametrize("name", NUMBERS)
def test_one_program_for_a_list_of_values(name, problem, key):
    make, values = NUMBERS[name]
    z, members = problem[0].values[0], problem[1]
    traced = []

    def analysis(value):
        traced.append(1)
        filter = make(value).prepare(RING, MEASUREMENT)
        state = filter.init(key, members)
        return filter.analysis(key, state, z, MEASUREMENT)[0].mean

    alone = eqx.filter_jit(analysis)
    single = np.stack([alone(jnp.asarray(value)) for value in values])
    assert len(traced) == 1
    together = eqx.filter_jit(jax.vmap(analysis))(jnp.asarray(values))
    np.testing.assert_allclose(together, single, rtol=2e-3, atol=2e-3)
    assert np.abs(single[0] - single[1]).max() > 1e-6
