"""The kernel denoiser against the mixture's own formulas, its limits, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.denoisers import KernelDenoiser, ensemble_kernel, silverman_factor

N_MEMBERS, SHAPE = 7, (2, 3)
RNG = np.random.default_rng(3)
MEMBERS = 3 + RNG.normal(size=(N_MEMBERS, *SHAPE))
BANDWIDTH = RNG.uniform(0.3, 0.8, SHAPE)
ANGLE = RNG.uniform(0.2, 1.4, SHAPE)
X = 2 + RNG.normal(size=SHAPE)


def mixture_posterior(x, angle):
    """Weights, means and variances of the components of x0 | x, straight from the definition."""
    c, s = np.cos(angle), np.sin(angle)
    q = (BANDWIDTH * c) ** 2 + s**2
    log_w = -0.5 * ((x[None] - c[None] * MEMBERS) ** 2 / q[None]).reshape(N_MEMBERS, -1).sum(1)
    w = np.exp(log_w - log_w.max())
    gain = BANDWIDTH**2 * c / q
    means = MEMBERS + gain[None] * (x[None] - c[None] * MEMBERS)
    return w / w.sum(), means, BANDWIDTH**2 - gain * c * BANDWIDTH**2


def make():
    return KernelDenoiser(jnp.asarray(MEMBERS, dtype=float), jnp.asarray(BANDWIDTH, dtype=float))


mean_of, log_weights = jax.jit(lambda d, x, a: d(x, a)), jax.jit(lambda d, x, a: d.log_weights(x, a))
ensemble_kernel = jax.jit(ensemble_kernel, static_argnums=(1, 2))


def arrays():
    return jnp.asarray(X, dtype=float), jnp.asarray(ANGLE, dtype=float)


def test_weights_and_mean_by_definition(dtype):
    tolerance = 2e-4 if dtype == "float32" else 1e-10
    w, means, _ = mixture_posterior(X, ANGLE)
    np.testing.assert_allclose(np.exp(log_weights(make(), *arrays())), w, rtol=tolerance)
    np.testing.assert_allclose(mean_of(make(), *arrays()), np.tensordot(w, means, 1), rtol=tolerance)


def test_the_mean_is_tweedies(x64):
    """E[x0 | x] = (x + sin² φ ∇ log p(x))/cos φ, with p differentiated."""
    x, angle = arrays()
    c, s = jnp.asarray(np.cos(ANGLE)), jnp.asarray(np.sin(ANGLE))
    q = jnp.asarray((BANDWIDTH * np.cos(ANGLE)) ** 2 + np.sin(ANGLE) ** 2)

    def log_density(x):
        squares = ((x[None] - c[None] * jnp.asarray(MEMBERS)) ** 2 / q[None]).reshape(N_MEMBERS, -1).sum(1)
        return jax.nn.logsumexp(-0.5 * squares)

    expected = jax.jit(lambda x: (x + s**2 * jax.grad(log_density)(x)) / c)(x)
    np.testing.assert_allclose(mean_of(make(), x, angle), expected, rtol=1e-9)


def test_draws_have_the_mixtures_moments(key):
    count = 40_000
    draws = jax.jit(jax.vmap(lambda k: make().sample(k, *arrays())))(jax.random.split(key, count))
    draws = np.asarray(draws, np.float64).reshape(count, -1)
    w, means, variance = mixture_posterior(X, ANGLE)
    means = means.reshape(N_MEMBERS, -1)
    mean = w @ means
    exact = (means - mean[None]).T @ (w[:, None] * (means - mean[None])) + np.diag(variance.ravel())
    assert np.all(np.abs(draws.mean(0) - mean) < 4.5 * np.sqrt(np.diag(exact) / count))
    norm = np.linalg.norm(exact)
    noise = np.sqrt((np.trace(exact) ** 2 + norm**2) / count)
    assert np.linalg.norm(np.cov(draws.T) - exact) < 2.5 * noise


def test_without_bandwidth_draws_are_members(key):
    denoiser = KernelDenoiser(jnp.asarray(MEMBERS, dtype=float), jnp.full(SHAPE, 1e-6))
    draws = jax.jit(jax.vmap(lambda k: denoiser.sample(k, *arrays())))(jax.random.split(key, 50))
    draws = np.asarray(draws)
    nearest = np.abs(draws[:, None] - np.asarray(denoiser.members)[None]).max((2, 3)).min(1)
    assert nearest.max() < 1e-4
    assert len(np.unique(draws[:, 0, 0].round(3))) > 1


def test_in_pure_noise_all_members_weigh_alike(dtype):
    log_w = log_weights(make(), arrays()[0], jnp.asarray(np.full(SHAPE, np.pi / 2), float))
    np.testing.assert_allclose(np.exp(log_w), 1 / N_MEMBERS, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_precise_measurements_pick_one_member_without_overflow(offset):
    """Noise of 10⁻³ of the spread, members far from the origin: finite, and the right one."""
    members = jnp.asarray(MEMBERS + offset, jnp.float32)
    angle = jnp.asarray(np.full(SHAPE, 1e-3), jnp.float32)
    denoiser = KernelDenoiser(members, angle)
    x = jnp.asarray(np.cos(np.asarray(angle)) * np.asarray(members)[4])
    log_w = np.asarray(log_weights(denoiser, x, angle))
    assert log_w.argmax() == 4
    assert log_w[4] == pytest.approx(0, abs=1e-3)
    assert np.isfinite(np.asarray(mean_of(denoiser, x, angle))).all()


def test_shrinking_keeps_the_variance():
    """Kernels drawn together by √(1 - b²) and widened by b: the ensemble's variance; else 1 + b² of it."""
    ensemble = jnp.asarray(MEMBERS, dtype=float)
    for shrink, expected in ((True, 1.0), (False, 1.25)):
        denoiser = ensemble_kernel(ensemble, 0.5, shrink)
        members = np.asarray(denoiser.members)
        np.testing.assert_allclose(members.mean(0), MEMBERS.mean(0), rtol=1e-5)
        total = members.var(0, ddof=1) + np.asarray(denoiser.bandwidth) ** 2
        np.testing.assert_allclose(total / MEMBERS.var(0, ddof=1), expected, rtol=1e-4)


def test_default_bandwidth_is_silvermans():
    assert silverman_factor(100, 1) == pytest.approx((4 / 300) ** 0.2)
    ensemble = jnp.asarray(MEMBERS, dtype=float)
    factor = silverman_factor(N_MEMBERS, 6)
    np.testing.assert_allclose(
        ensemble_kernel(ensemble).bandwidth, factor * MEMBERS.std(0, ddof=1), rtol=1e-5
    )


def test_a_batch_needs_no_array_of_members_by_members_by_components():
    """N = 200, n = 10⁵: temporaries of the compiled batch stay at a few ensembles (N·N·n would be 200)."""
    n_members, n = 200, 100_000
    ensemble = jax.ShapeDtypeStruct((n_members, n), jnp.float32)
    angle = jax.ShapeDtypeStruct((n,), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n_members))

    def batch(keys, members, x, angle):
        denoiser = KernelDenoiser(members, jnp.full(n, 0.3))
        mean = jax.vmap(lambda x: denoiser(x, angle))(x)
        return mean, jax.vmap(lambda k, x: denoiser.sample(k, x, angle))(keys, x)

    compiled = jax.jit(batch).lower(keys, ensemble, ensemble, angle).compile()
    one = n_members * n * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * one
