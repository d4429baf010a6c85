"""Some damaged inputs of each kind (see fuzzing.py), and overrides that hypothesis makes up."""

import contextlib

import fuzzing
import pytest
from fuzzing import KINDS, fuzz
from hypothesis import given, settings, strategies as st

from masf_jax.cli.config.compose import compose
from masf_jax.cli.errors import InputError

CASES = {
    **{"overrides": 30, "configuration": 20, "csv": 100, "netcdf": 6, "zarr": 4},
    **{"network": 60, "result": 3},
}
MORE = {"netcdf": 10, "zarr": 6, "result": 6}
"""Inputs of kinds that each take a process: with the slow tests."""


@pytest.mark.slow_cases("result-3", "overrides-30", "network-60")
@pytest.mark.parametrize(
    ("kind", "cases"),
    [
        *((kind, CASES[kind]) for kind in KINDS),
        *(pytest.param(kind, cases, marks=pytest.mark.slow) for kind, cases in MORE.items()),
    ],
)
def test_damaged_input_is_read_rightly_or_refused(kind, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzzing, "SLOWEST", 60.0)  # of a machine that runs other tests too
    counts, faults = fuzz(kind, cases, 0, tmp_path)
    assert not faults, "\n".join(faults)
    assert counts["refused"] > 0


VALUES = st.text(max_size=30) | st.recursive(st.integers() | st.floats(), st.lists, max_leaves=5).map(str)


@pytest.mark.slow
@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    key=st.sampled_from(["seed", "filter", "filter.radius", "save", "measurement.indices", "nothing", ""]),
    value=VALUES,
)
def test_any_override_is_taken_or_refused_in_a_sentence(key, value):
    with contextlib.suppress(InputError):
        compose([f"{key}={value}"])
