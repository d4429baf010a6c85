"""Changes of coordinates: their inverses, orthonormality, and what they diagonalise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.bases import BlockBasis, CellBasis, FourierBasis, IdentityBasis, MatrixBasis

DIRECTIONS = np.random.default_rng(3).normal(size=(3, 5, 9))
DIRECTIONS[:, 0] = 0.0  # nothing to turn to
DIRECTIONS[1:, 1] = 0.0  # along the first channel already, either way
SHAPES = [(12,), (7,), (4, 6), (2, 4, 6), (3, 5, 9)]


def cases():
    for shape in SHAPES:
        axes = 1 if len(shape) == 1 else 2
        yield pytest.param(IdentityBasis(), shape, id=f"identity-{shape}")
        yield pytest.param(FourierBasis(axes), shape, id=f"fourier-{shape}")
        for factor in (1, 2, 3):
            if all(n % factor == 0 for n in shape[-axes:]):
                yield pytest.param(BlockBasis(factor, axes), shape, id=f"block-{factor}-{shape}")
    yield pytest.param(CellBasis(jnp.asarray(DIRECTIONS, dtype=float)), (3, 5, 9), id="cell")


CASES = {case.id: case.values for case in cases()}


def mapped(f, shape):
    """The transpose of the matrix of f; traced."""
    return jax.vmap(lambda x: f(x.reshape(shape)).reshape(-1))(jnp.eye(int(np.prod(shape))))


def matrix(f, shape):
    return np.asarray(jax.jit(lambda: mapped(f, shape))(), np.float64).T


@functools.cache
def matrices(dtype):
    """V⁻¹ and V of every case, in the precision of the moment: one program."""
    rows = jax.jit(
        lambda: {
            k: (mapped(basis.to, shape), mapped(basis.back, shape)) for k, (basis, shape) in CASES.items()
        }
    )()
    return jax.device_get(rows)


@pytest.mark.parametrize("case", CASES)
def test_orthonormal_and_undone(case, dtype):
    to, back = matrices(dtype)[case]
    assert to.dtype == back.dtype == dtype
    to, back = (np.asarray(rows, np.float64).T for rows in (to, back))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(to @ to.T, np.eye(len(to)), atol=tolerance)
    np.testing.assert_allclose(back, to.T, atol=tolerance)


def test_a_cells_direction_becomes_its_first_channel(x64):
    turned = np.asarray(CellBasis(jnp.asarray(DIRECTIONS)).to(jnp.asarray(DIRECTIONS)))
    np.testing.assert_allclose(np.abs(turned[0]), np.linalg.norm(DIRECTIONS, axis=0), atol=1e-12)
    np.testing.assert_allclose(turned[1:], 0.0, atol=1e-12)


@pytest.mark.parametrize("shape", [(12,), (7,), (4, 6), (2, 4, 6)])
def test_hartley_by_its_formula_and_on_convolutions(shape, x64):
    """v_k = n^{-1/2} Σ x_j [cos + sin](2π j·k/n), and CᵀC of a convolution C is diagonal in it."""
    axes = 1 if len(shape) == 1 else 2
    basis, grid = FourierBasis(axes), shape[-axes:]
    x = np.random.default_rng(0).normal(size=shape)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")).reshape(axes, -1)
    phase = 2 * np.pi * (index / np.reshape(grid, (-1, 1))).T @ index
    expected = x.reshape(*shape[:-axes], -1) @ (np.cos(phase) + np.sin(phase)) / np.sqrt(phase.shape[0])
    np.testing.assert_allclose(basis.to(jnp.asarray(x)), expected.reshape(shape), atol=1e-12)

    kernel = np.random.default_rng(1).normal(size=grid)
    last = tuple(range(-axes, 0))

    def convolve(x):
        return jnp.fft.ifftn(jnp.fft.fftn(x, axes=last) * np.fft.fftn(kernel), axes=last).real

    c, v = matrix(convolve, grid), matrix(basis.to, grid)
    np.testing.assert_allclose(
        v @ c.T @ c @ v.T, np.diag(np.abs(np.fft.fftn(kernel)).ravel() ** 2), atol=1e-10
    )


def test_a_blocks_mean_sits_at_its_first_cell():
    x = np.random.default_rng(2).normal(size=(2, 4, 6))
    v = np.asarray(BlockBasis(2, 2).to(jnp.asarray(x, dtype=float)))
    means = x.reshape(2, 2, 2, 3, 2).mean((2, 4))
    np.testing.assert_allclose(v[:, ::2, ::2], 2 * means, rtol=1e-4, atol=1e-5)
    flat = np.asarray(BlockBasis(2, 2).to(jnp.full((4, 6), 3.0)))
    np.testing.assert_allclose(flat[1::2], 0, atol=1e-6)
    np.testing.assert_allclose(flat[:, 1::2], 0, atol=1e-6)


def test_matrix_basis_with_and_without_an_inverse(dtype):
    rng = np.random.default_rng(3)
    general = rng.normal(size=(6, 6)) + 3 * np.eye(6)
    orthogonal = np.linalg.qr(general)[0]
    x = jnp.asarray(rng.normal(size=(2, 3)), dtype=float)
    for v, inverse in ((general, np.linalg.inv(general)), (orthogonal, None)):
        arrays = [None if a is None else jnp.asarray(a, dtype=float) for a in (v, inverse)]
        basis = MatrixBasis(arrays[0], arrays[1], (2, 3))
        assert basis.to(x).shape == (6,)
        np.testing.assert_allclose(
            basis.to(x), np.linalg.solve(v, np.asarray(x).ravel()), rtol=1e-3, atol=1e-4
        )
        np.testing.assert_allclose(basis.back(basis.to(x)), x, rtol=1e-4, atol=1e-5)
