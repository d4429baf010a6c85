"""Structured coordinates of a measurement against the dense matrix G = R^{-1/2} H diag(scale)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.bases import BlockBasis, CellBasis, FourierBasis, IdentityBasis, MatrixBasis
from masf_jax.denoisers import DenseCovariance, GaussianDenoiser
from masf_jax.diffusion import bridge, time_grid, vp_bridge
from masf_jax.diffusion.whitened import whitened
from masf_jax.measurements import (
    Blur,
    Coarsen,
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear,
    Measurement,
    Speed,
    Subset,
    arctan,
    sigmoid,
)

RING, FIELD = (12,), (2, 4, 6)
RNG = np.random.default_rng(4)
TRANSFER = np.fft.rfft(RNG.normal(size=12))  # of a kernel without symmetry


def masked(shape, seed=0):
    """About half of the components measured, each with its own noise."""
    picked = np.random.default_rng(seed).uniform(size=shape) < 0.5
    std = np.random.default_rng(seed + 1).uniform(0.2, 2, size=picked.sum())
    return Measurement(Subset.from_mask(picked), Gaussian(std))


def correlated(m, seed=0):
    root = np.random.default_rng(seed).normal(size=(m, m))
    return CorrelatedGaussian(root @ root.T / m + 0.1 * np.eye(m))


CASES = {
    "identity": (RING, Measurement(Identity(), Gaussian(0.5)), IdentityBasis),
    "identity-field": (FIELD, Measurement(Identity(), Gaussian(RNG.uniform(0.2, 2, FIELD))), IdentityBasis),
    "mask": (RING, masked(RING), IdentityBasis),
    "mask-field": (FIELD, masked(FIELD), IdentityBasis),
    "mask-correlated": (RING, Measurement(Subset(np.asarray([0, 3, 4, 9])), correlated(4)), MatrixBasis),
    "blur": (RING, Measurement(Blur.gaussian(RING, 1.0), Gaussian(0.3)), FourierBasis),
    "blur-field": (FIELD, Measurement(Blur.gaussian(FIELD, 0.7), Gaussian(0.3)), FourierBasis),
    "blur-asymmetric": (RING, Measurement(Blur(TRANSFER), Gaussian(0.3)), FourierBasis),
    "low-pass": (RING, Measurement(Blur.low_pass(RING, 2), Gaussian(0.3)), FourierBasis),
    "low-pass-field": (FIELD, Measurement(Blur.low_pass(FIELD, 1.5), Gaussian(0.3)), FourierBasis),
    "coarsen": (RING, Measurement(Coarsen(3), Gaussian(0.3)), BlockBasis),
    "coarsen-field": (FIELD, Measurement(Coarsen(2), Gaussian(RNG.uniform(0.2, 2, (2, 2, 3)))), BlockBasis),
    "coarsen-twice": (RING, Measurement(Coarsen(2) @ Coarsen(3), Gaussian(0.3)), MatrixBasis),
    "dense": (FIELD, Measurement(Linear(RNG.normal(size=(5, 48))), Gaussian(0.3)), MatrixBasis),
    "arctan": (FIELD, Measurement(arctan(2.0), Gaussian(0.3)), IdentityBasis),
    "sigmoid-of-some": (RING, Measurement(sigmoid() @ Subset([1, 2, 7]), Gaussian(0.3)), IdentityBasis),
    "speed": (FIELD, Measurement(Speed(), Gaussian(0.3)), CellBasis),
    "saturating-speed": (FIELD, Measurement(sigmoid() @ Speed(True, -1.0), Gaussian(0.3)), CellBasis),
    "arctan-of-dense": (
        RING,
        Measurement(arctan() @ Linear(RNG.normal(size=(5, 12))), Gaussian(0.3)),
        MatrixBasis,
    ),
    "arctan-correlated": (RING, Measurement(arctan() @ Subset([1, 2, 7]), correlated(3)), MatrixBasis),
}


def arrays(name, missing=True):
    """Measured values with every fourth missing (where the structure bears that), a centre and a scale."""
    shape, measurement, _ = CASES[name]
    rng = np.random.default_rng(7)
    out = measurement.output_shape(shape)
    mask = np.ones(out, bool)
    if missing and "blur" not in name and "pass" not in name:
        mask.reshape(-1)[1::4] = False
    one_number = measurement.operator.structure in ("fourier", "block")
    scale = rng.uniform(0.5, 2, size=() if one_number else shape)
    z, centre = rng.normal(size=out), rng.normal(size=shape)
    return (
        jnp.asarray(z, dtype=float),
        jnp.asarray(mask),
        *(jnp.asarray(value, dtype=float) for value in (centre, scale)),
    )


def _dense(measurement, z, mask, centre, scale):
    """G over raveled states and R^{-1/2}(z - H centre), by differentiating the definition; traced."""
    wide = jnp.broadcast_to(scale, centre.shape)

    def residual(v):
        return measurement.whitened_innovation(z, centre + wide * v.reshape(centre.shape), mask)

    zero = jnp.zeros(centre.size, centre.dtype)
    return -jax.jacfwd(residual)(zero), residual(zero)


def _basis_matrix(basis, shape):
    """V over raveled states and coordinates, and V⁻¹; traced."""
    coordinates, eye = jax.eval_shape(basis.to, jnp.zeros(shape)).shape, jnp.eye(int(np.prod(shape)))
    back = jax.vmap(lambda v: basis.back(v.reshape(coordinates)).reshape(-1))(eye)
    return back.T, jax.vmap(lambda x: basis.to(x.reshape(shape)).reshape(-1))(eye).T


def dense(*problem):
    return tuple(np.asarray(value, np.float64) for value in jax.jit(lambda: _dense(*problem))())


def basis_matrix(basis, shape):
    return tuple(np.asarray(value, np.float64) for value in jax.jit(lambda: _basis_matrix(basis, shape))())


@pytest.mark.parametrize("name", CASES)
def test_structured_coordinates_diagonalise_the_measurement(name, dtype):
    shape, measurement, kind = CASES[name]
    z, mask, centre, scale = arrays(name)

    @jax.jit
    def found(z, mask, centre, scale):
        problem = whitened(measurement, z, mask, centre, scale)
        return (
            problem,
            _dense(measurement, z, mask, centre, scale),
            _basis_matrix(problem.frame.basis, shape),
        )

    problem, of_measurement, of_basis = found(z, mask, centre, scale)
    (g, innovation), (v, inverse) = (
        [np.asarray(value, np.float64) for value in pair] for pair in (of_measurement, of_basis)
    )
    assert isinstance(problem.frame.basis, kind)
    tolerance = 3e-5 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(inverse, v.T, atol=tolerance)
    s = np.asarray(problem.singular_values, np.float64).reshape(-1)
    largest = np.linalg.norm(g, 2)
    np.testing.assert_allclose(v.T @ g.T @ g @ v, np.diag(s**2), atol=tolerance * largest**2)
    exact = np.sort(np.linalg.svd(g, compute_uv=False))[::-1]
    padded = np.concatenate([exact, np.zeros(max(0, g.shape[1] - len(exact)))])[: g.shape[1]]
    np.testing.assert_allclose(np.sort(s)[::-1] ** 2, padded**2, atol=tolerance * largest**2)
    assert np.sum(s > 0) == np.linalg.matrix_rank(g, tol=1e-3 * largest)
    projected = s * np.asarray(problem.values, np.float64).reshape(-1)
    expected = v.T @ g.T @ innovation
    np.testing.assert_allclose(projected, expected, atol=tolerance * largest * np.linalg.norm(innovation))


@pytest.mark.quick_cases("arctan-of-dense")
@pytest.mark.parametrize("name", ["arctan", "saturating-speed", "arctan-of-dense"])
def test_a_tangent_elsewhere_is_the_measurement_of_its_own_linear_operator(name):
    """Linearised at x̂, H is J x + (H(x̂) - J x̂): the problem of the dense J with z moved by the constant."""
    shape, measurement, _ = CASES[name]
    z, mask, centre, scale = arrays(name)
    at = jnp.asarray(np.asarray(centre) + np.float32(0.7))
    process = jax.jit(lambda at: vp_bridge(measurement, z, mask, centre, scale, at=at, tempering=4.0))(at)

    @jax.jit
    def tangent(flat):
        """J, and z moved by the constant."""

        def h(x):
            return measurement.operator(x.reshape(shape)).reshape(-1)

        jacobian = jax.jacfwd(h)(flat)
        return jacobian, z.reshape(-1) - h(flat) + jacobian @ flat

    jacobian, moved = tangent(at.reshape(-1))
    linear = Measurement(Linear(jacobian), Gaussian(2 * 0.3))
    flat = (value.reshape(-1) for value in (mask, centre, scale))
    dense = jax.jit(vp_bridge)(linear, moved, *flat)
    gaussian = GaussianDenoiser(
        jnp.zeros(centre.size), DenseCovariance(jnp.asarray(np.eye(centre.size), float))
    )

    @jax.jit
    def mean(process):
        """Of x given z, for x ~ N(centre, scale²)."""
        v = process.endpoint(jax.random.key(0))
        one = jnp.ones(())
        drawn = gaussian(v.reshape(-1), process.angle(one).reshape(-1))
        return process.frame.decode(drawn.reshape(v.shape)).reshape(-1)

    np.testing.assert_allclose(mean(process), mean(dense), atol=2e-4)


@pytest.mark.parametrize("name", ["mask", "mask-field", "coarsen", "coarsen-field", "mask-correlated"])
def test_missing_values_are_left_out(name):
    """Whatever stands where a value is missing, the bridge is the same and finite."""
    _, measurement, _ = CASES[name]
    z, mask, centre, scale = arrays(name)
    rubbish = jnp.where(mask, z, 1e30)
    first = jax.jit(vp_bridge)(measurement, z, mask, centre, scale)
    second = jax.jit(vp_bridge)(measurement, rubbish, mask, centre, scale)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(first.observed.sum()) == int(mask.sum())


@pytest.mark.parametrize("name", CASES)
def test_nothing_measured_leaves_the_forecast(name):
    """With every value missing (or one, of a convolution) no direction counts as measured."""
    _, measurement, _ = CASES[name]
    z, mask, centre, scale = arrays(name)
    gone = mask.at[(0,) * mask.ndim].set(False) if "blur" in name or "pass" in name else jnp.zeros_like(mask)
    process = jax.jit(vp_bridge)(measurement, z, gone, centre, scale)
    assert not bool(process.observed.any())
    np.testing.assert_allclose(process.theta, np.pi / 2, rtol=1e-6)
    assert np.all(np.asarray(process.measured) == 0)


def exponential_covariance(n, seed=0):
    """A smooth covariance without the symmetries of any of the bases."""
    rng = np.random.default_rng(seed)
    points, spread = np.sort(rng.uniform(0, 3, n)), rng.uniform(0.5, 1.5, n)
    return spread[:, None] * np.exp(-np.abs(points[:, None] - points[None, :])) * spread[None, :]


@pytest.mark.quick_cases("coarsen-field-True")
@pytest.mark.parametrize(
    ("name", "forced"),
    [
        ("mask-field", False),
        ("mask-field", True),
        ("mask-correlated", False),
        ("blur", False),
        ("low-pass-field", False),
        ("coarsen-field", False),
        ("coarsen-field", True),
    ],
)
def test_bridge_on_fields_matches_the_dense_kalman_analysis(name, forced, key):
    """Mean and covariance of the draws, by structure and (forced) by the singular vectors of the dense G."""
    shape, measurement, _ = CASES[name]
    z, mask, centre, scale = arrays(name)
    g, innovation = dense(measurement, z, mask, centre, scale)
    basis = MatrixBasis(jnp.asarray(np.linalg.svd(g)[2].T, dtype=float), None, shape) if forced else None
    process = jax.jit(vp_bridge)(measurement, z, mask, centre, scale, basis)
    n = centre.size
    wide = np.broadcast_to(np.asarray(scale, np.float64), shape).reshape(-1)
    p = exponential_covariance(n)  # of (x - centre)/scale, with a mean of its own
    mean = np.random.default_rng(5).normal(size=n)
    v, _ = basis_matrix(process.frame.basis, shape)
    coordinates = process.theta.shape
    denoiser = GaussianDenoiser(
        jnp.asarray(v.T @ mean, dtype=float).reshape(coordinates),
        DenseCovariance(jnp.asarray(v.T @ p @ v, dtype=float)),
    )
    gain = p @ g.T @ np.linalg.inv(g @ p @ g.T + np.eye(len(g)))
    exact_mean = mean + gain @ (innovation - g @ mean)
    exact = p - gain @ g @ p
    count = 20_000

    @jax.jit
    def run(keys):
        return jax.vmap(lambda k: process.frame.decode(bridge(k, process, denoiser, time_grid(2))))(keys)

    x = np.asarray(run(jax.random.split(key, count)), np.float64).reshape(count, n)
    sample = (x - np.asarray(centre, np.float64).reshape(-1)) / wide
    away = sample.mean(0) - exact_mean
    squared = count * away @ np.linalg.solve(exact, away)
    assert abs(squared - n) < 5 * np.sqrt(2 * n)  # χ² with n degrees of freedom
    norm = np.linalg.norm(exact)
    noise = np.sqrt((np.trace(exact) ** 2 + norm**2) / count) / norm
    assert np.linalg.norm(np.cov(sample.T) - exact) / norm < 2.5 * noise


def test_errors_name_what_breaks_the_structure():
    z, mask, centre, scale = arrays("blur")
    blur = Blur.gaussian(RING, 1.0)
    with pytest.raises(ValueError, match=r"Blur acts on Fourier modes, which needs noise Gaussian\(std\)"):
        whitened(Measurement(blur, Gaussian(np.full(12, 0.3))), z, mask, centre, scale)
    with pytest.raises(ValueError, match="are the same at all grid points"):
        whitened(Measurement(blur, Gaussian(0.3)), z, mask, centre, jnp.ones(12))
    with pytest.raises(ValueError, match="Coarsen averages blocks"):
        whitened(Measurement(Coarsen(3), Gaussian(0.3)), z[:4], mask[:4], centre, jnp.linspace(1, 2, 12))
    large = jnp.zeros(5000)
    with pytest.raises(ValueError, match=r"5000 components are too many"):
        whitened(Measurement(Linear(np.ones((1, 5000))), Gaussian(1.0)), z[:1], mask[:1], large, jnp.ones(()))


@pytest.mark.parametrize(
    ("measurement", "shape"),
    [
        (Measurement(Coarsen(16), Gaussian(1e-3)), (2, 64, 64)),
        (Measurement(Blur.low_pass((64, 64), 20), Gaussian(1e-3)), (2, 64, 64)),
    ],
    ids=["coarsen", "low-pass"],
)
def test_rounding_makes_no_observed_directions(measurement, shape):
    """Large blocks and grids with tiny noise in single precision: what is not measured stays that way."""
    rng = np.random.default_rng(0)
    out = measurement.output_shape(shape)
    z, centre = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (out, shape))
    process = jax.jit(vp_bridge)(measurement, z, jnp.ones(out, bool), centre, jnp.ones(()))
    rank = int(np.prod(out))
    if isinstance(measurement.operator, Blur):
        waves = np.fft.fftfreq(64, 1 / 64)
        rank = 2 * int((waves[:, None] ** 2 + waves[None, :] ** 2 <= 400).sum())
    assert int(process.observed.sum()) == rank
