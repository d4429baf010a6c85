"""A filter's settings in a file: `masf-jax tune` writes one, `filter=FILE.yaml` takes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..errors import InputError
from .builders.filters import FILTERS
from .settings import section, write_plain
from .values import checked, naming, plain_keys, yaml_config

__all__ = ["FilterFile", "Tuning", "filter_file_text", "is_filter_file", "read_filter_file"]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Section `tuning` of the file: how the values were found, and what they are worth.

    problem: the experiment, or the model where there was none.
    rmse, climatology: of the analysis, mean over the tuning `seeds`, and of the model's climatology.
    log_score, log_score_climatology: of a tuning by likelihood, in the place of these: log-density of a value
    measured, given all before it, mean over values; and of a law with each value's own mean and variance.
    evaluated_rmse, evaluated_error: mean and standard error over `evaluated_seeds`, others than those of the
    tuning; null where it was not evaluated.
    """

    trials: int
    seeds: tuple[int, ...]
    n_cycles: int
    burn_in: int
    rmse: float | None
    climatology: float | None
    problem: str
    space: tuple[str, ...] = ()
    log_score: float | None = None
    log_score_climatology: float | None = None
    evaluated_seeds: tuple[int, ...] = ()
    evaluated_rmse: float | None = None
    evaluated_error: float | None = None

    def __str__(self) -> str:
        runs = f"{self.trials} trials × {len(self.seeds)} seeds × {self.n_cycles} cycles"
        return f"{runs} of {self.problem}"


@dataclasses.dataclass(frozen=True)
class FilterFile:
    """The file's content; ensemble_size: of the tuning, taken along like a preset's."""

    path: Path
    filter: dict[str, Any]
    ensemble_size: int | None
    tuning: Tuning | None

    @property
    def origin(self) -> str:
        """Where the values come from, in words."""
        how = "given by hand" if self.tuning is None else f"masf-jax tune, {self.tuning}"
        return f"{self.path.name}: {how}"


def is_filter_file(choice: Any) -> bool:
    """Whether a choice of the group `filter` is a file rather than a name."""
    return isinstance(choice, str) and choice.endswith((".yaml", ".yml"))


def read_filter_file(given: str) -> FilterFile:
    """The filter that a YAML file describes by `name` and any of its keys.

    Raises:
        InputError: no such file, not a mapping, an unknown filter, key or value, each with the path.
    """
    path = Path(given).expanduser()
    if not path.is_file():
        raise InputError(
            f"filter={given}: there is no such file. A filter is one of those of masf-jax list filter, or a "
            "file that masf-jax tune wrote."
        )
    with naming(f"filter={given}"):
        content = plain_keys(yaml_config(path))
        size = checked("ensemble_size", content.pop("ensemble_size", None), int | None)
        tuning = content.pop("tuning", None)
        tuning = None if tuning is None else section(Tuning, "tuning", tuning)
        FILTERS.check(content)
    return FilterFile(path, content, size, tuning)


def filter_file_text(filter: dict[str, Any], ensemble_size: int, tuning: Tuning, header: list[str]) -> str:
    """The file's text: comment lines, then the filter's keys, the ensemble size and `tuning`."""
    content = write_plain({**filter, "ensemble_size": ensemble_size, "tuning": tuning})
    comments = "".join(f"# {line}\n" for line in header)
    return comments + OmegaConf.to_yaml(OmegaConf.create(content))
