"""`masf-jax train`: pretrains the network of the score-based filter and keeps it in a checkpoint."""

from __future__ import annotations

import functools
import shlex
import time
from pathlib import Path

import numpy as np

from ...dynamics import Dynamics
from ...filters import MASF, Filter
from ...measurements import Measurement
from ..config.builders.dynamics import DYNAMICS
from ..config.builders.filters import FILTERS
from ..config.builders.measurement import MEASUREMENTS
from ..config.settings import Settings
from ..errors import InputError
from ..files import check_writable
from ..process import computing
from .pretrained import pretraining_fit, with_progress, write_checkpoint

__all__ = ["train"]


def train(settings: Settings, arguments: list[str], overwrite: bool = False) -> Path:
    """Pretrains the filter's network with a progress bar, writes a checkpoint and says how to use it.

    Args:
        settings: of the run the network is for; where `output_dir` was not given, the checkpoint is
            checkpoints/<experiment or dynamics>-<filter>.safetensors.
        arguments: what the user gave, to repeat them in the line that uses the checkpoint.
        overwrite: whether a checkpoint that is there may be replaced.

    Raises:
        InputError: a filter without a network to pretrain, or a checkpoint that is there already.
        WriteError: its folder cannot be written (found before training).
    """
    what = settings.experiment.name or settings.dynamics["name"]
    file = Path(f"checkpoints/{what}-{settings.filter['name']}.safetensors")
    if settings.output_dir not in (None, settings.automatic_output_dir):
        file = Path(str(settings.output_dir))
    if file.is_dir():
        raise InputError(f"{file} is a folder, and a checkpoint is one file: output_dir={file}.safetensors")
    if file.exists() and not overwrite:
        raise InputError(f"{file} exists: add --overwrite, or choose another file with output_dir=PATH")
    check_writable(file.parent)
    with computing(settings):
        dynamics = DYNAMICS.build(settings.dynamics)
        network = MEASUREMENTS.build(settings.measurement, dynamics.state_shape)
        filter = FILTERS.build(settings.filter)
        models = (filter, dynamics, network.measurement)
        if settings.filter["name"] == "masf_amortised":
            from .amortised import train_amortised

            where = train_amortised(settings, file, overwrite, *models)
        else:
            where = _pretrain(settings, file, overwrite, *models)
    print(f"Checkpoint: {where}")
    kept = [argument for argument in arguments if not argument.startswith("output_dir=")]
    print("Use it: " + shlex.join(["masf-jax", "run", *kept, f"filter.checkpoint={where}"]))
    return where


def _pretrain(
    settings: Settings,
    file: Path,
    overwrite: bool,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
) -> Path:
    from ...training import inspect  # Flax and Optax: only where a network is

    if pretraining_fit(filter) is None or settings.filter.get("checkpoint") is not None:
        raise InputError(
            f"the filter {settings.filter['name']!r} as set has no network to pretrain: use "
            "filter=masf_amortised, filter=masf_paper, or filter=masf filter.prior=network (with "
            "pretraining.epochs above 0 and no checkpoint)."
        )
    assert isinstance(filter, MASF)
    climate = functools.cache(functools.partial(filter.climate, dynamics, measurement))
    start = time.perf_counter()
    try:
        prepared = with_progress(filter).prepare(dynamics, measurement, climate)
    except (ValueError, NotImplementedError) as error:
        raise InputError(str(error)) from error
    seconds = time.perf_counter() - start
    where, history, size = write_checkpoint(file, settings, prepared, climate(), overwrite)
    losses = np.asarray(history.validation_loss)
    print(
        f"{size} parameters, {int(history.steps)} steps, {seconds:.0f} s; loss on other trajectories "
        f"{losses[0]:.4g} before, {losses[int(history.best_round)]:.4g} after\n"
        f"Training data: {len(climate().states)} states, {len(climate().validation)} of other trajectories, "
        f"fingerprint {inspect(where)['fingerprint']['data']}"
    )
    return where
