"""float64 inside programs whose arrays are float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.ensemble.double import SingleOnly, exactly_where, in_double
from masf_jax.ensemble.transforms import modes

X = np.linspace(0.5, 2.0, 4, dtype=np.float32)


def lost(x):
    """x²: in float32 the sum loses it."""
    return {"y": (1e8 + x @ x) - 1e8}


def exact(x):
    return in_double(lost, x, result=x.dtype)["y"]


TRANSFORMED = {
    "eager": lambda: (exact(jnp.asarray(X)), X @ X),
    "jit": lambda: (jax.jit(exact)(X), X @ X),
    "vmap": lambda: (jax.jit(jax.vmap(exact))(jnp.stack([X, 2 * X])), [X @ X, 4 * X @ X]),
    "scan": lambda: (jax.lax.scan(lambda c, x: (c, exact(x)), 0, X[:, None])[1], X**2),
    "grad": lambda: (jax.jit(jax.grad(exact))(X), 2 * X),
    "vmap of grad": lambda: (jax.vmap(jax.grad(exact))(jnp.stack([X, 2 * X])), [2 * X, 4 * X]),
    "grad of vmap": lambda: (jax.grad(lambda x: jax.vmap(exact)(x[:, None]).sum())(X), 2 * X),
    "jacfwd": lambda: (jax.jacfwd(exact)(X), 2 * X),
    "hessian": lambda: (jax.hessian(exact)(X), 2 * np.eye(4)),
}


@pytest.mark.quick_cases("grad", "jit", "scan")
@pytest.mark.parametrize("name", TRANSFORMED)
def test_double_precision_survives_transformations(name):
    found, expected = TRANSFORMED[name]()
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert abs(lost(jnp.asarray(X))["y"] - X @ X) > 0.1


def test_what_is_closed_over_may_be_traced():
    found = jax.jit(lambda x, a: in_double(lambda x: (1e8 + a * x.sum()) - 1e8, x, result=x.dtype))(X, 2.0)
    np.testing.assert_allclose(found, 2 * X.sum(), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_under_x64_float32_stays_and_float64_is_taken_as_it_is():
    assert exact(jnp.asarray(X)).dtype == jnp.float32
    assert exact(jnp.asarray(X, float)).dtype == jnp.float64


@pytest.mark.slow
def test_one_of_two_runs_and_nan_counts_as_lost():
    def chosen(rounding):
        return exactly_where(rounding, lambda _: 1, lambda _: 0)

    assert [int(jax.jit(chosen)(r)) for r in (0.0, 0.5, np.nan, np.inf)] == [0, 1, 1, 1]
    assert jax.vmap(chosen)(jnp.asarray([0.0, 0.5])).tolist() == [1, 1]  # a batch is of one mind
    primitives = str(jax.make_jaxpr(jax.vmap(chosen))(jnp.zeros(2)))
    assert "cond[" in primitives
    assert "select_n" not in primitives


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_modes_of_a_wide_matrix_are_its_singular_values():
    """Through S Sᵀ beyond some thousand columns: the same functions of I + S Sᵀ, without full rank too."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(6, 5000))
    s -= s.mean(0)  # anomalies: one singular value is 0
    d, x = rng.normal(size=5000), rng.normal(size=(6, 3))
    a = np.eye(6) + s @ s.T
    values, vectors = np.linalg.eigh(a)
    expected = vectors @ ((vectors.T @ x) / np.sqrt(values)[:, None])
    with jax.numpy_rank_promotion("allow"):  # as in `in_double`
        found = modes(jnp.asarray(s))
        weights, shrunk = found.weights(jnp.asarray(d)), found.shrunk(jnp.asarray(x))
    np.testing.assert_allclose(weights, np.linalg.solve(a, s @ d), atol=1e-12)
    np.testing.assert_allclose(shrunk, expected, atol=1e-10)


def test_float32_written_into_a_function_leaves_the_fast_way():
    """Of a user's operator, say: no traceback, and the flag says what is lost."""

    def fixed(x):
        return jax.lax.fori_loop(0, 3, lambda _, total: total + x.sum(), jnp.zeros((), jnp.float32))

    def chosen(x, rounding):
        return exactly_where(
            rounding, lambda _: in_double(fixed, x, result=x.dtype), lambda rounding: fixed(x) + rounding
        )

    with pytest.raises(SingleOnly, match="not to be computed in float64"):
        in_double(fixed, jnp.asarray(X), result=jnp.float32)
    np.testing.assert_allclose(jax.jit(chosen)(jnp.asarray(X), 5.0), 3 * X.sum() + 5.0, rtol=1e-6)
