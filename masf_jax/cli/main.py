"""The command line: run, compare, tune, train, plot, report, animate, list, doctor.

Nothing heavy is imported here: `--help`, `--version` and `list` need neither JAX nor Hydra.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from . import help_texts
from .errors import DIVERGED, InputError, RunError, Terminated, printable, unknown, warn

if TYPE_CHECKING:
    from .config.settings import Settings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
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
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except RunError as error:
        if show_traceback:
            traceback.print_exc()
        print(f"masf-jax: {printable(str(error))}{_in_own_file(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `masf-jax list | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be flushed
        return 0
    except Exception as error:
        if show_traceback or not (told := _in_own_file(error)):
            raise
        print(f"masf-jax: {printable(told.strip())}", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt as error:
        print(
            "masf-jax: interrupted; results that were finished are kept, and the same command goes on.",
            file=sys.stderr,
        )
        return error.exit_code if isinstance(error, Terminated) else 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _in_own_file(error: Exception) -> str:
    """Where in a user's file (dynamics=FILE.py:NAME) an error came from, on lines of its own."""
    own_files = sys.modules.get(f"{__package__}.config.own_files")
    fault = None if own_files is None else own_files.own_fault(error)
    return "" if fault is None or fault in str(error) else f"\n{fault}"


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)


def _dispatch(arguments: list[str]) -> int:
    command, *rest = arguments or ["--help"]
    texts = {"run": help_texts.RUN, "compare": help_texts.COMPARE, "tune": help_texts.TUNE}
    texts["train"] = help_texts.TRAIN
    if command in ("-h", "--help", "help"):
        print(help_texts.OVERVIEW, end="")
    elif command in ("--version", "-V"):
        from .. import __version__

        print(f"masf-jax {__version__}")
    elif command in texts and {"-h", "--help"} & set(rest):
        from .listing import group_lines, key_lines

        print(texts[command].format(groups=group_lines(), keys=key_lines()), end="")
    elif command == "list":
        from .listing import print_choices

        print_choices(rest)
    elif command == "run":
        return _run(rest)
    elif command == "train":
        return _train(rest)
    elif command == "compare":
        from .compare.compare import compare

        return compare(rest)
    elif command == "tune":
        from .compare.tune import tune

        return tune(rest)
    elif command in ("animate", "plot"):
        from .run import finished

        return finished.animate(rest) if command == "animate" else finished.plot(rest)
    elif command == "report":
        from .pages.report import report

        return report(rest)
    elif command == "doctor":
        from .doctor import doctor

        return doctor(rest)
    else:
        raise unknown(
            "command", command, (*texts, "animate", "plot", "report", "doctor", "list", "--help", "--version")
        )
    return 0


def _run(arguments: list[str]) -> int:
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
        return 0
    from .process import in_processes
    from .report import print_outcome
    from .run.run import run

    with in_processes(overrides):
        settings = _settings(path, overrides)
        outcome = run(settings, shlex.join(["masf-jax", "run", *arguments]))
    if outcome is None:  # the first of several processes has it
        return 0
    print_outcome(settings, outcome)
    for text in outcome.warnings:
        warn(text)
    return DIVERGED if outcome.unusable else 0


def _train(arguments: list[str]) -> int:
    given = [argument for argument in arguments if argument != "--overwrite"]
    start = [argument.partition("=")[2] for argument in given if argument.startswith("from=")]
    if len(start) > 1:
        raise InputError(f"from is given {len(start)} times: one checkpoint is trained further.")
    given = [argument for argument in given if not argument.startswith("from=")]
    settings = _settings(*_saved_config(given))
    from .run.train import train

    train(settings, given, "--overwrite" in arguments, start[0] if start else None)
    return 0


def _settings(path: str | None, overrides: list[str]) -> Settings:
    """Composed from the overrides, or those of a saved file with the overrides."""
    from .config.compose import compose, repeat

    return compose(overrides) if path is None else repeat(path, overrides)


def _saved_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config FILE or --config=FILE, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError("--config needs a file: masf-jax run --config outputs/…/config.yaml") from error
    return known.config, rest


if __name__ == "__main__":
    sys.exit(main())
