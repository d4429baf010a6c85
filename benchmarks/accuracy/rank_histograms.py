"""Rank histograms of the amortised filters in the package, one panel a system.

    python benchmarks/accuracy/rank_histograms.py [SYSTEM ...] [--seeds 5] [--figure FILE] [--out FILE]

Share of the analyses in which the truth has each rank among the members, times their number: 1 for a reliable
ensemble. Systems, lengths and seeds are those of `amortised.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _path  # noqa: F401
import matplotlib.pyplot as plt
import numpy as np
from amortised import evaluate, mean_and_error
from suite.amortised_systems import SYSTEMS, System
from suite.common import header, table

from masf_jax.amortised import load_amortised, pretrained_file, pretrained_names


def share_of_ranks(system: System, n_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of each rank over their mean, and spread/RMSE by seed."""
    filter = load_amortised(pretrained_file(system.checkpoint), system.base, n_steps=system.n_steps)
    cycles = system.burn_in + system.cycles
    (_, _, ratio, ranks), _ = evaluate(system, filter, tuple(range(n_seeds)), cycles)
    counts = ranks.sum(0)
    return counts / counts.mean(), ratio


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = [name for name, system in SYSTEMS.items() if system().checkpoint in pretrained_names()]
    parser.add_argument("systems", nargs="*", default=shipped)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows, shares = [], {}
    for name in arguments.systems:
        system = SYSTEMS[name]()
        shares[name], ratio = share_of_ranks(system, arguments.seeds)
        ends, inner = shares[name][[0, -1]], shares[name][1:-1]
        rows.append(
            [
                f"{name}, N = {system.members}",
                mean_and_error(ratio),
                f"{ends[0]:.2f}, {ends[1]:.2f}",
                f"{inner.min():.2f} to {inner.max():.2f}",
            ]
        )
    head = ["", "spread/RMSE", "first and last rank", "the others"]
    text = "\n".join([header("Ranks of the truth, over those of a reliable ensemble"), table(rows, head)])
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if arguments.figure:
        draw(shares, arguments.figure)


def draw(shares: dict[str, np.ndarray], path: Path) -> None:
    columns = min(3, len(shares))
    rows = -(-len(shares) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.2 * rows), sharey=True, layout="constrained", squeeze=False
    )
    for axis, (name, share) in zip(axes.flat, shares.items(), strict=False):
        axis.bar(np.arange(len(share)), share, width=0.9)
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel("rank of the truth", fontsize=8)
    for axis in axes.flat[len(shares) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency × (N + 1)", fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
