"""Files are read in this process, but for tests of the reading process: the same code, not its start."""

from __future__ import annotations

import io

import pytest

from masf_jax.observations import dataset_files, reader
from masf_jax.observations.reading import read_observations
from masf_jax.observations.source import ObservationFile


@pytest.fixture(autouse=True)
def _in_process(request, monkeypatch):
    if "own_process" in request.fixturenames:
        return

    def answer(path, engine, names):
        out = io.BytesIO()
        reader.answer(out, str(path), engine, dataset_files.memory_limit(), list(names))
        return out.getvalue()

    monkeypatch.setattr(reader, "limit", lambda *limits: None)
    monkeypatch.setattr(dataset_files, "_answer", answer)


@pytest.fixture
def own_process():
    """Datasets are read by a process of their own, as users have it."""


@pytest.fixture
def read():
    """read(path, shape, dt, n_cycles, positions, **keys of `observations`)."""

    def call(path, shape=(1,), dt=1.0, n_cycles=None, positions=None, **source):
        return read_observations(ObservationFile(path=str(path), **source), shape, dt, n_cycles, positions)

    return call
