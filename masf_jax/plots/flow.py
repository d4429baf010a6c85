"""Figures of two-dimensional flows: vorticity of truth, analysis and error.

Colour maps for fields of either sign are white at zero and equally dark at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .flow_data import Vorticity, is_flow, measured_points, sides, vorticity_fields, vorticity_units
from .style import WIDTH, MissingError, require, with_units

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "ANCHORS",
    "Panels",
    "add_legend",
    "check_flow",
    "default_cycles",
    "diverging",
    "vorticity",
]

ANCHORS = {
    "vorticity": "23304a 255490 247cca 3ca8f5 90d3ff f7f7f7 ffbc9b f2825a c45842 8a3a36 482728",
    "error": "1f3524 2a5e2d 4a873c 7aaf5b b1d68d f7f7f7 ddbeff c08ddf 9c64ad 704375 3e2a3c",
}
"""Equally spaced colours, from the most negative value to the most positive. CIE lightness goes linearly from
20 at both ends to 97 in the middle; hues are chosen in OKLCh (blue and orange-red, green and purple), with as
much chroma as sRGB holds up to a bound. matplotlib's white-centred maps are less even: the ends of PuOr have
lightness 10 and 33, those of PRGn 13 and 24, and RdBu is pale over half of its range."""

_NARROW = 5.0
"""Inches of width below which fonts are those of a column."""
_FEW = 0.1
"""Up to this share of the grid, measured points are drawn one by one; above it, the region's outline."""
_NOTHING = (np.zeros(0), np.zeros(0))
_DOT = {"mfc": "black", "mec": "white", "mew": 0.2}


def diverging(name: str) -> Colormap:
    """The colour map `vorticity` or `error`; grey where a value is NaN."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = [f"#{color}" for color in ANCHORS[name].split()]
    colormap = LinearSegmentedColormap.from_list(name, colors, N=255)  # odd: zero has a colour of its own
    return colormap.with_extremes(bad="#c8c8c8")


def default_cycles(data: xr.Dataset) -> list[int]:
    """The first, the middle and the last cycle."""
    last = data.sizes["cycle"] - 1
    return sorted({0, (last + 1) // 2, last})


def vorticity(data: xr.Dataset, cycles: Sequence[int] | None = None, points: bool = True) -> Figure:
    """Vorticity of truth, analysis mean and error, a row per cycle.

    Truth and analysis share one colour scale, symmetric about zero, in all rows; the error has its own.

    Args:
        cycles: numbers 0, 1, …; None: the first, the middle and the last.
        points: mark the measured grid points in the error's panels, where the measurement has places.

    Raises:
        MissingError: not of a flow, or the means were not saved.
        ValueError: a cycle that the run does not have.
    """
    check_flow(data, "vorticity")
    cycles = default_cycles(data) if cycles is None else cycles
    fields = vorticity_fields(data, cycles)
    figure, panels = Panels.figure(data, fields, len(cycles))
    for row, (panel, cycle) in enumerate(zip(panels, cycles, strict=True)):
        panel.show(row, measured_points(data, cycle) if points else None)
        panel.axes[0].set_ylabel(f"{panel.moment(row)}\n{with_units('y', data['y'].attrs)}")
    add_legend(figure, panels)
    return figure


def add_legend(figure: Figure, panels: Sequence[Panels]) -> None:
    """Says at the lower left what the marks are, if there are any."""
    lines = [line for panel in panels for line in (panel.dots, panel.outline) if np.size(line.get_xdata())]
    unique = {line.get_label(): line for line in lines}
    if unique:
        where = "lower left" if figure.get_figwidth() > _NARROW else "outside lower left"
        style = {"frameon": False, "fontsize": _font(figure, 0.9)}
        figure.legend(handles=list(unique.values()), loc=where, **style)


class Panels:
    """Three panels in a row, whose images and marks can be replaced: a figure's row, an animation's frame."""

    def __init__(self, axes: Sequence[Axes], fields: Vorticity, box: tuple[float, float], dot: float):
        self.axes, self.fields, self.box, self.dot = axes, fields, box, dot
        (ly, lx), (ny, nx) = box, fields.analysis.shape[1:]
        dy, dx = ly / ny, lx / nx
        limit, of_error = _limit(fields.reference), _limit(fields.difference)
        extent = (-dx / 2, lx + dx / 2, -dy / 2, ly + dy / 2)
        style = {"origin": "lower", "interpolation": "bicubic", "extent": extent, "aspect": "equal"}
        scales = (("vorticity", limit), ("vorticity", limit), ("error", of_error))
        empty = np.zeros((ny + 1, nx + 1))
        self.images = [
            axis.imshow(empty, cmap=diverging(name), vmin=-half, vmax=half, **style)
            for axis, (name, half) in zip(axes, scales, strict=True)
        ]
        (self.dots,) = axes[2].plot([], [], "o", clip_on=False, label="measured points", **_DOT)
        (self.outline,) = axes[2].plot([], [], color="black", lw=0.9, label="edge of the measured region")
        for line in (self.dots, self.outline):
            line.set_in_layout(False)  # empty ones have no place, and the layout would make room for none
        for axis in axes:
            _ticks(axis.xaxis, lx)
            _ticks(axis.yaxis, ly)
            axis.set(xlim=(0.0, lx), ylim=(0.0, ly))
            axis.label_outer()

    @staticmethod
    def figure(
        data: xr.Dataset, fields: Vorticity, rows: int, width: float = WIDTH
    ) -> tuple[Figure, list[Panels]]:
        """A figure with rows of panels, names above, and the two colour bars below.

        Args:
            width: inches.
        """
        from .displayed import displayed_figure

        box = sides(data)
        height = 0.89 * width / 3 * min(max(box[0] / box[1], 0.25), 3.0)
        size = width, rows * (height + 0.06) + 0.85 + 0.08 * width
        figure = displayed_figure(figsize=size, layout="constrained")
        if width < _NARROW:
            figure.set_layout_engine("constrained", w_pad=0.01, wspace=0.0, h_pad=0.02, hspace=0.0)
        grid = np.asarray(figure.subplots(rows, 3, sharex=True, sharey=True)).reshape(rows, 3)
        panels = [Panels(list(row), fields, box, 0.26 * _font(figure)) for row in grid]
        for axis, name in zip(grid[0], fields.names, strict=True):
            axis.set_title(name if width > _NARROW else name.partition(" of")[0], fontsize=_font(figure))
        for axis in grid[-1]:
            axis.set_xlabel(with_units("x", data["x"].attrs), fontsize=_font(figure))
        for axis in grid.ravel():
            axis.tick_params(labelsize=_font(figure, 0.9), length=2.5)
            axis.yaxis.label.set_size(_font(figure))
        style = {"location": "bottom", "extend": "both", "aspect": 20, "pad": 0.03, "fraction": 0.08}
        for axes, image, label, shrink in (
            (grid[:, :2], panels[0].images[0], "vorticity ω", 0.5),
            (grid[:, 2:], panels[0].images[2], f"{fields.names[2].split()[0]} of ω", 1.0),
        ):
            label = with_units(label, {"units": vorticity_units(data)})
            bar = figure.colorbar(image, ax=axes, shrink=shrink, **style)
            bar.set_label(label, fontsize=_font(figure))
            bar.ax.tick_params(labelsize=_font(figure, 0.9))
        figure.suptitle(data.attrs.get("title", ""), fontsize=_font(figure, 1.07), wrap=True)
        return figure, panels

    def moment(self, index: int) -> str:
        """Cycle and time of entry `index`."""
        return f"cycle {self.fields.cycle[index]},  {self.fields.moment[index]}"

    def show(self, index: int, points: np.ndarray | None) -> None:
        """Puts entry `index` of the fields, and the measured points, into the panels."""
        shown = (self.fields.reference, self.fields.analysis, self.fields.difference)
        for image, values in zip(self.images, shown, strict=True):
            periodic = np.pad(values[index], ((0, 1), (0, 1)), mode="wrap")  # the far edge repeats the near
            image.set_data(np.ma.masked_invalid(periodic))
        dots, outline = _marks(points, self.box)
        crowd = max(np.size(dots[0]) / 64, 1.0) ** 0.5
        self.dots.set_markersize(self.dot / crowd)
        self.dots.set_data(*dots)
        self.outline.set_data(*outline)


def check_flow(data: xr.Dataset, figure: str) -> None:
    """Raises MissingError where there is no flow with saved means."""
    require(data, figure, "analysis_mean")
    if not is_flow(data):
        raise MissingError(
            f"the figure {figure} is of flows, states with channels u and v on a grid; here they have "
            f"dimensions {', '.join(map(str, data['analysis_mean'].dims[1:]))}: see series and hovmoeller."
        )


def _font(figure: Figure, factor: float = 1.0) -> float:
    """Points: 7 in a narrow figure, 10 in a wide one."""
    return factor * (7.0 if figure.get_figwidth() < _NARROW else 10.0)


def _limit(values: np.ndarray) -> float:
    """A symmetric limit that all but a few thousandths of the values keep."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.percentile(finite, 99.7)) if finite.size else 0.0
    return limit if limit > 0 else 1.0


def _ticks(axis: Any, side: float) -> None:
    """Ticks at both ends and in the middle of the box, as multiples of π where the side is one."""
    multiple = side / np.pi
    whole = abs(multiple - round(multiple)) < 1e-4 and round(multiple) >= 1
    labels = [f"{part * round(multiple):g}π" if whole else f"{part * side:.3g}" for part in (0.5, 1.0)]
    labels = ["0", *("π" if label == "1π" else label for label in labels)]
    axis.set_ticks([0.0, side / 2, side], labels=labels)


def _marks(points: np.ndarray | None, box: tuple[float, float]) -> tuple[tuple, tuple]:
    """(x, y) of the dots and of the outline, empty where there is nothing to tell.

    Few points are dots. Many are outlined if they form regions, not if they are scattered.
    """
    if points is None or points.all() or not points.any():
        return _NOTHING, _NOTHING
    ny, nx = points.shape
    dy, dx = box[0] / ny, box[1] / nx
    if points.mean() <= _FEW:
        rows, columns = np.nonzero(points)
        return (columns * dx, rows * dy), _NOTHING
    i, j = np.nonzero(points[:, 1:] != points[:, :-1])  # edges between columns j and j + 1
    k, l = np.nonzero(points[1:] != points[:-1])
    if i.size + k.size > 4 * (ny + nx):
        return _NOTHING, _NOTHING
    gap_y, gap_x = np.full(i.size, np.nan), np.full(k.size, np.nan)
    x = [np.stack([j + 0.5, j + 0.5, gap_y], 1).ravel(), np.stack([l - 0.5, l + 0.5, gap_x], 1).ravel()]
    y = [np.stack([i - 0.5, i + 0.5, gap_y], 1).ravel(), np.stack([k + 0.5, k + 0.5, gap_x], 1).ravel()]
    return _NOTHING, (np.concatenate(x) * dx, np.concatenate(y) * dy)
