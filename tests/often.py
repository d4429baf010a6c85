"""Which cases of a table run every time, and which with the slow tests alone."""

import pytest


def often(names, keep):
    """The names as parameters: those not in `keep` are slow."""
    missing = [name for name in keep if name not in names]
    assert not missing, f"not among the cases: {missing}"
    return [name if name in keep else pytest.param(name, marks=pytest.mark.slow) for name in names]
