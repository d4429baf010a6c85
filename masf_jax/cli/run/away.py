"""What a trained network has not seen in its training and meets in a run, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..config.builders.measurement import MEASUREMENTS
from ..config.settings import Settings, write_plain
from ..errors import InputError

__all__ = [
    "differences",
    "has_seen",
    "measured_otherwise",
    "model_changes",
    "of_many_models",
    "outside_practice",
    "rotated_otherwise",
]

_PARTS = {"identity", "subset", "every_second", "grid_mask", "center_hole", "random_mask"}
"""Measurements of some of the state's values: a practice of many densities has seen others of them."""


def differences(
    path: str | Path, settings: Settings, state_shape: tuple[int, ...], coarsening: int = 1
) -> list[str]:
    """What a checkpoint was trained for and the run is not, a line each, for the user.

    Of `coarsening` cells each way is a cell of the training made.
    """
    from ...training import inspect

    about, name = inspect(path)["fingerprint"], Path(path).name
    lines = []
    model = settings.dynamics["name"]
    if about["dynamics"] != model and has_seen(about, model):
        family = about["trained_on"]["dynamics"].items()
        of_it = (
            f"{key.removeprefix(f'{model}_')} {_listed(x)}" for key, x in family if key.startswith(model)
        )
        lines.append(
            f"the network of {name} was trained on a family of models, {model} of {', '.join(of_it)} among "
            "them: it runs with this model's climate, and need not do as well."
        )
    elif of := model_changes(about, settings):
        shown = ", ".join(f"{key} {_said(was)} there, {now} here" for key, (was, now) in of.items())
        lines.append(
            f"the network of {name} was trained on another model ({shown}): it runs with this model's "
            "climate, and need not do as well."
        )
    if about.get("base") not in (None, settings.filter["base"]):
        lines.append(
            f"the network of {name} was trained on analyses of filter.base={about['base']}; this run's base "
            f"is {settings.filter['base']}."
        )
    if rotated_otherwise(inspect(path), settings):
        lines.append(
            f"the network of {name} sees each member before and after the base's analysis, and was trained "
            f"with filter.rotation={str(not settings.filter['rotation']).lower()}: give that."
        )
    if outside := outside_practice(about.get("trained_on", {}), settings, state_shape, coarsening):
        lines.append(f"the network of {name} was trained with {'; '.join(outside)}.")
    return lines


def rotated_otherwise(about: dict[str, Any], settings: Settings) -> bool:
    """Whether a network that sees members was trained on a base that rotates them, and this one does not, or
    the reverse. `about`: what `inspect` says of its file."""
    trained = about["fingerprint"].get("trained_on", {}).get("filter", {})
    seen = about["net"].get("member_width", 0) and "rotation" in trained
    return bool(seen) and trained["rotation"] != settings.filter["rotation"]


def model_changes(about: dict[str, Any], settings: Settings) -> dict[str, tuple[Any, Any]]:
    """The model's keys that were others in training: what they were, and what they are.

    A network of many models has ranges, {"between": [low, high]}: what is within was not another.
    """
    before, now = about.get("trained_on", {}).get("dynamics"), write_plain(dict(settings.dynamics))
    before = {"name": about.get("dynamics")} if before is None else before
    if before.get("name") != now["name"]:
        return {"dynamics": (before.get("name"), now["name"])}
    return {
        key: (before[key], now[key]) for key in before if key in now and not _alike(before[key], now[key])
    }


def has_seen(about: dict[str, Any], model: str) -> bool:
    """Whether the network was trained on a model of that name, alone or as one of a family's.

    A family says of each of its models what was varied: `kuramoto_sivashinsky_lengths`, …
    """
    family = about.get("trained_on", {}).get("dynamics", {})
    return about["dynamics"] == model or any(key.startswith(f"{model}_") for key in family)


def of_many_models(about: dict[str, Any]) -> bool:
    """Whether the network was trained on models of several numbers, so that its climate is not this one's."""
    return any(map(_is_range, about.get("trained_on", {}).get("dynamics", {}).values()))


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and "between" in value


def _alike(before: Any, now: Any) -> bool:
    if _is_range(before) and isinstance(now, int | float):
        low, high = before["between"]
        return low * (1 - 1e-5) <= now <= high * (1 + 1e-5)
    return before == now


def _listed(values: Any) -> str:
    return ", ".join(f"{x:g}" for x in values) if isinstance(values, list) else str(values)


def _said(before: Any) -> str:
    return "{:g} to {:g}".format(*before["between"]) if _is_range(before) else str(before)


def measured_otherwise(
    trained: dict[str, Any], settings: Settings, state_shape: tuple[int, ...], coarsening: int = 1
) -> bool:
    """Whether the run measures what the practice of a training had not, by its operator or law of noise."""
    if not {"practice", "measurement"} <= trained.keys():
        return False
    practice, before = trained["practice"], dict(trained["measurement"])
    if "stride" in before:
        before["stride"] *= coarsening  # as far apart, in cells of this grid
    now = write_plain(dict(settings.measurement))
    varied = practice["density"][0] < practice["density"][1] and {before["name"], now["name"]} <= _PARTS
    same = varied and _law(before) == _law(now)
    return not same and not _measure_alike(before, now, state_shape)


def outside_practice(
    trained: dict[str, Any], settings: Settings, state_shape: tuple[int, ...], coarsening: int = 1
) -> list[str]:
    """Measurement, noise, interval and members that its practice had and the run has not."""
    if not {"practice", "measurement"} <= trained.keys():
        return []
    practice, before = trained["practice"], dict(trained["measurement"])
    now = write_plain(dict(settings.measurement))
    if measured_otherwise(trained, settings, state_shape, coarsening):
        return [f"another measurement ({before['name']})"]
    sizes = practice["ensemble_sizes"] or [settings.ensemble_size]
    ranges: dict[str, tuple[float, float, float]] = {}
    if settings.filter.get("base") != "three_d_var":  # which runs the model once
        ranges["ensemble_size"] = min(sizes), settings.ensemble_size, max(sizes)
    if settings.observations.path is None:
        steps = practice["intervals"] or [settings.steps_per_cycle]
        ranges["steps_per_cycle"] = (min(steps), settings.steps_per_cycle, max(steps))
    if (std := _std(before)) is not None and (here := _std(now)) is not None:
        low, high = (round(std * factor, 6) for factor in practice["noise"])
        ranges["measurement.noise.std"] = (low, here, high)
    return [
        f"{key}={low:g}, here {value:g}" if low == high else f"{key} of {low:g} to {high:g}, here {value:g}"
        for key, (low, value, high) in ranges.items()
        if not low * (1 - 1e-5) <= value <= high * (1 + 1e-5)
    ]


def _law(measurement: dict[str, Any]) -> Any:
    return measurement.get("noise", {}).get("law")


def _std(measurement: dict[str, Any]) -> float | None:
    """The noise's standard deviation, where it is one number."""
    std = measurement.get("noise", {}).get("std")
    return std if isinstance(std, int | float) else None


def _measure_alike(before: dict[str, Any], now: dict[str, Any], state_shape: tuple[int, ...]) -> bool:
    """Whether both give the same values of any state, by noise of one law, whatever its size."""
    if _without_size(before) == _without_size(now):
        return True
    if _std(before) is None or _law(before) != _law(now):
        return False
    state = jnp.asarray(np.random.default_rng(0).normal(size=state_shape), float)
    try:
        first, second = (
            MEASUREMENTS.build(MEASUREMENTS.check(each), state_shape, None).measurement.operator(state)
            for each in (before, now)
        )
    except (InputError, ValueError):  # of another state, or of keys of an earlier version
        return False
    return first.shape == second.shape and bool(jnp.all(first == second))


def _without_size(measurement: dict[str, Any]) -> dict[str, Any]:
    """A measurement whatever the size of its noise."""
    return (
        measurement
        if _std(measurement) is None
        else measurement | {"noise": measurement["noise"] | {"std": None}}
    )
