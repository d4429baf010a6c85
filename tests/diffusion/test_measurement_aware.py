"""The paper's process: A_t, B_t, Σ_t and the likelihood score against explicit matrices."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.diffusion import cosine_schedule, measurement_aware
from masf_jax.measurements import (
    Blur,
    Coarsen,
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear,
    Measurement,
    Subset,
    arctan,
)

N = 6
RNG = np.random.default_rng(8)
ROOT = np.tril(RNG.normal(size=(N, N))) / 3 + np.eye(N)
VECTORS = np.linalg.qr(RNG.normal(size=(N, N)))[0]
H = ROOT @ VECTORS @ np.diag([0, 0.2, 0.4, 0.6, 0.8, 1]) @ VECTORS.T @ np.linalg.inv(ROOT)
ERRORS = RNG.uniform(0.3, 1, N)
PICKED = np.asarray([0, 2, 3])


def projection(picked):
    return np.diag(np.isin(np.arange(N), picked).astype(float))


def convolution(transfer):
    return np.fft.irfft(transfer[:, None] * np.fft.rfft(np.eye(N), axis=0), n=N, axis=0)


BLUR = np.exp(-0.5 * (2 * np.pi / N * np.arange(4)) ** 2)
NAMES = ["identity", "mask", "dense", "fourier"]


def case(name):
    """Measurement, H, R, scale; what a mask leaves out has noise of the mean normalised level (R None)."""
    if name == "identity":
        return Measurement(Identity(), Gaussian(ERRORS)), np.eye(N), np.diag(ERRORS**2), None
    if name == "mask":
        return Measurement(Subset(PICKED), Gaussian(ERRORS[PICKED])), projection(PICKED), None, None
    if name == "dense":
        r = ROOT @ ROOT.T
        return Measurement(Linear(H), CorrelatedGaussian(r)), H, r, None
    blur = Measurement(Blur.gaussian((N,), 1.0), Gaussian(0.4))
    return blur, convolution(BLUR), 0.16 * np.eye(N), 1.3


made = eqx.filter_jit(measurement_aware)
signal = eqx.filter_jit(lambda process, t: (process.gain(t), process.std(t)))


def schedule(t):
    """The clean signal's part, as a number."""
    return float(_SCHEDULE(jnp.asarray(t, float)))


_SCHEDULE = jax.jit(cosine_schedule)


def problem(name):
    measurement, h, r, scale = case(name)
    rng = np.random.default_rng(9)
    scale = rng.uniform(0.5, 2, N) if scale is None else np.asarray(scale)
    centre = rng.normal(size=N)
    if r is None:
        std = np.full(N, np.mean(ERRORS[PICKED] / scale[PICKED])) * scale
        std[PICKED] = ERRORS[PICKED]
        r = np.diag(std**2)
    z = rng.normal(size=measurement.output_shape((N,)))
    as_float = [jnp.asarray(value, dtype=float) for value in (z, centre, scale)]
    mask = jnp.ones(z.shape, bool)
    process = made(measurement, as_float[0], mask, *as_float[1:])
    lifted = np.zeros(N)
    lifted[PICKED if name == "mask" else np.arange(N)] = z
    return process, h, r, lifted, centre


def in_state(process):
    """The matrix B of x = centre + B v."""

    return np.asarray(_back(process.frame), np.float64).T


@jax.jit
def _back(frame):
    return jax.vmap(frame.decode)(jnp.eye(N)) - frame.decode(jnp.zeros(N))[None]


@pytest.mark.parametrize("name", NAMES)
def test_moments_are_those_of_the_paper(name, dtype):
    """X_t | x0 ~ N(a x0 + (1 - a) H x0, (1 - a²) R), seen in the state space."""
    process, h, r, _, _ = problem(name)
    b, tolerance = in_state(process), 2e-5 if dtype == "float32" else 1e-10
    for t in (0.0, 0.3, 0.9, 1.0):
        a = schedule(t)
        gain, std = (np.asarray(value, np.float64) for value in signal(process, jnp.asarray(t)))
        found = b @ np.diag(gain) @ np.linalg.inv(b)
        np.testing.assert_allclose(found, a * np.eye(N) + (1 - a) * h, atol=tolerance)
        np.testing.assert_allclose(b @ np.diag(std**2) @ b.T, (1 - a**2) * r, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_likelihood_score_is_the_gradient_of_the_log_density(name, x64):
    """∇_x log N(z; M x + U, S) over states, M = A_1 A_t⁻¹, U = B_1 - M B_t, S = Σ_1 - M Σ_t Mᵀ.

    In coordinates x = centre + B v the gradient is Bᵀ times that. Only what is measured takes part.
    """
    process, h, r, lifted, centre = problem(name)
    t = jnp.asarray(0.4)
    a = schedule(0.4)
    a_t, a_one = a * np.eye(N) + (1 - a) * h, h  # about the centre: B_t = (I - A_t) centre for H x - H centre
    m = a_one @ np.linalg.inv(a_t)
    s = r - m @ ((1 - a**2) * r) @ m.T
    measured = np.diag(projection(PICKED)) > 0 if name == "mask" else np.ones(N, bool)
    rows = np.ix_(measured, measured)
    y = jnp.asarray((lifted - h @ centre)[measured])
    m_rows, s_rows = jnp.asarray(m[measured]), jnp.asarray(s[rows])

    def log_density(x):
        residual = y - m_rows @ (x - jnp.asarray(centre))
        return -0.5 * residual @ jnp.linalg.solve(s_rows, residual)

    x = jnp.asarray(np.random.default_rng(10).normal(size=N))
    expected = in_state(process).T @ np.asarray(jax.jit(jax.grad(log_density))(x))
    score = eqx.filter_jit(lambda process, x, t: process.likelihood_score(process.frame.encode(x), t))
    np.testing.assert_allclose(score(process, x, t), expected, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_transitions_match_the_matrices(name, x64):
    """M = A_t A_s⁻¹ and S = Σ_t - M Σ_s Mᵀ, positive semidefinite where the process is valid."""
    process, h, r, _, _ = problem(name)
    s, t = 0.2, 0.7
    b = in_state(process)
    matrices = []
    for time in (s, t):
        a = schedule(time)
        matrices.append((a * np.eye(N) + (1 - a) * h, (1 - a**2) * r))
    m = matrices[1][0] @ np.linalg.inv(matrices[0][0])
    variance = matrices[1][1] - m @ matrices[0][1] @ m.T
    step = eqx.filter_jit(process.transition)(jnp.asarray(s), jnp.asarray(t))
    np.testing.assert_allclose(b @ np.diag(step.factor) @ np.linalg.inv(b), m, atol=1e-10)
    np.testing.assert_allclose(b @ np.diag(step.variance) @ b.T, variance, atol=1e-10)
    assert (np.asarray(step.variance) >= -1e-12).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_end_is_the_measurement(name):
    """Decoded, v_1 is the lifted z (about H centre) where something is measured."""
    process, h, _, lifted, centre = problem(name)
    decoded = eqx.filter_jit(lambda p: p.frame.decode(jnp.where(p.observed, p.measured, 0.0)))(process)
    end = np.asarray(decoded, np.float64)
    expected = lifted - h @ centre + centre
    measured = np.isin(np.arange(N), PICKED) if name == "mask" else np.ones(N, bool)
    np.testing.assert_allclose(end[measured], expected[measured], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_where_values_are_missing_the_process_ends_in_noise(name):
    """h is zero where nothing counts as measured, so that a start in pure noise is the right one."""
    process, _, _, _, _ = problem(name)
    measurement = case(name)[0]
    out = measurement.output_shape((N,))
    scale = np.asarray(1.0 if name == "fourier" else np.ones(N))
    zeros, centre, scale = (jnp.asarray(value, dtype=float) for value in (np.zeros(out), np.zeros(N), scale))
    gone = made(measurement, zeros, jnp.asarray(np.arange(out[0]) != 1), centre, scale)
    left = np.asarray(gone.observed)
    assert left.sum() == (0 if name in ("dense", "fourier") else np.asarray(process.observed).sum() - 1)
    np.testing.assert_array_equal(np.asarray(signal(gone, jnp.asarray(1.0))[0])[~left], 0)
    score = eqx.filter_jit(gone.likelihood_score)(jnp.asarray(np.ones(N), float), jnp.asarray(0.5))
    np.testing.assert_array_equal(np.asarray(score)[~left], 0)


def build(operator, std=1.0, n=N):
    measurement = Measurement(operator, Gaussian(std))
    out = measurement.output_shape((n,))
    return measurement_aware(measurement, jnp.zeros(out), jnp.ones(out, bool), jnp.zeros(n), jnp.ones(()))


@pytest.mark.quick_cases("-0.25")
@pytest.mark.parametrize("eigenvalue", [1.5, -0.25])
def test_an_eigenvalue_outside_the_unit_interval_is_named(eigenvalue):
    values = np.asarray([eigenvalue, 0.1, 0.5, 0.5, 0.9, 1.0])
    with pytest.raises(ValueError, match=rf"every eigenvalue of H in \[0, 1\].*Linear has {eigenvalue}"):
        build(Linear(VECTORS @ np.diag(values) @ VECTORS.T))
    with pytest.raises(ValueError, match=rf"Blur has {eigenvalue}"):
        build(Blur(np.asarray([1.0, 0.5, eigenvalue, 0.3])))


def test_an_unsymmetric_measurement_is_refused():
    shifted = np.roll(np.eye(N), 1, axis=0)
    with pytest.raises(ValueError, match=r"H symmetric in the metric of R; Linear is off by 1\. Use the VP"):
        build(Linear(shifted))
    with pytest.raises(ValueError, match="H symmetric in the metric of R; Blur is off by"):
        build(Blur(np.fft.rfft(np.eye(N)[1])))
    # symmetric, but not in the metric of its noise
    symmetric = VECTORS @ np.diag([0.1, 0.2, 0.4, 0.6, 0.8, 1]) @ VECTORS.T
    with pytest.raises(ValueError, match="H symmetric in the metric of R"):
        build(Linear(symmetric), std=ERRORS)


@pytest.mark.parametrize("operator", [Linear(np.ones((2, N))), Coarsen(2), arctan()])
def test_other_measurements_are_sent_to_the_bridge(operator):
    with pytest.raises(
        ValueError, match=r"needs a linear measurement of the state's shape \(6,.*Use the VP bridge"
    ):
        build(operator)
