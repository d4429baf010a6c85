"""Vorticity, averages, rounding, saturation, logarithm, range and bearing, against something independent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from masf_jax import Coordinates, assimilate
from masf_jax.dynamics import Kolmogorov, Linear as LinearModel, ModelError
from masf_jax.filters import ETKF, LETKF, EnKF, KalmanFilter
from masf_jax.filters.kalman.exact import linearize
from masf_jax.measurements import (
    AreaAverage,
    Censored,
    Function,
    Gaussian,
    Identity,
    Linear,
    LineAverage,
    Log,
    Measurement,
    Observations,
    Pointwise,
    Quantised,
    RangeBearing,
    Subset,
    Vorticity,
    arctan,
)
from masf_jax.measurements.base import output_shape

BOX = (2, 8, 10)
LENGTH = (3.0, 5.0)


measured = eqx.filter_jit(lambda operator, x: operator(x))


@eqx.filter_jit
def jacobians(operator, x):
    """Forward and reverse."""
    return jax.jacfwd(operator)(x), jax.jacrev(operator)(x)


def matrix_of(operator, shape):
    """H as a dense matrix, from its values at unit vectors."""
    eye = jnp.asarray(np.eye(int(np.prod(shape))).reshape(-1, *shape), float)
    return np.asarray(measured(jax.vmap(operator), eye)).reshape(len(eye), -1).T


def test_vorticity_of_waves(x64):
    ny, nx = BOX[1:]
    y, x = np.meshgrid(np.arange(ny) * LENGTH[0] / ny, np.arange(nx) * LENGTH[1] / nx, indexing="ij")
    a, b = 2 * np.pi / LENGTH[0], 4 * np.pi / LENGTH[1]
    u, v = np.sin(a * y) * np.cos(b * x), np.cos(3 * a * y + 0.3) * np.sin(b * x)
    z = measured(Vorticity(LENGTH), jnp.asarray([u, v]))
    expected = b * np.cos(3 * a * y + 0.3) * np.cos(b * x) - a * np.cos(a * y) * np.cos(b * x)
    np.testing.assert_allclose(z, expected, atol=1e-12)


def test_vorticity_is_the_matrix_of_fourier_derivatives(x64):
    """Against dense differentiation matrices built from the trigonometric interpolant's own formula."""

    def differentiation(n, length):
        k = np.fft.fftfreq(n, 1 / n)
        k[np.abs(k) == n / 2] = 0
        f = np.fft.fft(np.eye(n), axis=0)
        return np.fft.ifft(2j * np.pi / length * k[:, None] * f, axis=0).real

    ny, nx = BOX[1:]
    dy = np.kron(differentiation(ny, LENGTH[0]), np.eye(nx))
    dx = np.kron(np.eye(ny), differentiation(nx, LENGTH[1]))
    np.testing.assert_allclose(matrix_of(Vorticity(LENGTH), BOX), np.hstack([-dy, dx]), atol=1e-12)
    assert Vorticity().structure == "dense"
    grid = Coordinates.grid(BOX[1:], LENGTH)
    assert Vorticity().coordinates(grid) == grid


def test_line_average_is_the_mean_of_the_interpolant(x64):
    rng = np.random.default_rng(0)
    shape = (2, 6, 7)
    x = rng.normal(size=shape)
    starts = np.asarray([[0.3, 1.2], [-2.4, 5.0], [2.0, 3.0], [1.5, 2.5], [4.0, 0.0]])
    ends = np.asarray([[4.1, 6.9], [8.3, 5.0], [2.0, 3.0], [1.5, 9.1], [2.0, 12.0]])
    operator = LineAverage(shape, starts, ends, channel=1)
    tiled = np.tile(x[1], (4, 4))
    axes = (np.arange(24) - 6, np.arange(28) - 7)
    interpolant = RegularGridInterpolator(axes, tiled)
    t = (np.arange(40_000) + 0.5) / 40_000
    expected = [interpolant(a + t[:, None] * (b - a)).mean() for a, b in zip(starts, ends, strict=True)]
    found = np.asarray(measured(operator, jnp.asarray(x)))
    np.testing.assert_allclose(found, expected, atol=1e-8)
    np.testing.assert_allclose(found[2], x[1, 2, 3], atol=1e-14)
    np.testing.assert_allclose(measured(operator, jnp.asarray(np.ones(shape))), 1.0, atol=1e-14)
    assert operator.structure == "dense"


def test_line_average_on_a_ring(x64):
    x = np.random.default_rng(1).normal(size=8)
    found = measured(LineAverage((8,), [1.0, 6.5, 0.25], [3.0, 9.0, 0.25]), jnp.asarray(x))
    nodes = np.interp([6.5, 9.0], np.arange(16), np.tile(x, 2))
    trapezoids = 0.5 * (nodes[0] + x[7]) / 2 + (x[7] + x[0]) / 2 + (x[0] + x[1]) / 2
    expected = [(x[1] / 2 + x[2] + x[3] / 2) / 2, trapezoids / 2.5, 0.75 * x[0] + 0.25 * x[1]]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_area_averages(x64):
    x = np.random.default_rng(2).normal(size=(6, 8))
    state = jnp.asarray(x)
    box = np.asarray(
        measured(AreaAverage.boxes((6, 8), [[0.0, 0.0], [2.5, 3.5], [1.0, 1.0]], [3.0, 2.0]), state)
    )
    wrapped = np.roll(x, (1, 1), (0, 1))  # rows -1, 0, 1; columns: half of -1, 0, half of 1
    np.testing.assert_allclose(box[0], (wrapped[:3, :3] @ [0.5, 1, 0.5]).sum() / 6, atol=1e-14)
    np.testing.assert_allclose(box[1], (np.asarray([0.5, 1, 1, 0.5]) @ x[1:5, 3:5]).sum() / 6, atol=1e-14)
    point = measured(AreaAverage.boxes((6, 8), [[0.0, 0.0]], 0.5), state)
    assert np.asarray(point)[0] == pytest.approx(x[0, 0])
    whole = measured(AreaAverage.boxes((6, 8), [[1.3, 4.4]], [6.0, 8.0]), state)
    np.testing.assert_allclose(whole, x.mean(), atol=1e-14)
    disc = measured(AreaAverage.discs((6, 8), [[0.0, 7.0]], 1.0), state)
    np.testing.assert_allclose(disc, (x[0, 7] + x[5, 7] + x[1, 7] + x[0, 6] + x[0, 0]) / 5, atol=1e-14)
    feet = np.random.default_rng(3).uniform(size=(2, 6, 8))
    flat = (feet * x).sum((1, 2)) / feet.sum((1, 2))
    np.testing.assert_allclose(measured(AreaAverage((6, 8), feet), state), flat, atol=1e-14)
    np.testing.assert_allclose(
        matrix_of(AreaAverage((2, 6, 8), feet, channel=1), (2, 6, 8))[:, 48:],
        feet.reshape(2, -1) / feet.sum((1, 2))[:, None],
        atol=1e-14,
    )


def test_averages_sit_where_they_average():
    box = Coordinates.grid((6, 8), (12.0, 4.0))
    line = LineAverage((2, 6, 8), [[1.0, 2.0]], [[3.0, 5.0]])
    np.testing.assert_allclose(line.coordinates(box).positions, [[4.0, 1.75]])
    assert line.coordinates(box).period == (12.0, 4.0)
    ring = Coordinates.grid((8,), (16.0,))
    np.testing.assert_allclose(LineAverage((8,), [7.0], [8.0]).coordinates(ring).wrapped(), [[15.0]])
    np.testing.assert_allclose(AreaAverage.discs((8,), [3.0], 1.0).coordinates(ring).positions, [[6.0]])
    assert AreaAverage((8,), np.ones((1, 8))).coordinates(ring) is None
    assert line.observed((2, 6, 8)) is None


def test_quantised_values_and_straight_through_derivative(dtype):
    x = jnp.asarray([-0.26, 0.24, 0.26, 1.1, 7.0], dtype)
    sensor = Quantised(0.5)
    np.testing.assert_allclose(measured(sensor, x), [-0.5, 0.0, 0.5, 1.0, 7.0], atol=1e-6)
    for jacobian in jacobians(sensor, x):
        np.testing.assert_array_equal(jacobian, np.eye(5))
    # the mean over x uniform within a step has slope 1: that is the derivative's justification
    centre, width = 0.3, 0.5
    u = (np.arange(100_000) + 0.5) / 100_000 - 0.5
    means = [
        float(np.mean(measured(sensor, jnp.asarray(c + width * u, dtype)))) for c in (centre, centre + 0.1)
    ]
    assert means[1] - means[0] == pytest.approx(0.1, abs=1e-4)
    assert sensor.structure is None


def test_censored_values_and_derivative(dtype):
    x = jnp.asarray([-3.0, -1.0, 0.5, 2.5], dtype)
    for sensor, low, high in [(Censored(-1.5, 2.0), -1.5, 2.0), (Censored(upper=2.0), -np.inf, 2.0)]:
        np.testing.assert_allclose(measured(sensor, x), np.clip(np.asarray(x), low, high))
        inside = (np.asarray(x) > low) & (np.asarray(x) < high)
        np.testing.assert_array_equal(jacobians(sensor, x)[0], np.diag(inside.astype(float)))
    composed = Censored(lower=[0.0, -2.0]) @ Subset([0, 1])
    np.testing.assert_allclose(measured(composed, x), [0.0, -1.0])
    assert composed.structure is None
    np.testing.assert_array_equal(composed.observed((4,)), [True, True, False, False])


def test_log_of_positive_and_other_values(dtype):
    x = jnp.asarray([1e-3, 0.5, 20.0, 0.0, -1.0], dtype)
    sensor = Log(scale=2.0, floor=1e-4)
    np.testing.assert_allclose(
        measured(sensor, x), np.log([2e-3, 1.0, 40.0, 1e-4, 1e-4]), rtol=1e-5, atol=1e-6
    )
    slope = np.diagonal(jacobians(sensor, x)[0])
    np.testing.assert_allclose(slope, [1e3, 2.0, 0.05, 0.0, 0.0], rtol=1e-5)


def test_range_and_bearing_and_their_jacobian(x64):
    sensors = np.asarray([[0.0, 0.0], [3.0, -1.0]])
    operator = RangeBearing(sensors, components=(2, 0))
    x = jnp.asarray([4.0, 9.0, -2.0])  # the point (-2, 4)
    place = np.asarray([-2.0, 4.0])
    expected = np.concatenate(
        [np.hypot(*(place - sensors).T), np.angle((place - sensors) @ np.asarray([1.0, 1.0j]))]
    )
    np.testing.assert_allclose(measured(operator, x), expected, atol=1e-12)
    steps = jnp.asarray(1e-6 * np.eye(3))
    difference = jax.vmap(lambda e: (operator(x + e) - operator(x - e)) / 2e-6, out_axes=1)
    numerical = measured(difference, steps)
    np.testing.assert_allclose(jacobians(operator, x)[0], numerical, atol=1e-8)
    for quantity, part in (("range", expected[:2]), ("bearing", expected[2:])):
        np.testing.assert_allclose(measured(RangeBearing(sensors, (2, 0), quantity), x), part, atol=1e-12)
    on_top = jacobians(RangeBearing([[1.0, 2.0]]), jnp.asarray([1.0, 2.0]))[1]
    np.testing.assert_array_equal(on_top, np.zeros((2, 2)))


def test_bearings_differ_by_less_than_half_a_turn(x64):
    operator = RangeBearing([[0.0, 0.0]])
    measurement = Measurement(operator, Gaussian([0.5, 0.1]))
    x = jnp.asarray([-1.0, -0.01])  # bearing just above -π

    @eqx.filter_jit
    def of(measurement, z, x):
        return measurement.innovation(z, x), measurement.whitened_innovation(z, x), measurement.log_prob(z, x)

    for z, residue in [(np.pi - 0.02, -0.03), (-np.pi + 0.02, 0.01), (3 * np.pi, -0.01), (0.0, np.pi - 0.01)]:
        z = jnp.asarray([1.0, z])
        found, whitened, log_prob = of(measurement, z, x)
        np.testing.assert_allclose(found[1], residue, atol=1e-4)
        white = np.asarray([found[0] / 0.5, found[1] / 0.1])
        np.testing.assert_allclose(whitened, white, atol=1e-12)
        density = -0.5 * (white**2).sum() - np.log(0.5 * 0.1 * 2 * np.pi)
        np.testing.assert_allclose(log_prob, density, atol=1e-12)
    half = Measurement(RangeBearing([[0.0, 0.0]], quantity="bearing"), Gaussian(1.0))
    for z in (np.pi, -np.pi):  # the half-open interval holds π, not -π
        np.testing.assert_allclose(of(half, jnp.asarray([z]), jnp.asarray([1.0, 0.0]))[0], np.pi)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (RangeBearing([[0.0, 0.0], [1.0, 0.0]]), [0, 0, 1, 1]),
        (Subset([3, 0]) @ RangeBearing([[0.0, 0.0], [1.0, 0.0]]), [1, 0]),
        (Quantised(0.1) @ RangeBearing([[0.0, 0.0]]), [0, 1]),
        (Identity() @ (Censored(upper=3.0) @ RangeBearing([[0.0, 0.0]])), [0, 1]),
        (RangeBearing([[0.0, 0.0]], quantity="range"), None),
        (Pointwise(jnp.sin) @ RangeBearing([[0.0, 0.0]]), None),
        (Linear(np.ones((1, 2))) @ RangeBearing([[0.0, 0.0]]), [1]),
        (Linear([[1.0, 0.0], [0.0, 1.5]]) @ RangeBearing([[0.0, 0.0]]), [0, 1.5]),
        (Linear([[1.0, 0.0]]) @ RangeBearing([[0.0, 0.0]]), None),
        (Linear([[1.0, -0.5]]) @ RangeBearing([[0.0, 0.0], [1.0, 0.0]], quantity="bearing"), [0.5]),
        (Function(jnp.degrees, periods=[0, 360]) @ RangeBearing([[0.0, 0.0]]), [0, 180 / np.pi]),
        (Function(jnp.cos) @ RangeBearing([[0.0, 0.0]]), None),
        (Identity(), None),
        (Subset([0]) @ arctan(), None),
    ],
)
def test_which_values_are_circular(operator, expected):
    found = operator.periods((2,))
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, 2 * np.pi * np.asarray(expected, float))


def test_circular_values_must_say_so():
    """Degrees were differences of up to 360."""
    bearing = RangeBearing([[0.0, 0.0]], quantity="bearing")
    degrees = Measurement(Function(jnp.degrees) @ bearing, Gaussian(1.0))
    with pytest.raises(ValueError, match=r"circular: .* changes it by 360\. Say so, .*periods=360"):
        degrees.check_noise((2,))
    apart = Linear([[1.0, 0.3]]) @ RangeBearing([[0.0, 0.0], [1.0, 0.0]], quantity="bearing")
    with pytest.raises(ValueError, match=r"row 0 .* have no common measure"):
        apart.periods((2,))
    with pytest.raises(ValueError, match="measures 1 values, and 2 periods are given"):
        (Function(jnp.degrees, periods=[360, 0]) @ RangeBearing([[0.0, 0.0]], quantity="range")).periods((2,))


@pytest.mark.parametrize(
    ("outer", "unit"),
    [(Function(jnp.degrees, periods=360), 180 / np.pi), (Linear([[180 / np.pi]]), 180 / np.pi)],
    ids=["function", "matrix"],
)
def test_an_analysis_of_a_bearing_in_degrees_is_that_in_radians(key, outer, unit):
    bearing = RangeBearing([[0.0, 0.0]], quantity="bearing")
    members = jnp.asarray([[-1.0, -0.05]]) + 0.02 * jax.random.normal(key, (8, 2))
    model = LinearModel(np.eye(2))

    def mean(operator, unit):
        sensor, z = Measurement(operator, Gaussian(0.02 * unit)), unit * np.asarray([[np.pi - 0.01]])
        return assimilate(key, ETKF(), model, sensor, z, members).analysis["mean"]

    np.testing.assert_allclose(mean(outer @ bearing, unit), mean(bearing, 1.0), atol=1e-4)


def test_anomalies_of_circular_values_do_not_depend_on_the_measured_one(key, x64):
    """Of members near 0 the one measured near π was 26 standard deviations away, and taken for .3 of one."""
    sensor = Measurement(RangeBearing([[0.0, 0.0]], quantity="bearing"), Gaussian(0.1))
    members = jnp.asarray([[5.0, 0.0]]) + 0.3 * jax.random.normal(key, (40, 2))
    angles = np.arctan2(members[:, 1], members[:, 0])
    filter = ETKF().prepare(LinearModel(np.eye(2)), sensor)
    for z in (3.0, 3.14, -3.14):
        info = filter.analysis(key, filter.init(key, members), jnp.asarray([z]), sensor)[1]
        expected = np.abs(z - angles.mean()) / np.sqrt(angles.var(ddof=1) + 0.01)
        np.testing.assert_allclose(info["innovation"], expected, rtol=1e-10)


@pytest.mark.slow
def test_tracking_a_target_behind_the_sensor(key, x64):
    """A bearing that crosses ±π does not throw filters off: same error as of the mirrored, easy problem."""
    n_cycles, n_members = 60, 100
    angle = np.linspace(np.pi - 0.5, np.pi + 0.5, n_cycles)
    noise = np.random.default_rng(4).normal(size=(n_cycles, 2)) * [0.05, 0.02]
    spread = 0.2 * np.random.default_rng(5).normal(size=(n_members, 2))
    model = ModelError(LinearModel(np.eye(2)), 0.1)

    def error(turn, filter):
        direction = angle - turn
        target = 2.0 * np.stack([np.cos(direction), np.sin(direction)], -1)
        bearing = np.angle(np.exp(1j * (direction + noise[:, 1])))
        z = np.stack([2.0 + noise[:, 0], bearing], -1)
        measurement = Measurement(RangeBearing([[0.0, 0.0]]), Gaussian([0.05, 0.02]))
        out = assimilate(
            key, filter, model, measurement, Observations(z, 1), jnp.asarray(target[0] + spread), scores=()
        )
        return float(np.sqrt(np.mean((np.asarray(out.analysis["mean"])[10:] - target[10:]) ** 2)))

    for filter in (EnKF(), KalmanFilter()):
        behind, ahead = error(0.0, filter), error(np.pi, filter)
        assert behind < 0.06
        assert behind == pytest.approx(ahead, rel=0.25)


@pytest.mark.quick_cases("Compose")
@pytest.mark.parametrize(
    "operator",
    [
        Vorticity(),
        LineAverage((2, 8, 8), [[0.0, 0.0], [1.0, 2.0]], [[0.0, 7.0], [6.5, 2.0]]),
        Censored(-1.0, 1.0) @ Subset(np.arange(64)),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_letkf_takes_them(operator, key):
    model = Kolmogorov(8, forcing_waves=2)
    measurement = Measurement(operator, Gaussian(0.2))
    drawn = np.asarray(np.random.default_rng(6).normal(size=(12, 2, 8, 8)), np.float32)
    ensemble, z = jnp.asarray(drawn[1:]), measured(operator, jnp.asarray(drawn[0]))
    letkf = LETKF(radius=2.0).prepare(model, measurement)
    state = letkf.init(key, ensemble)
    analysis = eqx.filter_jit(letkf.analysis)(key, state, z, measurement)[0].ensemble
    told = (np.asarray(measured(jax.vmap(operator), x)) for x in (analysis, ensemble))
    misfit = [np.square(np.asarray(z) - each.mean(0)).mean() for each in told]
    assert misfit[0] < 0.9 * misfit[1]


def test_numbers_are_leaves_and_types_follow_the_state(dtype):
    traces = []

    @eqx.filter_jit
    def measure(operator, x):
        traces.append(1)
        return operator(x)

    x = jnp.asarray(np.linspace(0.1, 2.0, 8), dtype)
    families = [
        [Quantised(step) for step in (0.1, 0.5)],
        [Censored(low, 2.0) for low in (0.1, 0.5)],
        [Log(scale) for scale in (1.0, 2.0)],
        [RangeBearing([[a, 0.0]]) for a in (0.0, 1.0)],
        [AreaAverage((8,), np.eye(8)[:2] + a) for a in (1.0, 2.0)],
    ]
    for count, family in enumerate(families, 1):
        values = [measure(operator, x) for operator in family]
        assert len(traces) == count
        assert all(z.dtype == dtype for z in values)
        assert not np.array_equal(*values)
    assert measured(LineAverage((8,), [0.0], [2.0]), x).dtype == dtype
    assert jax.eval_shape(Vorticity(), jnp.ones((2, 4, 4), dtype)).dtype == dtype


def test_linearisation_sees_the_straight_through_derivative(x64):
    measurement = Measurement(Quantised(0.5) @ Subset([1]), Gaussian(0.1))
    innovation, jacobian = eqx.filter_jit(linearize)(
        measurement, jnp.asarray([0.0, 0.6]), jnp.asarray([1.0]), jnp.asarray([True])
    )
    np.testing.assert_allclose(innovation, [5.0])
    np.testing.assert_allclose(jacobian, [[0.0, 10.0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vorticity((1.0, -2.0)), r"length must be one or two \(Ly, Lx\) positive numbers; got"),
        (lambda: output_shape(Vorticity(), (8,)), r"needs a velocity state \(2, ny, nx\); .* shape \(8,\)"),
        (lambda: output_shape(Vorticity(), (3, 8, 8)), r"needs a velocity state .* shape \(3, 8, 8\)"),
        (lambda: LineAverage((8,), [0.0], [1.0, 2.0]), "must pair up; got 1 starts and 2 ends"),
        (lambda: LineAverage((4, 4), [0.0], [1.0]), r"starts must be a finite array \(values, 2\).* \(1,\)"),
        (lambda: LineAverage((8,), [np.nan], [1.0]), "starts must be a finite array"),
        (lambda: LineAverage((1, 2, 3, 4), [0.0], [1.0]), r"shape must be \(n,\), .*got \(1, 2, 3, 4\)"),
        (lambda: LineAverage((2, 4, 4), [[0, 0]], [[1, 1]], 2), r"channel must lie in 0 … 1 .*got 2"),
        (
            lambda: LineAverage((8,), [0.0], [1.0])(jnp.ones(9)),
            r"built for a state of shape \(8,\); got \(9,\)",
        ),
        (
            lambda: LineAverage((8,), [0.0], [1.0]).coordinates(Coordinates.grid((9,), (9.0,))),
            r"the grid \(8,\) of this LineAverage has 8 points, but there are 9 positions",
        ),
        (
            lambda: AreaAverage((8,), np.ones((2, 7))),
            r"footprints must have shape \(values, 8\); got \(2, 7\)",
        ),
        (lambda: AreaAverage((3,), [[1.0, -1.0, 0.0]]), "finite weights from 0 up"),
        (lambda: AreaAverage((2,), [[1.0, 0.0], [0.0, 0.0]]), "footprint 1 is zero everywhere"),
        (lambda: AreaAverage((2,), [[1.0, 0.0]], centres=[0.0, 1.0]), "1 footprints, but 2 centres"),
        (lambda: AreaAverage.boxes((8,), [0.0], 9.0), r"width must lie above 0 and within .*got 9.0"),
        (lambda: AreaAverage.discs((8,), [0.5], 0.2), "a disc of radius 0.2 holds no grid point"),
        (lambda: Quantised(0.0), "step of a quantised sensor must be positive and finite; got 0.0"),
        (lambda: Censored(), "needs a lower or an upper limit; both are None"),
        (lambda: Censored(1.0, 1.0), "lower must lie below upper; got lower=1.0, upper=1.0"),
        (lambda: Censored(np.nan), "limits of a censored sensor must not be NaN"),
        (lambda: Log(-1.0), "scale inside the logarithm must be positive and finite; got -1.0"),
        (lambda: Log(floor=0.0), "floor of a logarithmic sensor must be positive and finite; got 0.0"),
        (lambda: RangeBearing([1.0, 2.0]), r"sensors must be an array \(sensors, 2\); got shape \(2,\)"),
        (lambda: RangeBearing([[0.0, 0.0]], (1, 1)), r"two different indices .*got \(1, 1\)"),
        (lambda: RangeBearing([[0.0, 0.0]], quantity="speed"), "\"bearing\"; got 'speed'"),
        (lambda: output_shape(RangeBearing([[0.0, 0.0]]), (1,)), r"component 1 is outside a state of 1"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_makes_an_operator_is_no_function_of_a_state():
    with pytest.raises(ValueError, match=r"which is an operator itself: give arctan\(\)"):
        Measurement(arctan, Gaussian(1.0)).output_shape((4,))
