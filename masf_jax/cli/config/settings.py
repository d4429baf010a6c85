"""The configuration of a run as typed values: root keys here, groups by their registries."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ...observations.source import ObservationFile
from ..errors import InputError
from .builders.dynamics import DYNAMICS
from .builders.estimation import checked_unknowns
from .builders.filters import FILTERS
from .builders.measurement import MEASUREMENTS
from .builders.smoothers import SMOOTHERS
from .overrides import parse
from .own_files import file_label, label
from .schema import read
from .values import checked_keys

__all__ = [
    "REGISTRIES",
    "About",
    "Faults",
    "Initial",
    "Layout",
    "ObservationFile",
    "QualityControl",
    "Settings",
    "flat",
    "processes_asked",
    "read_settings",
    "section",
    "write_plain",
    "write_settings",
]


_Score = Literal["rmse", "spread", "crps", "energy_score", "rank_histogram", "csi", "ssim"]
REGISTRIES = {
    "dynamics": DYNAMICS,
    "measurement": MEASUREMENTS,
    "filter": FILTERS,
    "smoother": SMOOTHERS,
}
"""What the sections of these names are checked and built by."""
_LEAST = {"seed": 0, "ensemble_size": 2, "n_cycles": 1, "steps_per_cycle": 1, "burn_in": 0, "chunk": 1}
_LEAST_OR_NULL = {"layout.batch_size": 1, "layout.devices": 1, "layout.process": 0}
_POSITIVE = ("initial.spread", "initial.std", "quality_control.threshold", "faults.innovation")


@dataclasses.dataclass(frozen=True)
class About:
    """Keys under `experiment`: what a preset says of itself."""

    name: str | None = None
    description: str | None = None
    reference: str | None = None
    expected: float | None = None
    """RMSE of the analysis to expect; dropped where a setting that matters is overridden."""
    expected_std: float | None = None
    """Its standard deviation from seed to seed, for the preset's own number of cycles; None: not measured."""
    tuning: str | None = None
    """Where the filter's values come from: the preset, a file of `masf-jax tune`, defaults; and overrides."""


@dataclasses.dataclass(frozen=True)
class Initial:
    """Keys under `initial`: the first ensemble.

    With mean and std, members (and a simulated truth) are independent draws of N(mean, std²).
    Otherwise the truth starts from the model's climatology, and members are the truth plus an error
    of the mean and perturbations, all N(0, spread²); spread null: members from the climatology too.
    """

    spread: float | None = 0.1
    mean: float | None = None
    std: float | None = None


@dataclasses.dataclass(frozen=True)
class QualityControl:
    """Keys under `quality_control`: which values the analyses may use; null: all."""

    threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class Faults:
    """Keys under `faults`: what is done with a cycle that cannot be used (see `FaultPolicy`)."""

    action: Literal["repair", "skip", "error"] = "repair"
    innovation: float = 1e4


@dataclasses.dataclass(frozen=True)
class Layout:
    """Keys under `layout`: how members are batched, and all is spread over devices; no result hangs on it."""

    batch_size: int | None = None
    devices: int | None = None
    processes: int | Literal["auto"] | None = None
    """Of one run; auto: as Slurm or Open MPI started them. The next two keys: where nothing says so."""
    coordinator: str | None = None
    """HOST:PORT at which process 0 can be reached."""
    process: int | None = None
    """The number of this one."""


_SIMULATED = ObservationFile()


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every key of a run; see `configs/config.yaml` for what each means."""

    dynamics: dict
    measurement: dict
    filter: dict
    smoother: dict
    seed: int = 0
    ensemble_size: int = 20
    n_cycles: int | None = 1000
    steps_per_cycle: int = 1
    burn_in: int = 200
    initial: Initial = Initial()
    observations: ObservationFile = _SIMULATED
    estimate: dict = dataclasses.field(default_factory=dict)
    """By name, a number's prior and the engine that finds it."""
    quality_control: QualityControl = QualityControl()
    faults: Faults = Faults()
    precision: Literal["float32", "float64"] = "float32"
    scores: tuple[_Score, ...] = ("rmse", "spread", "crps", "rank_histogram")
    save: tuple[Literal["mean", "spread", "ensemble"], ...] = ("mean", "spread")
    chunk: int | None = None
    layout: Layout = Layout()
    result: Literal["netcdf", "zarr"] = "netcdf"
    progress: bool = False
    figures: bool = True
    compilation_cache: bool | str | None = True
    output_dir: str | None = None
    resume: Literal["auto", "never"] = "auto"
    overwrite: bool = False
    experiment: About = About()

    @property
    def problem(self) -> str:
        """The experiment, or the model where there is none."""
        return self.experiment.name or label(self.dynamics["name"])

    @property
    def called(self) -> str:
        """`problem` for titles: a model of a file with the file's name, as it was given."""
        return self.experiment.name or file_label(self.dynamics["name"])

    @property
    def automatic_output_dir(self) -> str:
        """outputs/<experiment or dynamics>-<filter>[-<smoother>]-seed<seed>."""
        names = [label(each["name"]) for each in (self.filter, self.smoother) if each["name"] != "none"]
        return f"outputs/{'-'.join([self.problem, *names])}-seed{self.seed}"


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Checked settings from a plain composed configuration.

    Raises:
        InputError: an unknown key or choice (with the nearest valid one), a missing key, a value of
            the wrong type or out of range.
    """
    config = {"smoother": {"name": "none"}} | dict(config)  # files from before there were any
    settings: Settings = section(Settings, "", config)
    checked = {name: group.check(getattr(settings, name)) for name, group in REGISTRIES.items()}
    checked["estimate"] = checked_unknowns(settings.estimate)
    settings = dataclasses.replace(settings, **checked)
    _check_ranges(settings)
    if settings.output_dir is None:
        settings = dataclasses.replace(settings, output_dir=settings.automatic_output_dir)
    return settings


def section(kind: Callable[..., Any], key: str, given: Any) -> Any:
    """The dataclass of a section of plain values, checked; `key`: its name in messages."""
    part = read(kind, {})
    keys = {each.path: each for each in part.keys({})}
    return part.build(checked_keys(f"{key}." if key else "", given, keys), {})


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested sections by dotted path."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _check_ranges(settings: Settings) -> None:
    values = flat(write_plain(settings))
    for key, least in (_LEAST | _LEAST_OR_NULL).items():
        if values[key] is not None and values[key] < least:
            null = ", or null" if key in _LEAST_OR_NULL else ""
            raise InputError(f"{key} must be at least {least}{null}; got {values[key]}.")
    _check_processes(settings.layout)
    if (settings.initial.mean is None) != (settings.initial.std is None):
        raise InputError("initial.mean and initial.std go together: give both or neither.")
    for key in _POSITIVE:
        if values[key] is not None and not values[key] > 0:
            raise InputError(f"{key} must be positive; got {values[key]}.")
    name = settings.experiment.name
    if name is not None and not re.fullmatch(r"\w[\w.+ -]*", name):
        raise InputError(
            f"experiment.name names the output folder: letters, digits and _ . + - only; got {name!r}."
        )
    if (ends := settings.observations.valid_range) is not None and not ends[0] < ends[1]:
        raise InputError(f"observations.valid_range must be [least, largest]; got {list(ends)}.")
    if settings.n_cycles is None and settings.observations.path is None:
        raise InputError("n_cycles may be null only with observations.path (all cycles of the file).")
    if settings.n_cycles is not None and settings.burn_in >= settings.n_cycles:
        raise InputError(
            f"burn_in ({settings.burn_in}) leaves none of the {settings.n_cycles} cycles to score: "
            "give a smaller burn_in or a larger n_cycles."
        )


def processes_asked(overrides: list[str]) -> Layout:
    """What a command line says of processes; other keys of `layout` have their defaults."""
    wanted = [f"layout.{key}" for key in ("processes", "coordinator", "process")]
    given = [each for each in overrides if each.split("=")[0] in wanted]
    values = {(each.key_or_group or "").removeprefix("layout."): each.value() for each in parse(given)}
    layout: Layout = section(Layout, "layout", values)
    _check_processes(layout)
    return layout


def _check_processes(layout: Layout) -> None:
    by_hand = (layout.coordinator, layout.process)
    if isinstance(layout.processes, int):
        if layout.processes < 1:
            raise InputError(f"layout.processes must be at least 1, auto or null; got {layout.processes}.")
        if None in by_hand:
            raise InputError(
                f"layout.processes={layout.processes} goes with layout.coordinator=HOST:PORT (of process 0) "
                "and layout.process=NUMBER (of this one); or take layout.processes=auto (Slurm, Open MPI)."
            )
        if layout.process is not None and layout.process >= layout.processes:
            raise InputError(
                f"layout.process counts from 0 to {layout.processes - 1} here; got {layout.process}."
            )
    elif by_hand != (None, None):
        raise InputError("layout.coordinator and layout.process go with layout.processes=NUMBER.")
    if layout.coordinator is not None and not re.fullmatch(r".+:\d+", layout.coordinator):
        raise InputError(f"layout.coordinator must be HOST:PORT; got {layout.coordinator!r}.")


def write_settings(settings: Settings) -> dict[str, Any]:
    """The settings as plain values that `read_settings` turns into the same settings."""
    return write_plain(settings)


def write_plain(value: Any) -> Any:
    """Dataclasses as dicts and tuples as lists, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: write_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: write_plain(item) for key, item in value.items()}
    return [write_plain(item) for item in value] if isinstance(value, list | tuple) else value
