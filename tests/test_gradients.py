"""Derivatives of runs are central differences, or are refused: also where eigenvalues repeat."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import assimilate, filters, masf
from masf_jax.bases import IdentityBasis
from masf_jax.coordinates import Coordinates
from masf_jax.denoisers import DenseCovariance, GaussianDenoiser, TaperedCovariance
from masf_jax.denoisers.architecture import Architecture
from masf_jax.denoisers.iterated import IteratedCovariance
from masf_jax.derivatives import NoDerivativeError, inverse_sqrt, triangular
from masf_jax.diffusion.whitened import _singular
from masf_jax.dynamics import Climatology, Function, Linear as LinearModel, Lorenz96, ModelError
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Moments, Normalization
from masf_jax.ensemble.taper import taper
from masf_jax.filters.rivals.ensf import EnSFSampler
from masf_jax.measurements import Gaussian, Identity, Linear, Measurement, Observations, Subset
from masf_jax.measurements.pointwise import arctan
from masf_jax.smoothers import SDA, FourDVar, InflatedNoise, enks, ienks, rts
from masf_jax.smoothers.guidance import MMPS
from masf_jax.smoothers.windows import Reshaped

pytestmark = pytest.mark.usefixtures("x64")
N = 6
FEW = Subset([0, 2, 3])
LOW_RANK = Linear(np.eye(N)[[0, 1, 2, 3, 4, 5] * 2], positions=np.asarray([0.0, 1, 2, 3, 4, 5] * 2))


def once(number):
    return Inflation(multiplicative=1 + 0.05 * number)


def prior(number):
    return masf.GaussianPrior(radius=2.0 * number)


def amortised(number, **settings):
    """With a network that does not begin at zero, where it would be the base filter."""
    moments = Moments(jnp.full(N, 2.0), jnp.full(N, 13.0))
    filter = filters.AmortisedMASF(
        filters.ETKF(), None, moments, architecture=Architecture(width=8, depth=1), **settings
    ).prepare(Lorenz96(n=N), Measurement(FEW, Gaussian(1.0)))
    network = jax.tree.map(lambda x: x + 0.1 if eqx.is_inexact_array(x) else x, filter.denoiser)
    return eqx.tree_at(lambda f: (f.denoiser, f.calibration), filter, (network, number))


# a filter with a number of its own, near 1; and what is measured, with fewer values than the 9 members or
# more values, of a lower rank. Models and filters are made, and prepared, of traced numbers.
FILTERS = {
    "enkf": (lambda a: filters.EnKF(once(a)), FEW),
    "etkf, low rank": (lambda a: filters.ETKF(Inflation(adaptive=True)), LOW_RANK),
    "ienkf": (lambda a: filters.IEnKF(once(a)), FEW),
    "ensrf": (lambda a: filters.EnSRF(radius=2.0 * a), FEW),
    "letkf": (lambda a: filters.LETKF(2.0 * a), FEW),
    "masf, localised": (lambda a: filters.MASF(prior(a)), Identity()),
    "amortised": (amortised, FEW),
    "ensf": (lambda a: filters.EnSF(once(a), sampler=EnSFSampler(n_steps=10)), FEW),
}
SLOW = {
    "enkf-n": (lambda a: filters.EnKFN(certainty=a), FEW),
    "masf": (lambda a: filters.MASF(inflation=once(a)), FEW),
    "kalman": (lambda a: filters.KalmanFilter(inflation=a), FEW),
    "enff": (lambda a: filters.EnFF(once(a), n_steps=10), FEW),
    "iensf": (lambda a: filters.IEnSF(once(a), n_steps=10, iterations=2), FEW),
    "enkf, low rank": (lambda a: filters.EnKF(Inflation(rtps=a / 2)), LOW_RANK),
    "etkf": (lambda a: filters.ETKF(once(a)), FEW),
    "etkf, rotation": (lambda a: filters.ETKF(once(a), rotation=True), FEW),
    "letkf, eigh": (lambda a: filters.LETKF(2.0 * a, solver="eigh"), LOW_RANK),
    "masf, low rank": (lambda a: filters.MASF(inflation=once(a)), LOW_RANK),
    "ensf-lr": (lambda a: filters.EnSFLR(ridge=1e-3 * a, sampler=EnSFSampler(n_steps=10)), FEW),
    "enkf-n, low rank": (lambda a: filters.EnKFN(certainty=a), LOW_RANK),
    "ienkf, low rank": (lambda a: filters.IEnKF(once(a)), LOW_RANK),
    "amortised, steps": (lambda a: amortised(a, n_steps=3), FEW),
    "masf, one value": (lambda a: filters.MASF(normalization=Normalization("raw")), LOW_RANK),
    "masf, steps": (lambda a: filters.MASF(sampler=masf.Bridge(n_steps=3), inflation=once(a)), FEW),
    "masf, linearized": (lambda a: filters.MASF(prior(a), route=masf.Linearized("mean")), arctan(0.3)),
    "masf, aware": (lambda a: filters.MASF(process=masf.MeasurementAware(), inflation=once(a)), Identity()),
    "masf, guided": (lambda a: filters.MASF(sampler=masf.Guided(n_steps=20), inflation=once(a)), FEW),
    "enff, f2p": (lambda a: filters.EnFF(once(a), path="f2p"), FEW),
    "iensf, ensemble": (lambda a: filters.IEnSF(once(a), prior="ensemble", n_steps=10), FEW),
}


def problem(operator, n_cycles=3, n=N, steps=1, n_members=9):
    rng = np.random.default_rng(1)
    start = 3 + 3 * rng.normal(size=n)
    members = jnp.asarray(start + rng.normal(size=(n_members, n)))
    with jax.ensure_compile_time_eval():
        exact = np.asarray(operator(jnp.asarray(start)))
    return Observations(exact + 0.8 * rng.normal(size=(n_cycles, *exact.shape)), steps), members


def forced(forcing, n=N):
    return eqx.tree_at(lambda m: m.forcing, Lorenz96(n=n), forcing)


def loss_of(make, operator, prepared=None, n=N, steps=1, **settings):
    """Of (forcing, the noise's std, the filter's number)."""
    seen, members = problem(operator, n=n, steps=steps)

    def loss(numbers):
        forcing, std, number = numbers
        filter = make(number) if prepared is None else prepared
        model, sensor = forced(forcing, n), Measurement(operator, Gaussian(std))
        run = assimilate(
            jax.random.key(3), filter, model, sensor, seen, members, scores=(), save=("mean",), **settings
        )
        return (run.analysis["mean"] ** 2).sum()

    return loss


def check(loss, at=(7.0, 0.9, 1.0), rel=1e-5, h=1e-5, along=(1.0, -0.7, 0.4)):
    """By one program: the gradient, and values on both sides, along one direction through all numbers."""
    at, along = jnp.asarray(at), jnp.asarray(along)
    points = at[None] + h * jnp.asarray([0.0, 1.0, -1.0])[:, None] * along[None]
    values, slopes = jax.jit(lambda points: jax.lax.map(jax.value_and_grad(loss), points))(points)
    assert np.isfinite(slopes).all()
    assert float(slopes[0] @ along) == pytest.approx(float(values[1] - values[2]) / (2 * h), rel=rel)


@pytest.mark.parametrize("name", often(FILTERS, ("letkf",)))
def test_through_a_run(name):
    """Often one; repeated eigenvalues are in test_of_a_root_…, low ranks in test_of_a_triangle_…."""
    check(loss_of(*FILTERS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", often(FILTERS | SLOW, ("ienkf",)))
def test_of_runs_side_by_side(name):
    """Two under `vmap`, where a `cond` is both of its branches: the slopes are those of each alone."""
    loss = loss_of(*(FILTERS | SLOW)[name])
    points = jnp.asarray([[7.0, 0.9, 1.0], [8.0, 1.0, 1.2]])
    together = jax.jit(jax.grad(lambda points: jax.vmap(loss)(points).sum()))(points)
    alone = jax.jit(lambda points: jax.lax.map(jax.grad(loss), points))(points)
    assert np.abs(alone).max() > 0
    np.testing.assert_allclose(together, alone, rtol=1e-7, atol=1e-9)


RELAXED = {"letkf, relaxed": (lambda a: filters.LETKF(2.0, Inflation(rtps=a / 2)), FEW)}


@pytest.mark.slow
@pytest.mark.parametrize("name", often({**RELAXED, **FILTERS, **SLOW}, ("letkf, relaxed",)))
def test_where_a_component_has_no_spread(name):
    """All members agree on it, so no square root of its variance has a slope."""
    make, operator = (RELAXED | FILTERS | SLOW)[name]
    seen, members = problem(operator, n_cycles=2)
    members = members.at[:, 2].set(2.0)
    moves = (np.arange(N) != 2).astype(float)

    def moved(w, x):
        return x + w * moves * jnp.tanh(x)

    def loss(numbers):
        step = functools.partial(moved, numbers[0])
        model = Function(step, (N,), coordinates=Lorenz96(N).coordinates)
        given = make(numbers[1]), model, Measurement(operator, Gaussian(0.9)), seen, members
        run = assimilate(jax.random.key(3), *given, scores=(), save=("mean",))
        return (run.analysis["mean"] ** 2).sum()

    # features where there is no spread are round-off over next to nothing
    check(loss, at=(0.05, 1.0), along=(1.0, 0.4), h=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_through_a_run_of_others(name):
    check(loss_of(*SLOW[name]))


def test_through_a_baseline_prepared_beforehand():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(N, N))
    known = filters.ThreeDVar(moments=Climatology(jnp.full(N, 2.0), jnp.asarray(spread @ spread.T)))
    check(loss_of(lambda a: eqx.tree_at(lambda f: f.scale, known, 0.1 * a), FEW))


@pytest.mark.slow
def test_through_forecasts_of_irregular_lengths_in_forward_mode_too():
    make = SLOW["etkf"]
    loss, at = loss_of(*make, steps=[1, 3, 4]), jnp.asarray([7.0, 0.9, 1.0])
    check(loss)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(loss))(at), jax.jit(jax.grad(loss))(at), rtol=1e-10)


ENSEMBLE_SMOOTHERS = {
    "enks": lambda a: filters.ETKF(once(a)),
    "enks, letkf": lambda a: filters.LETKF(2.0 * a),
    "enks, ensrf": lambda a: filters.EnSRF(radius=2.0 * a),
    "ienks": lambda a: filters.IEnKF(once(a)),
    "ienks, local": lambda a: filters.IEnKF(radius=2.0 * a),
}


def smoothed(name, seen, members, numbers):
    """With checkpoints, so that a gradient that is the difference is right with them, too."""
    forcing, std, number = numbers
    model, sensor, key = forced(forcing), Measurement(FEW, Gaussian(std)), jax.random.key(3)
    if name == "4d-var":
        search = FourDVar(std=number, tolerance=1e-9, iterations=200)
        return (search(members[0], model, sensor, seen).trajectory ** 2).sum()
    given = {"scores": (), "checkpoint": True}
    if name == "rts":
        some = ModelError(
            model, jnp.asarray([0.0, 0.2, 0.3] * 2)
        )  # and 4 members of 6: roots without inverses
        found = rts(filters.KalmanFilter(inflation=1.1 * number), some, sensor, seen, members[:4], **given)
        return (found.smoothed["mean"] ** 2 + found.smoothed["spread"] ** 2).sum()
    filter = ENSEMBLE_SMOOTHERS[name](number)
    run = enks if name.startswith("enks") else ienks
    found = run(key, filter, model, sensor, seen, members, lag=1 if "local" in name else 2, **given)
    return (found.smoothed["mean"] ** 2).sum()


SMOOTHERS = "4d-var", "rts", *ENSEMBLE_SMOOTHERS


@pytest.mark.parametrize("name", often(SMOOTHERS, ("rts",)))
def test_through_smoothers(name):
    given = problem(FEW, steps=[1, 3, 4] if name == "rts" else 2)
    check(lambda numbers: smoothed(name, *given, numbers))


@pytest.mark.slow
@pytest.mark.parametrize(
    "guidance",
    [InflatedNoise, pytest.param(lambda gamma: MMPS(2), marks=pytest.mark.slow)],
    ids=["inflated noise", "mmps"],
)
def test_through_draws_of_a_trajectory(guidance):
    """By the prior's variance, the noise's standard deviation, and a number of the guidance."""
    lags = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    seen = Observations(np.asarray([[1.0], [-0.5]]), [0, 2])

    def loss(numbers):
        variance, std, gamma = numbers
        prior = GaussianDenoiser(jnp.zeros(3), DenseCovariance(variance * jnp.asarray(0.8**lags)))
        sda = SDA(Reshaped(prior, (3,)), jnp.zeros(1), 2 * jnp.ones(1), guidance(gamma), 6, tau=0.25)
        sensor = Measurement(arctan(0.5), Gaussian(std))
        return (sda.draws(jax.random.key(0), 2, 3, sensor, seen) ** 2).sum()

    check(loss, at=(1.0, 0.5, 0.5), h=1e-4)  # round-off of noise levels near 0 and π/2 drowns smaller steps


@pytest.mark.slow  # assimilate's blocks are tested below, often
@pytest.mark.parametrize("name", ["rts", "enks"])
def test_truncated_smoothers_know_blocks_of_cycles(name):
    """∂ smoothed mean k / ∂ value j is zero between blocks, within them as it is of runs of a block alone."""
    seen, members = problem(FEW, 4)
    model, sensor = Lorenz96(n=N), Measurement(FEW, Gaussian(1.0))

    def means(values):
        given = Observations(values, 1), members
        if name == "rts":
            run = rts(filters.KalmanFilter(), model, sensor, *given, scores=(), truncate=2)
            return run.smoothed["mean"]
        run = enks(jax.random.key(0), filters.ETKF(), model, sensor, *given, scores=(), truncate=2)
        return run.analysis["mean"]

    slopes = jnp.abs(jax.jit(jax.jacrev(means))(seen.values)).sum((1, 3))
    first, second = slopes[:2, :2], slopes[2:, 2:]
    assert (slopes[:2, 2:] == 0).all()
    assert (slopes[2:, :2] == 0).all()
    assert min(first[1, 0], second[1, 0]) > 0
    assert name != "rts" or min(first[0, 1], second[0, 1]) > 0


@pytest.mark.slow
def test_through_conjugate_gradients_of_a_large_state(monkeypatch):
    """With sums that end at round-off: of ones that end before, the difference is not known as well."""
    monkeypatch.setattr(IteratedCovariance, "_within", lambda self, b, ratio: (jnp.asarray(1e-13), 1000))
    check(loss_of(FILTERS["masf, localised"][0], Subset(range(0, 520, 2)), n=520))


@pytest.mark.slow
def test_of_conjugate_gradients():
    """Those of a covariance that is never formed are those of its matrix."""
    rng = np.random.default_rng(0)
    of = taper(Coordinates.grid((N,), (float(N),)), (N,), 1.5)
    weights = of.matrix()
    columns, y, ratio = (jnp.asarray(rng.normal(size=size)) for size in ((4, N), N, N))

    def iterated(numbers):
        covariance = TaperedCovariance(columns * numbers[0], of, IdentityBasis())
        sin = jnp.ones(N)
        solved = covariance.regress(y, ratio * numbers[1], sin) ** 2
        return (solved + jnp.sin(covariance.transport(y, ratio * numbers[1], sin))).sum()

    def formed(numbers):
        c = columns * numbers[0]
        p, r = (c.T @ c) * weights, jnp.diag(ratio * numbers[1])
        root = jnp.linalg.cholesky(p)
        moved = root @ inverse_sqrt(jnp.eye(N) + root.T @ r @ r @ root) @ jnp.linalg.solve(root, y)
        return ((p @ r @ jnp.linalg.solve(jnp.eye(N) + r @ p @ r, y)) ** 2 + jnp.sin(moved)).sum()

    at = jnp.asarray([0.8, 1.2])
    for mode in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(mode(iterated))(at), jax.jit(mode(formed))(at), rtol=2e-4)


REFUSED = {
    "features": (lambda a: filters.AmortisedMASF(filters.ETKF(once(a))), "a climatology that is sampled"),
    "picks": (lambda a: filters.MASF(masf.KernelPrior(), inflation=once(a)), "picked at random"),
    "draws": (lambda a: filters.MASF(route=masf.ConditionalKernel()), "picked at random"),
    "trains": (lambda a: filters.SSLS(once(a)), "training has no derivative"),
    "climatology": (lambda a: filters.ThreeDVar(a), "Prepare the filter with a known model"),
    "units": (lambda a: filters.MASF(normalization=Normalization("fixed")), "a climatology that is sampled"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_derivative_says_so(name):
    make, why = REFUSED[name]
    for mode in (jax.grad, jax.jacfwd):
        with pytest.raises(NoDerivativeError, match=why):
            jax.eval_shape(mode(loss_of(make, FEW)), jnp.asarray([7.0, 0.9, 1.0]))


@pytest.mark.slow
def test_what_is_prepared_of_a_known_model_is_the_same_inside_a_program():
    sensor = Measurement(FEW, Gaussian(1.0))
    filter = filters.MASF(normalization=Normalization("fixed"), climatology=10)
    model = Lorenz96(n=N)
    inside = jax.jit(lambda: filter.prepare(model, sensor).normalization.moments)()
    np.testing.assert_array_equal(filter.prepare(model, sensor).normalization.moments.mean, inside.mean)


@pytest.mark.slow
def test_of_particles_are_those_of_expectations():
    """Resampled twice: without what goes on through the weights it would be far off."""
    members = jnp.asarray(np.random.default_rng(0).normal(size=(50, 1)))
    seen = Observations(np.asarray([[2.0], [1.0]]), 1)
    filter = filters.ParticleFilter(threshold=1.0, regularization=0.0)
    model = ModelError(LinearModel(0.9 * jnp.eye(1)), 0.5)

    def final(std, key):
        sensor = Measurement(Identity(), Gaussian(std))
        run = assimilate(key, filter, model, sensor, seen, members, scores=(), save=("mean",))
        return run.analysis["mean"][-1, 0]

    keys, stds = jax.random.split(jax.random.key(0), 4000), jnp.asarray([0.8, 0.85, 0.75])
    found = jax.jit(lambda std: jax.vmap(jax.value_and_grad(final), (None, 0))(std, keys))
    (_, slopes), (above, _), (below, _) = map(np.asarray, found(stds[0])), found(stds[1]), found(stds[2])
    change = (above - below) / 0.1
    error = np.hypot(slopes.std(), change.std()) / len(keys) ** 0.5
    assert slopes.mean() == pytest.approx(change.mean(), abs=4 * error)
    assert abs(change.mean()) > 10 * error


class TestLongRuns:
    @pytest.fixture
    def at(self):
        return jnp.asarray(7.0)

    def loss(self, n_cycles, **settings):
        seen, members = problem(FEW, n_cycles)
        sensor = Measurement(FEW, Gaussian(1.0))

        def loss(forcing, start=None, z=seen):
            kept = settings | ({"ensemble": members} if start is None else {"start": start})
            key, model = None if start else jax.random.key(0), forced(forcing)
            run = assimilate(key, filters.ETKF(), model, sensor, z, scores=(), save=("mean",), **kept)
            return (run.analysis["mean"] ** 2).sum(), run.end

        return loss, seen

    @pytest.mark.slow
    @pytest.mark.parametrize("n_cycles", [4, 5])
    def test_checkpoints_change_nothing_but_memory(self, at, n_cycles):
        plain, kept = (
            jax.jit(jax.value_and_grad(self.loss(n_cycles, checkpoint=which)[0], has_aux=True))(at)
            for which in (False, True)
        )
        np.testing.assert_array_equal(plain[0][0], kept[0][0])
        np.testing.assert_array_equal(plain[0][1].state.ensemble, kept[0][1].state.ensemble)
        assert float(kept[1]) == pytest.approx(float(plain[1]), rel=1e-12)

    @pytest.mark.slow
    def test_memory_grows_as_the_root_of_the_cycles(self, at):
        def held(n_cycles):
            slope = jax.grad(lambda c: self.loss(n_cycles, checkpoint=True)[0](c)[0])
            return jax.jit(slope).lower(at).compile().memory_analysis().temp_size_in_bytes

        assert held(400) < 4 * held(25)

    @pytest.mark.slow
    def test_truncated_after_every_cycle_is_the_sum_over_runs_of_one(self, at):
        loss, seen = self.loss(3, truncate=1)
        slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, end), total = slope(at, None, Observations(seen.values[:1], 1))
        for k in (1, 2):
            (_, end), more = slope(at, end, Observations(seen.values[k : k + 1], 1))
            total = total + more
        whole, full = (jax.jit(jax.grad(lambda c, f=f: f(c)[0]))(at) for f in (loss, self.loss(3)[0]))
        assert float(whole) == pytest.approx(float(total), rel=1e-10)
        assert abs(float(whole) - float(full)) > 0.01 * abs(float(full))

    @pytest.mark.slow
    def test_truncated_after_all_cycles_is_not_truncated(self, at):
        slopes = [jax.jit(jax.grad(lambda c, k=k: self.loss(3, truncate=k)[0](c)[0]))(at) for k in (None, 3)]
        assert float(slopes[1]) == pytest.approx(float(slopes[0]), rel=1e-12)

    def test_what_goes_to_the_host_is_refused_inside_a_program(self, at):
        with pytest.raises(ValueError, match="checkpoint=True"):
            jax.eval_shape(lambda c: self.loss(3, chunk=2)[0](c)[0], at)
        with pytest.raises(ValueError, match="truncate must be at least 1; got 0"):
            self.loss(3, truncate=0)[0](at)


def test_of_a_root_with_repeated_eigenvalues():
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    matrix, change = (vectors * [1, 1, 1, 4, 4]) @ vectors.T, rng.normal(size=(5, 5))
    change = change + change.T
    tangent = jax.jvp(inverse_sqrt, (jnp.asarray(matrix),), (jnp.asarray(change),))[1]
    h = 1e-5
    moved = (np.asarray(inverse_sqrt(jnp.asarray(matrix + sign * h * change))) for sign in (1, -1))
    np.testing.assert_allclose(tangent, np.subtract(*moved) / (2 * h), atol=1e-8)


@pytest.mark.slow
def test_of_a_triangle_of_any_rank():
    """What hangs on RᵀR, at a matrix with a column of zeros; second derivatives where there is none."""
    rng = np.random.default_rng(0)
    matrix, change = rng.normal(size=(5, 3)), jnp.asarray(rng.normal(size=(5, 3)))

    def by(root, t, zero=1.0):
        r = root(jnp.asarray(matrix * [1, zero, 1]) + t * change)
        return jnp.sin(r.T @ r).sum()

    for zero in (0.0, 1.0):
        found, wanted = (jax.grad(lambda t, f=f: by(f, t, zero))(0.0) for f in (triangular, lambda a: a))  # noqa: B023
        assert float(found) == pytest.approx(float(wanted), rel=1e-10)
    found, wanted = (jax.hessian(lambda t, f=f: by(f, t))(0.0) for f in (triangular, lambda a: a))
    assert float(found) == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.slow
def test_of_singular_values_that_part():
    """The pseudo-inverse's part of G = U S Vᵀ, at equal singular values that the change makes differ."""
    rng = np.random.default_rng(0)
    g = np.concatenate([np.eye(4)[:3]] * 2)
    change = jnp.asarray(np.where(g.any(0), rng.normal(size=g.shape), 0.0))
    z = jnp.asarray(rng.normal(size=6))

    def shrunk(t):
        v, s, y = _singular(jnp.asarray(g) + t * change, z)
        return v @ (s / (1 + s**2) * y)

    h = 1e-5
    expected = (shrunk(h) - shrunk(-h)) / (2 * h)
    np.testing.assert_allclose(jax.jvp(shrunk, (0.0,), (1.0,))[1], expected, atol=1e-7)
