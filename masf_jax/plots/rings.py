"""Space-time (Hovmöller) diagrams of truth, observations, analysis and its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .components import observed
from .flow import diverging
from .style import (
    LAST,
    WIDTH,
    heading,
    last_cycles,
    new_figure,
    require,
    stage_of,
    time_axis,
    times,
    with_units,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["hovmoeller"]

_MOST_VALUES = 2**22
"""In a diagram."""
_FONT = 6.5
_MOST_VARIABLES = 4


class _Part(NamedTuple):
    """One variable of the state: raveled to (cycles, points), with what its axis shows."""

    name: str
    units: dict[str, str]
    columns: slice


def hovmoeller(
    data: xr.Dataset, last: int | None = LAST["hovmoeller"], variables: Sequence[str] | None = None
) -> Figure:
    """Time along, the state's one dimension up: truth, observations, analysis on one scale; error on its own.

    A state of several variables (a dimension `channel`) has a column for each, with scales of its own.
    Fields of more dimensions are raveled. The error's scale is symmetric about zero.

    Args:
        last: so many last cycles are shown, and the axis says so where there are more; None: all that a
            figure can show.
        variables: names, or numbers of channels without names; None: the first four at most.

    Raises:
        MissingError: the means were not saved.
        ValueError: no such variables.
    """
    stage = stage_of(data)
    require(data, "hovmoeller", f"{stage}_mean")
    size = int(np.prod(data[f"{stage}_mean"].shape[1:]))
    most = max(1, _MOST_VALUES // size)
    data, told = last_cycles(data, most if last is None else min(last, most))
    field, (at, label) = data[f"{stage}_mean"], times(data)
    panels, parts = _panels(data, stage), _parts(field, data, variables)
    options = {"height": 0.9, "sharex": True, "sharey": True}
    figure, axes = new_figure(data.attrs.get("title"), len(panels), len(parts), **options)
    figure.set_figwidth(WIDTH * (1 if len(parts) == 1 else 0.8 * len(parts)))
    for part, column in zip(parts, axes.T, strict=True):
        own = {name: values[:, part.columns] for name, values in panels.items()}
        _column(figure, column, own, at, part, _up(data, field))
        time_axis(column[-1], at, f"{label}{told}")
    for axis in axes[:, 1:].ravel():
        axis.set_ylabel("")
    return figure


def _panels(data: xr.Dataset, stage: str) -> dict[str, np.ndarray]:
    """What there is to show, each (cycles, raveled state)."""
    found = data[f"{stage}_mean"].values
    found, seen = found.reshape(len(found), -1), observed(data)
    panels = {"truth": data["truth"].values.reshape(found.shape)} if "truth" in data else {}
    if seen is not None:
        panels["observations"] = seen
    panels[f"{stage} mean"] = found
    if "truth" in data:
        panels[f"{stage} mean - truth"] = found - panels["truth"]
    return panels


def _parts(field: xr.DataArray, data: xr.Dataset, variables: Sequence[str] | None) -> list[_Part]:
    """The variables to show; a state without channels is one."""
    size = int(np.prod(field.shape[1:]))
    if field.dims[1:2] != ("channel",) or field.ndim == 2:
        if variables is not None:
            raise ValueError("variables are of states with a dimension channel, which this one has not.")
        return [_Part(str(field.attrs.get("variable", "")), dict(field.attrs), slice(0, size))]
    labels = data["channel"].values if "channel" in data.coords else range(field.shape[1])
    names = [str(name) for name in labels]
    chosen = names[:_MOST_VARIABLES] if variables is None else [str(name) for name in variables]
    if not chosen or not set(chosen) <= set(names):
        raise ValueError(
            f"variables are one or more of {', '.join(names)}; got {', '.join(chosen) or 'none'}."
        )
    n, parts = size // len(names), []
    for name in chosen:
        i = names.index(name)
        own = "variable_units" in data.coords
        about = {"units": str(data["variable_units"].values[i])} if own else dict(field.attrs)
        called = f"channel {name}" if name.isdecimal() else name
        parts.append(_Part(called, about, slice(i * n, (i + 1) * n)))
    return parts


class _Up(NamedTuple):
    """The axis of the points: where each is, what to call it, and names of the points, if they have any."""

    values: np.ndarray
    label: str
    names: list[str]


def _up(data: xr.Dataset, field: xr.DataArray) -> _Up:
    dims = field.dims[2:] if field.dims[1] == "channel" and field.ndim > 2 else field.dims[1:]
    n = int(np.prod([field.sizes[dim] for dim in dims]))
    dim = str(dims[0]) if len(dims) == 1 else "component"
    if dim not in data.coords or len(dims) > 1:
        return _Up(np.arange(n), dim, [])
    x = data[dim].values
    names = x.dtype.kind in "OUT"
    return _Up(
        np.arange(n) if names else x, with_units(dim, data[dim].attrs), list(map(str, x)) if names else []
    )


def _column(
    figure: Figure, axes: np.ndarray, panels: dict[str, np.ndarray], at: np.ndarray, part: _Part, up: _Up
) -> None:
    """All panels of one variable, one below the other, and their scales."""
    from matplotlib.ticker import MaxNLocator

    low, high = _limits(panels.get("truth", next(v for name, v in panels.items() if name.endswith("mean"))))
    same, errors = [], []
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        style: dict = {"cmap": "viridis", "vmin": low, "vmax": high, "rasterized": True, "shading": "nearest"}
        error = name.endswith("- truth")
        if error:
            half = _largest(values)
            style |= {"cmap": diverging("vorticity"), "vmin": -half, "vmax": half}
        image = axis.pcolormesh(at, up.values, values.T, **style)
        none = "" if np.isfinite(values).any() else " (none)"
        heading(axis, (f"{part.name}: {name}" if part.name else name) + none)
        axis.set_ylabel(up.label)
        degrees = "degree" in up.label  # ticks at 90, 180, …
        axis.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 3, 4.5, 9, 10] if degrees else [1, 2, 5, 10]))
        if up.names:
            axis.set_yticks(up.values[:: 1 + len(up.names) // 8], up.names[:: 1 + len(up.names) // 8])
        (errors if error else same).append((axis, image))
    for where, called in ((same, part.name or "state"), (errors, "error")):
        if not where:
            continue
        bar = figure.colorbar(
            where[-1][1], ax=[axis for axis, _ in where], pad=0.01, aspect=12 * len(where), extend="both"
        )
        bar.ax.tick_params(labelsize=_FONT, length=2)
        bar.ax.yaxis.get_offset_text().set_fontsize(_FONT)
        bar.set_label(with_units(called, part.units), fontsize=_FONT)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """That all but one in a hundred values keep."""
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = np.nanpercentile(values, [0.5, 99.5])
    return float(low), float(high)


def _largest(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(np.percentile(finite, 99.5)) if finite.size and finite.max() > 0 else 1.0
