"""Observations: gaps, masks, irregular times."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from masf_jax.measurements import Observations, withhold

VALUES = np.arange(12.0).reshape(4, 3)


def test_regular_times():
    observations = Observations(VALUES, 5)
    assert (observations.interval, observations.n_cycles) == (5, 4)
    np.testing.assert_array_equal(observations.steps, [5, 10, 15, 20])
    np.testing.assert_array_equal(observations.values, VALUES)
    assert np.asarray(observations.mask).all()


def test_irregular_times():
    observations = Observations(VALUES, [0, 3, 3, 10])
    assert observations.interval is None
    np.testing.assert_array_equal(observations.steps, [0, 3, 3, 10])


def test_not_finite_is_missing(dtype):
    values = VALUES.copy()
    values[0, 1], values[2, 0], values[3, 2] = np.nan, np.inf, -np.inf
    observations = Observations(values, 1)
    assert observations.values.dtype == dtype
    np.testing.assert_array_equal(observations.mask, np.isfinite(values))
    np.testing.assert_array_equal(observations.values, np.where(np.isfinite(values), values, 0))


def test_masks_broadcast_and_join_with_nan():
    values = VALUES.copy()
    values[1, 0] = np.nan
    whole = Observations(values, 1, mask=[True, True, False, True])
    expected = np.ones((4, 3), bool)
    expected[1, 0], expected[2] = False, False
    np.testing.assert_array_equal(whole.mask, expected)
    part = np.ones((4, 3), bool)
    part[3, 1] = False
    expected = part & np.isfinite(values)
    np.testing.assert_array_equal(Observations(values, 1, mask=part).mask, expected)
    field = Observations(np.zeros((4, 2, 3)), 1, mask=[True, False, True, True])
    assert field.mask.shape == (4, 2, 3)
    assert np.asarray(field.mask).sum() == 18


def test_integers_and_lists_become_floats(dtype):
    for values in ([[1, 2], [3, 4]], np.asarray([[1, 2], [3, 4]])):
        observations = Observations(values, 1)
        assert observations.values.dtype == dtype
        np.testing.assert_array_equal(observations.values, [[1.0, 2.0], [3.0, 4.0]])


WHOLE = np.arange(12).reshape(4, 3)
GAP = np.ma.masked_equal(WHOLE, 7)
FILLED = np.where(WHOLE == 7, np.nan, WHOLE)


@pytest.mark.parametrize(
    "given",
    [
        GAP,
        GAP.astype("i2"),
        GAP.astype(">f8"),
        np.ma.masked_invalid(FILLED.astype("f4")),
        FILLED.astype(">f4"),
        FILLED.astype(np.longdouble),
        FILLED.astype("f2"),
        jnp.asarray(FILLED, jnp.float32),
        xr.DataArray(FILLED, dims=("time", "station")),
        pd.DataFrame(FILLED),
        pd.DataFrame(FILLED).astype(object).where(lambda x: x != 7, None),
        [[None if value == 7 else int(value) for value in row] for row in WHOLE],
    ],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'dtype', '')}",
)
def test_arrays_of_any_kind(given):
    found = Observations(given, np.array([1, 2, 3, 9], ">u4"))
    np.testing.assert_array_equal(found.mask, WHOLE != 7)
    np.testing.assert_array_equal(found.values, np.where(WHOLE == 7, 0, WHOLE))
    np.testing.assert_array_equal(found.steps, [1, 2, 3, 9])


def test_numpy_integer_steps_are_an_interval():
    assert Observations(VALUES, np.asarray(5)).interval == 5
    assert Observations(VALUES, [0, 1, 2, 2**31 - 1]).steps[-1] == 2**31 - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VALUES + 1j, 1), "values must be real; got complex128"),
        ((VALUES.astype(str), 1), "values must hold numbers; got <U"),
        ((np.full((4, 3), np.datetime64("2000-01-01")), 1), "datetime64.*convert dates"),
        ((np.full((4, 3), object()), 1), "values must hold numbers; got objects"),
        ((np.where(WHOLE == 7, 1e300, VALUES), 1), r"values holds 1e\+300 at \[2, 1\], beyond float32"),
        ((np.full((4, 3), 1e-300), 1), "below the smallest number of float32: change the units"),
        ((xr.DataArray(VALUES, dims=("x", "time")), 1), r"\(x, time\).*values.transpose\('time', 'x'\)"),
        ((VALUES, [1, 2, 3, 2**31]), "steps must not exceed 2147483647"),
        ((VALUES, 2**30), "4 cycles of 1073741824 steps end beyond"),
        ((VALUES, True), r"steps must hold 4 integers, one per cycle; got shape \(\), bool"),
        ((VALUES, np.array([4, 3, 5, 6], "u8")), "got 3 after 4"),
        ((VALUES, np.ma.masked_equal([1, 2, 3, 4], 2)), "steps must all be there"),
        ((VALUES, 1, FILLED), "mask must hold booleans, or 0 and 1; got 2.0"),
        ((VALUES, 1, [1, np.nan, 0, 1]), "mask must hold booleans, or 0 and 1; got nan"),
        ((VALUES, 1, ["True", "False", "True", "True"]), "mask must hold numbers; got <U5"),
        ((VALUES, 1, np.ma.masked_equal([1, 0, 1, 1], 0)), "mask is itself masked"),
        ((VALUES[0], 1), r"values must have shape \(cycles, \*z\), at least one cycle; got \(3,\)"),
        ((VALUES[0], 1), r"got \(3,\): values\[:, None\] is one value a cycle, values\[None\] one cycle"),
        (
            (VALUES, [3]),
            r"each of the 4 rows of values; 3 alone, not \[3\], is so many steps from row to row",
        ),
        ((VALUES, [0, 1, 2, 3, 4]), "leave out step 0, where the first ensemble is, unless it has a row"),
        ((VALUES, 3.0), r"float64: one number is a whole number of model steps from row to row"),
        ((VALUES, [0.5, 1.0, 1.5, 2.0]), r"of times, give np.round\(times / dt\).astype\(int\)"),
        ((VALUES, None), "one number is a whole number of model steps"),
        ((VALUES[:0], 1), r"at least one cycle; got \(0, 3\)"),
        ((VALUES, 0), "steps between observations must be at least 1; got 0"),
        ((VALUES, [1, 2, 3]), r"steps must hold 4 integers, one per cycle; got shape \(3,\)"),
        ((VALUES, [1.0, 2.0, 3.0, 4.0]), "steps must hold 4 integers, one per cycle; got .*float64"),
        ((VALUES, [4, 3, 5, 6]), "steps must not be negative and must not decrease; got 3 after 4"),
        ((VALUES, [-1, 3, 5, 6]), "steps must not be negative and must not decrease; got -1"),
        ((VALUES, 1, [True, False]), r"mask must have shape \(4, 3\) or \(4,\); got \(2,\)"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        Observations(*arguments)


def test_a_share_of_what_was_measured_is_withheld():
    values = np.arange(1.0, 61).reshape(3, 4, 5)
    values[:, :2] = np.nan
    values[1, 3, 3] = np.nan
    whole = Observations(values, [0, 2, 3])
    used, kept = withhold(whole, 0.35, seed=4)  # 3.5 of the 10 places that were measured
    places = np.asarray(kept.mask).any(0)
    assert places.sum() == 4
    np.testing.assert_array_equal(used.mask | kept.mask, whole.mask)
    assert not np.asarray(used.mask & places[None]).any()
    np.testing.assert_array_equal(used.values + kept.values, whole.values)
    np.testing.assert_array_equal(used.steps, [0, 2, 3])
    again, other = (np.asarray(withhold(whole, 0.35, seed)[1].mask).any(0) for seed in (4, 5))
    np.testing.assert_array_equal(again, places)
    assert (other != places).any()
    all_places = [np.asarray(withhold(whole, 0.1, seed)[1].mask).any(0) for seed in range(200)]
    assert {int(each.sum()) for each in all_places} == {1}
    assert np.sum(all_places, 0)[2:].min() >= 8  # 20 ± 4.2 each


def test_numbers_that_are_withheld():
    used, kept = withhold(Observations(VALUES, 1), [0, 2])
    np.testing.assert_array_equal(np.asarray(used.mask).any(0), [False, True, False])
    np.testing.assert_array_equal(kept.values[:, [0, 2]], VALUES[:, [0, 2]])
    for which, said in {
        (3,): r"which: 3 is none of the 3 measured values \(0 … 2\)",
        (0, 1, 2): "leaves no value to score, or none for the analyses",
        (0.5, 1.0): "numbers of measured values or a share such as 0.2",
        1.0: "lies between 0 and 1; got 1",
        2: "numbers of measured values or a share such as 0.2; got 2",
    }.items():
        with pytest.raises(ValueError, match=said):
            withhold(Observations(VALUES, 1), which)
