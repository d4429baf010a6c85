"""Figures of flows: what is drawn, on which scales, where the marks are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from masf_jax.plots import MissingError, animation, spectra as spectra_figure, vorticity as vorticity_figure
from masf_jax.plots.flow import ANCHORS, default_cycles, diverging
from masf_jax.plots.flow_data import energy_spectra, is_flow, measured_points, vorticity_fields


def images(figure):
    """Rows of the three images."""
    panels = [axis.images[0] for axis in figure.axes if axis.images]
    return [panels[i : i + 3] for i in range(0, len(panels), 3)]


def test_a_flow_is_told_from_other_fields(flow):
    assert is_flow(flow)
    assert not is_flow(flow.drop_vars("analysis_mean"))
    assert not is_flow(flow.assign_coords(channel=["u", "w"]))
    assert not is_flow(flow.drop_vars("channel"))


def test_vorticity_in_closed_form(flow):
    fields = vorticity_fields(flow, [0, 3])
    for row, a in enumerate((1.0, 4.0)):
        true = np.broadcast_to(a * np.sin(flow["y"].values)[:, None], fields.reference[row].shape)
        error = np.broadcast_to(a / 3 * np.cos(4 / 3 * flow["x"].values), true.shape)
        np.testing.assert_allclose(fields.reference[row], true, atol=1e-5)
        np.testing.assert_allclose(fields.difference[row], error, atol=1e-5)
        np.testing.assert_allclose(fields.analysis[row], true + error, atol=1e-5)
    assert fields.names == ("truth", "analysis mean", "error of the analysis mean")


def test_without_truth_the_increment_is_shown(flow):
    fields = vorticity_fields(flow.drop_vars("truth"), [0])
    assert fields.names == ("forecast mean", "analysis mean", "increment")
    expected = -np.cos(4 / 3 * flow["x"].values) / 3
    np.testing.assert_allclose(fields.difference[0], np.broadcast_to(expected, (16, 24)), atol=1e-5)


@pytest.mark.parametrize("cycles", [[4], [-1], []])
def test_cycles_the_run_does_not_have(flow, cycles):
    with pytest.raises(ValueError, match="0 … 3"):
        vorticity_figure(flow, cycles)


def test_scales_are_symmetric_and_shared(flow):
    figure = vorticity_figure(flow, [0, 2, 3])
    rows = images(figure)
    assert len(rows) == 3
    limits = [[image.get_clim() for image in row] for row in rows]
    assert all(low == -high for row in limits for low, high in row)
    assert len({row[i] for row in limits for i in (0, 1)}) == 1, "truth and analysis: one scale in all rows"
    (of_error,) = {row[2] for row in limits}
    assert limits[0][0][1] == pytest.approx(4.0, rel=0.01)
    assert of_error[1] == pytest.approx(4 / 3, rel=0.01)
    assert len(figure.axes) == 3 * 3 + 2, "one colour bar per scale"
    assert all(image.axes.get_aspect() == 1.0 for row in rows for image in row)
    assert [axis.get_ylabel().split("\n")[0] for axis in figure.axes if axis.get_ylabel()] == [
        "cycle 0,  t = 0.5",
        "cycle 2,  t = 1.5",
        "cycle 3,  t = 2",
    ]


def test_images_hold_the_fields_and_repeat_the_near_edges(flow):
    (row,) = images(vorticity_figure(flow, [2]))
    fields = vorticity_fields(flow, [2])
    for image, field in zip(row, (fields.reference, fields.analysis, fields.difference), strict=True):
        shown = image.get_array()
        np.testing.assert_array_equal(shown[:-1, :-1], field[0])
        np.testing.assert_array_equal(shown[-1, :-1], field[0][0])
        np.testing.assert_array_equal(shown[:, -1], shown[:, 0])
        low_x, high_x, low_y, high_y = image.get_extent()
        assert (low_x, high_x) == pytest.approx((-np.pi / 16, 3 * np.pi + np.pi / 16))
        assert (low_y, high_y) == pytest.approx((-np.pi / 16, 2 * np.pi + np.pi / 16))
    assert [label.get_text() for label in row[0].axes.get_xticklabels()] == ["0", "1.5π", "3π"]
    assert [label.get_text() for label in row[0].axes.get_yticklabels()] == ["0", "π", "2π"]


def test_measured_points(flow):
    expected = np.zeros((16, 24), bool)
    expected[::4, ::4] = True
    np.testing.assert_array_equal(measured_points(flow, 0), expected)
    assert not measured_points(flow, 1).any(), "nothing is valid in this cycle"
    assert measured_points(flow.drop_vars(["observation_x", "observation_y"]), 0) is None
    dy, dx = (float(flow[axis][1] - flow[axis][0]) for axis in "yx")
    around = {
        "observation_y": ("value", [15.7 * dy, -2.0 * dy]),
        "observation_x": ("value", [24.4 * dx, 1.2 * dx]),
    }
    stations = flow[["y", "x"]].assign_coords(around)
    stations = stations.assign(observation_mask=(("cycle", "value"), [[1, 1]]))
    np.testing.assert_array_equal(np.argwhere(measured_points(stations, 0)), [[0, 0], [14, 1]])
    mask = np.zeros((4, 2, 16, 24), np.int8)
    mask[:, 1, :3] = 1
    whole = flow.drop_vars("observation_mask").assign(observation_mask=(("cycle", "channel", "y", "x"), mask))
    np.testing.assert_array_equal(measured_points(whole, 0), mask[0, 1].astype(bool))


def marks(figure):
    """(x, y) of what is drawn over the third panel: dots, then the outline."""
    dots, outline = figure.axes[2].lines
    return dots.get_xydata(), outline.get_xydata()


def with_points(flow, points):
    mask = np.broadcast_to(points, (4, 2, 16, 24)).astype(np.int8)
    return flow.drop_vars("observation_mask").assign(observation_mask=(("cycle", "channel", "y", "x"), mask))


def test_few_points_are_dots_and_regions_are_outlined(flow):
    dots, outline = marks(vorticity_figure(flow, [0]))
    np.testing.assert_allclose(dots[1], [np.pi / 2, 0.0], atol=1e-6)
    assert len(dots) == 24
    assert len(outline) == 0
    hole = np.ones((16, 24), bool)
    hole[4:8, 6:16] = False
    dots, outline = marks(vorticity_figure(with_points(flow, hole), [0]))
    assert len(dots) == 0
    assert len(outline) == 3 * 2 * (4 + 10)
    step = np.pi / 8
    np.testing.assert_allclose(np.nanmin(outline, 0), [5.5 * step, 3.5 * step])
    np.testing.assert_allclose(np.nanmax(outline, 0), [15.5 * step, 7.5 * step])
    pieces = outline.reshape(-1, 3, 2)
    np.testing.assert_allclose(np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1), step)
    assert np.isnan(pieces[:, 2]).any(1).all(), "pieces are not joined"


def test_marks_that_would_tell_nothing_are_left_out(flow):
    scattered = np.indices((16, 24)).sum(0) % 2 == 0
    for points in (scattered, np.ones((16, 24), bool), np.zeros((16, 24), bool)):
        figure = vorticity_figure(with_points(flow, points), [0])
        assert [len(each) for each in marks(figure)] == [0, 0]
        assert not figure.legends
    figure = vorticity_figure(flow, [0], points=False)
    assert not figure.legends
    assert [text.get_text() for text in vorticity_figure(flow, [0]).legends[0].get_texts()] == [
        "measured points"
    ]


def test_panels_fill_the_figure_with_and_without_marks(flow):
    for points in (True, False):
        figure = vorticity_figure(flow, [0], points=points)
        figure.draw_without_rendering()
        widths = [row.axes.get_position().width for row in images(figure)[0]]
        assert min(widths) > 0.25


def test_spectra_of_single_modes(flow):
    """⟨½ a² cos²⟩ = a²/4 at k = 1; the error's a²/64 at 4/3, which is nearest to two shells of width 2/3."""
    flow = flow.assign(
        analysis_ensemble=(
            ("cycle", "member", "channel", "y", "x"),
            np.stack([flow["truth"].values * factor for factor in (1.0, 3.0)], 1),
        )
    )
    k, spectra = energy_spectra(flow, 1)
    width = k[0]
    assert width == pytest.approx(2 / 3)
    assert k[-1] <= 8.0
    squares = np.mean(np.arange(2.0, 5.0) ** 2)
    assert width * spectra["truth"].sum() == pytest.approx(squares / 4, rel=1e-5)
    error = spectra["error of the analysis mean"]
    assert width * error[1] == pytest.approx(squares / 64, rel=1e-5)
    assert error[1] == pytest.approx(error.sum(), rel=1e-5)
    np.testing.assert_allclose(spectra["analysis members"], 5 * spectra["truth"], rtol=1e-4, atol=1e-9)


def test_spectra_figure(flow):
    axis = spectra_figure(flow, 1).axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    names = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert names == ["truth", "analysis mean", "error of the analysis mean"]
    assert axis.get_ylim()[0] > 1e-9, "round-off is not shown"


def test_a_run_that_diverged_can_be_drawn(flow, tmp_path):
    flow["analysis_mean"][2:] = np.nan
    k, spectra = energy_spectra(flow, 0)
    truth, analysis = spectra["truth"], spectra["analysis mean"]
    np.testing.assert_allclose(0.25 * truth.sum() * k[0], (1 + 4 + 9 + 16) / 4 / 16, rtol=1e-5)
    assert np.isfinite(analysis).all()
    figure = vorticity_figure(flow, default_cycles(flow))
    assert images(figure)[2][1].get_array().mask.all()
    figure.savefig(tmp_path / "states.png")
    flow["analysis_mean"][:] = np.nan
    vorticity_figure(flow, [0]).savefig(tmp_path / "states.png")
    names = [text.get_text() for text in spectra_figure(flow, 0).legends[0].get_texts()]
    assert names == ["truth"]


def lightness(rgb):
    """CIE L* of sRGB colours."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


@pytest.mark.parametrize("name", list(ANCHORS))
def test_colour_maps_are_even_and_symmetric_in_lightness(name):
    values = lightness(diverging(name)(np.arange(255))[:, :3])
    np.testing.assert_allclose(values, values[::-1], atol=0.5)
    np.testing.assert_allclose(values[:128], np.linspace(20, 97, 128), atol=1.0)
    assert np.ptp(diverging(name)(127)[:3]) == 0.0, "zero has no hue"


def test_an_animation_of_a_dataset(flow, tmp_path):
    """Through the command line: tests/cli/test_animate.py."""
    flow.attrs.pop("title", None)  # of a run in Python
    path = animation(flow, tmp_path / "a.gif", dpi=30)
    with Image.open(path) as gif:
        assert gif.n_frames == flow.sizes["cycle"] == 4
    with pytest.raises(ValueError, match="got 'png'"):
        animation(flow, tmp_path / "a.png")
    with pytest.raises(MissingError, match="is of flows"):
        animation(flow.drop_vars("channel"), tmp_path / "b.gif")


def test_figures_are_shown_where_pyplot_is_not_imported(flow):
    shown = vorticity_figure(flow, [0])._repr_png_()
    with Image.open(io.BytesIO(shown)) as picture:
        assert picture.format == "PNG"
        assert picture.width == round(3.3 * 160)


def test_axes_have_the_units_that_the_flow_has(flow):
    metres = flow.assign_coords({axis: (axis, flow[axis].values, {"units": "m"}) for axis in ("x", "y")})
    metres = metres.assign_coords(time=("cycle", 7200.0 * np.arange(1, 5), {"units": "s"}))
    for name in ("truth", "forecast_mean", "analysis_mean"):
        metres[name].attrs["units"] = "m/s"
    figure = vorticity_figure(metres, [0])
    shown = {label for axis in figure.axes for label in (axis.get_xlabel(), axis.get_ylabel())}
    assert {"x (m)", "vorticity ω (1/s)", "error of ω (1/s)", "cycle 0,  t = 2 h\ny (m)"} <= shown
    axis = spectra_figure(metres).axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("wavenumber k (1/m)", "energy spectrum E(k) ((m/s)² m)")
