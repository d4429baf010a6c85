"""Kolmogorov flow: exact solutions, conservation, order of the steppers, a peer, precision, the filters."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import assimilate
from masf_jax.dynamics import Kolmogorov, cfl_violations, check_cfl, spectral as eager
from masf_jax.filters import LETKF
from masf_jax.measurements import Gaussian, Measurement, Observations, Subset, grid_stride

STEPPERS = ["etdrk4", "etdrk2", "cnab2", "rkcn"]
ORDERS = {"etdrk4": 4, "etdrk2": 2, "cnab2": 2, "rkcn": 2}
_FIELDS = (eager.vorticity, eager.divergence, eager.stream_function, eager.velocity_from_vorticity)
_NUMBERS = (eager.energy, eager.enstrophy, eager.energy_spectrum, eager.enstrophy_spectrum)
spectral = SimpleNamespace(**{f.__name__: eqx.filter_jit(f) for f in (*_FIELDS, *_NUMBERS)})
budget = eqx.filter_jit(Kolmogorov.energy_budget)


@eqx.filter_jit
def initial(model, key):
    """One initial state, or one for each key."""
    return jax.vmap(model.initial_state)(key) if key.ndim else model.initial_state(key)


def run(model, x, n=1, key=None):
    @eqx.filter_jit
    def go(model, x):
        return jax.lax.fori_loop(0, n, lambda i, x: model(x, jnp.zeros((), jnp.float32), key), x)

    return go(model, x)


def points(model):
    """y (ny, 1) and x (1, nx)."""
    (ny, nx), (dy, dx) = model.grid.shape, model.grid.spacing
    return dy * np.arange(ny)[:, None], dx * np.arange(nx)[None, :]


def flow(u, v, model):
    return jnp.asarray(np.stack([np.broadcast_to(c, model.grid.shape) for c in (u, v)]), dtype=float)


BOXES = [((32, 32), 2 * np.pi), ((48, 32), (3.0, 5.0))]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("stepper", "shape", "length"), [(s, *BOXES[0]) for s in STEPPERS] + [("etdrk4", *BOXES[1])]
)
def test_laminar_flow_is_a_fixed_point_and_its_deviations_decay(stepper, shape, length):
    model = Kolmogorov(shape, reynolds=50.0, length=length, forcing=0.7, stepper=stepper, n_inner=16)
    kappa = 2 * np.pi * 4 / model.length[0]
    rate = 0.02 * kappa**2 + 0.1
    shape_of_y = np.sin(kappa * points(model)[0])
    laminar = 0.7 * shape_of_y / rate
    kept = run(model, flow(laminar, 0.0, model), 5)
    np.testing.assert_allclose(kept, flow(laminar, 0.0, model), atol=3e-14 * laminar.max())
    # an amplitude that is off comes back at the linear rate: exactly for exponential steppers
    away = run(model, flow(laminar + 0.1 * shape_of_y, 0.0, model), 5)
    deviation = 0.1 * np.exp(-rate * 5 * 0.2) * shape_of_y
    tolerance = 1e-13 if stepper.startswith("etd") else 5e-3 * np.abs(deviation).max()
    np.testing.assert_allclose(away[0] - laminar, deviation + 0 * away[0], atol=tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "length"), BOXES)
def test_taylor_green_vortices_decay_exactly(shape, length):
    model = Kolmogorov(shape, reynolds=20.0, length=length, forcing=0.0)
    y, x = points(model)
    l, k = 2 * 2 * np.pi / model.length[0], 2 * np.pi / model.length[1]
    u, v = l * np.cos(k * x) * np.sin(l * y), -k * np.sin(k * x) * np.cos(l * y)
    start = flow(u, v, model)
    end = run(model, start, 10)
    np.testing.assert_allclose(end, start * np.exp(-((k**2 + l**2) / 20 + 0.1) * 2.0), atol=1e-12)


@pytest.mark.quick_cases("etdrk2")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stepper", STEPPERS)
def test_steppers_converge_at_their_order_and_conserve_energy_and_enstrophy_to_it(stepper, key):
    """Inviscid and unforced: the two-thirds rule leaves the stepper as the only source of error."""

    def model(n, **keys):
        return Kolmogorov(24, np.inf, drag=0.0, forcing=0.0, n_inner=n, stepper=stepper, **keys)

    x0 = initial(model(1, initial_waves=2.0, initial_speed=1.0), key)
    exact = run(Kolmogorov(24, np.inf, 0.2, drag=0.0, forcing=0.0, n_inner=100), x0, 2)
    errors, drifts = [], []
    for n in (8, 16, 32):
        x = run(model(n), x0, 2)
        errors.append(float(np.abs(np.asarray(x) - np.asarray(exact)).max()))
        ratios = [float(f(x)) / float(f(x0)) for f in (spectral.energy, spectral.enstrophy)]
        drifts.append(np.abs(np.asarray(ratios) - 1))
    order = 4 if stepper == "rkcn" else ORDERS[stepper]  # rkcn: fourth without a linear part
    assert np.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.35), errors
    assert (drifts[2] < {2: 1e-5, 4: 1e-10}[order]).all(), drifts
    assert (drifts[2] < drifts[0] * 4.0 ** (0.75 - order) + 1e-12).all(), drifts


@pytest.mark.quick_cases("cnab2")
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stepper", STEPPERS)
def test_order_with_viscosity_drag_and_forcing(stepper, key):
    keys = {"reynolds": 40.0, "forcing": 2.0, "drag": 1.0, "dt": 0.4}
    x0 = initial(Kolmogorov(24, initial_waves=2.0, initial_speed=1.0), key)
    exact = np.asarray(run(Kolmogorov(24, **keys, n_inner=150), x0))
    errors = [
        np.abs(np.asarray(run(Kolmogorov(24, **keys, n_inner=n, stepper=stepper), x0)) - exact).max()
        for n in (12, 24)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[stepper], abs=0.35), errors


@pytest.mark.usefixtures("x64")
def test_right_hand_side_is_the_textbook_one(key):
    """dω/dt = -u·∇ω + ν∇²ω - μω - κA cos κy, taken by finite differences in time, on an oblong box."""
    model = Kolmogorov((48, 40), 30.0, 1e-4, length=(4.0, 7.0), drag=0.3, forcing=1.3, n_inner=1)
    x = initial(Kolmogorov((48, 40), length=(4.0, 7.0), initial_waves=2.0), key)
    # keep 1/4 of the modes, so that products are exact on the grid
    my, mx = model.grid.waves
    few = (np.abs(my) < 12) & (mx < 10)
    moved = np.asarray(x) + np.asarray([0.5, -0.3])[:, None, None]
    x = jnp.asarray(np.fft.irfft2(few * np.fft.rfft2(moved), x.shape[1:]))

    def w(x):
        return np.asarray(spectral.vorticity(x, model.length))

    found = (w(run(model, x)) - w(x)) / 1e-4
    ky, kx = model.grid.derivative

    def grad(f):
        return [np.fft.irfft2(1j * k * np.fft.rfft2(f), f.shape) for k in (ky, kx)]

    w_y, w_x = grad(w(x))
    w_yy, w_xx = grad(w_y)[0], grad(w_x)[1]
    kappa = 2 * np.pi * 4 / 4.0
    y = points(model)[0]
    force = -kappa * 1.3 * np.cos(kappa * y)
    expected = -x[0] * w_x - x[1] * w_y + (w_xx + w_yy) / 30 - 0.3 * w(x) + force
    retained = eager.two_thirds_filter(model.grid)
    expected = np.fft.irfft2(retained * np.fft.rfft2(expected), expected.shape)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_mean_flow_carries_the_vortices_and_decays_by_drag(key):
    model = Kolmogorov((32, 48), 100.0, 0.2, length=(4.0, 6.0), drag=0.0, forcing=0.0, n_inner=40)
    x0 = initial(Kolmogorov((32, 48), length=(4.0, 6.0), initial_waves=2.0, initial_speed=1.0), key)
    wind = np.asarray([0.125 / 0.2, -0.25 / 0.2])[:, None, None]  # one point in x, two in y per transition
    blown = jnp.asarray(x0 + wind)
    moved = run(model, blown, 2) - wind
    np.testing.assert_allclose(moved, np.roll(run(model, x0, 2), (-4, 2), (1, 2)), atol=1e-6)
    dragged = np.asarray(run(Kolmogorov((32, 48), length=(4.0, 6.0), n_inner=15), blown, 5))
    np.testing.assert_allclose(dragged.mean((1, 2)), wind[:, 0, 0] * np.exp(-0.1), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_agrees_with_exponax(key):
    """Peer, same equation. Its vorticity is ∂u/∂y - ∂v/∂x, its first axis x: signs and axes are swapped."""
    exponax = pytest.importorskip("exponax")
    model = Kolmogorov(48, reynolds=25.0, n_inner=20)
    x0 = initial(model, key)
    x0 = run(model, x0, 5)  # resolved: the two dealias in different ways
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):

        @jax.jit
        def repeated(w):
            peer = exponax.stepper.KolmogorovFlowVorticity(
                2, 2 * np.pi, 48, 0.01, diffusivity=1 / 25, drag=-0.1, injection_scale=-1.0, order=4
            )
            return exponax.repeat(peer, 100)(w)

        w = np.asarray(repeated(-np.asarray(spectral.vorticity(x0)).T[None]))
    ours = spectral.vorticity(run(model, x0, 5))
    np.testing.assert_allclose(ours, -w[0].T, atol=1e-10)


@pytest.mark.parametrize("dealias", often(["two_thirds", "exponential"], ["exponential"]))
def test_stays_stable_and_divergence_free_at_the_paper_setup(dealias, key):
    """64², Re = 1000: 200 transitions of two members in single precision."""
    model = Kolmogorov(64, dealias=dealias)
    x = initial(model, jax.random.split(key, 2))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1).max((1, 2)), 3.0, rtol=1e-5)
    x = eqx.filter_jit(
        lambda x: jax.lax.fori_loop(0, 200, lambda i, x: jax.vmap(model.mean_step, (0, None))(x, 0.0), x)
    )(x)
    energies = np.asarray(jax.jit(jax.vmap(spectral.energy))(x))
    assert ((energies > 0.2) & (energies < 4)).all(), energies
    assert not bool(cfl_violations(model, x).any())
    check_cfl(model, x)
    fields = spectral.vorticity, spectral.divergence, lambda x: spectral.energy_spectrum(x)[1]
    for found in zip(*jax.jit(jax.vmap(lambda x: [f(x) for f in fields]))(x), strict=True):
        vorticity, divergence, e = map(np.asarray, found)
        assert np.abs(divergence).max() < 1e-5 * np.abs(vorticity).max()
        assert e[20] < 0.5 * e[10]  # viscosity wins at the cut-off: no pile-up of energy there


@pytest.mark.slow
def test_members_together_equal_members_alone(key):
    model = Kolmogorov(32, n_inner=5)
    x = initial(model, jax.random.split(key, 3))
    step = eqx.filter_jit(lambda x: model(x, jnp.asarray(0.0), None))
    together = eqx.filter_jit(jax.vmap(lambda x: model(x, jnp.asarray(0.0), None)))(x)
    np.testing.assert_allclose(together, np.stack([step(member) for member in np.asarray(x)]), atol=1e-5)


def test_types_follow_the_state(dtype, key):
    model = Kolmogorov(16, forcing_waves=2, n_inner=3, stepper="etdrk2")
    x = initial(model, key)
    full = run(model, x)
    assert x.dtype == full.dtype == dtype
    for other, tolerance in [(jnp.bfloat16, 0.1), (jnp.float32, 1e-5)]:
        out = run(model, x.astype(other))
        assert out.dtype == other
        np.testing.assert_allclose(np.asarray(out).astype(dtype), full, atol=tolerance)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_steppers_agree_in_single_precision(stepper, key):
    model = Kolmogorov(16, forcing_waves=2, stepper=stepper)
    x = initial(model, key)
    expected = run(Kolmogorov(16, forcing_waves=2, n_inner=20), x)
    np.testing.assert_allclose(run(model, x), expected, atol=5e-3)


def test_no_retrace_and_gradients(key):
    model = Kolmogorov(16, forcing_waves=2, n_inner=3)
    x = initial(model, key)
    gradient = eqx.filter_jit(jax.grad(lambda x: (model(x, jnp.asarray(0.0), None) ** 2).sum()))(x)
    assert bool(jnp.isfinite(gradient).all())
    traces = []

    @jax.jit
    def step(model, x):
        traces.append(1)
        return model(x, jnp.asarray(0.0), None)

    step(model, x)
    step(Kolmogorov(16, forcing_waves=2, n_inner=3), 2 * x)
    assert len(traces) == 1


def test_only_the_divergence_free_part_of_a_state_counts(key):
    model = Kolmogorov((24, 32), length=(2.0, 3.0), n_inner=4)
    x = initial(model, key)
    y, along = points(model)
    gradient = np.cos(2 * np.pi * (along / 3.0 + y / 2.0))
    pressure = flow(gradient / 3.0, gradient / 2.0, model).astype(x.dtype)
    np.testing.assert_allclose(run(model, jnp.asarray(x + np.asarray(pressure))), run(model, x), atol=2e-5)


def test_cfl_check_names_the_member(key):
    model = Kolmogorov(32, forcing_waves=4)
    scales = np.asarray([1.0, 5.0, 1.0, np.nan], np.float32)
    x = jnp.asarray(scales[:, None, None, None] * np.asarray(initial(model, key)))
    np.testing.assert_array_equal(cfl_violations(model, x), [False, True, False, True])
    with pytest.raises(ValueError, match=r"2 of 4 members.*1: .*3: inf.*use n_inner="):
        check_cfl(model, x)
    assert Kolmogorov(128).n_inner >= 2 * Kolmogorov(64).n_inner - 1
    assert Kolmogorov(64, max_speed=10.0).n_inner >= 2 * Kolmogorov(64).n_inner - 1


@pytest.mark.parametrize(("shape", "length"), [((32, 32), 2 * np.pi), ((32, 48), (2.0, 3.5))])
def test_spectra_and_fields_are_consistent(shape, length, key):
    model = Kolmogorov(shape, length=length)
    x = jnp.asarray(initial(model, key) + np.asarray([0.4, -0.2], np.float32)[:, None, None])
    k, e = map(np.asarray, spectral.energy_spectrum(x, length))
    width = float(k[1])
    np.testing.assert_allclose(e.sum() * width, spectral.energy(x), rtol=1e-5)
    np.testing.assert_allclose(e[0] * width, 0.5 * (0.4**2 + 0.2**2), rtol=1e-4)
    z = np.asarray(spectral.enstrophy_spectrum(x, length)[1])
    np.testing.assert_allclose(z.sum() * width, spectral.enstrophy(x, length), rtol=1e-5)
    w = spectral.vorticity(x, length)
    back = spectral.velocity_from_vorticity(w, length, jnp.asarray([0.4, -0.2]))
    np.testing.assert_allclose(back, x, atol=2e-5)
    psi = spectral.stream_function(x, length)
    np.testing.assert_allclose((np.asarray(psi) * w).mean() / 2, spectral.energy(x) - e[0] * width, rtol=1e-4)
    assert np.abs(spectral.divergence(x, length)).max() < 1e-5 * np.abs(w).max()


def test_spectrum_of_initial_states_peaks_where_asked(key):
    model = Kolmogorov(64, initial_waves=6.0)
    x = initial(model, jax.random.split(key, 40))
    e = np.asarray(jax.vmap(lambda x: spectral.energy_spectrum(x)[1])(x)).mean(0)
    assert abs(int(e.argmax()) - 6) <= 1
    np.testing.assert_allclose(np.asarray(x).mean((2, 3)), 0.0, atol=1e-5)


def test_vorticity_of_a_known_field():
    model = Kolmogorov((16, 32), length=(2 * np.pi, 4 * np.pi), forcing_waves=2)
    y, x = points(model)
    field = flow(np.sin(2 * y), np.cos(0.5 * x), model)
    expected = -0.5 * np.sin(0.5 * x) - 2 * np.cos(2 * y)
    np.testing.assert_allclose(spectral.vorticity(field, model.length), expected, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_energy_budget_closes(key):
    keys = {"reynolds": 60.0, "hyperviscosity": 1e-6, "hyperviscosity_order": 3, "length": (5.0, 4.0)}
    model = Kolmogorov((32, 24), dt=1e-3, n_inner=2, **keys)
    x = run(Kolmogorov((32, 24), **keys), initial(model, key), 2)
    before, after = budget(model, x), budget(model, run(model, x))
    rate = (after.energy - before.energy) / 1e-3
    each = [(a + b) / 2 for a, b in zip(before[1:], after[1:], strict=True)]
    assert min(map(abs, each)) > 1e-4, "every term is tested"
    np.testing.assert_allclose(rate, each[0] - sum(each[1:]), rtol=1e-5)
    viscous = 2 / 60 * spectral.enstrophy(x, model.length)
    np.testing.assert_allclose(before.viscous, viscous, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_random_forcing_puts_in_its_energy_and_its_variance(key):
    model = Kolmogorov((16, 24), length=(2.0, 3.0), forcing_waves=2, random_forcing=0.3, n_inner=1)
    x = jnp.zeros(model.state_shape)
    keys = jax.random.split(key, 2000)
    kick = np.asarray(
        jax.jit(jax.vmap(lambda key: model(x, jnp.asarray(0.0), key) - model.mean_step(x, 0.0)))(keys)
    )
    np.testing.assert_allclose(0.5 * (kick**2).sum(1).mean(), 0.3 * 0.2, rtol=0.04)
    np.testing.assert_allclose(kick.var((0, 2, 3)), model.step_noise_variance[:, 0, 0], rtol=0.05)
    assert np.abs(spectral.divergence(kick[0], model.length)).max() < 1e-10
    with pytest.raises(ValueError, match="call it with a key"):
        model(x, jnp.asarray(0.0), None)
    assert Kolmogorov(16, forcing_waves=2).step_noise_variance is None


def test_hyperviscosity_damps_at_its_rate():
    model = Kolmogorov(32, np.inf, drag=0.0, forcing=0.0, hyperviscosity=1e-5, hyperviscosity_order=4)
    y = points(model)[0]
    start = flow(np.sin(6 * y), 0.0, model)
    np.testing.assert_allclose(run(model, start), start * np.exp(-1e-5 * 6**8 * 0.2), atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"shape": 4}, "shape must be"),
        ({"shape": (16, 16, 2)}, "shape must be"),
        ({"reynolds": -1.0}, "reynolds must be a positive"),
        ({"length": (1.0, -1.0)}, "length must be"),
        ({"drag": -0.1}, "must not be negative"),
        ({"stepper": "euler"}, "stepper and dealias"),
        ({"forcing_waves": 22}, "1 to 21"),
        ({"forcing_waves": 0}, "1 to 21"),
        ({"n_inner": 0}, "n_inner must be at least 1"),
        ({"cfl": 0.0}, "cfl must be a positive"),
        ({"random_forcing": 1.0, "random_waves": 80.0}, "random_waves"),
    ],
)
def test_impossible_settings_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Kolmogorov(**{"shape": 64, **keys})


@pytest.mark.slow
@pytest.mark.parametrize("stepper", ["etdrk4", "cnab2"])
def test_other_numbers_may_be_traced(stepper, key):
    """A flow made anew inside a program is the one that is made with these numbers."""
    numbers = {"reynolds": 500.0, "drag": 0.2, "forcing": 2.0}
    wanted, other = (Kolmogorov(16, dt=0.1, stepper=stepper, **given) for given in (numbers, {}))
    x = wanted.initial_state(key)
    moved = jax.jit(lambda given: other.with_numbers(**given)(x, 0.0, None))(numbers)
    np.testing.assert_allclose(moved, wanted(x, 0.0, None), atol=1e-5)
    assert float(jnp.abs(moved - other(x, 0.0, None)).max()) > 0.01
    assert float(other.with_numbers(reynolds=500.0).reynolds) == pytest.approx(500)
    with pytest.raises(ValueError, match="reynolds, drag, forcing; got"):
        other.with_numbers(viscosity=1.0)


def test_coordinates_are_in_grid_points():
    square = Kolmogorov(32, length=5.0).coordinates
    assert square.period == (32.0, 32.0)
    np.testing.assert_allclose(square.positions[33], [1.0, 1.0])
    oblong = Kolmogorov((32, 32), length=(2.0, 1.0)).coordinates
    assert oblong.period == (64.0, 32.0)


@pytest.mark.slow
def test_letkf_runs_on_the_grid_mask(key):
    model = Kolmogorov(64)
    mask = grid_stride(model.state_shape, 10)
    measurement = Measurement(Subset.from_mask(mask), Gaussian(0.1))
    members = initial(model, jax.random.split(key, 5))
    values = jax.vmap(measurement.sample, (0, None))(jax.random.split(key, 2), members[0])
    out = assimilate(key, LETKF(radius=8.0), model, measurement, Observations(values, 1), members[1:])
    assert np.isfinite(np.asarray(out.analysis["mean"])).all()
    assert int(out.repaired.sum()) == 0
