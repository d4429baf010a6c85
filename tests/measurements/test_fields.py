"""Blurs, spectral cut-offs and block averages against the matrices they stand for."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import Coordinates
from masf_jax.cli.config.builders.measurement import MEASUREMENTS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.errors import InputError
from masf_jax.dynamics import Kolmogorov, Lorenz96
from masf_jax.filters import LETKF
from masf_jax.filters.kalman.exact import linearize
from masf_jax.measurements import (
    Blur,
    Coarsen,
    Gaussian,
    Identity,
    Linear,
    Measurement,
    Speed,
    Subset,
    arctan,
)
from masf_jax.measurements.base import output_shape

SHAPES = [(12,), (9,), (6, 9), (2, 9, 6), (1,)]


def fourier_matrix(shape):
    """The unitary discrete Fourier transform over the grid axes of a raveled state."""
    out = np.eye(math.prod(shape[:-2]))
    for n in shape[-2:]:
        k = np.arange(n)
        out = np.kron(out, np.exp(-2j * np.pi * np.outer(k, k) / n) / np.sqrt(n))
    return out


def signed_waves(shape):
    """Signed wavenumbers of every mode of `fourier_matrix`, (axes, modes)."""
    axes = [(np.arange(n) + n // 2) % n - n // 2 for n in shape[-2:]]
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([np.tile(m.ravel(), math.prod(shape[:-2])) for m in mesh])


def spectral_matrix(shape, transfer):
    f = fourier_matrix(shape)
    matrix = f.conj().T @ np.diag(transfer) @ f
    np.testing.assert_allclose(matrix.imag, 0, atol=1e-12)
    return matrix.real


def gaussian_matrix(shape, width):
    n = np.asarray(shape[-2:])[:, None]
    return spectral_matrix(
        shape, np.exp(-0.5 * ((2 * np.pi * signed_waves(shape) / n) ** 2).sum(0) * width**2)
    )


def low_pass_matrix(shape, cutoff):
    return spectral_matrix(shape, np.sqrt((signed_waves(shape) ** 2.0).sum(0)) <= cutoff)


def block_matrix(shape, factor):
    out = np.eye(math.prod(shape[:-2]))
    for n in shape[-2:]:
        out = np.kron(out, np.kron(np.eye(n // factor), np.full((1, factor), 1 / factor)))
    return out


CASES = {
    f"{name}-{shape}": (make, shape, matrix)
    for shape in SHAPES
    for name, make, matrix in [
        ("gaussian", lambda shape: Blur.gaussian(shape, 0.7), gaussian_matrix(shape, 0.7)),
        ("low_pass", lambda shape: Blur.low_pass(shape, 2), low_pass_matrix(shape, 2)),
    ]
} | {
    f"coarsen-{factor}-{shape}": (
        lambda shape, factor=factor: Coarsen(factor),
        shape,
        block_matrix(shape, factor),
    )
    for factor, shape in [(3, (12,)), (1, (5,)), (12, (12,)), (2, (4, 6)), (3, (2, 6, 9))]
}


@pytest.mark.slow_cases("float*-gaussian-*")
@pytest.mark.parametrize("case", CASES)
def test_operator_and_adjoint_are_those_of_the_matrix(case, dtype):
    make, shape, matrix = CASES[case]
    operator, tolerance = make(shape), 2e-6 if dtype == "float32" else 1e-13
    z_shape = output_shape(operator, shape)
    rng = np.random.default_rng(0)
    x, y, w = (jnp.asarray(rng.normal(size=size), dtype) for size in (shape, shape, z_shape))

    @jax.jit
    def products(x, y, w):
        (adjoint,) = jax.linear_transpose(operator, x)(w)
        return operator(x), operator(2 * x - 3 * y), adjoint, jax.vmap(operator)(jnp.stack([x, y]))

    z, combined, adjoint, members = map(np.asarray, products(x, y, w))
    assert (z.dtype, adjoint.dtype, z.shape) == (dtype, dtype, z_shape)
    np.testing.assert_allclose(z.ravel(), matrix @ np.asarray(x).ravel(), atol=tolerance)
    np.testing.assert_allclose(adjoint.ravel(), matrix.T @ np.asarray(w).ravel(), atol=tolerance)
    np.testing.assert_allclose(members[0], z, atol=tolerance)
    np.testing.assert_allclose(combined, 2 * members[0] - 3 * members[1], atol=10 * tolerance)


measured = eqx.filter_jit(lambda operator, x: operator(x))


def jacobian(operator, shape):
    slopes = jax.jacfwd(lambda x: operator(x.reshape(shape)).ravel())
    return np.asarray(jax.jit(slopes)(np.zeros(math.prod(shape), float)))


@pytest.mark.quick_cases("shape1")
@pytest.mark.parametrize("shape", [(12,), (9,), (2, 5, 6)])
def test_fourier_structure(shape, x64):
    """HᵀH is diagonal in Fourier space, for any real or complex transfer function."""
    rng = np.random.default_rng(2)
    modes = (*shape[-2:-1], shape[-1] // 2 + 1)
    for transfer in (rng.normal(size=modes), rng.normal(size=modes) + 1j * rng.normal(size=modes)):
        h, f = jacobian(Blur(transfer), shape), fourier_matrix(shape)
        gram = f @ h.T @ h @ f.conj().T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
        axes = tuple(range(-len(shape[-2:]), 0))
        kernel = np.fft.irfftn(transfer, shape[-2:], axes)
        x = rng.normal(size=shape)
        product = np.fft.fftn(kernel, axes=axes) * np.fft.fftn(x, axes=axes)
        np.testing.assert_allclose(
            measured(Blur(transfer), jnp.asarray(x)), np.fft.ifftn(product, axes=axes).real, atol=1e-12
        )
        power = np.abs(np.fft.fftn(kernel, axes=axes)).ravel() ** 2
        np.testing.assert_allclose(np.diag(gram), np.tile(power, math.prod(shape[:-2])), atol=1e-12)
    assert Blur(transfer).structure == "fourier"


@pytest.mark.parametrize(("shape", "factor", "d"), [((12,), 3, 1), ((4, 8), 2, 2), ((2, 6, 3), 3, 2)])
def test_block_structure(shape, factor, d, x64):
    """HHᵀ = I / f^d."""
    h = jacobian(Coarsen(factor), shape)
    np.testing.assert_allclose(h @ h.T, np.eye(len(h)) / factor**d, atol=1e-15)
    assert Coarsen(factor).structure == "block"


@pytest.mark.slow
def test_blur_is_a_gaussian_kernel(x64):
    n, width = 40, 2.5
    impulse = np.zeros(n)
    impulse[7] = 1.0
    distance = np.arange(n)[:, None] - 7 + n * np.arange(-3, 4)
    kernel = (np.exp(-0.5 * (distance / width) ** 2) / (width * np.sqrt(2 * np.pi))).sum(1)
    np.testing.assert_allclose(measured(Blur.gaussian((n,), width), jnp.asarray(impulse)), kernel, atol=1e-12)
    field = np.stack([np.zeros((n, n)), np.outer(impulse, impulse)])
    blurred = measured(Blur.gaussian((2, n, n), width), jnp.asarray(field))
    np.testing.assert_allclose(blurred[1], np.outer(kernel, kernel), atol=1e-12)
    np.testing.assert_allclose(blurred[0], 0, atol=1e-15)


def test_low_pass_keeps_and_removes_waves(x64):
    x = 2 * np.pi * np.arange(16) / 16
    kept, removed = np.cos(5 * x + 0.3), np.sin(6 * x)
    np.testing.assert_allclose(
        measured(Blur.low_pass((16,), 5), jnp.asarray(kept + removed)), kept, atol=1e-13
    )
    y, x = x[:, None], x[None, :]
    kept, removed = np.cos(3 * x - 4 * y), np.sin(4 * x + 4 * y)  # 5 and 5.7 waves
    found = measured(Blur.low_pass((16, 16), 5.0), jnp.asarray(kept + removed))
    np.testing.assert_allclose(found, kept, atol=1e-13)


@pytest.mark.slow
def test_half_precision_states():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 8, 8)), jnp.bfloat16)
    for operator in (Blur.gaussian((2, 8, 8), 1.0), Coarsen(2)):
        z = measured(operator, x)
        assert z.dtype == jnp.bfloat16
        full = measured(operator, jnp.asarray(np.asarray(x, float), float))
        np.testing.assert_allclose(np.asarray(z, float), full, atol=0.02)


def test_the_transfer_function_is_a_leaf():
    traces = []

    @eqx.filter_jit
    def measure(operator, x):
        traces.append(1)
        return operator(x)

    x = jnp.asarray(np.random.default_rng(4).normal(size=8), jnp.float32)
    for width in (0.0, 1.0, 2.0):
        np.testing.assert_allclose(
            measure(Blur.gaussian((8,), width), x), gaussian_matrix((8,), width) @ np.asarray(x), atol=2e-6
        )
    assert len(traces) == 1
    # a blur smooths: by Parseval the derivative of ‖Hx‖² in the width is negative
    smoothed = jax.jit(jax.grad(lambda width: (Blur.gaussian((8,), width)(x) ** 2).sum()))
    assert smoothed(jnp.asarray(1.0)) < 0


def test_coordinates():
    ring, box = Coordinates.grid((12,), (6.0,)), Coordinates.grid((4, 6), (4.0, 12.0))
    assert Blur.gaussian((12,), 1.0).coordinates(ring) == ring
    for operator in (Coarsen(3), Coarsen(3, (12,))):
        found = operator.coordinates(ring)
        np.testing.assert_allclose(found.positions[:, 0], [0.5, 2.0, 3.5, 5.0])
        assert found.period == (6.0,)
    found = Coarsen(2, (3, 4, 6)).coordinates(box)
    expected = [[y, x] for y in (0.5, 2.5) for x in (1.0, 5.0, 9.0)]
    np.testing.assert_allclose(found.positions, expected)
    assert found.period == (4.0, 12.0)
    assert Coarsen(2).coordinates(box) is None
    assert Coarsen(2).observed((12,)) is None
    assert Blur.gaussian((12,), 1.0).observed((12,)) is None


def test_centres_of_blocks_across_the_end_of_the_domain():
    ring = Coordinates(np.asarray([5.5, 0.5, 1.5, 2.5]), (6.0,))
    np.testing.assert_allclose(Coarsen(2).coordinates(ring).wrapped()[:, 0], [0.0, 2.0])
    line = Coordinates(np.asarray([5.5, 0.5, 1.5, 2.5]), (0.0,))
    np.testing.assert_allclose(Coarsen(2).coordinates(line).positions[:, 0], [3.0, 2.0])


def test_structure_of_compositions():
    blur, blocks, matrix = Blur.gaussian((12,), 1.0), Coarsen(2), Linear(np.eye(12))
    picked = Subset([0, 3])
    expected = {
        "identity": [Identity() @ Identity()],
        "mask": [
            picked @ Identity(),
            Identity() @ picked,
            Subset([1]) @ picked,
            Subset([1]) @ (picked @ Identity()),
        ],
        "fourier": [blur @ Identity(), Identity() @ blur],
        "block": [blocks @ Identity(), Identity() @ blocks],
        "dense": [picked @ blur, blocks @ blur, matrix @ Identity(), matrix @ blur, picked @ matrix],
        None: [arctan() @ blur, blur @ arctan(), Identity() @ arctan(), blocks @ Speed(), arctan() @ picked],
    }
    for structure, operators in expected.items():
        assert [operator.structure for operator in operators] == [structure] * len(operators)
    x = jnp.asarray(np.random.default_rng(5).normal(size=12), jnp.float32)
    product = block_matrix((12,), 2) @ gaussian_matrix((12,), 1.0)
    np.testing.assert_allclose((blocks @ blur)(x), product @ np.asarray(x), atol=2e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(np.ones((2, 3, 4))), r"transfer must have shape .* got \(2, 3, 4\)"),
        (lambda: Blur([1.0, np.nan]), "transfer must be finite at every mode"),
        (lambda: Blur.gaussian((8,), -1.0), "width of the blur .* from 0 up; got -1.0"),
        (lambda: Blur.gaussian((8,), math.inf), "width of the blur .* from 0 up; got inf"),
        (lambda: Blur.gaussian((), 1.0), r"at least one axis .* got shape \(\)"),
        (lambda: Blur.low_pass((8,), -2.0), "cutoff must be a number of waves from 0 up; got -2.0"),
        (
            lambda: output_shape(Blur.gaussian((8,), 1.0), (12,)),
            r"Blur does not apply to a state of shape \(12,\): .*modes \(7,\), but transfer has shape \(5,\)",
        ),
        (
            lambda: Blur.gaussian((8,), 1.0)(jnp.ones((2, 8))),
            r"modes \(2, 5\), but transfer has shape \(5,\)",
        ),
        (lambda: Coarsen(0), "factor must be a whole number of cells from 1 up; got 0"),
        (lambda: Coarsen(5, (12,)), r"blocks of 5 cells do not fill the grid \(12,\)"),
        (lambda: output_shape(Coarsen(4), (2, 8, 6)), r"blocks of 4 cells do not fill the grid \(8, 6\)"),
        (lambda: Coarsen(2, (8,))(jnp.ones(12)), r"built for a state of shape \(8,\); got \(12,\)"),
        (
            lambda: Coarsen(2, (4, 4)).coordinates(Coordinates.grid((6,), (1.0,))),
            r"the grid \(4, 4\) of this Coarsen has 16 cells, but there are 6 positions",
        ),
        (lambda: Coarsen(5).coordinates(Coordinates.grid((6,), (1.0,))), "blocks of 5 cells do not fill"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


CHOICES = {
    "blur": lambda shape: (Blur.gaussian(shape, 1.0), gaussian_matrix(shape, 1.0)),
    "low_pass": lambda shape: (Blur.low_pass(shape, 5.0), low_pass_matrix(shape, 5.0)),
    "coarsen": lambda shape: (Coarsen(2, shape), block_matrix(shape, 2)),
}


@eqx.filter_jit
def letkf_analysis(filter, key, ensemble, z, mask, measurement):
    state = filter.init(key, ensemble)
    return filter.analysis(key, state, z, measurement, mask)[0].ensemble


@pytest.mark.quick_cases("low_pass-kolmogorov", "low_pass-lorenz96")
@pytest.mark.parametrize("name", ["lorenz96", "kolmogorov"])
@pytest.mark.parametrize("choice", CHOICES)
def test_letkf_analyses_where_it_measures(name, choice, key):
    model = Lorenz96(n=40) if name == "lorenz96" else Kolmogorov(16, forcing_waves=2)
    shape, radius = model.state_shape, 2.5
    operator, _ = CHOICES[choice](shape)
    measurement = Measurement(operator, Gaussian(0.5))
    truth, *members = np.asarray(np.random.default_rng(6).normal(size=(12, *shape)), np.float32)
    ensemble = jnp.asarray(np.stack(members))
    z = eqx.filter_jit(measurement.sample)(key, jnp.asarray(truth))
    letkf = LETKF(radius=radius).prepare(model, measurement)

    full = letkf_analysis(letkf, key, ensemble, z, jnp.asarray(np.ones(z.shape, bool)), measurement)
    means = (jnp.asarray(np.asarray(members).mean(0)) for members in (full, ensemble))
    misfit = [np.square(np.asarray(z) - measured(operator, mean)).mean() for mean in means]
    assert misfit[0] < 0.9 * misfit[1]

    place = (-1, 3, 5)[-z.ndim :] if z.ndim > 1 else (3,)
    one = np.zeros(z.shape, bool)
    one[place] = True
    after = letkf_analysis(letkf, key, ensemble, z, jnp.asarray(one), measurement)
    moved = np.abs(np.asarray(after) - ensemble).max(0)
    factor = 2 if choice == "coarsen" else 1
    squared = 0.0
    for n, i in zip(shape[-2:], place[-2:], strict=True):
        along = np.abs(np.arange(n) - (factor * i + (factor - 1) / 2))
        squared = np.add.outer(squared, np.minimum(along, n - along) ** 2)
    distance = np.broadcast_to(np.sqrt(squared), shape)
    assert (np.asarray(moved)[distance <= radius] > 1e-4).mean() > 0.9
    np.testing.assert_allclose(np.asarray(moved)[distance >= 2 * radius], 0, atol=1e-6)
    assert moved.max() > 0.01


@pytest.mark.parametrize("choice", CHOICES)
def test_linearisation_of_the_kalman_filter(choice, x64):
    operator, matrix = CHOICES[choice]((8,))
    measurement = Measurement(operator, Gaussian(0.5))
    ones = jnp.asarray(np.ones(8))
    z = measured(operator, ones)
    innovation, found = eqx.filter_jit(linearize)(measurement, ones, z, jnp.asarray(np.ones(z.shape, bool)))
    np.testing.assert_allclose(innovation, 0, atol=1e-12)
    np.testing.assert_allclose(found, matrix / 0.5, atol=1e-12)


@pytest.mark.parametrize(
    ("overrides", "matrix"),
    [
        (["measurement=blur", "measurement.width=1.5"], lambda shape: gaussian_matrix(shape, 1.5)),
        (["measurement=low_pass", "measurement.cutoff=3"], lambda shape: low_pass_matrix(shape, 3)),
        (["measurement=coarsen", "measurement.factor=4"], lambda shape: block_matrix(shape, 4)),
    ],
)
@pytest.mark.parametrize("shape", [(16,), (2, 8, 8)])
def test_by_name(overrides, matrix, shape):
    network = MEASUREMENTS.build(compose(overrides).measurement, shape, None)
    x = np.random.default_rng(7).normal(size=shape)
    z = measured(network.measurement.operator, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(np.ravel(z), matrix(shape) @ x.ravel(), atol=2e-6)
    grid = Coordinates.grid(shape[-2:], tuple(map(float, shape[-2:])))
    assert network.measurement.operator.coordinates(grid) is not None


def test_bad_settings_are_refused_by_name():
    for overrides, part in [
        (["measurement=coarsen", "measurement.factor=3"], "blocks of 3 cells do not fill the grid"),
        (["measurement=blur", "measurement.width=-1"], "width of the blur"),
        (["measurement=low_pass", "measurement.cutoff=-1"], "cutoff must be"),
    ]:
        with pytest.raises(InputError, match=part):
            MEASUREMENTS.build(compose(overrides).measurement, (40,), None)
