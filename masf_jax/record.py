"""Results that leave memory as they come: a zarr store that grows with the cycles, and the run's state."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .processes import all_alike, first_tells, is_first, on_host
from .run_state import RunState
from .training.files import CheckpointError, absolute

__all__ = ["BUFFER", "Record", "Stored"]

_STATE = "state/run.safetensors"  # in a group of its own: zarr warns of files it does not know
_MARK = "masf_jax"
BUFFER = 2**26
"""Bytes of results that wait for `seconds` to be over at most."""
_LARGE = 2**22
"""Bytes of results after whose writing freed memory is given back."""
_STAGES = ("forecast", "analysis")
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
Stored = Any
"""An array on disk (zarr): slices and `np.asarray` read it."""


class Record:
    """The results of a run on disk, cycles along axis 0: `zarr.open_group(PATH)`, `xarray.open_zarr(PATH)`.

    Arrays have the names of the command line's result.nc: analysis_mean, rmse_forecast, …. How many cycles
    count is said by the run's state in state/run.safetensors, replaced once their arrays are written:
    whatever ends the process, the run goes on from there, and makes again what came later.

    Args:
        path: of the store; made where nothing is.
        resume: whether to go on with a run that is there (refused if it is not this run's).
        seconds: results wait in memory so long (64 MB of them at most) before they are written; 0: not.

    Of several processes (`jax.distributed`) all make one, of a folder that all see, and the first writes.

    Raises:
        FileExistsError: something is there, and not to be gone on with.
        ProcessLostError: the first process could not make it.
    """

    short_runs = True
    """Whether a run that ends before anything was written is written too."""

    def __init__(self, path: str | os.PathLike[str], resume: bool = False, seconds: float = 2.0):
        self.path, self.resume, self.seconds = absolute(path), resume, seconds
        self.cycles = 0
        """Cycles of this run that are on disk."""
        self._waiting: list[dict[str, Any]] = []
        self._paths: dict[str, tuple[str, ...]] = {}
        self._arrays: dict[str, Any] = {}
        self._since = time.monotonic()
        first_tells(self._check)

    def _check(self) -> int:
        if self.path.exists() and not (self.resume and self._own()):
            lost = "is no record of a run, or a damaged one"
            what = lost if not self._own() else "has a run: resume=True goes on with it"
            raise FileExistsError(f"{self.path} {what}; give another place, or remove it.")
        return 0

    def begin(self, start: RunState, about: str) -> RunState:
        """The state to go on from: what is on disk, or `start`.

        Args:
            about: what the run is (a digest); another one on disk is refused.

        Raises:
            CheckpointError: what is on disk is not of this run, or damaged.
            ValueError: several processes have different runs.
        """
        if not all_alike(about):
            raise ValueError(
                "the processes of this run made different problems (filter, model, observations, members): "
                "give all the same ones, on machines of one kind."
            )
        self._first, self._about = int(start.cycle), about
        self.cycles = first_tells(lambda: self._opened(start))
        return RunState.load(self.path / _STATE, start) if self.cycles else start

    def _opened(self, start: RunState) -> int:
        """How many cycles are on disk, cut down to those that count, all of which can be read."""
        if not (self.path / _STATE).exists():
            if self.path.exists():  # begun, and ended before its first cycles were complete
                shutil.rmtree(self.path)
            return 0
        done = int(RunState.load(self.path / _STATE, start).cycle) - self._first
        with _damage_told(self.path), _all_written():
            group = self._group("r+")
            if group.attrs[_MARK] != self._about:
                raise CheckpointError(
                    f"{self.path} is of another run (filter, model, measurement, observations, members, key, "
                    "or what is saved): give that run's, or another place."
                )
            self._paths = {name: tuple(path) for name, path in group.attrs["paths"].items()}
            self._arrays = {name: group[name] for name in self._paths}
        for name, array in self._arrays.items():
            _cut(array, done, self.path / name)
        return done

    def append(self, results: dict[str, Any], state: RunState) -> None:
        """Cycles that came next, arrays by (nested) name, and the state after them."""
        self._waiting.append({"/".join(path): np.asarray(leaf) for path, leaf in _leaves(on_host(results))})
        self._state = state
        size = sum(leaf.nbytes for piece in self._waiting for leaf in piece.values())
        several = jax.process_count() > 1  # whose clocks would not agree
        if several or time.monotonic() - self._since >= self.seconds or size > BUFFER:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if not self._waiting:
            return
        pieces = self._waiting
        n = sum(len(next(iter(piece.values()))) for piece in pieces)
        if is_first():
            self._write(pieces, n)
        self._state.save(self.path / _STATE)
        self.cycles += n
        large = sum(leaf.nbytes for piece in pieces for leaf in piece.values()) > _LARGE
        del pieces
        self._waiting, self._since = [], time.monotonic()
        if large:
            _give_back()

    def _write(self, pieces: list[dict[str, Any]], n: int) -> None:
        if not self._arrays:
            self._paths = {_name(path): tuple(path.split("/")) for path in pieces[0]}
            group = self._group("a")
            group.attrs.update({_MARK: self._about, "paths": self._paths})
            group.require_group("state")
            with _all_written():
                self._arrays = {
                    name: _empty(group, name, pieces[0]["/".join(path)]) for name, path in self._paths.items()
                }
        for name, path in self._paths.items():
            values = np.concatenate([piece["/".join(path)] for piece in pieces])
            array = self._arrays[name]
            array.resize((self.cycles + n, *values.shape[1:]))
            array[self.cycles :] = values

    def last(self, path: str, name: str) -> np.ndarray:
        """The newest cycle of an array, by its path in what was appended and its name here."""
        return self._waiting[-1][path][-1] if self._waiting else self._arrays[name][self.cycles - 1]

    def results(self) -> dict[str, Any]:
        """By the names that `append` was given: of a run on disk fields as arrays there, numbers of each
        cycle in memory; else all in memory."""
        found: dict[str, Any] = {}
        if not self.cycles and not self.short_runs:
            for path in self._waiting[0]:
                values = np.concatenate([piece[path] for piece in self._waiting])
                _put(found, tuple(path.split("/")), values)
            return found
        self.flush()
        if not is_first():
            group = self._group("r")
            self._paths = {name: tuple(path) for name, path in group.attrs["paths"].items()}
            self._arrays = {name: group[name] for name in self._paths}
        for name, path in self._paths.items():
            array = self._arrays[name]
            _put(found, path, array if array.ndim > 1 else array[:])
        return found

    def _own(self) -> bool:
        """Whether the folder is one of these, or empty (begun)."""
        if not self.path.is_dir():
            return False
        names = {each.name for each in self.path.iterdir()}
        try:
            return not names or ("zarr.json" in names and _MARK in self._group("r").attrs)
        except _UNREADABLE:
            return False

    def _group(self, mode: Any) -> Any:
        import zarr

        return zarr.open_group(self.path, mode=mode, zarr_format=3)


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """What zarr and its codecs raise of files that are not as they were written, as a `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}): remove the run, or give another place."
        ) from error


def _all_written() -> contextlib.AbstractContextManager[Any]:
    """Of arrays made or opened inside each chunk has a file, also one of zeros: a lost one is missed."""
    import zarr

    return zarr.config.set({"array.write_empty_chunks": True})


def _cut(array: Any, done: int, path: Path) -> None:
    """Cuts an array down to its first cycles, which are read: a run would meet a damaged one at its end."""
    if array.shape[0] < done:
        raise CheckpointError(f"{path} has fewer cycles than the run: it was damaged.")
    with _damage_told(path):
        array.resize((done, *array.shape[1:]))
        lost = array.nchunks - array.nchunks_initialized
        if lost:
            raise CheckpointError(f"{path} is damaged: {lost} of its {array.nchunks} chunks are missing.")
        for first in range(0, done, array.chunks[0]):
            array[first : first + array.chunks[0]]


def _give_back() -> None:
    """Freed memory to the system: of arrays of some MB glibc keeps ever more, between others."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)


def _empty(group: Any, name: str, values: np.ndarray) -> Any:
    """A new array of no cycles, in chunks of as many as come at a time."""
    shape = values.shape[1:]
    dims = ("cycle", *(f"{name}_{i}" for i in range(1, len(shape) + 1)))
    chunks = tuple(max(length, 1) for length in values.shape)
    # what a chunk without a file reads as
    lost = np.nan if np.issubdtype(values.dtype, np.floating) else None
    return group.create_array(
        name, shape=(0, *shape), chunks=chunks, dtype=values.dtype, dimension_names=dims, fill_value=lost
    )


def _leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, each in tree.items():
        if isinstance(each, dict):
            yield from _leaves(each, (*path, name))
        else:
            yield (*path, name), each


def _put(tree: dict[str, Any], path: tuple[str, ...], leaf: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _name(path: str) -> str:
    """forecast/mean: forecast_mean; forecast_scores/rmse: rmse_forecast; the rest by its last part."""
    first, _, last = path.rpartition("/")
    stage = first.removesuffix("_scores")
    if stage not in _STAGES:
        return last
    return f"{stage}_{last}" if first == stage else f"{last}_{stage}"
