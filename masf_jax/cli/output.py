"""Where the words of a command go: streams that may break, and of a long one `--quiet`, `--log-file PATH`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from .errors import InputError, WriteError

__all__ = ["LONG", "lasting", "option_and_rest", "spoken"]

LONG = ("run", "compare", "tune", "train")
"""Commands that take the two options."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


def option_and_rest(arguments: list[str], name: str, missing: str) -> tuple[str | None, list[str]]:
    """The value of NAME VALUE or NAME=VALUE, and the other arguments.

    Args:
        missing: what is said where there is no value.

    Raises:
        InputError: no value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(name, dest="value")
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"{name} needs {missing}") from error
    return known.value, rest


@contextlib.contextmanager
def lasting() -> Iterator[_Lasting]:
    """Inside, printing does not fail, and a command goes on whoever reads it; gives the standard output."""
    out, err = _Lasting(sys.stdout), _Lasting(sys.stderr)
    for stream in (out.stream, err.stream):
        if stream is None:  # closed from the beginning: the next file that is opened would have its number
            os.open(os.devnull, os.O_RDWR)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out
        out.flush()
        err.flush()


class _Lasting(io.TextIOBase):
    """A stream of which, once nobody reads it (`| head`) or it takes no more, the rest goes nowhere.

    None, of a stream that was closed from the beginning, is one too; letters that its encoding has not are
    question marks. `fault`: why it took no more.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        if self.stream is None:
            return len(text)
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode(self.encoding, "replace").decode(self.encoding))
        except OSError as error:
            self._breaks(error)
        return len(text)

    def flush(self) -> None:
        try:
            if self.stream is not None:
                self.stream.flush()
        except OSError as error:
            self._breaks(error)

    def _breaks(self, error: OSError) -> None:
        self.fault = self.fault or error
        with open(os.devnull, "w") as nowhere, contextlib.suppress(io.UnsupportedOperation):
            os.dup2(nowhere.fileno(), self.fileno())  # also for what is held back still

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("fileno")
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self.stream, "encoding", None) or "utf-8"


@contextlib.contextmanager
def spoken(arguments: list[str]) -> Iterator[list[str]]:
    """Inside, what is printed goes where the options of a long command say; gives the other arguments.

    Raises:
        InputError, WriteError: a log file that is not named, or cannot be written.
    """
    if not arguments or arguments[0] not in LONG:
        yield arguments
        return
    path, rest = option_and_rest(arguments, "--log-file", "a file: masf-jax run … --log-file run.log")
    quiet = "--quiet" in rest
    rest = [argument for argument in rest if argument != "--quiet"]
    if path is None and not quiet:
        yield rest
        return
    with contextlib.ExitStack() as stack:
        log = None if path is None else stack.enter_context(_Log(Path(path), arguments))
        stack.enter_context(contextlib.redirect_stdout(_Copied(None if quiet else sys.stdout, log)))
        stack.enter_context(contextlib.redirect_stderr(_Copied(sys.stderr, log)))
        yield rest


class _Log:
    """A file to which lines are added as a terminal would show them in the end: without colours, and of a
    bar that is drawn again and again the last one."""

    def __init__(self, path: Path, arguments: list[str]):
        try:
            self.file = path.open("ab", buffering=0)
        except OSError as error:
            raise WriteError(f"--log-file {path} cannot be written: {error.strerror or error}.") from error
        self.path, self.line = path, ""
        self.head = f"# {_now()} {shlex.join(['masf-jax', *arguments])}\n"

    def add(self, text: str) -> None:
        *whole, self.line = (self.line + text).split("\n")
        self._write("".join(f"{_shown(line)}\n" for line in whole))

    def _write(self, text: str) -> None:
        if not text or self.file.closed:
            return
        text, self.head = self.head + text, ""  # of several processes only those that say something have one
        try:
            self.file.write(text.encode(errors="backslashreplace"))
        except OSError as error:  # the run goes on
            self.file.close()
            said = f"--log-file {self.path}: {error.strerror or error}; nothing more is written to it."
            print(f"masf-jax: warning: {said}", file=sys.__stderr__)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.add("".join(traceback.format_exception(error)))
        if self.line:
            self.add("\n")
        self.file.close()


class _Copied(_Lasting):
    """What goes to a stream (None: nowhere), and to a log (None: none)."""

    def __init__(self, stream: TextIO | None, log: _Log | None):
        super().__init__(stream)
        self.log = log

    def write(self, text: str) -> int:
        if self.log is not None:
            self.log.add(text)
        return super().write(text)


def _shown(line: str) -> str:
    """What is left of a line that was written over."""
    return _ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2])


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
