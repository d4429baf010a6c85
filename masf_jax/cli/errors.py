"""Errors meant for people: one message, no traceback, an exit code."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator

from ..observations.errors import FileError, printable
from .exit_codes import ExitCode

__all__ = ["InputError", "RunError", "Terminated", "WriteError", "of_files", "printable", "unknown", "warn"]


class Terminated(KeyboardInterrupt):
    """Ended by a signal, with the exit code that says which."""

    def __init__(self, exit_code: ExitCode):
        super().__init__()
        self.exit_code = exit_code


class RunError(Exception):
    """A run that cannot go on, with the message to show and the exit code to leave with."""

    exit_code = ExitCode.FAILED


class InputError(RunError):
    """What the user gave does not make a run: a key, a value, a file."""

    exit_code = ExitCode.BAD_INPUT


class WriteError(RunError):
    """The results could not be written."""


@contextlib.contextmanager
def of_files() -> Iterator[None]:
    """Says as an `InputError` what is wrong with a file of observations."""
    try:
        yield
    except FileError as error:
        raise InputError(str(error)) from error


def warn(text: str) -> None:
    """A warning of the command line, on stderr."""
    print(f"masf-jax: warning: {printable(text)}", file=sys.stderr)


def unknown(what: str, given: str, known: Iterable[str], more: str = "") -> InputError:
    """The error for a name that is not among `known`: nearest match first, then all of them.

    Dotted keys are compared by their last part; `more` is a further hint.
    """
    names = sorted(known)
    tails = {name.rsplit(".", 1)[-1]: name for name in names}
    near = difflib.get_close_matches(given.rsplit(".", 1)[-1], list(tails), n=1)
    hint = f" Did you mean {tails[near[0]]!r}?" if near else ""
    shown = given if len(given) <= 60 else given[:57] + "…"
    return InputError(f"unknown {what} {shown!r}.{hint}{more}\nValid: {', '.join(names)}.")
