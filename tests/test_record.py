"""Results on disk are those in memory, however the run was cut; what is on disk is of one run."""

import shutil
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from masf_jax import Record, Simulation, assimilate, simulate
from masf_jax.dynamics import Lorenz96
from masf_jax.filters import ETKF
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations
from masf_jax.training import CheckpointError

MODEL, SENSOR = Lorenz96(n=8), Measurement(Identity(), Gaussian(1.0))
START = 8 + jax.random.normal(jax.random.key(5), (8,))
MEMBERS = START[None] + jax.random.normal(jax.random.key(1), (5, 8))
TWIN = Simulation(jax.random.key(0), MODEL, SENSOR, 23, 2, START)
STAGES = ("forecast", "analysis", "forecast_scores", "analysis_scores", "info")


class Killed(Exception):
    pass


def run(observations=TWIN, key=2, truth=None, rotation=True, **more):
    filter = ETKF(rotation=rotation)
    return assimilate(jax.random.key(key), filter, MODEL, SENSOR, observations, MEMBERS, truth=truth, **more)


@pytest.fixture(scope="module")
def given():
    return eqx.filter_jit(simulate)(jax.random.key(0), MODEL, SENSOR, 23, 2, START)


@pytest.fixture(scope="module")
def whole(given):
    return run(given.observations, truth=given.truth)


def assert_same(result, expected):
    for stage in STAGES:
        for name, array in getattr(expected, stage).items():
            np.testing.assert_array_equal(np.asarray(getattr(result, stage)[name]), array, err_msg=name)
    for name in ("steps", "faults", "skipped", "repaired", "diverged"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    np.testing.assert_array_equal(result.final.ensemble, expected.final.ensemble)


@pytest.mark.quick_cases("23")
@pytest.mark.parametrize("chunk", [pytest.param(None, marks=pytest.mark.slow), 5, 23])
def test_a_simulation_is_the_twin_that_simulate_makes(whole, tmp_path, chunk):
    assert_same(run(chunk=chunk, save_to=tmp_path / "run"), whole)
    assert_same(run(chunk=chunk), whole)


@pytest.mark.quick_cases("False")
@pytest.mark.parametrize("simulated", [True, False])
def test_a_run_goes_on_where_it_was_ended(given, whole, tmp_path, simulated):
    """After each of its chunks in turn, and in the middle of writing one."""
    observations = {"observations": TWIN} if simulated else given._asdict()
    path, chunk = tmp_path / "run", 4

    class Ending(Record):
        left = 1

        def flush(self):
            if self.left == 0:  # arrays are longer than the state says
                self._write(self._waiting, len(self._waiting[0]["steps"]))
                raise Killed
            self.left -= 1
            super().flush()

    for _ in range(5):
        with pytest.raises(Killed):
            run(**observations, chunk=chunk, save_to=Ending(path, resume=True, seconds=0.0))
    result = run(**observations, chunk=chunk, save_to=path, resume=True)
    assert_same(result, whole)
    assert_same(run(**observations, save_to=path, resume=True), whole)
    with xr.open_zarr(path, consolidated=False) as data:
        assert dict(data.sizes)["cycle"] == 23
        np.testing.assert_array_equal(data["truth"], given.truth)
        np.testing.assert_array_equal(data["rmse_analysis"], whole.analysis_scores["rmse"])


def test_what_is_there_is_not_mixed_with_something_else(given, tmp_path):
    path = tmp_path / "run"
    run(given.observations, save_to=path)
    with pytest.raises(FileExistsError, match="resume=True goes on"):
        run(given.observations, save_to=path)
    with pytest.raises(CheckpointError, match="another run"):
        run(given.observations, key=3, save_to=path, resume=True)
    with pytest.raises(CheckpointError, match="another run"):  # they differ in no array
        run(given.observations, rotation=False, save_to=path, resume=True)
    other = Observations(np.asarray(given.observations.values) + 1, 2)
    with pytest.raises(CheckpointError, match="another run"):
        run(other, save_to=path, resume=True)
    state = path / "state" / "run.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="changed since"):
        run(given.observations, save_to=path, resume=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no record of a run"):
        run(given.observations, save_to=foreign, resume=True)
    shutil.rmtree(path / "state")
    assert len(run(given.observations, save_to=path, resume=True).faults) == 23


def _shorten(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("analysis_mean/c/1/0", _shorten, "analysis_mean is damaged"),
        ("faults/c/2", Path.unlink, "faults is damaged: 1 of its 6 chunks are missing"),  # all zeros
        ("faults/zarr.json", _shorten, "is damaged"),
        ("zarr.json", _shorten, "no record of a run, or a damaged one"),
    ],
)
def test_damage_is_found_before_a_run_goes_on(given, tmp_path, file, damage, message):
    path = tmp_path / "run"
    run(given.observations, chunk=4, save_to=Record(path, seconds=0.0))
    damage(path / file)
    with pytest.raises((CheckpointError, FileExistsError), match=message):
        run(given.observations, chunk=4, save_to=path, resume=True)


def test_a_chunk_without_a_file_reads_as_nan(given, tmp_path):
    run(given.observations, chunk=4, save_to=Record(tmp_path / "run", seconds=0.0))
    (tmp_path / "run/analysis_mean/c/1/0").unlink()
    with xr.open_zarr(tmp_path / "run", consolidated=False) as data:
        lost = np.isnan(data["analysis_mean"].values).any(1)
    np.testing.assert_array_equal(lost, (np.arange(23) >= 4) & (np.arange(23) < 8))


def test_a_simulation_begins_at_step_0(given):
    end = run(Observations(given.observations.values[:3], 2)).end
    with pytest.raises(ValueError, match="starts at step 0"):
        assimilate(None, ETKF(rotation=True), MODEL, SENSOR, TWIN, start=end)
    with pytest.raises(ValueError, match="its own truth"):
        run(truth=given.truth)
