"""The command line: run, compare, tune, train, plot, report, animate, list, doctor, init.

Nothing heavy is imported here: `--help`, `--version` and `list` need neither JAX nor Hydra.
"""

from __future__ import annotations

import importlib
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from . import help_texts
from .errors import InputError, RunError, Terminated, WriteError, printable, unknown, warn
from .exit_codes import ExitCode, ended_by, lines
from .output import lasting, option_and_rest, spoken

if TYPE_CHECKING:
    from .config.settings import Settings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code.

    Args:
        argv: arguments after the program's name; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        before = signal.signal(signal.SIGTERM, _terminated)
    except ValueError:  # not the main thread: whoever started it has the signals
        before = None

    def go() -> ExitCode:
        with spoken(arguments) as rest:
            return _guarded(lambda: _dispatch(rest), show_traceback)

    form = warnings.formatwarning
    if not show_traceback:
        warnings.formatwarning = _formatted
    try:
        with lasting() as out:
            code = _guarded(go, show_traceback)
            out.flush()
            if out.fault is None or isinstance(out.fault, BrokenPipeError):  # `masf-jax list | head`
                return code
            print(f"masf-jax: what was printed is not whole: {out.fault.strerror}.", file=sys.stderr)
            return code or WriteError.exit_code
    finally:
        warnings.formatwarning = form
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _guarded(act: Callable[[], ExitCode], show_traceback: bool) -> ExitCode:
    """What the act returns; of an error meant for people its exit code, once it is told."""
    try:
        return act()
    except RunError as error:
        if show_traceback:
            traceback.print_exc()
        print(f"masf-jax: {printable(str(error))}{_in_own_file(error)}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if show_traceback or not (told := _of_a_model(error) or _in_own_file(error)):
            raise
        print(f"masf-jax: {printable(told.strip())}", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt as error:
        print(
            "masf-jax: interrupted; results that were finished are kept, and the same command goes on.",
            file=sys.stderr,
        )
        return error.exit_code if isinstance(error, Terminated) else ExitCode.INTERRUPTED


def _of_a_model(error: Exception) -> str:
    """What a black-box model did wrong, or that what was asked for needs a derivative it has not."""
    host = sys.modules.get("masf_jax.dynamics.host")  # nothing is imported to tell: it is there, or not used
    if host is None:
        return ""
    from ..derivatives import NoDerivativeError

    found = error if isinstance(error, NoDerivativeError) else host.host_error(error)
    return "" if found is None else f"{found}{_in_own_file(found)}"


def _in_own_file(error: Exception) -> str:
    """Where in a user's file (dynamics=FILE.py:NAME) an error came from, on lines of its own."""
    own_files = sys.modules.get(f"{__package__}.config.own_files")
    fault = None if own_files is None else own_files.own_fault(error)
    return "" if fault is None or fault in str(error) else f"\n{fault}"


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is printed: what is meant for people without the place in the code it comes from."""
    if issubclass(category, UserWarning):
        return f"masf-jax: warning: {printable(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(ended_by(number))


def _dispatch(arguments: list[str]) -> ExitCode:
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help", "help"):
        print(help_texts.OVERVIEW, end="")
    elif command in ("--version", "-V"):
        from .. import __version__

        print(f"masf-jax {__version__}")
    elif command in help_texts.LONG and {"-h", "--help"} & set(rest):
        from .listing import group_lines, key_lines

        text = help_texts.LONG[command]
        print(text.format(groups=group_lines(), keys=key_lines(), codes=lines()), end="")
    elif command in ("doctor", "list") and {"-h", "--help"} & set(rest):
        print(
            *(line.strip() for line in help_texts.OVERVIEW.splitlines() if f" {command} " in line), sep="\n"
        )
    elif command in _COMMANDS:
        return _COMMANDS[command](rest)
    elif command in _ELSEWHERE:
        module, _, name = _ELSEWHERE[command].partition(":")
        return getattr(importlib.import_module(f"{__package__}.{module}"), name)(rest)
    else:
        raise unknown("command", command, (*_COMMANDS, *_ELSEWHERE, "--help", "--version"))
    return ExitCode.DONE


def _run(arguments: list[str]) -> ExitCode:
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    dry = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument not in (*sweep, "--dry-run")]
    path, overrides = _saved_config(arguments)
    if sweep:
        if path is not None:
            raise InputError("--config repeats one run; it does not go with -m.")
        if dry:
            raise InputError("--dry-run is of one run; it does not go with -m.")
        from .compare.sweep import run_sweep

        return run_sweep(arguments)
    if dry:
        from .run.memory import print_memory

        print_memory(_settings(path, overrides))
        return ExitCode.DONE
    from .process import in_processes
    from .report import print_outcome
    from .run.run import run

    with in_processes(overrides):
        settings = _settings(path, overrides)
        outcome = run(settings, shlex.join(["masf-jax", "run", *arguments]))
    if outcome is None:  # the first of several processes has it
        return ExitCode.DONE
    print_outcome(settings, outcome)
    for text in outcome.warnings:
        warn(text)
    return ExitCode.UNUSABLE if outcome.unusable else ExitCode.DONE


def _train(arguments: list[str]) -> ExitCode:
    given = [argument for argument in arguments if argument != "--overwrite"]
    start = [argument.partition("=")[2] for argument in given if argument.startswith("from=")]
    if len(start) > 1:
        raise InputError(f"from is given {len(start)} times: one checkpoint is trained further.")
    given = [argument for argument in given if not argument.startswith("from=")]
    settings = _settings(*_saved_config(given))
    from .run.train import train

    train(settings, given, "--overwrite" in arguments, start[0] if start else None)
    return ExitCode.DONE


def _settings(path: str | None, overrides: list[str]) -> Settings:
    """Composed from the overrides, or those of a saved file with the overrides."""
    from .config.compose import compose, repeat

    return compose(overrides) if path is None else repeat(path, overrides)


def _saved_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config FILE or --config=FILE, and the other arguments."""
    return option_and_rest(arguments, "--config", "a file: masf-jax run --config outputs/…/config.yaml")


_COMMANDS = {"run": _run, "train": _train}
_ELSEWHERE = {
    "compare": "compare.compare:compare",
    "tune": "compare.tune:tune",
    "animate": "run.finished:animate",
    "plot": "run.finished:plot",
    "report": "pages.report:report",
    "doctor": "doctor:doctor",
    "list": "listing:print_choices",
    "init": "start:init",
    "--show-completion": "completion:show",
    "--install-completion": "completion:install",
    "--complete": "completion:complete",
    "--complete-words": "completion:complete_words",
}
"""Functions of a command's arguments that return its exit code, by module (imported when they are called)."""


if __name__ == "__main__":
    sys.exit(main())
