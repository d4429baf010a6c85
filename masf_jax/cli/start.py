"""`masf-jax init`: a folder with a model, a sensor, a run and a test that work, to change into one's own."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .exit_codes import ExitCode
from .files import check_writable, text_writer, write_all
from .groups import config_folder

__all__ = ["init"]

_HELP = """\
masf-jax init [FOLDER]

Makes FOLDER (masf-jax-start) with a model, a sensor, a run and a test that work as they are:
{files}
Files that are there are never replaced.
"""


def init(arguments: list[str]) -> ExitCode:
    """Copies the files of configs/start into a folder.

    Raises:
        InputError: more than one folder, or one that has a file of the same name.
        WriteError: it cannot be written.
    """
    sources = sorted(path for path in (config_folder() / "start").iterdir() if path.is_file())
    if {"-h", "--help"} & set(arguments):
        print(_HELP.format(files="\n".join(f"  {path.name:<16} {_about(path)}" for path in sources)), end="")
        return ExitCode.DONE
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise InputError(f"masf-jax init takes one folder; got {' '.join(arguments)}.")
    folder = Path(*arguments or ["masf-jax-start"])
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give another folder.")
    there = [path.name for path in sources if (folder / path.name).exists()]
    if there:
        raise InputError(
            f"{folder} has {', '.join(there)} already: nothing was written. Give another folder."
        )
    check_writable(folder)
    writers = {path.name: text_writer(path.read_text(encoding="utf-8")) for path in sources}
    print(*write_all(folder, writers), sep="\n")
    go = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    print(f"Next: {go}masf-jax run --config run.yaml")
    return ExitCode.DONE


def _about(path: Path) -> str:
    """The first line of a file, without what makes it a comment or docstring."""
    return path.read_text(encoding="utf-8").split("\n", 1)[0].strip('#" ')
