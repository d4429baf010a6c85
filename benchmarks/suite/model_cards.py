"""docs/networks.md: a card for each network of the package, its facts from the file, what was tried by hand.

python benchmarks/suite/model_cards.py
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from masf_jax.amortised import pretrained_file, pretrained_names
from masf_jax.training import inspect

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
HEAD = """# The networks of the package

What each was trained on, where it was tried, where it fails. `filter=masf_amortised` takes the one nearest to
the run, or the one that `filter.checkpoint=NAME` gives; where the run is not one that it was trained for, it
runs beside its base filter ([the gate](amortised.md#never-much-worse-than-the-base-filter)). The facts come
from the files (`masf_jax.training.inspect`), the numbers from the commands of [amortised.md](amortised.md),
[kolmogorov.md](kolmogorov.md); this page from `python benchmarks/suite/model_cards.py`.
"""
_SYSTEMS = ("intervals", "ensemble_sizes")
TRIED = {
    "flows": (
        "Flows of 64² that it was not trained on, every 8th point each way, N = 10: Re 300 .193 (LETKF "
        ".320), forced at 2 waves .081 (.097), at 8 waves .566 (.626).",
        "The flow of `kolmogorov_masks`, every 10th point: .387 (LETKF .535), behind that network. At 8 "
        "waves its spread is .79 of its error.",
    ),
    "kolmogorov_center": (
        "64², all but a centred square of half the side, noise .1, N = 10: RMSE .141 (LETKF .243). At "
        "128² by blocks of cells: .196 (.304).",
        "Another hole, grid or noise: not tried; `kolmogorov_masks` is made for that.",
    ),
    "kolmogorov_grid": (
        "64², every 10th point each way, noise .1, N = 10: .339 (LETKF .521). Re = 2000 without "
        "training: 28 % below the LETKF.",
        "Other strides: at 128², where every 10th point is twice as dense in its cells, .197 and "
        "`kolmogorov_masks` .142 (two seeds).",
    ),
    "kolmogorov_masks": (
        "64², masks that it was not trained with, among them every 6th and 16th point, 3 % at random,"
        " noise .3: 18 to 39 % below the "
        "LETKF. At 128² by blocks of cells: .149 (LETKF .202).",
        "Too sure where it is told next to nothing: spread/RMSE .74 with half of the domain "
        "unmeasured, .80 with every 16th point.",
    ),
    "kolmogorov_sigmoid": (
        "64², a sigmoid of every velocity, noise .1, N = 10: .088 (LETKF .123).",
        "Spread/RMSE .71 in the paper's short runs, from members that know nothing.",
    ),
    "kolmogorov_speed": (
        "64², a sigmoid of every squared speed, N = 10: .343 where the LETKF does not filter (1.09). "
        "Re = 2000: 43 % below it.",
        "Spread/RMSE .66 to .86: `filter.calibration=1.2` for long runs.",
    ),
    "ks_bocquet2019": (
        "All 128 points, noise 1, each 1, N = 16: .104, 20 seeds, none lost (tuned LETKF .109, one lost).",
        "Fewer points, another noise or interval: not tried; `rings_four` is for those.",
    ),
    "lorenz63_rounds": (
        "All measured, variance 2, each .25: N = 50 .381 (EnKF-N .580), N = 10 .418 (.562). Each .25 to "
        ".8: 18 to 31 % below the ETKF.",
        "Behind the iterative EnKF (.32), which runs the model again. Only z measured: spread/RMSE "
        ".5, and it loses track.",
    ),
    "lorenz63_sakov2012": (
        "All measured, variance 2, each .25: N = 50 .302, N = 10 .308 (five seeds; EnKF-N .568, .572, "
        "iterative EnKF, which runs the model again, .321, .320).",
        "On a base that rotates its members, which it was not trained on: .406, .424. Not tried: other "
        "intervals, noise, sensors.",
    ),
    "lorenz96_masks": (
        "Ahead of an LETKF tuned for the first case in eleven of them: a quarter to all of the "
        "variables, noise .5 to 2, each .1 to .3, N of 10 to "
        "40, a wrong forcing; n = 36 to 120, forcings 6 to 10 without training.",
        "All variables each .05: its spread falls to half of its error (.325 against .181 of the "
        "LETKF). Kuramoto-Sivashinsky: .325 "
        "against .112. The gate keeps it out of both.",
    ),
    "lorenz96_nonlinear": (
        "All 40 variables, noise 1, each .6, N = 20: .564 (tuned LETKF .767; square-root filter of 400 "
        "members .673; iterative EnKF with 25 .455).",
        "On a base that is not tuned (radius 7.28, inflation 1.04): .596 (`lorenz96_masks` .639), "
        "spread/RMSE .77. Other intervals and sensors: not tried.",
    ),
    "lorenz96_one_run": (
        "All 40 variables, noise 1, each .05, one run of the model: .201 (3D-Var .415, LETKF with 7 .214).",
        "Fewer variables, another noise or interval: not tried. For `filter.base=three_d_var` alone.",
    ),
    "lorenz96_partial": (
        "Every second variable, variance 1, each .2, N = 20: .573 (LETKF .757).",
        "Noise .5 and each .1: behind the LETKF (.299, .270; .447, .433). Few measurements: spread "
        ".64 to .75 of its error.",
    ),
    "rings": (
        "Kuramoto-Sivashinsky, every 8th point: .946 (LETKF 1.067); Lorenz-96, half measured: .645 "
        "(LETKF .665, "
        "`lorenz96_masks` .586).",
        "Kuramoto-Sivashinsky, all measured: .198 (LETKF .112); Lorenz 2005 II, which it was not "
        "trained on: .320 "
        "(.233), and lost with every 12th point. The gate keeps it out of these.",
    ),
    "rings_cycles": (
        "Lorenz-96, half measured: .598 (LETKF .664, `lorenz96_masks` .586); Kuramoto-Sivashinsky, every 8th "
        "point: .842 (1.115). Not trained on: Lorenz-96 of forcing 14 .594 (.621) and 5 .252 (.257), "
        "Lorenz 2005 II, every 8th, .350 (.353).",
        "Vissio-Lucarini, half measured: .489 (.461; trained further .397); Lorenz 2005 II, every 4th: .249 "
        "(.233); Kuramoto-Sivashinsky, all measured: .120 (.115). The gate keeps it out of the first two; of "
        "the third one seed in five is 4 % worse.",
    ),
    "rings_four": (
        "Lorenz-96, half measured, .583 (LETKF .664); Kuramoto-Sivashinsky, every 8th point, .821 (1.115). "
        "Not trained on: Lorenz-96 of forcing 14 .577 (.621), n = 200, every 3rd, .719 (1.077); "
        "Vissio-Lucarini .461 (.461); two scales and Burgers' equation of other numbers .343 (.357), .205 "
        "(.213); Kuramoto-Sivashinsky of 256 points, every 8th, .724 (1.145); of 128 on 32π, every 8th each "
        "4 steps, N = 10, .832 with noise 1 (1.086), .664 with .7 (1.002).",
        "Alone behind the LETKF, gated not: Lorenz 2005 II, every 8th, .365 (.353, gated .350); "
        "Kuramoto-Sivashinsky, all measured, .114 (.109, gated .110).",
    ),
}


_NUMERICAL = {"name", "max_speed", "hyperviscosity_order", "random_waves", "initial_speed", "initial_waves"}


def card(name: str) -> str:
    file = pretrained_file(name)
    about = inspect(file)
    found = about["fingerprint"]
    trained = found["trained_on"]
    practice, measurement, filter = trained["practice"], trained["measurement"], trained["filter"]
    rounds = [each["rmse"] for each in found["rounds"]]
    tried, fails = TRIED[name]
    layout, size = about["denoiser"]["layout"], f"{file.stat().st_size / 1e6:.1f} MB"
    options = ", ".join(f"{key} {_number(filter[key])}" for key in ("inflation", "radius", "rotation"))
    training, systems = filter.get("training", {}), math.prod(len(practice[each]) for each in _SYSTEMS)
    window = training.get("window", 0)
    long = f"{training['steps']} steps through {window} cycles" if window else f"{len(rounds) - 1} rounds"
    begun = f" from `{trained['from']}`" if "from" in trained else ""
    how = f"{long}{begun}, {found['seconds'] / 60:.0f} minutes, seed {trained['seed']}"
    unit = ", in deviations of the climate," if window and systems > 1 else ""
    rows = {
        "states": f"{tuple(about['state_shape'])}, layout {layout}; {size}",
        "model": _pairs(trained["dynamics"]),
        "measurement": _measurement(measurement, practice),
        "each": f"{_list(practice['intervals'])} steps; N = {_list(practice['ensemble_sizes'])}",
        "base": f"{found['base']}, {options}",
        "training": f"{how}; RMSE in simulated cycles{unit} {rounds[0]:.3f} at first, "
        f"{min(rounds):.3f} at best",
        "tried": tried,
        "fails": fails,
    }
    return f"## {name}\n\n| | |\n|---|---|\n" + "\n".join(
        f"| {key} | {value} |" for key, value in rows.items()
    )


def _pairs(settings: dict[str, Any]) -> str:
    """The numbers of a model; what is off is left out."""
    off = (None, 0, 0.0)
    shown = {key: value for key, value in settings.items() if value not in off and key not in _NUMERICAL}
    inside = ", ".join(
        f"{key} {_number(value)}" for key, value in shown.items() if not isinstance(value, str)
    )
    return f"{settings['name']}: {inside}"


def _measurement(measurement: dict[str, Any], practice: dict[str, Any]) -> str:
    low, high = practice["density"]
    least, most = practice["noise"]
    std = measurement["noise"]["std"]
    share = (
        "" if low == high else f", a random {100 * low:g} to {100 * high:g} % of it, other values in each run"
    )
    noise = _number(std) if least == most else f"{_number(std * least)} to {_number(std * most)}"
    rest = {key: value for key, value in measurement.items() if key not in ("name", "noise")}
    options = "".join(f" {key} {value}" for key, value in rest.items() if value)
    return f"{measurement['name']}{options}{share}; noise {noise}"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_number, value))})"
    if isinstance(value, dict):
        return "{:g} to {:g}".format(*value["between"])
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _list(values: list[int]) -> str:
    return ", ".join(map(str, values))


def page() -> str:
    return "\n\n".join([HEAD.strip(), *map(card, pretrained_names())]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
