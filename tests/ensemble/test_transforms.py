"""Square roots, rotations and bases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.ensemble.transforms import (
    helmert,
    inverse_and_inverse_sqrt,
    mean_preserving_rotation,
    random_orthogonal,
)

SOLVE = jax.jit(inverse_and_inverse_sqrt)
rotation = jax.jit(mean_preserving_rotation, static_argnums=(1, 2))


@pytest.mark.parametrize("n", [2, 3, 7])
def test_helmert_is_a_basis_of_the_complement_of_ones(n):
    basis = helmert(n)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n - 1), atol=1e-14)
    np.testing.assert_allclose(basis.T @ np.ones(n), 0, atol=1e-14)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_rotation_is_orthogonal_and_keeps_the_mean(n, dtype, key):
    omega = np.asarray(rotation(key, n, jnp.dtype(dtype)))
    assert omega.dtype == dtype
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(omega @ omega.T, np.eye(n), atol=tolerance)
    np.testing.assert_allclose(omega @ np.ones(n), 1.0, atol=tolerance)
    np.testing.assert_allclose(np.ones(n) @ omega, 1.0, atol=tolerance)


@pytest.mark.quick_cases("7")
@pytest.mark.parametrize("n", [1, 2, 7])
def test_random_orthogonal_is_the_same_under_vmap(key, n):
    """There by reflections of its own: many QRs at once may hang (docs/performance.md)."""
    keys, dtype = jax.random.split(key, 6).reshape(2, 3), jnp.dtype("float32")
    single = jax.jit(random_orthogonal, static_argnums=(1, 2))
    program = jax.jit(jax.vmap(jax.vmap(lambda k: random_orthogonal(k, n, dtype))))
    assert "geqrf" not in program.lower(keys).as_text()
    for q, k in zip(program(keys).reshape(6, n, n), keys.reshape(6), strict=True):
        np.testing.assert_allclose(q, single(k, n, dtype), atol=3e-6)


def test_random_orthogonal_is_haar(key):
    """Trace moments of O(n) under Haar: E tr = 0, E tr² = 1, E tr⁴ = 3; entries of variance 1/n.

    QR without the sign correction has E tr of order √n negative or positive and fails.
    """
    n, draws = 6, 4000
    q = np.asarray(
        jax.jit(jax.vmap(lambda k: random_orthogonal(k, n, jnp.dtype("float32"))))(
            jax.random.split(key, draws)
        )
    )
    trace = np.trace(q, axis1=1, axis2=2)
    assert abs(trace.mean()) < 4 / np.sqrt(draws)
    assert abs((trace**2).mean() - 1) < 4 * np.sqrt(2 / draws)
    assert abs((trace**4).mean() - 3) < 4 * np.sqrt(96 / draws)
    np.testing.assert_allclose((q**2).mean(0), 1 / n, atol=0.02)
    np.testing.assert_allclose(q.mean(0), 0.0, atol=5 / np.sqrt(n * draws))
    assert abs((np.linalg.det(q) > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(draws)


def matrices(kind, n, m, batch, rng):
    """A batch of I + S Sᵀ whose condition number is set by the kind."""
    s = rng.normal(size=(batch, n, m))
    s -= s.mean(1, keepdims=True)
    scale = {
        "weak": 0.1,
        "typical": 1.0,
        "strong": 30.0,
        "graded": np.geomspace(1e-3, 3e2 if jax.config.jax_enable_x64 else 30.0, m),
        "mixed": np.geomspace(1e-2, 1e2, batch)[:, None, None],
        "zero": 0.0,
    }[kind]
    s = s * scale
    return np.eye(n) + s @ np.swapaxes(s, 1, 2)


@pytest.mark.slow_cases(
    "float32-2-1-weak", "float32-20-30-weak", "float32-7-4-weak", "float64-2-1-weak", "float64-20-30-weak"
)
@pytest.mark.parametrize("kind", ["weak", "typical", "strong", "graded", "mixed", "zero"])
@pytest.mark.parametrize(("n", "m"), [(7, 4), (20, 30), (2, 1)])
def test_inverse_and_inverse_sqrt_against_eigh(kind, n, m, dtype):
    rng = np.random.default_rng(n + m)
    a = matrices(kind, n, m, 6, rng)
    b = rng.normal(size=(6, n))
    b[2] = 0.0  # a grid point whose members all agree
    b[3] *= 1e-12  # nearly so
    values, vectors = np.linalg.eigh(a)
    along = np.einsum("bij,bi->bj", vectors, b)
    exact = np.einsum("bij,bj->bi", vectors, along / values)
    exact_root = np.einsum("bij,bj->bi", vectors, along / np.sqrt(values))
    inverse, root = SOLVE(jnp.asarray(a, dtype), jnp.asarray(b, dtype))
    assert inverse.dtype == root.dtype == dtype
    # Errors relative to |b| (‖A^{-1}‖ ≤ 1). Rounding A alone moves the eigenvalues near 1 by ε·λ_max, so
    # no algorithm beats ε·condition: ~2e-16·10⁶ and 1e-7·10⁴ here, times a modest factor.
    norm = np.linalg.norm(b, axis=1, keepdims=True) + 1e-300
    condition = values[:, -1:] / values[:, :1]
    bound = (2e-15 if dtype == "float64" else 1e-6) * condition + (1e-12 if dtype == "float64" else 3e-6)
    assert np.all(np.abs(np.asarray(inverse, np.float64) - exact) / norm < bound)
    assert np.all(np.abs(np.asarray(root, np.float64) - exact_root) / norm < bound)
    assert not np.asarray(inverse)[2].any()
    assert not np.asarray(root)[2].any()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_solves_under_vmap_equal_single_ones():
    """Over a mapped batch, one entry of which needs the fallback."""
    rng = np.random.default_rng(4)
    a = np.stack([matrices(kind, 20, 30, 6, rng) for kind in ("weak", "graded", "zero")])
    b = rng.normal(size=(3, 6, 20))
    many = jax.vmap(SOLVE)(jnp.asarray(a), jnp.asarray(b))
    for i in range(3):
        for x, y in zip(many, SOLVE(jnp.asarray(a[i]), jnp.asarray(b[i])), strict=True):
            np.testing.assert_allclose(x[i], y, atol=1e-9)


def test_identity_is_returned_exactly(dtype):
    b = jnp.asarray(np.random.default_rng(1).normal(size=(6, 7)), dtype)
    inverse, root = SOLVE(jnp.asarray(np.broadcast_to(np.eye(7), (6, 7, 7)), dtype), b)
    np.testing.assert_allclose(inverse, b, rtol=1e-6)
    np.testing.assert_allclose(root, b, rtol=1e-6 if dtype == "float32" else 1e-12)
