"""SDA with exact scores of Gaussian chains: composition, guidance and sampler, each against closed forms."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import conditioned, trajectory_prior

from masf_jax.denoisers import DenseCovariance, GaussianDenoiser
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Linear, ModelError
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Laplace,
    Measurement,
    Observations,
    absolute,
)
from masf_jax.smoothers.guidance import MMPS, InflatedNoise
from masf_jax.smoothers.sda import SDA, diffusion_angle
from masf_jax.smoothers.sda_training import climatological_trajectories, train_sda, window_shape
from masf_jax.smoothers.windows import Reshaped, TrajectoryDenoiser
from masf_jax.training import FitConfig

PERSISTENCE = 0.8


def chain(length):
    """The exact denoiser of `length` states of a stationary AR(1) chain of variance 1, as (length, 1)."""
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    covariance = DenseCovariance(jnp.asarray(PERSISTENCE**lags))
    return Reshaped(GaussianDenoiser(jnp.zeros(length), covariance), (length,))


@partial(jax.jit, static_argnums=0)
def relative_error(k, x, angle):
    """RMS difference of the composed from the exact score, over the latter's."""
    length = len(x)
    wide = jnp.full(x.shape, angle)
    exact, composed = chain(length)(x, wide), TrajectoryDenoiser(chain(2 * k + 1), k)(x, wide)
    score = (jnp.cos(angle) * exact - x) / jnp.sin(angle) ** 2
    difference = jnp.cos(angle) * (composed - exact) / jnp.sin(angle) ** 2
    return jnp.sqrt(jnp.mean(difference**2) / jnp.mean(score**2))


@pytest.mark.usefixtures("x64")
def test_the_composed_score_of_a_markov_chain():
    """Exact with one window, for little noise and for noise alone; else the better the longer."""
    x = jax.random.normal(jax.random.key(0), (12, 1))
    assert relative_error(5, x[:11], 0.8) < 1e-12
    errors = {k: float(relative_error(k, x, 0.8)) for k in (1, 2, 4)}
    assert errors[1] > 2 * errors[2] > 4 * errors[4], errors
    assert errors[4] < 0.02, errors
    assert relative_error(1, x, 1e-3) < 1e-5
    assert relative_error(1, x, 1.569) < 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_window_batches_change_nothing_and_bound_memory():
    """In value and gradient; a derivative of 4000 states holds no array of all windows at once."""
    x, k = jax.random.normal(jax.random.key(0), (40, 1)), 2

    @partial(jax.jit, static_argnums=1)
    def value_and_slope(x, batch_size):
        def total(x):
            denoised = TrajectoryDenoiser(chain(5), k, batch_size)(x, jnp.full(x.shape, 0.7))
            return jnp.sum(jnp.sin(denoised)), denoised

        (_, denoised), slope = jax.value_and_grad(total, has_aux=True)(x)
        return denoised, slope

    for one, all_at_once in zip(value_and_slope(x, 7), value_and_slope(x, None), strict=True):
        np.testing.assert_allclose(one, all_at_once, rtol=1e-10)
    network = Architecture(width=64, depth=1, layout="vector", noise_map=False)
    window = Reshaped(network.create(jax.random.key(0), (5,)), (5,))

    def loss(x, batch_size):
        return jnp.sum(TrajectoryDenoiser(window, k, batch_size)(x, jnp.full(x.shape, 0.7)) ** 2)

    shape = jax.ShapeDtypeStruct((4000, 1), jnp.float64)
    memory = [
        jax.jit(jax.grad(loss), static_argnums=1).lower(shape, size).compile().memory_analysis()
        for size in (None, 50)
    ]
    assert memory[1].temp_size_in_bytes < 0.1 * memory[0].temp_size_in_bytes


@eqx.filter_jit
def carried(method, measured, x):
    return jax.vmap(lambda x: method.transport(jax.random.key(0), x, measured))(x)[..., 0]


def affine(method, measured, length):
    """The sampler without corrections as x ↦ a + B x, for a Gaussian denoiser and a linear measurement."""
    ends = carried(method, measured, jnp.eye(length + 1, length)[:, :, None])
    return np.asarray(ends[-1]), np.asarray(ends[:-1] - ends[-1:]).T


def problem(length, corrections=0):
    """A chain in units of its own, measured at three times, once with two missing; its exact posterior."""
    mean, scale = jnp.asarray([2.0]), jnp.asarray([3.0])
    measurement = Measurement(Identity(), Gaussian(0.5))
    z = np.array([[3.5], [np.nan], [-1.0], [4.0]])
    observations = Observations(z, np.array([0, 2, 3, 5]))
    noise = 9.0 * (1 - PERSISTENCE**2)
    prior, joint = trajectory_prior([0.0], [[9.0]], np.array([[PERSISTENCE]]), noise, length)
    pick = np.eye(length)[[0, 2, 3, 5]]
    wanted = conditioned(prior + 2.0, joint, pick, 0.25 * np.eye(4), z)
    method = SDA(chain(length), mean, scale, corrections=corrections)
    return method, method.measured(length, measurement, observations), wanted


@pytest.mark.usefixtures("x64")
def test_mmps_draws_from_the_exact_posterior():
    """Mean and covariance from the sampler's own linear map: no sampling noise, only steps (here 256)."""
    length = 7
    method, measured, (mean, covariance) = problem(length)
    deviations = np.sqrt(np.diag(covariance))
    errors = {}
    for name, guidance in {
        "mmps, 1 step": MMPS(1),
        "mmps, solved": MMPS(4),
        "inflated noise": InflatedNoise(),  # the published 10⁻², of values of variance 9
    }.items():
        a, b = affine(dataclasses.replace(method, guidance=guidance), measured, length)
        errors[name] = (
            np.abs((a - mean.ravel()) / deviations).max(),
            np.abs(np.sqrt(np.diag(b @ b.T)) / deviations - 1).max(),
        )
    assert max(errors["mmps, solved"]) < 0.03, errors
    assert 0.1 < max(errors["mmps, 1 step"]) < 0.4, errors
    assert max(errors["inflated noise"]) > 2 * max(errors["mmps, 1 step"]), errors


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("variance", "gamma"), [(1.0, 0.01), (0.01, 1.0)])
def test_bias_of_inflated_noise(variance, gamma):
    """One N(0, 1) state measured as 2: the sampler solves the ODE of this guidance, integrated here apart.

    With s = tan φ and y = x/cos φ the steps are those of dy/ds = ε = (y - x̂)/s - sin φ · score, where
    x̂ = y/(1 + s²) and sin φ · score = s (2 - x̂)/((variance + s² gamma)(1 + s²)).
    """
    from scipy.integrate import solve_ivp

    def slope(s, y):
        x0 = y / (1 + s**2)
        return (y - x0) / s - s * (2 - x0) / (variance + s**2 * gamma) / (1 + s**2)

    def end(y):
        return solve_ivp(slope, (1e3, 1e-3), [y * 1e3], rtol=1e-9, atol=1e-9, method="LSODA").y[0, -1]

    mean, deviation = end(0.0), end(1.0) - end(0.0)
    one = Reshaped(GaussianDenoiser(jnp.zeros(1), DenseCovariance(jnp.ones((1, 1)))), (1,))
    method = SDA(one, jnp.zeros(1), jnp.ones(1), InflatedNoise(gamma), n_steps=1000, corrections=0)
    measurement = Measurement(Identity(), Gaussian(variance**0.5))
    a, b = affine(method, method.measured(1, measurement, Observations([[2.0]], [0])), 1)
    np.testing.assert_allclose([a[0], b[0, 0]], [mean, deviation], atol=0.02)


@pytest.mark.usefixtures("x64")
def test_guided_scores_are_derivatives_of_the_widened_likelihood():
    """For every law of noise, with gaps; MMPS of a solved system is the exact likelihood's score."""
    length, angle = 3, jnp.asarray(0.9)
    rng = np.random.default_rng(0)
    x, z = jnp.asarray(rng.normal(size=(length, 1))), np.array([[0.7], [np.nan], [-0.4]])
    denoiser, spread, gamma = chain(length), np.tan(0.9) ** 2, 0.3

    def denoise(x):
        return denoiser(x, jnp.broadcast_to(angle, x.shape))

    method = SDA(denoiser, jnp.zeros(1), jnp.ones(1))
    guided = eqx.filter_jit(lambda guidance, measured: guidance(denoise, x, angle, measured))
    for operator, noise, widened in (
        (Identity(), CorrelatedGaussian([[0.25]]), Gaussian(np.sqrt(0.25 + spread * gamma))),
        (absolute(), Gaussian(0.5), Gaussian(np.sqrt(0.25 + spread * gamma))),
        (absolute(), Laplace(0.5), Laplace(np.sqrt(0.25 + spread * gamma / 2))),
    ):
        measured = method.measured(length, Measurement(operator, noise), Observations(z, np.arange(3)))
        _, score = guided(InflatedNoise(gamma), measured)

        def log_likelihood(x, law=Measurement(operator, widened)):
            x0 = denoise(x)
            return law.log_prob(jnp.asarray(z[0]), x0[0]) + law.log_prob(jnp.asarray(z[2]), x0[2])

        np.testing.assert_allclose(score, jax.jit(jax.grad(log_likelihood))(x), rtol=1e-9, atol=1e-12)

    measured = method.measured(length, Measurement(Identity(), Gaussian(0.5)), Observations(z, np.arange(3)))
    x0, score = guided(MMPS(5), measured)
    lags = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    cos, sin = np.cos(0.9), np.sin(0.9)
    prior = PERSISTENCE**lags
    joint = cos**2 * prior + sin**2 * np.eye(length)
    keep = [0, 2]
    covariance = prior - cos**2 * prior @ np.linalg.solve(joint, prior)
    law = covariance[np.ix_(keep, keep)] + 0.25 * np.eye(2)
    gain = cos * prior @ np.linalg.inv(joint)  # x̂ = gain x
    wanted = gain[keep].T @ np.linalg.solve(law, z[keep, 0] - np.asarray(x0)[keep, 0])
    np.testing.assert_allclose(score.ravel(), wanted, rtol=1e-6)


def test_draws_with_corrections_and_without_measurements(key):
    """Draws of the prior have its variance; so do those given measurements; batches change nothing."""
    method, _, (mean, covariance) = problem(6, corrections=1)
    method = dataclasses.replace(method, n_steps=32, guidance=MMPS(3), tau=jnp.asarray(0.05))
    draws = np.asarray(method.draws(key, 400, 6))
    np.testing.assert_allclose(draws.mean((0, 1)), [2.0], atol=0.4)
    np.testing.assert_allclose(draws.std((0, 1)), [3.0], rtol=0.1)
    measurement = Measurement(Identity(), Gaussian(0.5))
    observations = Observations(np.array([[3.5], [np.nan], [-1.0], [4.0]]), np.array([0, 2, 3, 5]))
    draws = np.asarray(method.draws(key, 400, 6, measurement, observations))
    deviations = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(0).ravel() - mean.ravel()) / deviations, 0.0, atol=0.3)
    np.testing.assert_allclose(draws.std(0).ravel() / deviations, 1.0, atol=0.2)
    few = method.draws(key, 6, 6, measurement, observations, at_once=4)
    np.testing.assert_allclose(few, draws[:6], atol=0.05)  # round-off, through 64 noisy evaluations


def test_a_network_trained_on_windows_learns_the_chain(key):
    """Its estimates, held against the exact ones of the same noisy windows."""
    noise = float(np.sqrt(1 - PERSISTENCE**2))
    dynamics = ModelError(Linear([[PERSISTENCE]]), noise)
    draw = eqx.filter_jit(climatological_trajectories)
    trajectories = draw(dynamics, key, 512, 16)
    assert trajectories.shape == (512, 16, 1)
    np.testing.assert_allclose(np.std(trajectories), 1.0, rtol=0.05)
    config = FitConfig(learning_rate=2e-3, steps=150, batch_size=128, ema_decay=0.98)
    network = Architecture(width=32, depth=1, noise_map=False)
    method, history = train_sda(jax.random.fold_in(key, 1), trajectories, 1, config, network)
    assert history.validation_loss[-1] < history.validation_loss[0]
    angle = jnp.full((64, 8, 1), 0.9)
    states = np.asarray(draw(dynamics, jax.random.fold_in(key, 2), 64, 8))
    noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 3), angle.shape))
    x = jnp.asarray(np.cos(angle) * states + np.sin(angle) * noise)
    learned = np.asarray(eqx.filter_jit(jax.vmap(method.denoiser))(x, angle))
    exact = np.asarray(eqx.filter_jit(jax.vmap(TrajectoryDenoiser(chain(3), 1)))(x, angle))
    naive = np.cos(angle) * np.asarray(x)  # the best estimate of each state alone
    assert np.mean((learned - exact) ** 2) < 0.15 * np.mean((naive - exact) ** 2)


def test_windows_of_rings_and_fields_are_channels():
    assert window_shape(Architecture(), (3,), 5) == (15,)
    assert window_shape(Architecture(), (40,), 3) == (3, 40)
    assert window_shape(Architecture(), (2, 16, 16), 3) == (6, 16, 16)


def test_what_it_cannot_do_it_says(key):
    method = SDA(chain(3), jnp.zeros(1), jnp.ones(1))
    measurement = Measurement(Identity(), Gaussian(1.0))
    with pytest.raises(ValueError, match="one window; got 4"):
        TrajectoryDenoiser(chain(5), 2)(jnp.zeros((4, 1)), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="state is number 3"):
        method.draws(key, 1, 3, measurement, Observations(np.zeros((3, 1)), 1))
    with pytest.raises(ValueError, match="both measurement and observations"):
        method.draws(key, 1, 3, measurement)
    with pytest.raises(ValueError, match="observations have shape"):
        method.draws(key, 1, 3, measurement, Observations(np.zeros((1, 2)), [0]))
    with pytest.raises(ValueError, match="gamma must not be negative"):
        InflatedNoise(-1.0)
    with pytest.raises(ValueError, match="tau must be positive"):
        SDA(chain(3), jnp.zeros(1), jnp.ones(1), tau=0.0)
    with pytest.raises(ValueError, match="need trajectories as long"):
        train_sda(key, jnp.zeros((4, 2, 1)), 1, FitConfig(steps=1))
    with pytest.raises(ValueError, match="never changes"):
        train_sda(key, jnp.zeros((4, 3, 1)), 1, FitConfig(steps=1))


def test_noise_levels_are_the_published_ones(dtype):
    t = jnp.linspace(0.0, 1.0, 9)
    angle = diffusion_angle(t)
    mu = np.cos(np.arccos(np.sqrt(1e-3)) * np.linspace(0.0, 1.0, 9)) ** 2
    sigma = np.sqrt(1 - mu**2 + 1e-6)
    assert angle.dtype == dtype
    np.testing.assert_allclose(jnp.tan(angle), sigma / mu, rtol=1e-3)
    np.testing.assert_allclose(jnp.sin(angle[0]), 1e-3, rtol=1e-5)


def test_trajectories_and_scales_that_do_not_suit(key):
    """Each was found in the first draw, after the training, or called a component that never changes."""
    states, config = jax.random.normal(key, (8, 6, 2)), FitConfig(steps=3, batch_size=4)
    with pytest.raises(ValueError, match="hold NaN or Inf"):
        train_sda(key, states.at[0, 0, 0].set(jnp.nan), 1, config)
    with pytest.raises(ValueError, match=r"scale must be one state of shape \(2,\); got \(\)"):
        train_sda(key, states, 1, config, mean=np.zeros(2), scale=1.0)
    prior = chain(3)
    for given, message in (
        ({"mean": [np.nan, 0.0], "scale": [1.0, 1.0]}, "mean must be finite"),
        ({"mean": [0.0, 0.0], "scale": [-1.0, 1.0]}, "scale must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            SDA(prior, **given)
    assert SDA(prior, np.asarray([5, -2]), np.asarray([3, 1])).mean.dtype == jnp.zeros(()).dtype
