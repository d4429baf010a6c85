"""Filters on several devices: the results of one device, each with its share of the work and the ensemble."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, timeout=300):
    """What `device_cases.py` finds in a process with eight CPU devices."""
    environment = os.environ | {
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(Path(__file__).with_name("device_cases.py")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(name, found, n_devices):
    """Equal to 1e-12 (relative, or absolute below 1): the same draws, sums in another order."""
    assert found["finite"], name
    assert found["difference"] < 1e-12, (name, found)
    assert found["devices"] == n_devices, name
    assert found["held"] == pytest.approx(1 / n_devices), name
    assert found["repaired"] == (1 if name == "ETKF" else 0), name


def test_eight_devices():
    for name, found in run("quick").items():
        check(name, found, 8)
        if name != "own":
            assert found["flops"] < 0.4, (name, found)  # of one device's; 1/8 without what is small
            assert found["room"] < 0.35, (name, found)
            assert found["message"] < 0.5, (name, found)  # no device gathers the ensemble


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [2, 4, 8])
def test_all_filters(n_devices):
    for name, found in run(str(n_devices), timeout=1800).items():
        check(name, found, n_devices)
