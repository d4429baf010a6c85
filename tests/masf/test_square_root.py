"""Unlocalised transported members by one eigendecomposition: what the bridge makes step by step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.diffusion.vp_bridge import VP
from masf_jax.masf import Bridge, GaussianPrior
from masf_jax.masf.routes.base import Inputs
from masf_jax.masf.routes.linear import Linear
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear as LinearOperator,
    Measurement,
    Subset,
)

N = 8
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(5, N))
COVARIANCE = np.eye(5) + 0.4 * np.eye(5, k=1) + 0.4 * np.eye(5, k=-1)
CASES = {  # made under a test's own precision
    "all": lambda: Measurement(Identity(), Gaussian(0.8)),
    "some": lambda: Measurement(Subset(range(0, N, 2)), Gaussian(0.8)),
    "any linear": lambda: Measurement(LinearOperator(MATRIX), Gaussian(0.8)),
    "correlated": lambda: Measurement(LinearOperator(MATRIX), CorrelatedGaussian(COVARIANCE)),
}


def keys():
    return jax.random.key(1), jax.random.key(2)


def inputs(measurement, n_members, missing=True, rotation=False):
    random = np.random.default_rng(n_members)
    members = jnp.asarray(random.normal(2.0, 1.5, size=(n_members, N)), float)
    measured = jax.vmap(measurement.operator)(members)
    z = measured[0] + 0.5
    mask = jnp.ones(z.shape, bool).at[1].set(not missing)
    prior = GaussianPrior(rotation=rotation)
    return Inputs(prior, VP(), Bridge(), members, measurement, z, mask, None)


def both(given):
    route = Linear()
    return [jax.jit(draw)(keys(), given, None) for draw in (route.draw, route._by_process)]


FORMS = [("all", 4, False), ("some", 12, True), ("any linear", 12, False), ("correlated", 4, True)]
OFTEN = ("some", "float64"), ("correlated", "float32")


@pytest.mark.quick_cases("some-12-True-float64")
@pytest.mark.parametrize(
    ("name", "n_members", "rotation", "dtype"),
    [
        pytest.param(*form, dtype, marks=[pytest.mark.slow] * ((form[0], dtype) not in OFTEN))
        for form in FORMS
        for dtype in ("float64", "float32")
    ],
    indirect=["dtype"],
)
def test_the_same_members_as_by_the_bridge(name, n_members, rotation, dtype):
    given = inputs(CASES[name](), n_members, rotation=rotation)
    (fast, _, info), (slow, _, other) = both(given)
    near = 1e-10 if fast.dtype == jnp.float64 else 1e-5
    assert fast.dtype == slow.dtype == dtype
    assert jax.tree.structure(info) == jax.tree.structure(other)
    np.testing.assert_allclose(fast, slow, rtol=near, atol=near)
    assert float(jnp.abs(slow - given.members).max()) > 0.1


@pytest.mark.slow
def test_their_derivatives_too(x64):
    given = inputs(CASES["any linear"](), 12)

    def slope(draw):
        def loss(members):
            moved = draw(keys(), given._replace(members=members), None)[0]
            return (jnp.sin(jnp.arange(N))[None] * moved**2).sum()

        return jax.jit(jax.grad(loss))(given.members)

    np.testing.assert_allclose(slope(Linear().draw), slope(Linear()._by_process), rtol=1e-8, atol=1e-8)


def test_no_gram_matrix_where_its_identity_would_be_lost():
    """Prior std/noise std of 1e4: in float32 I + SSᵀ would be SSᵀ."""
    sure = Measurement(Identity(), Gaussian(1.5e-4))
    given = inputs(sure, 12)
    (drawn, _, info), (steps, _, other) = both(given)
    np.testing.assert_array_equal(drawn, steps)
    assert float(info["rounding"]) == float(other["rounding"])


@pytest.mark.slow
def test_nothing_measured_leaves_the_members():
    given = inputs(CASES["some"](), 4)
    given = given._replace(mask=jnp.zeros_like(given.mask), z=jnp.zeros_like(given.z))
    np.testing.assert_array_equal(Linear().draw(keys(), given, None)[0], given.members)


@pytest.mark.slow
def test_other_samplers_and_members_go_by_the_bridge():
    given = inputs(CASES["all"](), 4)
    others = [
        given._replace(sampler=Bridge(2)),
        given._replace(prior=dataclasses.replace(given.prior, members="perturbed")),
    ]
    for other in others:
        a, b = both(other)
        np.testing.assert_array_equal(a[0], b[0])
