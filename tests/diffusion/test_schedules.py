"""The cosine schedule and the time grids."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.diffusion import cosine_schedule, time_grid
from masf_jax.diffusion.schedules import TIME_GRIDS


def test_cosine_schedule_falls_from_one_to_zero(dtype):
    t = jnp.linspace(0.0, 1.0, 201)
    a = np.asarray(jax.vmap(cosine_schedule)(t), np.float64)
    assert a[0] == pytest.approx(1, abs=1e-6)
    assert a[-1] == pytest.approx(0, abs=1e-15)
    assert np.all(np.diff(a) < 0)
    half = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)
    assert a[100] == pytest.approx(half, rel=1e-6)


def test_without_offset_it_is_a_cosine():
    assert float(cosine_schedule(jnp.asarray(1 / 3), 0.0)) == pytest.approx(np.cos(np.pi / 6), rel=1e-6)


def test_grids_end_at_zero(dtype):
    cases = list(itertools.product((1, 2, 7), TIME_GRIDS, (1.0, 0.992)))
    grids = jax.jit(lambda: [time_grid(*case) for case in cases])()
    for (n_steps, kind, first), t in zip(cases, map(np.asarray, grids), strict=True):
        assert t.shape == (n_steps + 1,), kind
        assert t.dtype == dtype, kind
        assert t[0] == pytest.approx(first, rel=1e-6), kind
        assert t[-1] == 0, kind
        assert (np.diff(t) < 0).all(), kind


def test_grids_by_their_formulas():
    np.testing.assert_allclose(time_grid(4), [1, 0.75, 0.5, 0.25, 0], rtol=1e-6)
    np.testing.assert_allclose(time_grid(4, "quadratic"), [1, 9 / 16, 1 / 4, 1 / 16, 0], rtol=1e-6)
    t = np.asarray(time_grid(9, "log_snr"), np.float64)
    assert t[-2] == pytest.approx(1 / 64, rel=1e-5)
    steps = np.diff(np.log(np.tan(t[1:-1] * np.pi / 2)))  # all but the first and the last
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_errors_say_what_was_wrong():
    with pytest.raises(ValueError, match="n_steps must be at least 1; got 0"):
        time_grid(0)
    with pytest.raises(ValueError, match=r"first diffusion time must lie in \(0, 1\]; got 1.5"):
        time_grid(3, first=1.5)
    with pytest.raises(ValueError, match="one of uniform, quadratic, log_snr; got 'linear'"):
        inspect.unwrap(time_grid)(3, "linear")  # the run-time check of types comes first otherwise
