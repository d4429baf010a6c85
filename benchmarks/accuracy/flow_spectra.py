"""Energy spectra of the Kolmogorov flow through nonlinear measurements, as `flow_measurements.py` kept them.

    python benchmarks/accuracy/flow_measurements.py kolmogorov_sigmoid --spectra sigmoid.npz
    python benchmarks/accuracy/flow_measurements.py kolmogorov_speed --spectra speed.npz
    python benchmarks/accuracy/flow_spectra.py sigmoid.npz speed.npz --out docs/images/flow_spectra.png

One panel a system, one line a method: E(k) of one member, k = 1..20 (2/3 of the grid's), and its ratio to the
truth's below.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LARGEST = 20  # wavenumber shown
COLOURS = {
    "LETKF": "C0",
    "MASF, tangents at the mean": "C1",
    "MASF, tangents at each member": "C3",
    "amortised MASF": "C2",
}


def spectra(files: list[Path]) -> dict[str, dict[str, np.ndarray]]:
    """system -> method -> (2, k): E(k) of a member and of the truth."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for file in files:
        with np.load(file) as kept:
            for name in kept.files:
                system, method = name.split(": ", 1)
                out.setdefault(system, {})[method] = kept[name]
    return out


def figure(systems: dict[str, dict[str, np.ndarray]]) -> plt.Figure:
    fig, axes = plt.subplots(
        2, len(systems), figsize=(4.5 * len(systems), 5.5), sharex=True, sharey="row", squeeze=False,
        height_ratios=(2, 1), layout="constrained",
    )  # fmt: skip
    for (above, below), (system, methods) in zip(axes.T, systems.items(), strict=True):
        truth = next(iter(methods.values()))[1, :LARGEST]
        k = np.arange(1, LARGEST + 1)
        above.loglog(k, truth, color="black", linewidth=2.5, label="truth")
        for method, colour in COLOURS.items():
            if method in methods:
                ours = methods[method][0, :LARGEST]
                above.loglog(k, ours, color=colour, label=method)
                below.loglog(k, ours / truth, color=colour)
        below.axhline(1.0, color="black", linewidth=1)
        above.set_title(system.removeprefix("kolmogorov_"))
        below.set_xlabel("wavenumber k")
    axes[0, 0].set_ylabel("energy E(k) of one member")
    axes[1, 0].set_ylabel("over the truth's")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure(spectra(arguments.files)).savefig(arguments.out, dpi=130)


if __name__ == "__main__":
    main()
