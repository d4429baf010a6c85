"""The bridge with a kernel denoiser against importance sampling: forecasts in two groups."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suite.posteriors import bimodal_problem, bridge_draws, importance_sample, process_of, wasserstein

from masf_jax.denoisers import DenseCovariance, GaussianDenoiser, ensemble_kernel
from masf_jax.diffusion import bridge, measurement_aware, time_grid, vp_bridge
from masf_jax.measurements import Gaussian, Identity, Measurement

COUNT = 14_000
made, fitted = eqx.filter_jit(vp_bridge), eqx.filter_jit(ensemble_kernel)


@pytest.mark.quick_cases("1")
@pytest.mark.parametrize("n", [1, 2])
def test_kernel_forecasts_match_importance_sampling(n, key):
    """W2 to the reference is that between two references; plain steps come near only with many of them.

    The kernels are axis-aligned in the process's coordinates, and so carried to the state for the reference.
    """
    ensemble, h, r, z = bimodal_problem(n)
    process = process_of(h, r, z, ensemble.mean(0), ensemble.std(0))
    encode = eqx.filter_jit(lambda frame, x: jax.vmap(frame.encode)(x))
    denoiser = fitted(encode(process.frame, jnp.asarray(ensemble, dtype=float)), 0.3)
    kernels, bandwidth = (np.asarray(a, np.float64) for a in (denoiser.members, denoiser.bandwidth))

    def reference(seed):
        rng = np.random.default_rng(seed)
        return importance_sample(rng, process, kernels, bandwidth, h, r, z, COUNT, proposals=100_000)

    first, second = reference(1), reference(2)
    noise = wasserstein(first, second)
    assert 0.2 < (first[:, 0] < 0).mean() < 0.8  # both modes live on
    for n_steps in (1, 3):
        assert wasserstein(bridge_draws(key, process, denoiser, n_steps, COUNT), first) < 2 * noise + 0.01
    plain = bridge_draws(key, process, denoiser, 3, COUNT, corrected=False)
    assert wasserstein(plain, first) > 5 * noise


@pytest.mark.slow
def test_processes_have_one_posterior(key):
    """Bimodal forecast, H = identity: the measurement-aware and the VP bridge draw alike."""
    ensemble, _, r, z = bimodal_problem(1)
    measurement = Measurement(Identity(), Gaussian(float(np.sqrt(r[0, 0]))))
    samples = []
    for build in (vp_bridge, measurement_aware):
        process = eqx.filter_jit(build)(
            measurement, jnp.asarray(z, dtype=float), jnp.ones(1, bool), jnp.zeros(1), jnp.ones(1)
        )
        denoiser = fitted(jnp.asarray(ensemble, dtype=float), 0.3)
        draw = jax.jit(jax.vmap(lambda k, p=process, d=denoiser: bridge(k, p, d, time_grid(2))))
        samples.append(np.asarray(draw(jax.random.split(key, COUNT)), np.float64))
    assert wasserstein(*samples) < 0.03


@pytest.mark.parametrize("kind", ["uniform", "quadratic", "log_snr"])
def test_every_time_grid_will_do(kind, key):
    """Corrected steps are exact on any grid: moments of the scalar posterior N(1, ½)."""
    process = made(
        Measurement(Identity(), Gaussian(1.0)),
        jnp.asarray([2.0]),
        jnp.ones(1, bool),
        jnp.zeros(1),
        jnp.ones(1),
    )
    denoiser = GaussianDenoiser(jnp.zeros(1), DenseCovariance(jnp.eye(1)))
    draw = jax.jit(jax.vmap(lambda k: bridge(k, process, denoiser, time_grid(4, kind))[0]))
    sample = np.asarray(draw(jax.random.split(key, COUNT)), np.float64)
    assert sample.mean() == pytest.approx(1, abs=4 * np.sqrt(0.5 / COUNT))
    assert sample.std() == pytest.approx(np.sqrt(0.5), rel=4 / np.sqrt(2 * COUNT))


@pytest.mark.parametrize("n_steps", [1, 4])
def test_members_are_moved_by_the_first_step_alone(n_steps, key):
    """Members drawn from the forecast N(0, 1), z = 2, noise 1: N(1, ½), and each keeps to its member."""
    process = made(
        Measurement(Identity(), Gaussian(1.0)),
        jnp.asarray([2.0]),
        jnp.ones(1, bool),
        jnp.zeros(1),
        jnp.ones(1),
    )
    denoiser = GaussianDenoiser(jnp.zeros(1), DenseCovariance(jnp.eye(1)), members="perturbed")
    members = jax.random.normal(jax.random.fold_in(key, 1), (COUNT, 1))

    def moved(key, member):
        own = denoiser.for_member(member)
        return bridge(key, process, denoiser, time_grid(n_steps), first=own)[0]

    sample = np.asarray(jax.jit(jax.vmap(moved))(jax.random.split(key, COUNT), members), np.float64)
    assert sample.mean() == pytest.approx(1, abs=4 * np.sqrt(0.5 / COUNT))
    assert sample.std() == pytest.approx(np.sqrt(0.5), rel=4 / np.sqrt(2 * COUNT))
    correlation = np.corrcoef(sample, np.asarray(members)[:, 0])[0, 1]
    if n_steps == 1:
        assert correlation == pytest.approx(np.sqrt(0.5), abs=0.02)  # x = x0'/2 + noise of variance ¼
    else:
        assert 0.1 < correlation < np.sqrt(0.5)


@pytest.mark.parametrize("moved", [False, True])
def test_the_path_leads_from_the_measurement_to_the_draw(moved, key):
    measurement, mask = Measurement(Identity(), Gaussian(1.0)), jnp.asarray([True, False])
    process = made(measurement, jnp.asarray([2.0, 0.0]), mask, jnp.zeros(2), jnp.ones(2))
    denoiser = GaussianDenoiser(jnp.zeros(2), DenseCovariance(jnp.eye(2)), members="perturbed")
    first = denoiser.for_member(jnp.ones(2)) if moved else None

    @partial(jax.jit, static_argnums=0)
    def run(path):
        return bridge(key, process, denoiser, time_grid(4), first=first, path=path)

    path = run(True)
    assert path.shape == (5, 2)
    path = np.asarray(path)
    np.testing.assert_array_equal(path[0, 0], np.asarray(process.measured)[0])
    np.testing.assert_array_equal(path[-1], run(False))
    assert len(np.unique(path)) == path.size


def test_one_program_for_all_numbers(key):
    """z, mask, noise and members change; under jit and vmap the bridge is traced once."""
    traces = []

    @jax.jit
    def analysis(key, ensemble, measurement, z, mask):
        traces.append(None)
        process = vp_bridge(measurement, z, mask, ensemble.mean(0), jnp.ones(()))
        denoiser = ensemble_kernel(jax.vmap(process.frame.encode)(ensemble))

        def one(key):
            return process.frame.decode(bridge(key, process, denoiser, time_grid(2)))

        return jax.vmap(one)(jax.random.split(key, ensemble.shape[0]))

    seen = []
    for i in range(3):
        ensemble = jax.random.normal(jax.random.key(i), (6, 4)) * (1 + i)
        measurement = Measurement(Identity(), Gaussian(0.5 + i))
        seen.append(analysis(key, ensemble, measurement, jnp.full(4, 1.0 * i), jnp.arange(4) != i))
        assert np.isfinite(np.asarray(seen[-1])).all()
    assert len(traces) == 1
    assert np.abs(np.asarray(seen[0]) - seen[1]).max() > 0.1
