"""The command line: `masf-jax run`, `train`, `animate`, `figures`, `list`."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence

from .errors import DIVERGED, InputError, RunError, unknown

__all__ = ["main"]

_HELP = """\
masf-jax: data assimilation experiments

  masf-jax run [KEY=VALUE …]     run an experiment         (masf-jax run --help)
  masf-jax train [KEY=VALUE …]   pretrain the network of a score-based filter (masf-jax train --help)
  masf-jax animate RUN_DIR       vorticity of a flow's run as GIF or MP4   (--format mp4)
  masf-jax figures RUN_DIR       draw a run's figures anew
  masf-jax list [GROUP]          choices of every group, one line each
  masf-jax --version

Try: masf-jax run experiment=lorenz96_sakov2008
"""
_RUN_HELP = """\
masf-jax run [OPTIONS] [KEY=VALUE …]

Composes a configuration, runs the experiment, prints a table and writes into output_dir:
result.nc, metrics.json, config.yaml (fully resolved) and figures.

Options:
  -m, --multirun   sweep: every combination of comma-separated values (docs/sweeps.md)
  --config FILE    repeat a saved config.yaml bit for bit; overrides may follow
  --traceback      show the whole traceback of an error
  -h, --help       this text

Groups (GROUP=NAME; their keys are GROUP.KEY=VALUE):
{groups}
Root keys and their defaults:
{keys}
Examples:
  masf-jax run experiment=lorenz96_sakov2008
  masf-jax run experiment=lorenz96_sakov2008 filter=letkf seed=3 n_cycles=2000
  masf-jax run dynamics=lorenz63 filter=particle ensemble_size=1000 steps_per_cycle=25
  masf-jax run measurement=arctan measurement.noise.std=0.05 filter=letkf filter.radius=4
  masf-jax run experiment=nile observations.path=my_river.csv
  masf-jax run --config outputs/lorenz96_sakov2008-etkf-seed0/config.yaml output_dir=again
  masf-jax run -m experiment=lorenz96_sakov2008 filter=etkf,enkf,letkf seed=0,1,2

Exit codes: 0 done, 1 results could not be written, 2 bad input, 3 the filter diverged.
"""
_TRAIN_HELP = """\
masf-jax train [OPTIONS] [KEY=VALUE …]

Pretrains the network of filter=masf_paper, or of filter=masf filter.denoiser=network, on the model's own
climatology and writes a checkpoint, into checkpoints/<experiment or dynamics>-<filter> or output_dir=PATH.
Groups and keys are those of masf-jax run; those of the run the network is for: it fits one model, one
measurement and one set of filter.network keys, and no other.

Options:
  --config FILE    settings of a saved config.yaml; overrides may follow
  --overwrite      replace a checkpoint that is there
  --traceback      show the whole traceback of an error
  -h, --help       this text

Example:
  masf-jax train experiment=lorenz63_sakov2012 filter=masf_paper
  masf-jax run experiment=lorenz63_sakov2012 filter=masf_paper \\
    filter.checkpoint=checkpoints/lorenz63_sakov2012-masf_paper
"""


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
        print(_HELP, end="")
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
    if command == "train":
        return _train(rest)
    if command in ("animate", "figures"):
        from . import finished

        return finished.animate(rest) if command == "animate" else finished.figures(rest)
    raise unknown("command", command, ("run", "train", "animate", "figures", "list", "--help", "--version"))


def _run(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        from .listing import group_lines, key_lines

        print(_RUN_HELP.format(groups=group_lines(), keys=key_lines()), end="")
        return 0
    sweep = [argument for argument in arguments if argument in ("-m", "--multirun")]
    arguments = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    path, arguments = _saved_config(arguments)
    if sweep:
        if path is not None:
            raise InputError("--config repeats one run; it does not go with -m.")
        from .sweep import run_sweep

        return run_sweep(arguments)
    from .compose import compose, repeat

    settings = compose(arguments) if path is None else repeat(path, arguments)
    from .report import print_outcome
    from .run import run

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


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print(_TRAIN_HELP, end="")
        return 0
    given = [argument for argument in arguments if argument != "--overwrite"]
    path, overrides = _saved_config(given)
    from .compose import compose, repeat
    from .train import train

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
