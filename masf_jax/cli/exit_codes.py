"""What the command line ends with: every exit code, in one place (docs/terminal.md)."""

from __future__ import annotations

import enum

__all__ = ["ExitCode", "ended_by", "lines"]


class ExitCode(enum.IntEnum):
    """Each with what it says; `run_error.exit_code` is one of these."""

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        made = int.__new__(cls, number)
        made._value_ = number
        made.meaning = meaning
        return made

    meaning: str

    DONE = 0, "done"
    FAILED = 1, "results could not be written, a job or filter failed, or doctor found something wrong"
    BAD_INPUT = 2, "what was given does not make a run: a key, a value, a file"
    UNUSABLE = 3, "the filter diverged, or cycles could not be used; the results are written all the same"
    INTERRUPTED = 130, "Ctrl-C; what was finished is kept, and the same command goes on"
    TERMINATED = 143, "SIGTERM; the same"


def ended_by(signal_number: int) -> ExitCode:
    """The code of a process that SIGINT or SIGTERM ended: 128 and the signal's number."""
    return ExitCode(128 + signal_number)


def lines() -> str:
    """For a help text."""
    return "\n".join(f"  {code.value:<4} {code.meaning}" for code in ExitCode)
