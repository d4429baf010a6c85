"""Long records through the command line, against Kalman filters in double precision written independently.

    python benchmarks/accuracy/real_records.py [--hours 87672]

hourly: ten years by the hour (synthetic: no package ships such a record), single-precision values in
NetCDF-4, "hours since", every twentieth value missing; the model counts days, dt = 1/24; run in float32.
weekly: CO2 at Mauna Loa 1958-2001 (statsmodels), ISO dates in local time with its zone, CSV; 59 weeks
missing; the model counts weeks; run in float32.
monthly: its monthly means, "1958-03", CSV; five months missing and left out; the model counts months; run
in float64.

Each is a random walk seen with noise, filtered by `masf-jax run filter=kalman`. Compared: the filtered mean
and its standard deviation with those of NumPy's recursion in double precision; the log-likelihood with
NumPy's and with that of statsmodels' exact filter on the grid of all steps.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import _path  # noqa: F401
import numpy as np
import xarray as xr
from suite.common import arguments, finish, header, table

from masf_jax.cli.main import main as masf_jax


class Record(NamedTuple):
    """A file, what the command line is told of it, and what must come out.

    steps: of each cycle in the file; values: (K,), NaN where missing; level, noise: standard deviations of a
    step of the walk and of a value; first: mean and standard deviation before all.
    """

    path: Path
    overrides: list[str]
    steps: np.ndarray
    values: np.ndarray
    level: float
    noise: float
    first: tuple[float, float]


def hourly(folder: Path, n: int) -> Record:
    """`n` hours, float32, NetCDF-4, times in hours since a date."""
    rng = np.random.default_rng(1)
    level, noise = 0.2, 0.5
    values = (15 + np.cumsum(level * rng.standard_normal(n)) + noise * rng.standard_normal(n)).astype("f4")
    values[rng.uniform(size=n) < 0.05] = np.nan
    data = xr.Dataset({"value": ("time", values, {"units": "degC"})})
    data["time"] = ("time", np.arange(n, dtype="f8"), {"units": "hours since 2011-01-01 00:00:00"})
    data.to_netcdf(folder / "hourly.nc", engine="h5netcdf")
    dt = 1 / 24
    overrides = ["observations.time_unit=days", f"dynamics.dt={dt!r}", "precision=float32"]
    return Record(folder / "hourly.nc", overrides, np.arange(n), values.astype("f8"), level, noise, (15, 5))


def weekly(folder: Path, n: int) -> Record:
    """The first `n` weeks of CO2, dates with a time zone."""
    from statsmodels.datasets import co2

    series = co2.load_pandas().data["co2"].iloc[:n]
    dates = series.index.tz_localize("Etc/GMT+10")
    rows = [f"{date.isoformat()},{'' if np.isnan(v) else v}" for date, v in zip(dates, series, strict=True)]
    (folder / "weekly.csv").write_text("\n".join(["# units: ppm", "time,value", *rows]))
    overrides = ["observations.time_unit=weeks", "dynamics.dt=1", "precision=float32"]
    return Record(
        folder / "weekly.csv", overrides, np.arange(len(rows)), series.to_numpy(), 0.5, 0.3, (315, 10)
    )


def monthly(folder: Path, n: int) -> Record:
    """The first `n` monthly means of CO2; months without a value have no row."""
    from statsmodels.datasets import co2

    series = co2.load_pandas().data["co2"].resample("MS").mean().iloc[:n]
    there = series.notna().to_numpy()
    rows = [f"{date:%Y-%m},{value!r}" for date, value in zip(series.index, series.tolist(), strict=True)]
    rows = [row for row, kept in zip(rows, there, strict=True) if kept]
    (folder / "monthly.csv").write_text("\n".join(["# units: ppm", "time,value", *rows]))
    overrides = ["observations.time_unit=months", "dynamics.dt=1", "precision=float64"]
    steps, values = np.flatnonzero(there), series.to_numpy()[there]
    return Record(folder / "monthly.csv", overrides, steps, values, 1.2, 0.2, (315, 10))


def kalman(record: Record) -> tuple[np.ndarray, np.ndarray, float]:
    """Filtered means and standard deviations, and the log-likelihood but for the first value: the scalar
    recursion in double precision."""
    mean, variance, at = record.first[0], record.first[1] ** 2, 0
    out, likelihood = [], 0.0
    for k, (step, value) in enumerate(zip(record.steps, record.values, strict=True)):
        variance, at = variance + (step - at) * record.level**2, step
        if not np.isnan(value):
            total = variance + record.noise**2
            if k:
                likelihood -= 0.5 * ((value - mean) ** 2 / total + np.log(2 * np.pi * total))
            mean += variance / total * (value - mean)
            variance *= record.noise**2 / total
        out.append((mean, np.sqrt(variance)))
    means, stds = np.array(out).T
    return means, stds, likelihood


def exact(record: Record) -> float:
    """statsmodels' log-likelihood but for the first value, on the grid of all steps."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    grid = np.full(record.steps[-1] + 1, np.nan)
    grid[record.steps] = record.values
    model = UnobservedComponents(grid, "llevel")
    model.ssm.initialize_known(np.array([record.first[0]]), np.array([[record.first[1] ** 2]]))
    return float(model.smooth([record.noise**2, record.level**2]).llf_obs[1:].sum())


def run(record: Record, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Steps, filtered means and standard deviations, and the log-likelihood, of the command line."""
    dt = float(next(o.split("=")[1] for o in record.overrides if o.startswith("dynamics.dt")))
    keys = [
        *(
            "dynamics=local_level",
            "measurement=identity",
            "filter=kalman",
            "filter.inflation=1",
            "n_cycles=null",
        ),
        *("burn_in=1", "figures=false", "scores=[]", f"initial.mean={record.first[0]}"),
        *(f"initial.std={record.first[1]}", f"dynamics.model_error={float(record.level / np.sqrt(dt))!r}"),
        *(f"measurement.noise.std={record.noise}", f"observations.path={record.path}"),
    ]
    if masf_jax(["run", *keys, *record.overrides, f"output_dir={folder / 'out'}"]) != 0:
        raise SystemExit(f"the run of {record.path.name} failed")
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    with xr.open_dataset(folder / "out" / "result.nc", engine="h5netcdf") as data:
        mean, spread = (data[f"analysis_{name}"].values[:, 0].astype(float) for name in ("mean", "spread"))
        return data["step"].values, mean, spread, metrics["log_likelihood"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--hours", type=int, default=87_672)
    args = parser.parse_args()
    rows, numbers = [], {}
    for make, n in ((hourly, args.hours), (weekly, 10_000), (monthly, 10_000)):
        with tempfile.TemporaryDirectory() as name:
            record = make(Path(name), n)
            steps, mean, spread, likelihood = run(record, Path(name))
        means, stds, expected = kalman(record)
        numbers[make.__name__] = {
            "cycles": len(steps),
            "missing": int(np.isnan(record.values).sum()),
            "steps right": bool(np.array_equal(steps, record.steps)),
            "mean": float(np.max(np.abs(mean - means) / stds)),
            "std": float(np.max(np.abs(spread / stds - 1))),
            "likelihood": abs(likelihood / expected - 1),
            "statsmodels": abs(likelihood / exact(record) - 1),
        }
        found = numbers[make.__name__]
        shown = [f"{each:.1e}" if isinstance(each, float) else str(each) for each in found.values()]
        rows.append([make.__name__, *shown])
    head = [
        "record",
        "cycles",
        "missing",
        "steps right",
        "mean / std",
        "std",
        "log-likelihood",
        "statsmodels'",
    ]
    title = (
        "Largest differences from NumPy's filter in double precision: of the filtered mean (in its standard\n"
    )
    title += (
        "deviations), of the standard deviation and the log-likelihood (relative), and from statsmodels'."
    )
    finish(args, "real_records", "\n".join([header(title), table(rows, head)]), numbers)


if __name__ == "__main__":
    main()
