"""How many bars of the rank histogram of a reliable ensemble its 90 % band holds, where ranks go together.

Truth and N members are exchangeable, cells of an AR(1) process along cells and cycles. Errors last
(1 + a) / (1 - a) cycles. A line each: cycles, cells, members, both coefficients, length of the run over how
long errors last, share of bars in the band, and independent values: by the scatter over repetitions, and as
the figure says (median).

    python benchmarks/accuracy/rank_bands.py > benchmarks/results/rank_bands.txt
"""

import numpy as np

from masf_jax.plots.ranks import effective_number, sampling_band

REPETITIONS = 200
CASES = [
    *[(200, 1, 9, 0.0, 0.0), (200, 1, 9, 0.5, 0.0), (400, 1, 9, 0.9, 0.0), (200, 40, 9, 0.0, 0.9)],
    *[(200, 40, 19, 0.5, 0.9), (800, 40, 19, 0.9, 0.9), (800, 40, 19, 0.95, 0.95)],
    *[(200, 1, 9, 0.9, 0.0), (100, 1, 9, 0.9, 0.0), (60, 40, 19, 0.9, 0.9), (120, 40, 19, 0.95, 0.9)],
]


def counts_of(
    rng: np.random.Generator, cycles: int, cells: int, members: int, along: float, across: float
) -> np.ndarray:
    """How often the truth has each rank, (cycles, members + 1)."""
    draws = rng.normal(size=(cycles, members + 1, cells))
    for process, a in ((np.moveaxis(draws, -1, 0), across), (draws, along)):
        for i in range(1, len(process)):
            process[i] = a * process[i - 1] + np.sqrt(1 - a**2) * process[i]
    ranks = (draws[:, 1:] < draws[:, :1]).sum(1)
    return np.stack([(ranks == rank).sum(1) for rank in range(members + 1)], 1).astype(float)


def main() -> None:
    rng = np.random.default_rng(0)
    print("python benchmarks/accuracy/rank_bands.py")
    print("cycles cells  N  along across  length  inside  independent  found")
    for case in CASES:
        cycles, cells, members, along, across = case
        inside, worths, shares = [], [], []
        for _ in range(REPETITIONS):
            counts = counts_of(rng, *case)
            share, worth = counts.sum(0) / counts.sum(), effective_number(counts)
            low, high = sampling_band(worth, 1 / (members + 1))
            inside.append(np.mean((share >= low) & (share <= high)))
            worths.append(worth)
            shares.append(share)
        p = 1 / (members + 1)
        independent = p * (1 - p) / np.mean((np.array(shares) - p) ** 2)
        length = cycles * (1 - along) / (1 + along)
        print(
            f"{cycles:6d} {cells:5d} {members:2d}  {along:5.2f} {across:6.2f} {length:7.1f}  "
            f"{np.mean(inside):6.3f} {independent:12.0f} {np.median(worths):6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
