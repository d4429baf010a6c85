"""Figures show the numbers of the dataset, say what they show, and put no legend over data."""

from __future__ import annotations

import matplotlib.dates
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from masf_jax import plots
from masf_jax.plots.figures import FIGURES, USUAL, drawn
from masf_jax.plots.ranks import effective_number, sampling_band
from masf_jax.plots.scores import climatology_level
from masf_jax.plots.skill import spread_skill_points
from masf_jax.plots.style import COLORS, LAST, broken, curve
from masf_jax.results.averages import comparison as compared, differences

K, N, X = 240, 9, 6
OF_OTHERS = ("vorticity", "spectra", "innovations", "estimates", "lead_times")


@pytest.fixture(scope="module")
def ring():
    """A reliable ensemble: truth and members are draws of one law; its width varies."""
    rng = np.random.default_rng(0)
    sigma = np.exp(rng.normal(0, 0.5, (K, 1, X)))
    centre = 5 * rng.normal(size=(K, 1, X))
    draws = centre + sigma * rng.normal(size=(K, N + 1, X))
    members, truth = draws[:, 1:], draws[:, 0]
    mean, spread = members.mean(1), members.std(1, ddof=1)
    data = xr.Dataset(attrs={"title": "a ring", "burn_in": 20})
    units = {"units": "K"}
    for stage in ("forecast", "analysis"):
        data[f"{stage}_ensemble"] = (("cycle", "member", "x"), members, units)
        data[f"{stage}_mean"] = (("cycle", "x"), mean, units)
        data[f"{stage}_spread"] = (("cycle", "x"), spread, units)
        data[f"rmse_{stage}"] = ("cycle", np.sqrt(((mean - truth) ** 2).mean(1)), units)
        data[f"spread_{stage}"] = ("cycle", np.sqrt((spread**2).mean(1)), units)
        ranks = (members < truth[:, None]).sum(1)
        counts = np.stack([(ranks == rank).sum(1) for rank in range(N + 1)], 1)
        data[f"rank_counts_{stage}"] = (("cycle", "rank"), counts.astype(float))
    data["truth"] = (("cycle", "x"), truth, units)
    about = {"structure": "mask", "units": "K"}
    data["observation"] = (("cycle", "measured"), truth[:, ::2] + 0.1, about)
    data["observation_mask"] = (("cycle", "measured"), np.ones((K, X // 2), np.int8))
    data = data.assign_coords(observation_x=("measured", np.arange(0.0, X, 2)), x=np.arange(float(X)))
    return data.assign_coords(cycle=np.arange(K), time=("cycle", 0.1 * np.arange(K), {"units": "1"}))


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


OF_A_RING = [name for name in FIGURES if name not in OF_OTHERS]


@pytest.mark.parametrize("name", OF_A_RING)
def test_no_legend_covers_data_and_every_axis_has_a_name(ring, name):
    figure = FIGURES[name](ring)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert figure.get_figwidth() == pytest.approx(3.3)
    for axis in figure.axes:
        assert axis.get_legend() is None
        for legend in figure.legends:
            assert not legend.get_window_extent().overlaps(axis.get_window_extent())
        box = axis.get_tightbbox(renderer)
        assert box.x0 > -2
        assert box.x1 < figure.bbox.x1 + 2
        sizes = {text.get_fontsize() for text in (*axis.get_xticklabels(), *axis.get_yticklabels())}
        assert min(sizes) >= 6
    shown = [axis for axis in figure.axes if axis.get_subplotspec() is not None]
    assert all(axis.get_ylabel() for axis in shown)
    assert shown[-1].get_xlabel()


def test_usual_figures_are_those_with_data(ring):
    assert set(drawn(ring)) == set(USUAL) - {"innovations", "spectra", "estimates"}


def test_series_shows_truth_observations_and_both_bands(ring):
    figure = plots.series(ring, components=[2], last=30)
    above, below = figure.axes
    assert {"truth", "analysis mean", "observations", "± 1σ", "90 % of the members"} == set(labels(figure))
    lines = {line.get_label(): line.get_ydata() for line in above.lines}
    np.testing.assert_allclose(lines["truth"], ring["truth"][-30:, 2])
    np.testing.assert_allclose(lines["observations"], ring["truth"][-30:, 2] + 0.1)
    np.testing.assert_allclose(below.lines[0].get_ydata(), (ring["truth"] - ring["analysis_mean"])[-30:, 2])
    assert above.get_ylabel() == "x = 2\n(K)"
    by_mean = plots.series(ring.drop_vars("analysis_ensemble"), components=[2])
    assert "90 % band (± 1.64σ)" in labels(by_mean)
    edges = by_mean.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert edges.max() == pytest.approx(1.6449 * float(ring["analysis_spread"][-50:, 2].max()), rel=1e-4)
    with pytest.raises(ValueError, match=r"0 … 5, one or more; got \[6\]"):
        plots.series(ring, components=[6])


def test_series_says_how_many_cycles_it_shows_and_marks_what_was_rejected(ring):
    """Every default number of cycles comes from one place; a value far off lies on the edge as a cross."""
    assert plots.series(ring).axes[-1].get_xlabel().endswith("; last 50 of 240 cycles")
    assert LAST["series"] == 50
    assert "cycles" not in plots.series(ring, last=None).axes[-1].get_xlabel()
    labelled = [axis.get_xlabel() for axis in plots.hovmoeller(ring, last=30).axes]
    assert any(each.endswith("; last 30 of 240 cycles") for each in labelled)
    with pytest.raises(ValueError, match="last must be 1 or more"):
        plots.series(ring, last=0)
    data = ring.copy(deep=True)
    data["observation_rejected"] = data["observation_mask"] * 0
    data["observation_rejected"][-3, 1], data["observation"][-3, 1] = 1, 999.0
    above, _ = plots.series(data, components=[2]).axes
    lines = {line.get_label(): line.get_ydata() for line in above.lines}
    assert np.isnan(lines["observations"][-3])
    assert np.flatnonzero(np.isfinite(lines["rejected"])).tolist() == [47]
    assert lines["rejected"][47] == pytest.approx(above.get_ylim()[1])
    assert above.get_ylim()[1] < 100


def test_a_hint_names_each_thing_to_save_once(ring):
    bare = ring.drop_vars(["truth", "forecast_mean"])
    with pytest.raises(plots.MissingError, match=r'save=\("mean", "spread"\)\), or save=\[mean,spread\] on'):
        plots.innovations(bare)
    with pytest.raises(plots.MissingError, match="a smoother's result does not have"):
        plots.innovations(bare.assign(smoothed_mean=ring["analysis_mean"]))


def test_bands_of_a_reliable_ensemble_hold_the_truth(ring):
    """90 % of a normal law's members, of nine: the quantiles are within the extremes, P = 8/10 at most."""
    low, high = np.quantile(ring["analysis_ensemble"], (0.05, 0.95), axis=1)
    inside = ((ring["truth"] >= low) & (ring["truth"] <= high)).mean()
    assert 0.68 < float(inside) < 0.8


def test_error_and_spread_with_the_climatology(ring):
    figure = plots.error_spread(ring)
    assert all(axis.get_yscale() == "log" for axis in figure.axes)
    assert labels(figure) == ["spread", "RMSE, forecast", "climatology", "burn-in", "RMSE, analysis"]
    level = climatology_level(ring)
    assert level == pytest.approx(float(np.sqrt(ring["truth"].var("cycle", ddof=1).mean())), rel=1e-12)
    drawn_level = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_label() == "climatology"]
    assert drawn_level == [level]
    given = plots.error_spread(ring, climatology=3.6).axes[0].lines
    assert 3.6 in [line.get_ydata()[0] for line in given]
    assert climatology_level(ring.drop_vars("truth")) is None


def test_the_band_of_ranks_holds_nine_bins_of_ten():
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(100):
        counts = np.stack([np.bincount(rng.integers(0, 10, 40), minlength=10) for _ in range(100)])
        low, high = sampling_band(effective_number(counts), 1 / 10)
        inside.append(np.mean((counts.sum(0) / 4000 >= low) & (counts.sum(0) / 4000 <= high)))
    assert 0.87 < np.mean(inside) < 0.95


@pytest.mark.parametrize(("n", "along", "across"), [(1, 0.9, 0.0), (8, 0.8, 0.8), (8, 0.0, 0.9)])
def test_the_band_holds_nine_bins_of_ten_where_cells_and_cycles_go_together(n, along, across):
    """Truth and nine members are exchangeable: AR(1) along the ring's cells and along cycles."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(300, 100, 10, n))  # cycles, repetitions
    for process, a in ((np.moveaxis(draws, -1, 0), across), (draws, along)):
        for i in range(1, len(process)):
            process[i] = a * process[i - 1] + np.sqrt(1 - a**2) * process[i]
    ranks = (draws[:, :, 1:] < draws[:, :, :1]).sum(2)
    counts = (ranks[..., None] == np.arange(10)).sum(2)
    shares, inside = counts.sum(0) / (300 * n), []
    for repetition in range(100):
        worth = effective_number(counts[:, repetition].astype(float))
        low, high = sampling_band(worth, 1 / 10)
        inside.append((shares[repetition] >= low) & (shares[repetition] <= high))
    assert 0.86 < np.mean(inside) < 0.94  # ± 0.01 by chance
    if along == 0.9:  # what does not see that cycles go together
        low, high = sampling_band(300, 1 / 10)
        assert np.mean((shares >= low) & (shares <= high)) < 0.7


def test_values_that_go_together_count_less():
    rng = np.random.default_rng(2)
    counts = np.zeros((2000, 10))
    counts[np.arange(2000), rng.integers(0, 10, 2000)] = 40  # all 40 components of a cycle have one rank
    assert 1200 < effective_number(counts) < 3500
    slow = counts[np.repeat(np.arange(200), 10)]  # and ten cycles too
    assert 120 < effective_number(slow) < 400
    assert effective_number(counts[:5]) == 5


def test_a_reliable_ensemble_lies_on_the_diagonal(ring):
    spread, error, doubt = spread_skill_points(ring, "analysis", 0, 4)
    assert spread[-1] > 3 * spread[0]
    assert np.all(np.abs(spread[1:-1] - error[1:-1]) < 4 * doubt[1:-1])
    assert np.sqrt((spread**2).mean() / (error**2).mean()) == pytest.approx(1, abs=0.1)


def test_what_is_lacking_is_said(ring, flow):
    no_truth = ring.drop_vars(["truth", "rmse_analysis", "rank_counts_analysis"])
    cases = {
        "error_spread": (no_truth, "give assimilate the truth"),
        "rank_histogram": (ring.drop_vars("rank_counts_analysis"), r"scores=\[…,rank_histogram\].*no ranks"),
        "states": (ring.drop_vars("analysis_mean"), r"save=\[mean,spread,mean\]|saves mean and spread"),
        "reliability": (ring.drop_vars("analysis_ensemble"), r"save=\[mean,spread,ensemble\]"),
        "vorticity": (ring, "channels u and v"),
        "spectra": (ring, "channels u and v"),
        "innovations": (ring, "of runs without truth"),
        "estimates": (ring, "runs that estimate"),
        "lead_times": (ring, "rmse along lead"),
        "spread_skill": (flow, "analysis_spread"),
    }
    for name, (data, message) in cases.items():
        with pytest.raises(plots.MissingError, match=message):
            FIGURES[name](data)
    with pytest.raises(ValueError, match="burn_in must leave some of the 240 cycles"):
        plots.rank_histogram(ring, burn_in=240)


def test_gaps_are_not_crossed_and_dates_are_dates(ring):
    axis = Figure().subplots()
    curve(axis, np.array([0.0, 1, 2, 10, 20, 21]), np.array([1.0, 2, 3, 4, np.nan, 6]), color="k")
    (line,) = axis.lines
    x, marked = line.get_xdata(), line.get_markevery()
    assert x[marked].tolist() == [10.0, 21.0]
    curve(axis, np.array([3.0]), np.array([1.0]))
    assert axis.lines[1].get_markevery() == [0]
    curve(axis, np.arange(4.0), np.arange(4.0))
    assert axis.lines[2].get_marker() == "None"
    at, values = broken(np.array([0.0, 1, 2, 10, 11]), np.arange(5.0))
    np.testing.assert_array_equal(at, [0, 1, 2, 6, 10, 11])
    np.testing.assert_array_equal(values, [0, 1, 2, np.nan, 3, 4])
    dates = np.datetime64("2000-01-01") + np.arange(K).astype("timedelta64[h]")
    dates[-10:] += np.timedelta64(5, "D")
    record = ring.drop_vars(["truth", "time"]).assign_coords(time=("cycle", dates.astype("datetime64[ns]")))
    for stage in ("forecast", "analysis"):
        record[f"{stage}_residual"] = record["observation"] - record[f"{stage}_mean"].values[:, ::2]
    for figure in (plots.series(record), plots.innovations(record)):
        line = figure.axes[0].lines[0]
        assert np.isnan(line.get_ydata()).sum() == 1
        assert figure.axes[-1].get_xlabel().partition(";")[0] == "date"
        assert isinstance(figure.axes[-1].xaxis.get_major_formatter(), matplotlib.dates.ConciseDateFormatter)


def test_comparison_shows_means_and_standard_errors(ring):
    runs = {"a": [ring, ring.isel(cycle=slice(50, None))], "b": [ring.isel(cycle=slice(None, 99)), ring]}
    data = compared(runs)
    expected = float(ring["rmse_analysis"][20:].mean())
    assert float(data["rmse_analysis"].sel(filter="a")[0]) == pytest.approx(expected)
    figure = plots.comparison(data, notes={"b": "1 of 2 diverged"})
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(widths[:2], data["rmse_analysis"].mean("seed"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    half = float(np.abs(np.diff(data["rmse_analysis"].values[0]))[0] / 2)  # s/√S of two
    mean, error = texts[0].split(" ± ")
    places = len(error.partition(".")[2])
    assert error == f"{half:.{places}f}"
    assert float(f"{half:.1e}") == float(error), "two digits"
    assert mean == f" {float(data['rmse_analysis'][0].mean()):.{places}f}"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b\n1 of 2 diverged"]
    against = differences(data)  # b's first seed is a cycle shorter, its second is a's first
    apart = data["rmse_analysis"].sel(filter="b") - data["rmse_analysis"].sel(filter="a")
    np.testing.assert_allclose(against["difference"], [0, float(apart.mean())])
    np.testing.assert_allclose(against["standard_error"], [0, float(abs(apart[0] - apart[1])) / 2])
    assert against["pairs"].values.tolist() == [2, 2]
    np.testing.assert_allclose(differences(data, "b")["difference"], against["difference"][::-1] * -1)
    with pytest.raises(ValueError, match="there is no filter 'c' in the comparison: a, b"):
        differences(data, "c")
    with pytest.raises(ValueError, match="as many seeds"):
        compared({"a": [ring], "b": [ring, ring]})
    with pytest.raises(ValueError, match="at least one filter"):
        compared({})


def test_lead_times(ring):
    rng = np.random.default_rng(0)
    data = xr.Dataset({"rmse": (("start", "lead"), 1 + np.arange(5) + rng.normal(0, 0.1, (8, 5)))})
    data = data.assign_coords(lead=("lead", 0.2 * np.arange(5), {"units": "1"}))
    line = plots.lead_times(data, climatology=3.6).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), data["rmse"].mean("start"))
    np.testing.assert_allclose(line.get_xdata(), data["lead"])
    data["rmse"].attrs["units"] = "m"
    axis = plots.lead_times(data.assign_coords(lead=("lead", 21600.0 * np.arange(5), {"units": "s"}))).axes[0]
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("RMSE and spread (m)", "lead time (h)")
    np.testing.assert_allclose(axis.lines[0].get_xdata(), 6 * np.arange(5))


def test_colours_are_those_of_okabe_and_ito():
    palette = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    assert {to_hex(color).upper() for name, color in COLORS.items() if name != "reference"} <= palette
