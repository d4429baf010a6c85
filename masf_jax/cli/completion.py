"""Completion in bash, zsh and fish: `--install-completion`, `--show-completion`; scripts ask `--complete`.

bash begins a word anew after = and :, and is given what follows the last of them; the others take whole
words (`--complete-words LINE`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from .compilations import cache_folder
from .errors import InputError
from .exit_codes import ExitCode
from .files import check_writable, text_writer, write_all
from .groups import GROUPS, choices, config_folder
from .help_texts import LONG

__all__ = ["candidates", "complete", "complete_words", "install", "show"]

_BASH = """\
_masf_jax() {
    local IFS=$'\\n'
    COMPREPLY=($(masf-jax --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
complete -o default -F _masf_jax masf-jax
"""
_ZSH = """\
#compdef masf-jax
_masf_jax() {
    local -a found
    local line="${(j: :)${(@Q)words[1,CURRENT-1]}} ${(Q)PREFIX}"
    found=(${(f)"$(masf-jax --complete-words $line 2>/dev/null)"})
    (( $#found )) || { _files; return }
    compadd -S '' -- ${(M)found:#*[=.]}
    compadd -- ${found:#*[=.]}
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _masf_jax "$@"
else
    compdef _masf_jax masf-jax
fi
"""
_FISH = """\
function __masf_jax_words
    masf-jax --complete-words (string join ' ' (commandline -opc) (commandline -ct)) 2>/dev/null
end
complete -c masf-jax -a '(__masf_jax_words)'
"""
_SCRIPTS = {
    "bash": (_BASH, "XDG_DATA_HOME", ".local/share", "bash-completion/completions/masf-jax"),
    "zsh": (_ZSH, "XDG_DATA_HOME", ".local/share", "zsh/site-functions/_masf_jax"),
    "fish": (_FISH, "XDG_CONFIG_HOME", ".config", "fish/completions/masf-jax.fish"),
}
"""By shell: its script, the variable of its folder, that folder in the home folder, and the path in it."""
_HOLDS = {
    "bash": "It holds in new shells that have bash-completion; else: source {path}",
    "zsh": "It holds in new shells where ~/.zshrc has, before compinit: fpath=({path.parent} $fpath)",
    "fish": "It holds in new shells.",
}
_OPTIONS = {
    "run": ("-m", "--config", "--dry-run", "--quiet", "--log-file", "--traceback", "--help"),
    "train": ("--config", "--overwrite", "--quiet", "--log-file", "--traceback", "--help"),
    "compare": ("--config", "--quiet", "--log-file", "--traceback", "--help"),
    "tune": ("--config", "--quiet", "--log-file", "--traceback", "--help"),
}
_OTHERS = ("plot", "report", "animate", "list", "doctor", "init")
_OWN = {
    "compare": ("filters=", "seeds=", "seeds_at_once="),
    "tune": ("trials=", "seeds=", "evaluation_seeds=", "seeds_at_once=", "objective="),
    "train": ("from=",),
}
_VALUES = {
    "precision": ("float32", "float64"),
    "result": ("netcdf", "zarr"),
    "objective": ("rmse", "likelihood"),
}
_VALUES |= {"resume": ("auto", "never"), "faults.action": ("repair", "skip", "error")}


def show(arguments: list[str]) -> ExitCode:
    """Prints the script of a shell."""
    print(_SCRIPTS[_shell(arguments, "--show-completion")][0], end="")
    return ExitCode.DONE


def install(arguments: list[str]) -> ExitCode:
    """Writes the script where the shell looks for it when it is needed."""
    shell = _shell(arguments, "--install-completion")
    script, variable, home, place = _SCRIPTS[shell]
    target = Path(os.environ.get(variable) or Path.home() / home) / place
    check_writable(target.parent)
    (path,) = write_all(target.parent, {target.name: text_writer(script)})
    print(f"{path}\n{_HOLDS[shell].format(path=path)}")
    return ExitCode.DONE


def _shell(arguments: list[str], option: str) -> str:
    """The one that is named, or else that of SHELL where it is known; bash."""
    if not arguments:
        own = Path(os.environ.get("SHELL", "")).name
        return own if own in _SCRIPTS else "bash"
    if len(arguments) > 1 or arguments[0] not in _SCRIPTS:
        raise InputError(f"{option} takes bash, zsh or fish, and nothing else; got {' '.join(arguments)}.")
    return arguments[0]


def complete(arguments: list[str]) -> ExitCode:
    """Prints what may stand at the end of a line, one a line."""
    print("\n".join(candidates(" ".join(arguments))))
    return ExitCode.DONE


def complete_words(arguments: list[str]) -> ExitCode:
    """Prints what the last word of a line may become, whole words, one a line."""
    line = re.sub("['\"]", "", " ".join(arguments))  # of brackets that the shell is to leave alone
    word = re.split(r"\s+", line.lstrip())[-1]
    head = re.match(r".*[=:]|", word)
    start = head.group() if head is not None else ""
    print("\n".join(f"{start}{each}" for each in candidates(line)))
    return ExitCode.DONE


def candidates(line: str) -> list[str]:
    """What the last word of a line may become, from the last = or : in it on, where bash begins a word."""
    *before, word = re.split(r"\s+", line.lstrip())
    if not before:
        return []
    if len(before) == 1:
        return _fitting(word, [*LONG, *_OTHERS, "--help", "--version", "--install-completion"])
    command = before[1]
    if command == "list":
        given = [each for each in before[2:] if each in GROUPS]
        return _fitting(word, choices(given[0]) if given else GROUPS)
    if command not in LONG or before[-1] in ("--config", "--log-file"):
        return []
    if word.startswith("-"):
        return _fitting(word, _OPTIONS[command])
    if "=" in word:
        return _values(word)
    return _fitting(word, _keys(command, word, before[2:]))


def _fitting(word: str, known: Iterable[str]) -> list[str]:
    return [each for each in known if each.startswith(word)]


def _values(word: str) -> list[str]:
    """Of KEY=START; of lists, filter=[a,START, their last part."""
    key, _, value = word.partition("=")
    head = re.match(r".*[\[,:]|", value)
    start = head.group() if head is not None else ""
    group = "filter" if key == "filters" else key
    known = choices(group) if group in GROUPS else _VALUES.get(key, ())
    found = [f"{start}{each}" for each in known if each.startswith(value[len(start) :])]
    return [each.rpartition(":")[2] for each in found]


def _keys(command: str, word: str, given: list[str]) -> list[str]:
    if (group := word.partition(".")[0]) in GROUPS and "." in word:
        chosen = [each.partition("=")[2] for each in given if each.startswith(f"{group}=")]
        return _group_keys(group, chosen[-1] if chosen else _default(group))
    return [*(f"{group}=" for group in GROUPS), *_root_keys(), *_OWN.get(command, ())]


def _root_keys() -> list[str]:
    """KEY= of the root, SECTION.KEY= of its sections, as they stand in config.yaml."""
    import yaml

    config = yaml.safe_load((config_folder() / "config.yaml").read_text(encoding="utf-8"))
    keys = []
    for key, value in config.items():
        if key not in ("defaults", "experiment", "hydra"):
            keys += [f"{key}.{each}=" for each in value] if isinstance(value, dict) and value else [f"{key}="]
    return keys


def _default(group: str) -> str:
    import yaml

    config = yaml.safe_load((config_folder() / "config.yaml").read_text(encoding="utf-8"))
    return next(str(each[group]) for each in config["defaults"] if isinstance(each, dict) and group in each)


def _group_keys(group: str, choice: str) -> list[str]:
    """GROUP.KEY= of a choice. To find them takes seconds (JAX): they are kept in the cache folder."""
    from .. import __version__

    folder, about = cache_folder(), f"{__version__} {group} {choice}"
    path = None if folder is None else folder.parents[1] / "keys.json"
    kept: dict[str, list[str]] = {}
    if path is not None and path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
    if about not in kept:
        from .config.compose import key_rows

        kept[about] = (
            [f"{group}.{key}=" for key, *_ in key_rows(group, choice)] if choice in choices(group) else []
        )
        if path is not None:
            write_all(path.parent, {path.name: text_writer(json.dumps(kept))})
    return kept[about]
