"""From the command line's overrides to settings: Hydra composes groups, we check everything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import InputError, unknown
from ..groups import GROUPS, OWN_GROUPS, choices, config_folder
from ..output import option_and_rest
from .builders.model_options import MODEL_OPTIONS
from .builders.registry import SHA256
from .filter_file import FilterFile, is_filter_file, read_filter_file
from .overrides import as_overrides, parse, single
from .own_files import is_own
from .settings import REGISTRIES, Settings, flat, read_settings, write_settings
from .values import MISSING, naming, plain_keys, words, yaml_config

__all__ = [
    "GROUPS",
    "choices",
    "chosen",
    "compose",
    "config_folder",
    "key_rows",
    "preset",
    "repeat",
    "with_file",
]

_HARMLESS = (
    "seed",
    "output_dir",
    "chunk",
    "layout",
    "result",
    "progress",
    "figures",
    "compilation_cache",
    "save",
    "scores",
    "smoother",
    "n_cycles",
    "precision",
    "experiment",
)
"""Keys that leave a preset's expected RMSE valid."""
_YOUNGER = {
    "observations.nearest",
    "observations.withhold",
    "observations.withhold_seed",
    "observations.variable",
    "observations.columns",
    "experiment.expected_std",
    "smoother.name",
    "filter.adaptive_noise",
    "filter.noise_memory",
}
_YOUNGER |= {f"dynamics.{key}" for key in MODEL_OPTIONS}
"""Keys that saved configurations from before them do not have, and whose defaults are what these did."""


def preset(group: str, choice: str) -> dict[str, Any]:
    """What a choice's file has."""
    config = yaml_config(config_folder() / group / f"{choice}.yaml")
    return plain_keys(OmegaConf.create({group: config}))[group]


def key_rows(group: str, choice: str) -> list[tuple[str, str, str, str]]:
    """Each key of a choice of a group: path, value, what it may be, and a line on it.

    The value is the one that holds where the choice is made and nothing else is said.
    """
    section = {"name": choice} if is_own(choice) else preset(group, choice)
    keys = REGISTRIES[group].keys(section["name"], section).values()
    needed = {key.path for key in keys if key.default is MISSING} if is_own(choice) else set()
    values = {key.path: key.default for key in keys}
    if not needed:
        values = flat(REGISTRIES[group].check(section))
    shown = {key.path: "…" if key.path in needed else _shown(values[key.path]) for key in keys}
    return [(key.path, shown[key.path], words(key.kind), key.doc) for key in keys]


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def chosen(parsed: list[Override]) -> dict[str, str]:
    """The choices of groups among overrides, checked.

    Raises:
        InputError: an unknown choice.
    """
    found = {}
    for override in parsed:
        group = override.key_or_group
        if group in GROUPS and not override.is_sweep_override():
            choice = override.value()
            of_file = (group in OWN_GROUPS and is_own(choice)) or (
                group == "filter" and is_filter_file(choice)
            )
            if not of_file and choice not in choices(group):
                raise unknown(group, str(choice), choices(group), _in_a_file(group, str(choice)))
            found[group] = str(choice)
    return found


def _in_a_file(group: str, choice: str) -> str:
    """What to say of a choice that looks as if it were in a file."""
    if group in OWN_GROUPS and any(each in choice for each in (":", "/", ".")):
        return f" An object of your own is {group}=FILE.py:NAME."
    return ""


def compose(overrides: list[str]) -> Settings:
    """Settings from overrides such as `filter=letkf`, `filter.radius=5`, or `filter=FILE.yaml`.

    A preset may hold `experiment.by_dynamics`, what it changes for other choices of `dynamics` than its
    own, and `experiment.tuned`, settings by filter name; those of the chosen model and filter apply, in
    this order, below the user's own overrides. A file takes the place of what the preset has for its filter.
    """
    parsed = single(parse(overrides))
    choice = chosen(parsed)
    file = read_filter_file(choice["filter"]) if is_filter_file(choice.get("filter")) else None
    if file is not None:
        choice["filter"] = file.filter["name"]
    own = {group: name for group, name in choice.items() if group in OWN_GROUPS and is_own(name)}
    config = _compose_groups([f"{group}={name}" for group, name in choice.items() if group not in own])
    for group, name in own.items():
        config[group] = {"name": name}
    values = [o for o in parsed if o.key_or_group not in GROUPS]
    described = _for_dynamics(config, choice.get("dynamics"))
    harmless = (*_HARMLESS, "filter", "dynamics") if described else (*_HARMLESS, "filter")
    origin, size = _apply_tuning(config, file)
    _apply(config, [*_whole_file(values), *values])
    if size is not None and config["ensemble_size"] != size:
        origin += f", for {size} members"
    config["experiment"]["tuning"] = _with_given(origin, values)
    changed = any(group not in harmless for group in choice)
    changed |= any(o.key_or_group.split(".")[0] not in _HARMLESS for o in values)
    _forget_expected(config, values, changed or file is not None)
    return read_settings(plain_keys(config))


def _whole_file(given: list[Override]) -> list[Override]:
    """Overrides for a file of observations: all of its times, and no burn-in."""
    paths = [each.value() for each in given if each.key_or_group == "observations.path"]
    return parse(["n_cycles=null", "burn_in=0"]) if paths and paths[-1] is not None else []


def repeat(path: str, overrides: list[str]) -> Settings:
    """Settings from a saved config.yaml, with overrides of single keys.

    A file by hand, in which a group is a name (`filter: letkf`) rather than a section, stands for a command
    line: each KEY: VALUE is KEY=VALUE, other keys have their defaults, and overrides come after it.

    An output folder that was named automatically is named anew from the overridden settings.
    """
    with naming(path):
        config = yaml_config(path)
        if any(isinstance(config.get(group), str) for group in GROUPS):
            return compose([*as_overrides(plain_keys(config)), *overrides])
        for override in single(parse(overrides)):
            if override.key_or_group.endswith(f".{SHA256}") and override.value() is None:
                OmegaConf.update(config, override.key_or_group, None)
        saved = read_settings(plain_keys(config))
    parsed = single(parse(overrides))
    own_folder = any(override.key_or_group == "output_dir" for override in parsed)
    if not own_folder and ".." in Path(saved.output_dir or "").parts:
        raise InputError(
            f"{path}: output_dir {saved.output_dir!r} leads out of its folder: give output_dir=PATH too."
        )
    for override in parsed:
        if override.key_or_group in GROUPS:
            raise InputError(
                f"{override.input_line}: a saved configuration has its groups resolved; with --config "
                f"override single keys ({override.key_or_group}.…=…) only."
            )
    _check_complete(path, config, saved, {o.key_or_group for o in parsed})
    if saved.output_dir == saved.automatic_output_dir:
        config["output_dir"] = None
    _apply(config, parsed)
    _forget_expected(config, parsed, any(o.key_or_group.split(".")[0] not in _HARMLESS for o in parsed))
    if saved.experiment.tuning is not None:
        config["experiment"]["tuning"] = _with_given(saved.experiment.tuning, parsed)
    return read_settings(plain_keys(config))


def with_file(arguments: list[str], without: tuple[str, ...] = ()) -> list[str]:
    """Arguments with those of `--config FILE` before them, FILE being one by hand (see `repeat`).

    Args:
        without: keys of the file that are not taken, with all below them.

    Raises:
        InputError: a saved configuration, which is of one run and one filter.
    """
    path, rest = option_and_rest(arguments, "--config", "a file: --config run.yaml")
    if path is None:
        return rest
    with naming(path):
        config = yaml_config(path)
        if not any(isinstance(config.get(group), str) for group in GROUPS):
            raise InputError(
                "a saved configuration is of one run; here a file by hand is taken, in which each KEY: VALUE "
                "is KEY=VALUE of the command line (masf-jax init makes one)."
            )
        given = as_overrides(plain_keys(config))
    return [*(each for each in given if re.split(r"[.=]", each)[0] not in without), *rest]


def _forget_expected(config: DictConfig, overrides: list[Override], changed: bool) -> None:
    """No RMSE is to be expected of a problem that was changed, nor its range of another number of cycles."""
    if changed:
        config["experiment"]["expected"] = None
    if changed or any(override.key_or_group == "n_cycles" for override in overrides):
        config["experiment"]["expected_std"] = None


def _check_complete(path: str, config: DictConfig, saved: Settings, given: set[str]) -> None:
    """A saved configuration names every key: one that is not there was lost or mistyped, and is no default.

    Sections in keys of earlier versions are left to their own check.
    """
    held, complete = flat(plain_keys(config)), flat(write_settings(saved))
    earlier = {
        key.split(".")[0] for key in held if not any(f"{each}.".startswith(f"{key}.") for each in complete)
    }
    absent = [key for key in complete if not any(f"{each}.".startswith(f"{key}.") for each in held)]
    given = given | {"resume", "overwrite"}  # of what is in the folder, not of the run
    given = given | _YOUNGER
    absent = [key for key in absent if key not in given and key.split(".")[0] not in earlier]
    if absent:
        raise InputError(
            f"{path} lacks {', '.join(absent)}: a saved configuration names every key. Correct the file, "
            "or give "
            f"the value on the command line: {absent[0]}=VALUE."
        )


def _compose_groups(overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose("config", overrides=overrides)
    OmegaConf.set_struct(config, False)
    return config


def _for_dynamics(config: DictConfig, chosen: str | None) -> bool:
    """Lays what the preset says of the chosen `dynamics` over the rest; False if it says nothing.

    The RMSE to expect of another model is not that of the preset's own: only its own numbers stay.
    """
    variants = config.experiment.pop("by_dynamics", {})
    if chosen not in variants:
        return False
    for tuned in config.experiment.get("tuned", {}).values():
        for key in ("expected", "expected_std"):
            tuned.pop(key, None)
    config.merge_with(variants[chosen])
    return True


def _apply_tuning(config: DictConfig, file: FilterFile | None) -> tuple[str, int | None]:
    """Lays the file's values, or else the preset's for the chosen filter, over the rest.

    Returns where the values come from, in words, and the ensemble size they are for.
    """
    tuned = config.experiment.pop("tuned", {})
    if file is not None:
        OmegaConf.update(config, "filter", file.filter)
        if file.ensemble_size is not None:
            config["ensemble_size"] = file.ensemble_size
        return file.origin, file.ensemble_size
    if config.filter.name not in tuned:
        return "defaults", None
    values = tuned[config.filter.name]
    places = {key: f"experiment.{key}" for key in ("expected", "expected_std")}
    places["ensemble_size"] = "ensemble_size"
    for key, value in values.items():
        OmegaConf.update(config, places.get(key, f"filter.{key}"), value)
    return f"preset {config.experiment.name}", values.get("ensemble_size")


def _with_given(origin: str, overrides: list[Override]) -> str:
    """Where the values come from, with what was changed since."""
    given = [o.input_line or "" for o in overrides if o.key_or_group.startswith("filter.")]
    return f"{origin}; given: {' '.join(text.removeprefix('filter.') for text in given)}" if given else origin


def _apply(config: Any, overrides: list[Override]) -> None:
    """Sets each key; unknown ones are found by `read_settings`."""
    for override in overrides:
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
        except (OmegaConfBaseException, TypeError) as error:
            parent, line = override.key_or_group.rsplit(".", 1)[0], override.input_line
            raise InputError(f"{line}: {parent} is a single value and has no keys below it.") from error
