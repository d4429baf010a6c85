"""The output folder of a run: of one process, of one configuration, with what an ended run left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from omegaconf import OmegaConf

from ...processes import first_tells, is_first, largest
from ...record import Record
from ...training.files import CheckpointError
from ..config.builders.registry import SHA256
from ..config.settings import Settings, flat
from ..config.values import plain_keys, yaml_config
from ..errors import InputError, RunError, WriteError
from ..exit_codes import ended_by
from ..files import check_writable, remedy, text_writer, write_all
from .pretrained import checkpoint_digest
from .results import RESULT, configuration_text
from .store import finish_store, is_unfinished

__all__ = [
    "CONTENT",
    "PARTIAL",
    "PARTIAL_CONFIG",
    "Interrupted",
    "Stoppable",
    "apart",
    "claimed",
    "clear_partial",
    "deciding",
    "files_of",
    "finished",
    "partial_record",
    "read_metrics",
]

PARTIAL = "partial.zarr"
PARTIAL_CONFIG = "partial.yaml"
_CONFIG, _LOCK = "config.yaml", ".masf-lock"
_STORE = RESULT["zarr"]
_OTHERS = ("metrics.json", _CONFIG)
CONTENT = "checkpoint_sha256"
"""In metrics.json, of what filter.checkpoint held."""
_NO_MATTER = ("output_dir", "overwrite", "resume", "progress", "figures", "chunk", "compilation_cache")
_NO_MATTER += ("result", *(f"layout.{key}" for key in ("batch_size", "processes", "coordinator", "process")))
_NO_MATTER += tuple(
    f"experiment.{key}" for key in ("description", "reference", "expected", "expected_std", "tuning")
)
"""Keys that no result hangs on."""
_SHOWN = 5


def deciding(settings: Settings) -> dict[str, Any]:
    """What a result hangs on: keys by dotted path, as they come back from a file, and a checkpoint."""
    content = checkpoint_digest(settings)
    return _keys(settings) | ({} if content is None else {"content of filter.checkpoint": content})


def _keys(settings: Settings) -> dict[str, Any]:
    values = flat(plain_keys(OmegaConf.create(configuration_text(settings))))
    return {key: value for key, value in values.items() if key not in _NO_MATTER}


def files_of(settings: Settings) -> tuple[str, ...]:
    """The names of a run's results."""
    return RESULT[settings.result], *_OTHERS


class Interrupted(RunError):
    """Ended by a signal; what is done is kept."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = ended_by(number)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside, the folder is this process's; a lock dies with the process that has it.

    Raises:
        InputError: another process has it.
        WriteError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    check_writable(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder} is in use by another masf-jax process: wait for it, or give another folder with "
            "output_dir=PATH."
        ) from error
    except OSError as error:
        raise WriteError(
            f"the output folder {folder} cannot be locked: {error.strerror or error}."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / _LOCK).unlink(missing_ok=True)  # while it is ours: nobody else's goes
        lock.release()
        with contextlib.suppress(OSError):
            if made and not any(folder.iterdir()):  # nothing was to be run
                folder.rmdir()


def finished(folder: Path, settings: Settings) -> bool:
    """Whether the folder has the results of this configuration.

    Raises:
        InputError: it has something else of the names that the run would write, and `overwrite` is not set.
    """
    held = [name for name in (*RESULT.values(), *_OTHERS) if (folder / name).exists()]
    if not held or settings.overwrite:
        return False
    if apart(folder / PARTIAL_CONFIG, settings) == "":  # ended before its results were all in place
        return False
    if _CONFIG not in held:
        raise InputError(_foreign(folder, f"{', '.join(held)} of something else"))
    other = apart(folder / _CONFIG, settings)
    if other is None:
        raise InputError(_foreign(folder, f"a {_CONFIG} that is not of a run"))
    if other:
        raise InputError(_foreign(folder, f"a run with another configuration ({other})"))
    if not set(files_of(settings)) <= set(held):
        return False
    then, now = read_metrics(folder / "metrics.json").get(CONTENT), checkpoint_digest(settings)
    if None not in (then, now) and then != now:
        what = f"a run with another content of filter.checkpoint={settings.filter['checkpoint']}"
        raise InputError(_foreign(folder, f"{what} (SHA-256 {then}… then, {now}… now)"))
    return True


@contextlib.contextmanager
def partial_record(folder: Path, settings: Settings) -> Iterator[Stoppable]:
    """Where the run's results go while it lasts: one that was ended goes on.

    Raises:
        InputError: what is there is of another configuration, and `overwrite` is not set; or damaged.
        WriteError: it cannot be written any more; what was there stays to go on from.
        Interrupted: a signal came.
    """
    path, config = folder / PARTIAL, folder / PARTIAL_CONFIG
    first_tells(lambda: _begun(folder, settings))
    try:
        record = Stoppable(path, short_runs=settings.result == "zarr")
    except FileExistsError as error:
        raise InputError(f"{error} (resume=never begins the run anew.)") from error
    try:
        yield record
    except CheckpointError as error:
        raise InputError(f"{error} (resume=never begins the run anew.)") from error
    except (OSError, WriteError) as error:
        raise WriteError(_unwritten(record, error)) from error
    finally:
        error = sys.exc_info()[1]  # a run that was stopped at once has its mark left, as one that was killed
        if is_first() and not path.exists() and (error is None or isinstance(error, Exception)):
            config.unlink(missing_ok=True)


def _begun(folder: Path, settings: Settings) -> int:
    """Marks the folder's unfinished run as this one's."""
    path, config = folder / PARTIAL, folder / PARTIAL_CONFIG
    if is_unfinished(folder / _STORE):  # ended before its other files were in place
        if apart(config, settings) == "" and not path.exists():
            os.replace(folder / _STORE, path)
        else:
            finish_store(folder / _STORE)
    if path.exists():
        other = apart(config, settings)
        if other != "" and not settings.overwrite:
            what = f"({other})" if other else "(which cannot be read)"
            raise InputError(_foreign(folder, f"an unfinished run with another configuration {what}"))
        if other != "" or settings.resume == "never":
            shutil.rmtree(path)
    write_all(folder, {config.name: text_writer(configuration_text(settings))})
    return 0


def _unwritten(record: Stoppable, error: OSError | WriteError) -> str:
    """What is to be said where the disk is full or gone: what is kept, after one more try to keep all."""
    if jax.process_count() == 1:  # several write together
        with contextlib.suppress(OSError):
            record.flush()
    kept = f"{record.cycles or 'No'} cycles of the run are kept in {record.path}"
    if isinstance(error, WriteError):
        return f"{error} {kept}." if record.cycles else str(error)
    again = f"{remedy(error)}, and give the same command again"
    return f"could not write {record.path}: {error.strerror or error}. {kept}: {again}."


def clear_partial(folder: Path) -> None:
    """Of a run whose results are in place."""
    if (folder / PARTIAL).exists():
        shutil.rmtree(folder / PARTIAL)
    if is_unfinished(folder / _STORE):
        finish_store(folder / _STORE)
    (folder / PARTIAL_CONFIG).unlink(missing_ok=True)


class Stoppable(Record):
    """A record that ends the run after the chunk in which a signal (Ctrl-C, SIGTERM) came."""

    every = 5.0
    """Seconds of computing between writings."""

    def __init__(self, path: Path, short_runs: bool):
        super().__init__(path, resume=True, seconds=self.every)
        self.short_runs = short_runs
        self.began_at = 0
        self._signal: int | None = None

    def begin(self, *arguments: Any) -> Any:
        state = super().begin(*arguments)
        self.began_at = self.cycles
        return state

    def append(self, *arguments: Any) -> None:
        super().append(*arguments)
        if number := largest(self._signal or 0):
            self.flush()
            jax.distributed.shutdown()
            raise self._interrupted(number)

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(
            f"stopped after cycle {self.cycles}; what is done lies in {self.path}. The same command goes "
            "on from there (resume=never: starts anew).",
            number,
        )

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the first signal ends the run after its chunk; a second Ctrl-C at once.

        Around the cycles alone: what is before and after them has no chunks, and a signal ends it at once.

        Raises:
            Interrupted: a signal came, at the latest when the cycles are over.
        """

        def note(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:
                raise KeyboardInterrupt
            self._signal = number

        try:
            before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever started it has the signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal is not None:  # after the last chunk
            raise self._interrupted(self._signal)


def read_metrics(path: Path) -> dict[str, Any]:
    """The numbers of a finished run.

    Raises:
        InputError: they are damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): overwrite=true makes the run anew.") from error


def _foreign(folder: Path, what: str) -> str:
    return f"{folder} holds {what}: give another folder with output_dir=PATH, or add overwrite=true."


def apart(path: Path, settings: Settings) -> str | None:
    """In which keys a saved configuration is another one ("" in none); None: it is no configuration."""
    try:
        held = flat(plain_keys(yaml_config(path)))
    except InputError:
        return None
    mine, missing = _keys(settings), object()
    if len(set(held) & set(mine)) < len(mine) // 2:
        return None
    held = {key: value for key, value in held.items() if key not in _NO_MATTER}
    keys = [key for key in dict.fromkeys((*mine, *held)) if held.get(key, missing) != mine.get(key, missing)]
    shown = [_difference(key, held, mine) for key in keys[:_SHOWN]]
    return ", ".join([*shown, *(["…"] if len(keys) > _SHOWN else [])])


def _difference(key: str, held: dict[str, Any], mine: dict[str, Any]) -> str:
    """In words, how a key of what is there differs from this run's."""
    group, _, last = key.rpartition(".")
    name = f"{group}.name"
    if last == SHA256 and held.get(name) == mine.get(name):
        return f"the file of {group}={mine.get(name)} has changed since"
    return f"{key}: {held.get(key)} there, {mine.get(key)} here"
