"""`masf-jax train`: trains the network of a score-based filter and keeps it in a checkpoint."""

from __future__ import annotations

import contextlib
import functools
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...dynamics import Dynamics
from ...filters import MASF, Filter
from ...measurements import Measurement
from ..config.builders.amortised import OnPolicySettings
from ..config.builders.filters import FILTERS
from ..config.own_files import label
from ..config.settings import Settings, write_plain
from ..errors import InputError, WriteError, warn
from ..files import check_writable, remedy, text_writer, write_all
from ..process import computing
from .away import differences
from .folder import PARTIAL_CONFIG, apart, claimed
from .pretrained import (
    AMORTISED,
    climate_and_coarsening,
    description,
    flat,
    network_file,
    pretraining_fit,
    with_progress,
)
from .problem import build_models
from .results import configuration_text

if TYPE_CHECKING:
    from ...masf.amortised import Practice, Round

__all__ = ["train"]

_FROM = "# from="
"""Begins the mark of an unfinished training of a network that was trained before."""


def train(
    settings: Settings, arguments: list[str], overwrite: bool = False, start: str | None = None
) -> Path:
    """Trains the filter's network with a progress bar, writes a checkpoint and says how to use it.

    Args:
        settings: of the run the network is for; where `output_dir` was not given, the checkpoint is
            checkpoints/<experiment or dynamics>-<filter>.safetensors.
        arguments: what the user gave, to repeat them in the line that uses the checkpoint.
        overwrite: whether a checkpoint that is there may be replaced.
        start: a checkpoint, or one of the package by name, whose network is trained further (amortised).

    Raises:
        InputError: a filter without a network to train, training settings that make no sense, a filter that
            diverges everywhere, or a checkpoint that is there already.
        WriteError: its folder cannot be written (found before training).
    """
    file = Path(f"checkpoints/{settings.problem}-{label(settings.filter['name'])}.safetensors")
    if settings.output_dir not in (None, settings.automatic_output_dir):
        file = Path(str(settings.output_dir))
    if file.is_dir():
        raise InputError(f"{file} is a folder, and a checkpoint is one file: output_dir={file}.safetensors")
    if file.exists() and not overwrite:
        raise InputError(f"{file} exists: add --overwrite, or choose another file with output_dir=PATH")
    check_writable(file.parent)
    kept = file.with_name(f"{file.name}.training")
    if settings.resume == "never":
        shutil.rmtree(kept, ignore_errors=True)
    on_policy = settings.filter["name"] == AMORTISED
    if start is not None and not on_policy:
        raise InputError(
            f"from={start}: only filter={AMORTISED} is trained further; a network that pretrains belongs to "
            "one model."
        )
    with claimed(kept), _marked(kept, settings, start), computing(settings):
        dynamics, network = build_models(settings)
        filter = FILTERS.build(settings.filter)
        if start is not None:
            try:
                filter = _trained_before(start, settings, filter, dynamics)
            except (ValueError, OSError) as error:
                raise InputError(f"from={start}: {error}") from error
            form = [argument for argument in arguments if argument.startswith("filter.network.")]
            if form:
                warn(f"the network of from={start} keeps its form; not used: {', '.join(form)}.")
        try:
            given = (settings, file, kept, overwrite, filter, dynamics, network.measurement)
            where, useless = _train_on_policy(*given, start) if on_policy else (_pretrain(*given), False)
        except (ValueError, NotImplementedError, FileExistsError) as error:
            raise InputError(str(error)) from error
        except OSError as error:
            raise WriteError(
                f"could not write {file}, or {kept} beside it: {error.strerror or error}. What was kept of "
                f"the training is whole: {remedy(error)}, and the same command goes on from there."
            ) from error
    shutil.rmtree(kept, ignore_errors=True)
    print(f"Checkpoint: {where}")
    kept = [argument for argument in arguments if not argument.startswith("output_dir=")]
    if useless:
        print(
            f"A run with filter.checkpoint={where} is one of its base filter alone, at more cost. Train "
            "longer (filter.training.rounds, filter.training.steps), or run the base filter."
        )
        return where
    print("Use it: " + shlex.join(["masf-jax", "run", *kept, f"filter.checkpoint={where}"]))
    return where


@contextlib.contextmanager
def _marked(kept: Path, settings: Settings, start: str | None) -> Iterator[None]:
    """Inside, the folder in which a training is kept says whose it is: one of other settings is not lost.

    Raises:
        InputError: it has a training of other settings.
    """
    mark, begun = kept / PARTIAL_CONFIG, "" if start is None else f"{_FROM}{start}\n"
    other = apart(mark, settings) if mark.exists() else ""
    if mark.exists() and other == "":
        first = mark.read_text(encoding="utf-8").partition("\n")[0]
        held = first.removeprefix(_FROM) if first.startswith(_FROM) else None
        other = "" if held == start else f"from: {held} there, {start} here"
    if other != "":
        what = f"({other})" if other else "(which cannot be read)"
        raise InputError(
            f"{kept} holds an unfinished training of other settings {what}: with these it goes on; "
            "resume=never begins anew, and output_dir=PATH trains another one beside it."
        )
    write_all(kept, {mark.name: text_writer(begun + configuration_text(settings))})
    try:
        yield
    finally:
        if not any(each.suffix != ".yaml" and not each.name.startswith(".") for each in kept.iterdir()):
            mark.unlink(missing_ok=True)  # nothing was kept


def _trained_before(start: str, settings: Settings, filter: Any, dynamics: Dynamics) -> Filter:
    """The filter with the network of a checkpoint, and this model's climate."""
    from ...masf.amortised import load_amortised

    path = network_file(start)
    climate, coarsening = climate_and_coarsening(path, settings, dynamics, filter.seed)
    print("\n".join(differences(path, settings, dynamics.state_shape, coarsening)) or f"from {path}")
    options = {name: getattr(filter, name) for name in ("n_steps", "members", "centred", "seed")}
    options |= {"coarsening": coarsening, "coordinates": dynamics.coordinates}
    return load_amortised(path, filter.base, state_shape=dynamics.state_shape, climate=climate, **options)


def _pretrain(
    settings: Settings,
    file: Path,
    kept: Path,
    overwrite: bool,
    filter: Filter,
    dynamics: Dynamics,
    measurement: Measurement,
) -> Path:
    """Fits the network to the model's climatology.

    Of the fingerprint a run compares what `description` has. The hash of the training states and the keys of
    the training say where the network comes from: another run could make those states anew only at the
    price that a checkpoint is to save.
    """
    from ...nn import parameter_count
    from ...training import fingerprint, inspect, save  # Flax and Optax: only where a network is

    if pretraining_fit(filter) is None or settings.filter.get("checkpoint") is not None:
        raise InputError(
            f"the filter {settings.filter['name']!r} as set has no network to pretrain: use "
            "filter=masf_amortised, filter=masf_paper, or filter=masf filter.prior=network (with "
            "pretraining.epochs above 0 and no checkpoint)."
        )
    assert isinstance(filter, MASF)
    climate = functools.cache(functools.partial(filter.climate, dynamics, measurement))
    start = time.perf_counter()
    prepared: Any = with_progress(filter, kept=kept / "training").prepare(dynamics, measurement, climate)
    seconds = time.perf_counter() - start
    fit, moments = prepared.prior, prepared.normalization.moments
    if fit.denoiser is None or fit.history is None or moments is None:
        raise InputError("only a network pretrained with the normalization fixed can be kept.")
    where = save(
        file,
        fit.denoiser,
        moments.mean.shape,
        normaliser=moments._asdict(),
        fingerprint=fingerprint(
            (climate().states, climate().validation),
            **description(settings, prepared),
            **flat(pretraining=settings.filter["pretraining"]),
            seed=prepared.seed,
        ),
        history=fit.history,
        overwrite=overwrite,
    )
    losses, size = np.asarray(fit.history.validation_loss), parameter_count(fit.denoiser.params)
    print(
        f"{size} parameters, {int(fit.history.steps)} steps, {seconds:.0f} s; loss on other trajectories "
        f"{losses[0]:.4g} before, {losses[int(fit.history.best_round)]:.4g} after\n"
        f"Training data: {len(climate().states)} states, {len(climate().validation)} of other trajectories, "
        f"fingerprint {inspect(where)['fingerprint']['data']}"
    )
    return where


def _train_on_policy(
    settings: Settings,
    file: Path,
    kept: Path,
    overwrite: bool,
    filter: Any,
    dynamics: Dynamics,
    measurement: Measurement,
    begun: str | None,
) -> tuple[Path, bool]:
    """Trains the amortised filter on simulated cycles; returns the checkpoint, which has its scores in them,
    and whether it is of no use: its network is zero. `begun`: the checkpoint that it goes on from."""
    from ...masf.amortised import save_amortised, train_on_policy, train_through_cycles
    from ...masf.amortised.files import correlation_within
    from ...nn import parameter_count
    from ...training import FitConfig

    training, practice = OnPolicySettings(**settings.filter["training"]), _practice(settings)
    if training.score != "gaussian" and not training.window:
        raise InputError(
            f"filter.training.score={training.score} is of a training through cycles, and rounds do not know "
            "it: give filter.training.window=8, or filter.training.score=gaussian."
        )
    further = filter.denoiser is not None
    start = time.perf_counter()

    def report(number: int, found: Round) -> None:
        first = "as it was" if further else "base filter"
        by = first if number == 0 else f"after round {number - 1}"
        learnt = f", {found.samples} pairs to learn from" if found.history is not None else ""
        scores = f"RMSE {found.rmse:.4f}, spread {found.spread:.4f}"
        print(f"{time.perf_counter() - start:6.0f} s  {by}: {scores}{learnt}", flush=True)

    how = FitConfig(
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        optimiser=training.optimiser,
        steps=training.steps,
        batch_size=training.batch_size,
        ema_decay=0.995,
    )
    given = (jax.random.key(settings.seed), filter, dynamics, measurement, practice, how)
    if training.window:
        progress = {"progress": settings.progress, "kept": kept / "cycles"}
        trained, rounds = train_through_cycles(
            *given, window=training.window, score=training.score, **progress
        )
    else:
        trained, rounds = train_on_policy(
            *given,
            rounds=training.rounds,
            replay=training.replay,
            cooling=training.cooling,
            factors=training.factors,
            progress=settings.progress,
            report=report,
            kept=kept,
            fine_tune=further,
        )
    best = next(number for number, found in enumerate(rounds) if found.chosen)  # by the round before it
    groups = {name: getattr(settings, name) for name in ("measurement", "dynamics", "filter")}
    groups["filter"] = {**groups["filter"], "coarsening": trained.coarsening}  # what null came to
    where = save_amortised(
        file,
        trained,
        about={
            **description(settings, trained),
            "trained_on": write_plain({**groups, "practice": practice, "seed": settings.seed})
            | correlation_within(trained, dynamics)
            | ({} if begun is None else {"from": begun}),
            "seconds": round(time.perf_counter() - start),
            "rounds": [{"rmse": found.rmse, "spread": found.spread} for found in rounds],
        },
        history=rounds[best - 1].history if best else None,
        overwrite=overwrite,
    )
    assert trained.denoiser is not None
    print(
        f"{parameter_count(trained.denoiser.params)} parameters, {time.perf_counter() - start:.0f} s; in "
        f"simulated cycles: RMSE {rounds[best].rmse:.4g} against {rounds[0].rmse:.4g} "
        f"{'before' if further else 'of the base filter'}, "
        f"calibration {float(trained.calibration):.2f}"
    )
    return where, trained.network_is_zero


def _practice(settings: Settings) -> Practice:
    from ...masf.amortised import Practice

    keys = dict(settings.filter["practice"])
    for name in ("noise", "density", "widths"):
        if keys[name] is not None and len(keys[name]) != 2:
            raise ValueError(f"practice.{name} must be two numbers, lowest and highest; got {keys[name]}.")
    keys["intervals"] = keys["intervals"] or (settings.steps_per_cycle,)
    keys["ensemble_sizes"] = keys["ensemble_sizes"] or (settings.ensemble_size,)
    return Practice(**keys, spread=settings.initial.spread)
