"""What every filter with a sampler of its own must do, whatever it samples."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters import EnSF, EnSFSampler
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset

N = 6
RING = Lorenz96(N)
MEMBERS = np.random.default_rng(0).normal(2.0, 1.5, size=(7, N))
VALUES = np.random.default_rng(1).normal(2.0, 2.0, size=N)
MASK = np.asarray([1, 0, 1, 1, 0, 1], bool)
STD = np.linspace(0.5, 1.5, N)
SHORT = EnSFSampler(n_steps=20)

OWN_DRAWS: set[str] = set()
"""Filters whose draws depend on the measurement's size: their smaller twin draws other numbers."""

FILTERS = {
    "ensf": lambda: EnSF(sampler=SHORT),
    "ensf-all": lambda: EnSF(
        Inflation(rtps=0.5, adaptive=True), Normalization("moving"), EnSFSampler(n_steps=20, batch_size=None)
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_gaps_are_as_if_never_measured(name, key, x64):
    """Masked or NaN, or a smaller operator: the same analysis. Nothing measured: the forecast."""

    def analysis(operator, std):
        measurement = Measurement(operator, Gaussian(std))
        filter = FILTERS[name]().prepare(RING, measurement)
        run = jax.jit(lambda state, z, mask: filter.analysis(key, state, z, measurement, mask)[0])
        state = filter.init(key, jnp.asarray(MEMBERS))
        return state, lambda z, mask: run(state, jnp.asarray(z), jnp.asarray(mask))

    before, whole = analysis(Identity(), STD)
    chex.assert_trees_all_equal(before, whole(VALUES, np.zeros(N, bool)))
    masked = whole(VALUES, MASK)
    chex.assert_trees_all_equal(masked, whole(np.where(MASK, VALUES, np.nan), np.ones(N, bool)))
    chex.assert_trees_all_equal_shapes_and_dtypes(before, masked)
    chex.assert_tree_all_finite(masked)
    assert np.abs(masked.mean - before.mean).max() > 0.01
    part = analysis(Subset.from_mask(MASK), STD[MASK])[1]
    if name not in OWN_DRAWS:
        chex.assert_trees_all_close(masked, part(VALUES[MASK], np.ones(MASK.sum(), bool)), atol=1e-9)


class Counted(Identity):
    """The identity, counting how often it is traced."""

    def __call__(self, x):
        TRACES.append(1)
        return super().__call__(x)


TRACES: list[int] = []


@pytest.mark.parametrize("name", FILTERS)
def test_a_run_is_one_program_in_single_precision(name):
    measurement = Measurement(Counted(), Gaussian(1.0))
    filter = FILTERS[name]().prepare(RING, measurement)

    def run(seed):
        values = np.random.default_rng(seed).normal(2.0, 2.0, size=(3, N))
        values[1] = np.nan
        ensemble, observations = jnp.asarray(MEMBERS, dtype=float), Observations(values, 1)
        TRACES.clear()
        found = assimilate(
            jax.random.key(seed), filter, RING, measurement, observations, ensemble, save=("ensemble",)
        )
        assert found.analysis["ensemble"].dtype == jnp.float32
        chex.assert_tree_all_finite(found.analysis)
        np.testing.assert_array_equal(found.analysis["ensemble"][1], found.forecast["ensemble"][1])
        return len(TRACES)

    first = run(0)
    assert first <= 60, "cycles and sampler steps are loops, not copies"
    assert run(1) < first, "another seed: the same program, only shapes are looked at again"


def largest(jaxpr):
    """Most elements of an array in a program, inner ones included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [int(np.prod(v.aval.shape)) for v in equation.outvars if hasattr(v.aval, "shape")]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
    return max(sizes)


@pytest.mark.parametrize("name", FILTERS)
def test_memory_grows_as_members_times_components(name):
    n_members, n = 20, 10_000
    model, measurement = Lorenz96(n), Measurement(Identity(), Gaussian(1.0))
    filter = FILTERS[name]().prepare(model, measurement)
    members, z = jnp.zeros((n_members, n)), jnp.zeros(n)

    def run(members, z):
        return filter.analysis(jax.random.key(0), filter.init(jax.random.key(0), members), z, measurement)[0]

    assert largest(jax.make_jaxpr(run)(members, z).jaxpr) <= 2 * n_members * n
