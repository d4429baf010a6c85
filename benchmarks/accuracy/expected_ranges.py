"""The RMSE to expect of presets: mean and standard deviation over seeds, for the preset's own cycles.

    python benchmarks/accuracy/expected_ranges.py > benchmarks/results/expected_ranges.txt

Goes on where it was ended (--folder). Presets and filters: `masf-jax list experiment`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import xarray as xr

from masf_jax.cli.main import main

PRESETS = {
    "lorenz96_partial": "letkf,masf_amortised",
    "lorenz96_masks": "letkf,masf_amortised",
    "lorenz96_sakov2008": "etkf,enkf,ensrf,letkf,masf,masf_gaussian,enkf_n,three_d_var,optimal_interpolation",
    "lorenz63_sakov2012": "etkf,enkf_n,masf_amortised",
}


def measure(preset: str, filters: str, seeds: int, folder: Path) -> xr.Dataset:
    where = folder / preset
    arguments = [f"filters=[{filters}]", f"experiment={preset}", f"seeds={seeds}", "figures=false"]
    with contextlib.redirect_stdout(sys.stderr):
        code = main(["compare", *arguments, f"output_dir={where}"])
    if code:
        raise SystemExit(f"{preset}: masf-jax compare ended with {code}.")
    with xr.open_dataset(where / "comparison.nc", engine="h5netcdf") as data:
        return data.load()


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("outputs/expected"))
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    return parser.parse_args()


if __name__ == "__main__":
    given = command_line()
    print("python benchmarks/accuracy/expected_ranges.py", *sys.argv[1:])
    print(
        f"RMSE of the analysis over {given.seeds} seeds (0, 1, …): mean, standard deviation, least, largest"
    )
    for preset in given.presets:
        data = measure(preset, PRESETS[preset], given.seeds, given.folder)
        print(f"\n{preset}, {data.attrs['n_cycles']} cycles, the first {data.attrs['burn_in']} left out")
        for name in data["filter"].values:
            rmse = data["rmse_analysis"].sel(filter=name)
            numbers = (rmse.mean(), rmse.std(ddof=1), rmse.min(), rmse.max())
            print(f"{name:<24}" + "".join(f"{float(number):10.4f}" for number in numbers), flush=True)
