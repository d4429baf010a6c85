"""The command line: `masf-jax run`, `compare`, `tune`, `train`, `animate`, `figures`, `list`."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence

from . import help_texts
from .errors import DIVERGED, InputError, RunError, unknown

__all__ = ["main"]

_COMMANDS = ("run", "compare", "tune", "train", "animate", "figures", "list")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    Args:
        argv: arguments after the program's name; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        return _dispatch(arguments)
    except RunError as error:
        if show_traceback:
            traceback.print_exc()
        print(f"masf-jax: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("masf-jax: interrupted; earlier results are as they were.", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_texts.OVERVIEW, end="")
        return 0
    command, *rest = arguments
    if command in ("--version", "-V"):
        from .. import __version__

        print(f"masf-jax {__version__}")
        return 0
    if command == "list":
        from .listing import print_choices

        print_choices(rest)
        return 0
    if command == "run":
        return _run(rest)
    if command in ("compare", "tune"):
        return _compare(rest) if command == "compare" else _tune(rest)
    if command == "train":
        return _train(rest)
    if command in ("animate", "figures"):
        from .run import finished

        return finished.animate(rest) if command == "animate" else finished.figures(rest)
    raise unknown("command", command, (*_COMMANDS, "--help", "--version"))


def _run(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        from .listing import group_lines, key_lines

        print(help_texts.RUN.format(groups=group_lines(), keys=key_lines()), end="")
        return 0
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    arguments = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    path, arguments = _saved_config(arguments)
    if sweep:
        if path is not None:
            raise InputError("--config repeats one run; it does not go with -m.")
        from .compare.sweep import run_sweep

        return run_sweep(arguments)
    from .config.compose import compose, repeat

    settings = compose(arguments) if path is None else repeat(path, arguments)
    from .report import print_outcome
    from .run.run import run

    shown = ["--config", path, *arguments] if path is not None else arguments
    outcome = run(settings, shlex.join(["masf-jax", "run", *shown]))
    print_outcome(settings, outcome)
    if outcome.diverged_at is not None:
        print(
            f"masf-jax: warning: the filter diverged at cycle {outcome.diverged_at}; results from there "
            "on are NaN. More inflation or members, a smaller localisation radius or model step may help.",
            file=sys.stderr,
        )
        return DIVERGED
    return 0


def _compare(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(help_texts.COMPARE, end="")
        return 0
    from .compare.compare import compare

    return compare(arguments)


def _tune(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(help_texts.TUNE, end="")
        return 0
    from .compare.tune import tune

    return tune(arguments)


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(help_texts.TRAIN, end="")
        return 0
    given = [argument for argument in arguments if argument != "--overwrite"]
    path, overrides = _saved_config(given)
    from .config.compose import compose, repeat
    from .run.train import train

    settings = compose(overrides) if path is None else repeat(path, overrides)
    train(settings, given, overwrite="--overwrite" in arguments)
    return 0


def _saved_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of --config FILE or --config=FILE, and the other arguments."""
    path, rest, waiting = None, [], False
    for argument in arguments:
        if waiting:
            path, waiting = argument, False
        elif argument == "--config":
            waiting = True
        elif argument.startswith("--config="):
            path = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    if waiting:
        raise InputError("--config needs a file: masf-jax run --config outputs/…/config.yaml")
    return path, rest


if __name__ == "__main__":
    sys.exit(main())
