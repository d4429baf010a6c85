"""Filters on several devices: the results of one device, each with its share of the work and the ensemble."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    return {name: each for line in done.stdout.splitlines() for name, each in json.loads(line).items()}


def check(name, found, n_devices):
    """Equal to 1e-12 (relative, or absolute below 1): the same draws, sums in another order."""
    assert found["finite"], name
    assert found["difference"] < 1e-12, (name, found)
    assert found["devices"] == n_devices, name
    assert found["held"] == pytest.approx(1 / n_devices), name
    assert found["repaired"] == (1 if name == "ETKF" else 0), name


@pytest.mark.parametrize("cases", ["quick", pytest.param("counted", marks=pytest.mark.slow)])
def test_eight_devices(cases):
    for name, found in run(cases).items():
        check(name, found, 8)
        if name != "own":
            # of one device's; 1/8 but for what is small, on each, and what fusion counts twice
            assert found["flops"] < (0.2 if name == "MASF" else 0.4), (name, found)
            assert found["room"] < 0.35, (name, found)
            assert found["message"] < 0.5, (name, found)  # no device gathers the ensemble


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [2, 4, 8])
def test_all_filters(n_devices):
    for name, found in run(str(n_devices), timeout=1800).items():
        check(name, found, n_devices)


def processes(count, folder, *arguments):
    """Ends and outputs of `process_cases.py` in so many processes on the loopback."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("process_cases.py"))]
    started = [
        subprocess.Popen(
            [*command, str(i), str(count), port, str(folder), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    outputs = [each.communicate(timeout=400)[0] for each in started]
    return [each.returncode for each in started], outputs


@pytest.mark.slow
def test_several_processes(tmp_path):
    """2 and 4 processes find what one does; with one killed the others end in a sentence, and all go on."""
    assert processes(1, tmp_path / "1")[0] == [0]
    one = np.load(tmp_path / "1" / "last.npy")
    for count in (2, 4):
        folder = tmp_path / str(count)
        ends, outputs = processes(count, folder, "2")
        assert all(ends)
        assert ends[1] == -9
        for i in {*range(count)} - {1}:
            # one that waits for the killed one's neighbours is ended by JAX, after the heartbeat's timeout
            said = f"process {i} of {count} cannot go on: another one has ended", "another task died"
            assert any(each in outputs[i] for each in said), outputs[i]
        assert not (folder / "last.npy").exists()
        ends, outputs = processes(count, folder)
        assert ends == [0] * count, outputs
        np.testing.assert_allclose(np.load(folder / "last.npy"), one, rtol=0, atol=1e-9)
