"""The amortised filter in runs: trained by `masf-jax train`, kept in a checkpoint, taken from one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...dynamics import Dynamics
from ...filters import Filter
from ...measurements import Measurement
from ..config.builders.amortised import OnPolicySettings
from ..config.settings import Settings, write_plain
from ..errors import InputError

if TYPE_CHECKING:
    from ...masf.amortised import Practice, Round
    from ...masf.amortised.filter import AmortisedMASF

__all__ = ["train_amortised", "with_trained_network"]

_NAME = "masf_amortised"


def with_trained_network(filter: Filter, settings: Settings, dynamics: Dynamics) -> Filter:
    """The amortised filter with the network, climate and calibration of its checkpoint.

    That is `filter.checkpoint`, or the one in the package for this experiment. It must be of the same
    model, base filter and `filter.network`; measurement, noise, ensemble size and interval may be others than
    it was trained with.

    Raises:
        InputError: no checkpoint, or one of something else.
    """
    if settings.filter["name"] != _NAME:
        return filter
    from ...masf.amortised import load_amortised, pretrained_file, pretrained_names
    from ...masf.amortised.filter import AmortisedMASF

    assert isinstance(filter, AmortisedMASF)
    path, name = settings.filter["checkpoint"], settings.experiment.name
    if path is None:
        if name not in pretrained_names():
            raise InputError(
                f"{_NAME} needs a trained network, and the package has none for "
                f"{'a run without experiment' if name is None else name!r} (it has some for: "
                f"{', '.join(pretrained_names())}). Train one: masf-jax train filter={_NAME} with the other "
                "settings of this run, then give its file as filter.checkpoint."
            )
        path = pretrained_file(str(name))
    try:
        return load_amortised(
            path,
            filter.base,
            net=filter.architecture.net(dynamics.state_shape),
            state_shape=dynamics.state_shape,
            about=_description(settings),
            calibration=settings.filter["calibration"],
            n_steps=filter.n_steps,
            members=filter.members,
            centred=filter.centred,
        )
    except (ValueError, OSError) as error:
        raise InputError(f"filter.checkpoint: {error}") from error


def train_amortised(
    settings: Settings,
    file: Path,
    overwrite: bool,
    filter: AmortisedMASF,
    dynamics: Dynamics,
    measurement: Measurement,
) -> Path:
    """Trains the filter on simulated cycles, writes a checkpoint with its scores; returns its path.

    Raises:
        InputError: practice or training settings that make no sense, or a filter that diverges everywhere.
    """
    from ...masf.amortised import save_amortised, train_on_policy
    from ...nn import parameter_count
    from ...training import FitConfig

    training = OnPolicySettings(**settings.filter["training"])
    start = time.perf_counter()

    def report(number: int, found: Round) -> None:
        by = "base filter" if number == 0 else f"after round {number - 1}"
        learnt = f", {found.samples} pairs to learn from" if found.history is not None else ""
        print(
            f"{time.perf_counter() - start:6.0f} s  {by}: RMSE {found.rmse:.4f}, spread {found.spread:.4f}"
            f"{learnt}",
            flush=True,
        )

    try:
        practice = _practice(settings)
        config = FitConfig(
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            steps=training.steps,
            batch_size=training.batch_size,
            ema_decay=0.995,
        )
        trained, rounds = train_on_policy(
            jax.random.key(settings.seed),
            filter,
            dynamics,
            measurement,
            practice,
            config,
            rounds=training.rounds,
            replay=training.replay,
            cooling=training.cooling,
            factors=training.factors,
            progress=settings.progress,
            report=report,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    assert trained.denoiser is not None
    scores = [{"rmse": found.rmse, "spread": found.spread} for found in rounds]
    best = int(np.nanargmin([found.rmse for found in rounds]))  # measured after the round before it
    try:
        where = save_amortised(
            file,
            trained,
            about={
                **_description(settings),
                "trained_on": {
                    "measurement": write_plain(settings.measurement),
                    "dynamics": write_plain(settings.dynamics),
                    "filter": write_plain(settings.filter),
                    "practice": write_plain(practice),
                    "seed": settings.seed,
                },
                "seconds": round(time.perf_counter() - start),
                "rounds": scores,
            },
            history=rounds[best - 1].history if best else None,
            overwrite=overwrite,
        )
    except FileExistsError as error:
        raise InputError(f"{error}") from error
    base, own = rounds[0].rmse, rounds[best].rmse
    print(
        f"{parameter_count(trained.denoiser.params)} parameters, {time.perf_counter() - start:.0f} s; in "
        f"simulated cycles: RMSE {own:.4g} against {base:.4g} of the base filter, calibration "
        f"{float(trained.calibration):.2f}"
    )
    if not best:
        print("No round did better than the base filter: the network is zero, the filter is its base.")
    return where


def _practice(settings: Settings) -> Practice:
    from ...masf.amortised import Practice

    keys = dict(settings.filter["practice"])
    for name in ("noise", "density"):
        if len(keys[name]) != 2:
            raise ValueError(f"practice.{name} must be two numbers, lowest and highest; got {keys[name]}.")
    keys["intervals"] = keys["intervals"] or (settings.steps_per_cycle,)
    keys["ensemble_sizes"] = keys["ensemble_sizes"] or (settings.ensemble_size,)
    return Practice(**keys, spread=settings.initial.spread)


def _description(settings: Settings) -> dict[str, Any]:
    """What a network's use must agree with."""
    return {"filter": _NAME, "dynamics": settings.dynamics["name"], "base": settings.filter["base"]}
