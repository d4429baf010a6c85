"""Search spaces of `masf-jax tune`: from Hydra's sweep grammar, or the usual ones of a filter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from hydra.core.override_parser.types import Override

from ...dynamics import Dynamics
from ..config.overrides import items, texts
from ..config.settings import Settings, flat
from ..errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Choices", "Interval", "Space", "current_values", "default_space", "given_space", "largest"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """One of some values; Optuna sees their number in the list, so that they may be of any type."""

    values: tuple[Any, ...]
    texts: tuple[str, ...]
    """The values as a user would write them."""

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(tuple(range(len(self.values))))

    def text(self, drawn: Any) -> str:
        return self.texts[int(drawn)]

    def drawn(self, value: Any) -> Any:
        """What Optuna draws where `value` is run; None where that cannot be."""
        return next((i for i, each in enumerate(self.values) if _same(each, value)), None)

    def ends(self) -> tuple[str, ...]:
        return self.texts

    def __str__(self) -> str:
        return ",".join(self.texts)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number from low to high, both included."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def text(self, drawn: Any) -> str:
        return str(drawn) if self.whole else f"{drawn:.5g}"

    def drawn(self, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if number and self.low <= value <= self.high else None

    def ends(self) -> tuple[str, ...]:
        return self.text(self.low), self.text(self.high)

    def __str__(self) -> str:
        text = f"interval({self.low:g},{self.high:g})"
        text = f"int({text})" if self.whole else text
        return f"tag(log,{text})" if self.log else text


Space: TypeAlias = dict[str, Choices | Interval]
"""By key of the run: filter.radius."""


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool):
        return math.isclose(a, b)
    return a == b


def given_space(overrides: list[Override]) -> Space:
    """The space of overrides such as `filter.inflation=interval(1.0,1.3)`, `filter.radius=2,4,6`.

    Raises:
        InputError: a key of something else than the filter, or an interval that is none.
    """
    space: Space = {}
    for override in overrides:
        key, text = override.key_or_group, override.input_line
        if not key.startswith("filter."):
            raise InputError(
                f"{text}: only keys of one filter are tuned, filter.KEY=interval(1.0,1.3); give {key} one "
                "value."
            )
        if override.is_discrete_sweep():
            space[key] = Choices(tuple(items(override)), tuple(texts(override)))
            continue
        sweep: Any = override.value()
        space[key] = found = Interval(sweep.start, sweep.end, "log" in sweep.tags)
        if not (0 if found.log else -math.inf) < found.low < found.high < math.inf:
            raise InputError(
                f"{text}: an interval goes from a lower number to a higher one, above 0 for log."
            )
    return space


_INTERVALS = {
    "inflation": Interval(1.0, 1.3),
    "bandwidth": Interval(0.1, 1.0),
    "calibration": Interval(0.8, 1.3),
    "guidance": Interval(0.01, 10.0, log=True),
    "rtps": Interval(0.0, 1.0),
    "sigma": Interval(0.05, 0.5),
    "certainty": Interval(0.2, 5.0, log=True),
    "scale": Interval(0.001, 1.0, log=True),
    "threshold": Interval(0.1, 0.9),
    "regularization": Interval(0.2, 1.5),
}
_FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Radii tried: so many times the one that is set."""
_DOMAIN = 6.0
"""Where no radius is set: the domain's length over this is the middle one."""
_USUAL = ("inflation", "radius")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "enff": ("inflation", "guidance"),
    "enkf_n": ("certainty",),
    "ensf": ("inflation", "rtps"),
    "ensf_lr": ("inflation", "rtps"),
    "ssls": ("inflation", "sigma"),
    "masf_amortised": ("calibration",),  # the rest is what its network was trained for
    "masf_kernel": ("inflation", "bandwidth"),
    "three_d_var": ("scale",),
    "particle": ("threshold", "regularization"),
}
"""Tuned keys by filter, where they are others than the usual ones."""


def default_space(settings: Settings, dynamics: Dynamics) -> Space:
    """Inflation and localisation radius, or what the filter has in their place.

    Raises:
        InputError: a filter without such keys.
    """
    filter = settings.filter
    keys = _KEYS.get(filter["name"], _USUAL)
    if "bandwidth" in filter and filter.get("prior", "kernel") in ("kernel", None):
        keys = ("inflation", "bandwidth")
    found = {
        f"filter.{key}": _radii(filter[key], dynamics) if key == "radius" else _INTERVALS[key]
        for key in keys
        if key in filter
    }
    space = {key: chosen for key, chosen in found.items() if chosen is not None}
    if not space:
        raise InputError(
            f"filter {filter['name']} has no keys that are tuned by default; give some: "
            "filter.KEY=interval(0.1,1) or filter.KEY=2,4,6."
        )
    return space


def largest(chosen: Choices | Interval) -> float:
    """The largest number of a space."""
    if isinstance(chosen, Interval):
        return chosen.high
    numbers = [value for value in chosen.values if isinstance(value, int | float)]
    return max(numbers) if None not in chosen.values and numbers else math.inf


def _radii(now: float | None, dynamics: Dynamics) -> Choices | None:
    """Radii around the present one; where that is inf or null, around a share of the domain, and inf."""
    coordinates, now = dynamics.coordinates, math.inf if now is None else now
    if coordinates is None:
        return None
    length = max(max(coordinates.period), float(np.ptp(coordinates.positions, axis=0).max()))
    middle = now if math.isfinite(now) else length / _DOMAIN
    values = [float(f"{factor * middle:.3g}") for factor in _FACTORS]
    values += [] if math.isfinite(now) else [math.inf]
    return Choices(tuple(values), tuple(f"{value:g}" for value in values))


def current_values(space: Space, settings: Settings) -> dict[str, Any] | None:
    """What Optuna would draw for the values that are set now; None where the space does not have them all."""
    values = flat({"filter": settings.filter})
    drawn = {key: chosen.drawn(values.get(key)) for key, chosen in space.items()}
    return None if any(value is None for value in drawn.values()) else drawn
