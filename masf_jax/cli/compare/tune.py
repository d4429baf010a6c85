"""`masf-jax tune`: a filter's values by Optuna, on seeds of their own; the best ones as a file.

By the RMSE of the analysis, or without a truth, of real observations too, by their likelihood.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...dynamics import Dynamics
from ...metrics.summary import mean_and_standard_error
from ..config.compose import compose, with_file
from ..config.filter_file import Tuning, filter_file_text
from ..config.overrides import listed, seeds_of, split, whole
from ..config.own_files import label
from ..config.settings import Settings
from ..errors import InputError, unknown
from ..exit_codes import ExitCode
from ..files import text_writer, write_all
from ..parts import Parts
from ..process import computing
from ..run.cost import tell
from ..run.folder import claimed, deciding
from ..run.metrics import versions
from ..run.pretrained import pretraining_fit
from ..run.problem import build_models
from .comparison import csv_text
from .entries import Entry, output_folder
from .search_space import Space, current_values, default_space, given_space, largest
from .seed_runs import SharedProblem, prepared, share, work

__all__ = ["tune"]

_OWN = ("trials", "seeds", "evaluation_seeds", "seeds_at_once", "objective")
_VALUES = {"rmse": "rmse", "likelihood": "log_score"}
"""By objective, the name of what each run is valued by."""
_FIRST_SEED = 1000
"""Tuning seeds start here, far from those that runs and comparisons have by default."""


@dataclasses.dataclass(frozen=True)
class _Trial:
    """Values as overrides, what each tuning seed's run is worth, and the score Optuna is told (to be low)."""

    overrides: tuple[str, ...]
    values: tuple[float, ...]
    score: float
    seconds: float

    @property
    def lost(self) -> int:
        return sum(not math.isfinite(value) for value in self.values)

    def __str__(self) -> str:
        lost = f", {self.lost} of {len(self.values)} runs with NaN" if self.lost else ""
        return f"{' '.join(self.overrides)}: {self.score:.4g}{lost}"


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is tuned, checked."""

    command: str
    overrides: list[str]
    settings: Settings
    space: Space
    trials: int
    seeds: tuple[int, ...]
    evaluation_seeds: tuple[int, ...]
    at_once: int
    folder: Path
    objective: str

    @property
    def about(self) -> dict[str, Any]:
        """What a trial's score hangs on."""
        space = {f"space.{key}": str(chosen) for key, chosen in self.space.items()}
        space |= {} if self.objective == "rmse" else {"objective": self.objective}
        return deciding(self.settings) | space | {"seeds": self.seeds, "seeds_at_once": self.at_once}

    def entry(self, overrides: tuple[str, ...]) -> Entry:
        """With these values; neighbour lists reach as far as the largest radius: all run one program."""
        reach = []
        if "filter.radius" in self.space and self.settings.filter.get("reach", 0) is None:
            reach = [f"filter.reach={largest(self.space['filter.radius'])}"]
        return Entry(" ".join(overrides), compose([*self.overrides, *reach, *overrides]))

    @property
    def value(self) -> str:
        return _VALUES[self.objective]

    def share(self, seeds: tuple[int, ...]) -> SharedProblem:
        return share(self.settings, seeds, self.objective == "likelihood")

    def runs(self, problem: SharedProblem, overrides: tuple[str, ...], value: str) -> tuple[float, ...]:
        """RMSE of the analysis ("rmse") or "log_score" of the runs, for each seed of the problem."""
        entry = self.entry(overrides)
        runs = prepared(entry, entry.build(problem.dynamics), problem, self.at_once)
        return tuple(run["rmse_analysis" if value == "rmse" else value] for run in runs())


def tune(arguments: list[str]) -> ExitCode:
    """Tunes the filter and writes FILTER_tuned.yaml and trials.csv; returns the exit code.

    Raises:
        InputError: no Optuna, settings that do not make a run, a space that is none, seeds both for tuning
            and evaluation.
        WriteError: the output folder cannot be written.
    """
    task = _task(arguments)
    with claimed(task.folder), computing(task.settings, task.at_once):
        dynamics, _ = build_models(task.settings)
        _check_space(task, dynamics)
        problem = task.share(task.seeds)
        first = task.entry(())
        tell([work(problem, first, first.build(dynamics), task.trials)])
        trials = _run_trials(task, problem)
        best = min(trials, key=lambda trial: trial.score)
        by_rmse = task.objective == "rmse"
        tuning = Tuning(
            task.trials,
            task.seeds,
            problem.cases[0].observations.n_cycles,
            task.settings.burn_in,
            best.score if by_rmse else None,
            problem.climatology if by_rmse else None,
            task.settings.problem,
            tuple(f"{key}={chosen}" for key, chosen in task.space.items()),
            None if by_rmse else -best.score,
            None if by_rmse else problem.climatology,
        )
        path, lost = _write_best(task, best, tuning), best.lost
        if task.evaluation_seeds:
            rmse = _evaluated(task, best)
            lost += sum(not math.isfinite(value) for value in rmse)
            found = mean_and_standard_error([value for value in rmse if math.isfinite(value)])
            mean, error = (value if math.isfinite(value) else None for value in found)
            tuning = dataclasses.replace(
                tuning, evaluated_seeds=task.evaluation_seeds, evaluated_rmse=mean, evaluated_error=error
            )
            path = _write_best(task, best, tuning)
    _print(task, trials, best, tuning, path)
    return ExitCode.UNUSABLE if lost else ExitCode.DONE


def _task(arguments: list[str]) -> _Task:
    if importlib.util.find_spec("optuna") is None:
        raise InputError("tuning needs Optuna: pip install 'masf-jax[tune]'")
    own, others = split(with_file(arguments, ("output_dir",)), _OWN)
    swept = [override for override in others if override.is_sweep_override()]
    overrides = [override.input_line or "" for override in others if not override.is_sweep_override()]
    settings = compose(overrides)
    objective = own["objective"].value() if "objective" in own else "rmse"
    if not isinstance(objective, str) or objective not in _VALUES:
        raise unknown("objective", str(objective), _VALUES)
    space, at_once = given_space(swept), whole(own.get("seeds_at_once"), 1, 1)
    if not space:
        with computing(settings, at_once):
            space = default_space(settings, build_models(settings)[0])
    seeds = seeds_of(own.get("seeds"), _FIRST_SEED, 2)
    has_truth = settings.observations.path is None
    evaluation_seeds = seeds_of(own.get("evaluation_seeds"), settings.seed, 5 if has_truth else 0)
    if evaluation_seeds and not has_truth:
        raise InputError("evaluation_seeds: real observations have no truth to evaluate by: 0, or left out.")
    both = sorted(set(seeds) & set(evaluation_seeds))
    if both:
        raise InputError(
            f"seed(s) {', '.join(map(str, both))} would both tune and evaluate, which makes the score too "
            f"good. Tuning: seeds={list(seeds)}; evaluation: evaluation_seeds={list(evaluation_seeds)} (from "
            "`seed` on, unless given)."
        )
    if not seeds:
        raise InputError("seeds: tuning needs at least one.")
    return _Task(
        shlex.join(["masf-jax", "tune", *arguments]),
        overrides,
        settings,
        space,
        whole(own.get("trials"), 1, 30),
        seeds,
        evaluation_seeds,
        at_once,
        output_folder("tune", settings, others, f"-{label(settings.filter['name'])}"),
        objective,
    )


def _check_space(task: _Task, dynamics: Dynamics) -> None:
    """Composes and builds the filter at every choice and every end of an interval, each key by itself."""
    for key, chosen in task.space.items():
        for text in chosen.ends():
            if pretraining_fit(task.entry((f"{key}={text}",)).build(dynamics)) is not None:
                raise InputError(
                    f"filter {task.settings.filter['name']} would train its network anew in every trial. "
                    "Train it once, with masf-jax train and the same keys, and give its folder as "
                    "filter.checkpoint."
                )


def _run_trials(task: _Task, problem: SharedProblem) -> list[_Trial]:
    """Exactly `task.trials` trials; trials.csv is written anew after each.

    Optuna's choices hang on its seed and the scores it is told: what an earlier call has run is told again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    at_random = min(10, max(3, task.trials // 3))  # Optuna's 10 would leave few trials nothing else
    sampler = optuna.samplers.TPESampler(seed=task.seeds[0], n_startup_trials=at_random)
    study = optuna.create_study(sampler=sampler)
    now = current_values(task.space, task.settings)
    if now is not None:
        study.enqueue_trial(now)
    space = {key: chosen.distribution() for key, chosen in task.space.items()}
    parts, about = Parts(task.folder, task.settings.overwrite), task.about
    known = {} if task.settings.overwrite else dict(parts.read("trials", about) or {})
    trials: list[_Trial] = []
    for number in range(task.trials):
        asked = study.ask(space)
        overrides = tuple(f"{key}={chosen.text(asked.params[key])}" for key, chosen in task.space.items())
        trials.append(_trial(task, problem, overrides, trials, known))
        known[" ".join(overrides)] = {task.value: trials[-1].values, "seconds": trials[-1].seconds}
        parts.write("trials", about, known)
        study.tell(asked, trials[-1].score)
        write_all(task.folder, {"trials.csv": text_writer(csv_text(_rows(task, trials)))})
        print(f"trial {number + 1}/{task.trials}  {trials[-1]}", flush=True)
    return trials


def _trial(
    task: _Task,
    problem: SharedProblem,
    overrides: tuple[str, ...],
    trials: list[_Trial],
    known: dict[str, Any],
) -> _Trial:
    """The runs with these values; values that were run before have the score they had."""
    same = next((trial for trial in trials if trial.overrides == overrides), None)
    if same is not None:
        return dataclasses.replace(same, seconds=0.0)
    start = time.perf_counter()
    earlier = known.get(" ".join(overrides))
    values = task.runs(problem, overrides, task.value) if earlier is None else tuple(earlier[task.value])
    seconds = time.perf_counter() - start if earlier is None else earlier["seconds"]
    counted = [value if math.isfinite(value) else problem.climatology for value in values]
    score = sum(counted) / len(counted)
    return _Trial(overrides, values, score if task.objective == "rmse" else -score, seconds)


def _evaluated(task: _Task, best: _Trial) -> tuple[float, ...]:
    """RMSE of the best values over the evaluation seeds."""
    parts = Parts(task.folder, overwrite=True)  # another best is no reason to refuse
    about = task.about | {"best": best.overrides, "evaluation_seeds": task.evaluation_seeds}
    found = None if task.settings.overwrite else parts.read("evaluation", about)
    if found is None:
        problem = task.share(task.evaluation_seeds)
        found = task.runs(problem, best.overrides, "rmse")
        parts.write("evaluation", about, found)
    return tuple(found)


def _rows(task: _Task, trials: list[_Trial]) -> Iterator[dict[str, Any]]:
    for number, trial in enumerate(trials):
        values = dict(override.split("=", 1) for override in trial.overrides)
        each = zip(task.seeds, trial.values, strict=True)
        seeds = {f"{task.value}_seed_{seed}": value for seed, value in each}
        found = {"score": trial.score, "runs_with_nan": trial.lost}
        yield {"trial": number, **values, **found, **seeds, "seconds": f"{trial.seconds:.3g}"}


def _write_best(task: _Task, best: _Trial, tuning: Tuning) -> Path:
    settings = compose([*task.overrides, *best.overrides])
    name = f"{label(settings.filter['name'])}_tuned.yaml"
    path = task.folder / name
    header = [
        f"masf-jax {versions()['masf-jax']}: the best of {task.trials} trials of",
        f"  {task.command}",
        *_scores(tuning),
        f"Use: masf-jax run … filter={path}, or in masf-jax compare filters=[…,{path}]",
    ]
    text = filter_file_text(settings.filter, settings.ensemble_size, tuning, header)
    write_all(task.folder, {name: text_writer(text)})
    return path


def _scores(tuning: Tuning) -> list[str]:
    """What the best values are worth, in words."""
    over = f"mean over the tuning seeds {listed(tuning.seeds)}"
    if tuning.rmse is not None:
        lines = [
            f"RMSE of the analysis {tuning.rmse:.4g}, {over} ({tuning.climatology:.3g}: the model's "
            "climatology)"
        ]
    else:
        lines = [
            f"log-score {tuning.log_score:.4g} a value measured, {over} ({tuning.log_score_climatology:.3g}: "
            "a law with each value's own mean and variance)"
        ]
    if tuning.evaluated_rmse is not None:
        error = "" if tuning.evaluated_error is None else f" ± {tuning.evaluated_error:.2g}"
        seeds = listed(tuning.evaluated_seeds)
        what = "and" if tuning.rmse is not None else "RMSE of the analysis"
        lines.append(f"{what} {tuning.evaluated_rmse:.4g}{error} over the seeds {seeds}")
    return lines


def _print(task: _Task, trials: list[_Trial], best: _Trial, tuning: Tuning, path: Path) -> None:
    distinct = len({trial.overrides for trial in trials})
    print(f"Best of {len(trials)} trials ({distinct} different ones), each {len(task.seeds)} runs:")
    print(f"  {best}")
    for line in _scores(tuning):
        print(line)
    if tuning.evaluated_seeds and tuning.evaluated_rmse is None:
        print("Every evaluation run ended with NaN.")
    print(f"Files:\n  {path}\n  {task.folder / 'trials.csv'}")
