"""Instruments by name: what a configuration builds, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import measurements as m
from masf_jax.cli.config.builders.measurement import MEASUREMENTS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.config.settings import read_settings, write_settings
from masf_jax.cli.errors import InputError
from masf_jax.coordinates import Coordinates

RING, FLOW = (12,), (2, 8, 8)


def build(overrides, shape):
    coordinates = Coordinates.grid(shape[-2:], (10.0,) * len(shape[-2:]))
    return MEASUREMENTS.build(compose(overrides).measurement, shape, coordinates)


@pytest.mark.parametrize(
    ("overrides", "shape", "expected"),
    [
        (["measurement=vorticity", "dynamics=kolmogorov_64"], FLOW, m.Vorticity()),
        (
            ["measurement=vorticity", "measurement.length=[3,5]", "measurement.stride=4"],
            FLOW,
            m.Subset([0, 4, 32, 36]) @ m.Vorticity((3.0, 5.0)),
        ),
        (
            [
                "measurement=line_average",
                "measurement.starts=[[0,1],[2,2.5]]",
                "measurement.ends=[[3,1],[2,7]]",
                "measurement.channel=1",
            ],
            FLOW,
            m.LineAverage(FLOW, [[0, 1], [2, 2.5]], [[3, 1], [2, 7]], 1),
        ),
        (["measurement=line_average"], RING, m.LineAverage(RING, [0.0], [4.0])),
        (
            ["measurement=stations", "measurement.positions=[[2.5,9.9]]", "measurement.channel=1"],
            FLOW,
            m.LineAverage(FLOW, [[2, 7.92]], [[2, 7.92]], 1),
        ),
        (["measurement=area_average"], RING, m.AreaAverage.boxes(RING, [0.0], 4.0)),
        (
            [
                "measurement=area_average",
                "measurement.width=null",
                "measurement.radius=2",
                "measurement.centres=[[4,4]]",
            ],
            FLOW,
            m.AreaAverage.discs(FLOW, [[4, 4]], 2.0),
        ),
        (["measurement=log", "measurement.scale=2", "measurement.floor=0.1"], RING, m.Log(2.0, 0.1)),
        (
            ["measurement=quantised", "measurement.step=0.5", "measurement.stride=5", "measurement.start=1"],
            RING,
            m.Quantised(0.5) @ m.Subset([1, 6, 11]),
        ),
        (["measurement=censored", "measurement.lower=-0.5"], RING, m.Censored(-0.5, 5.0)),
        (
            [
                "measurement=range_bearing",
                "measurement.sensors=[[0,0],[1,2]]",
                "measurement.components=[4,3]",
            ],
            RING,
            m.RangeBearing([[0, 0], [1, 2]], (4, 3)),
        ),
    ],
)
def test_by_name(overrides, shape, expected):
    operator = build(overrides, shape).measurement.operator
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    np.testing.assert_allclose(operator(x), expected(x), rtol=1e-6)
    assert operator.structure == expected.structure


def test_ranges_and_bearings_have_noise_of_their_own():
    overrides = ["measurement=range_bearing", "measurement.noise.std=2", "measurement.bearing_noise.std=0.05"]
    for quantity, expected in (("both", [2.0, 0.05]), ("range", [2.0]), ("bearing", [0.05])):
        noise = build([*overrides, f"measurement.quantity={quantity}"], RING).measurement.noise
        like = jnp.zeros(len(expected))
        np.testing.assert_allclose(noise.standard_deviation(like), expected, rtol=1e-6)


SEVERAL = "[{name:moving,width:3,noise:{std:0.5}},{name:arctan,stride:6,noise:{law:laplace,std:0.1}}]"


def test_several_instruments():
    settings = compose(["measurement=several", f"measurement.parts={SEVERAL}"])
    network = MEASUREMENTS.build(settings.measurement, RING, None)
    x = jnp.linspace(-1, 2, 12)
    expected = np.concatenate([x, np.arctan(x[jnp.asarray([0, 6])])])
    np.testing.assert_allclose(network.measurement.operator(x), expected, rtol=1e-6)
    std = network.measurement.noise.standard_deviation(jnp.zeros(14))
    np.testing.assert_allclose(std, [0.5] * 12 + [0.1] * 2, rtol=1e-6)
    assert network.mask is not None
    mask = network.mask(2)
    np.testing.assert_array_equal(mask[:, :12].sum(1), [3, 3])
    assert not np.array_equal(mask[0], mask[1])
    assert mask[:, 12:].all()
    assert read_settings(write_settings(settings)) == settings


def test_multiplicative_noise(key):
    overrides = ["measurement.noise.law=multiplicative", "measurement.noise.fraction=0.1"]
    measurement = build([*overrides, "measurement.noise.std=0.01"], RING).measurement
    x = jnp.asarray(np.r_[[0.0] * 6, [10.0] * 6], jnp.float32)
    z = jax.vmap(measurement.sample, (0, None))(jax.random.split(key, 4000), x)
    np.testing.assert_allclose(np.std(z, axis=0), [0.01] * 6 + [1.0] * 6, rtol=0.06)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["measurement=vorticity"], r"measurement vorticity: .*needs a velocity state .* shape \(12,\)"),
        (
            ["measurement=vorticity", "measurement.length=[1,2,3]"],
            r"measurement.length must be a number or a list of 2.* got \[1",
        ),
        (["measurement=line_average", "measurement.starts=[[0],[1,2]]"], "starts must hold positions of"),
        (["measurement=line_average", "measurement.starts=[3]"], "measurement.starts must be a list, each"),
        (["measurement=area_average", "measurement.radius=2"], r"a width \(boxes\) or a radius \(discs\)"),
        (["measurement=quantised", "measurement.step=-1"], "step of a quantised sensor must be positive"),
        (["measurement=censored", "measurement.upper=null"], "needs a lower or an upper limit"),
        (["measurement=log", "measurement.floor=0"], "floor of a logarithmic sensor must be positive"),
        (["measurement=range_bearing", "measurement.components=[1]"], r"two indices.* got \[1\]"),
        (
            ["measurement=range_bearing", "measurement.quantity=speed"],
            "both or range or bearing; got 'speed'",
        ),
        (["measurement.noise.law=multiplicative"], "fraction goes with .*law=multiplicative, which needs it"),
        (["measurement.noise.fraction=0.1"], "fraction 0.1 and law gaussian"),
        (["measurement=several", "measurement.parts=[]"], "at least one; got none"),
        (["measurement=several", "measurement.parts=[{name:arktan}]"], r"parts\[0\]: unknown .*'arktan'"),
        (
            ["measurement=several", "measurement.parts=[{name:identity},{name:subset,indices:[40]}]"],
            r"parts\[1\]: measurement subset: index 40 is outside",
        ),
        (["measurement=several", "measurement.parts=[identity]"], "measurement.parts must be a list"),
    ],
)
def test_bad_settings(overrides, part):
    with pytest.raises(InputError, match=part):
        build(overrides, RING)


def test_stations_need_the_places_of_a_grid():
    section = compose(["measurement=stations"]).measurement
    with pytest.raises(InputError, match="the model says no coordinates of its grid: give them"):
        MEASUREMENTS.build(section, RING, None)


def test_a_users_sensor_may_ask_for_the_coordinates(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from masf_jax.measurements import Stations\n\n\n"
        "def buoys(shape, coordinates, east: float = 3.0):\n"
        "    return Stations(shape, [east], coordinates)\n"
    )
    monkeypatch.chdir(tmp_path)
    operator = build(["measurement=own.py:buoys", "measurement.east=5.0"], (4,)).measurement.operator
    np.testing.assert_allclose(operator(jnp.arange(4.0)), [2.0])
