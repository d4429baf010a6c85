"""Kolmogorov flow: is it stable over 10⁴ transitions at 64², and are its statistics those of a resolved flow?

Re = 1000, transitions of 0.2, float32. Members at 64² with either filter start from random fields and run
for `--transitions` after a spin-up, in one compiled scan that keeps numbers only. The resolved flow,
`--reference` points each way, starts from a field spun up at 128² and settles before it is measured; its
states are cut to the modes of the 64² grid. Every run is measured over the modes the 2/3 rule keeps at 64²
(|m| <= 21 in both directions), and over all of the grid's (|m| <= 31). Standard errors: variance times
integrated autocorrelation time over total time.

    python benchmarks/accuracy/kolmogorov_statistics.py [--transitions 10000] [--members 4]
        [--reference-minutes 20] [--keep FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import RESULTS, arguments, header, table
from suite.flow_grids import sampled

from masf_jax.dynamics import Kolmogorov, spectral

N = 64
SPIN_UP, CHUNK = 250, 25
BANDS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 9), (10, 13), (14, 17), (18, 21))


class Series(NamedTuple):
    """Numbers of every member after every transition, (transitions, members, ...)."""

    energy: Any
    enstrophy: Any
    enstrophy_all: Any
    bands: Any
    courant: Any
    speed: Any


def cut(spectrum: jax.Array, n: int, most: int) -> jax.Array:
    """`rfft2` coefficients of an n² field -> those of the N² field of its modes |m| <= most < N / 2."""
    m = np.fft.fftfreq(N, 1 / N).astype(int)
    kept = (np.abs(m)[:, None] <= most) & (np.arange(N // 2 + 1) <= most)
    coarse = spectrum[..., m, : N // 2 + 1] * (N / n) ** 2
    return jnp.where(kept, coarse, 0)


def measured(model: Kolmogorov, x: jax.Array) -> Series:
    n = model.grid.shape[0]
    spectrum = jnp.fft.rfft2(x)
    few, all_modes = (jnp.fft.irfft2(cut(spectrum, n, most), (N, N)) for most in (N // 3, N // 2 - 1))
    shells = spectral.energy_spectrum(few)[1]
    bands = jnp.stack([shells[low : high + 1].sum() for low, high in BANDS])
    speed = jnp.sqrt((x**2).sum(0).max())
    values = (spectral.energy(few), spectral.enstrophy(few), spectral.enstrophy(all_modes))
    return Series(*values, bands, model.courant_number(x), speed)


def scan(model: Kolmogorov, x: jax.Array, length: int) -> tuple[jax.Array, Series]:
    """`length` transitions of the members x in one compiled loop."""

    def body(x: jax.Array, _: None) -> tuple[jax.Array, Series]:
        x = jax.vmap(lambda each: model.mean_step(each, jnp.zeros(())))(x)
        return x, jax.vmap(lambda each: measured(model, each))(x)

    return jax.lax.scan(body, x, None, length)


run = jax.jit(scan, static_argnums=2)


def long_run(dealias: Any, seed: int, members: int, transitions: int) -> Series:
    model = Kolmogorov(N, dealias=dealias)
    start = jax.vmap(model.initial_state)(jax.random.split(jax.random.key(seed), members))
    return jax.tree.map(np.asarray, run(model, start, SPIN_UP + transitions)[1])


def reference_run(n: int, members: int, settle: int, transitions: int, minutes: float) -> Series:
    """The resolved flow: `transitions` after settling, or as many as fit into the time."""
    small = Kolmogorov(128)
    start = jax.vmap(small.initial_state)(jax.random.split(jax.random.key(77), members))
    spun_up = run(small, start, SPIN_UP)[0]
    model = Kolmogorov(n)
    x = jnp.asarray(sampled(np.asarray(spun_up), n), jnp.float32)
    parts, begin = [], time.perf_counter()
    while len(parts) * CHUNK < settle + transitions and time.perf_counter() - begin < 60 * minutes:
        x, part = run(model, x, CHUNK)
        parts.append(jax.tree.map(np.asarray, part))
        if not np.isfinite(parts[-1].energy).all():
            raise SystemExit(f"{n}² with n_inner={model.n_inner} blew up by transition {len(parts) * CHUNK}.")
    kept = parts[settle // CHUNK :]
    if len(kept) < 4:
        raise SystemExit(
            f"{minutes} minutes made {len(parts) * CHUNK} transitions: too few; allow more time."
        )
    return Series(*(np.concatenate(each) for each in zip(*kept, strict=True)))


def kept(folder: Path | None, name: str, make: Callable[[], Series]) -> Series:
    """make(), or what an earlier call left in `folder`."""
    if folder is None:
        return make()
    file = folder / f"{name}.npz"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, **make()._asdict())
    return Series(**np.load(file))


def mean_and_error(x: np.ndarray) -> tuple[float, float]:
    """Mean of (time, members), and its standard error from the autocovariance up to its first zero."""
    length, members = x.shape
    away = x.astype(np.float64) - x.mean(dtype=np.float64)
    power = np.abs(np.fft.rfft(away, 2 * length, axis=0)) ** 2
    covariance = np.fft.irfft(power.mean(1))[:length] / np.arange(length, 0, -1)
    negative = np.flatnonzero(covariance <= 0)
    last = negative[0] if negative.size else length // 2
    variance = covariance[0] + 2 * covariance[1:last].sum()
    return float(x.mean(dtype=np.float64)), float(np.sqrt(variance / (length * members)))


def shown(value: float, error: float) -> str:
    return f"{value:.3g} ± {error:.1g}"


def compared(a: np.ndarray, b: np.ndarray) -> str:
    """mean(a) / mean(b) with its standard error."""
    (x, dx), (y, dy) = mean_and_error(a), mean_and_error(b)
    return f"{x / y:.3f} ± {x / y * np.hypot(dx / x, dy / y):.3f}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--transitions", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--reference", type=int, default=512, help="points each way of the resolved flow")
    parser.add_argument("--reference-members", type=int, default=1)
    parser.add_argument("--reference-transitions", type=int, default=1000)
    parser.add_argument("--reference-minutes", type=float, default=20.0, help="stop the resolved flow then")
    parser.add_argument("--settle", type=int, default=100, help="its transitions before it is measured")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep each run's numbers there, and use them"
    )
    args = parser.parse_args()

    fine, runs, limits = f"{args.reference}²", {}, {}
    for seed, dealias in enumerate(("two_thirds", "exponential"), 1):
        name = f"{N}² {dealias}"
        limits[name] = Kolmogorov(N, dealias=dealias).cfl_limit
        runs[name] = kept(
            args.keep,
            f"{N}_{dealias}_{args.members}_{args.transitions}",
            lambda seed=seed, dealias=dealias: long_run(dealias, seed, args.members, args.transitions),
        )
    limits[fine] = Kolmogorov(args.reference).cfl_limit
    runs[fine] = kept(
        args.keep,
        f"{args.reference}_{args.reference_members}_{args.reference_transitions}_{args.settle}",
        lambda: reference_run(
            args.reference,
            args.reference_members,
            args.settle,
            args.reference_transitions,
            args.reference_minutes,
        ),
    )

    first = []
    for name, each in runs.items():
        finite = all(np.isfinite(values).all() for values in each)
        counted = each if name == fine else Series(*(values[SPIN_UP:] for values in each))
        runs[name] = counted
        first.append(
            [name, counted.energy.shape[1], len(each.energy), "yes" if finite else "NO"]
            + [f"{each.courant.max():.2f} of {limits[name]:.2f}", f"{each.speed.max():.2f}"]
            + [shown(*mean_and_error(v)) for v in (counted.energy, counted.enstrophy, counted.enstrophy_all)]
        )
    head = ["run", "members", "transitions", "all finite", "largest Courant", "largest speed"]
    head += ["energy", "enstrophy, |m| <= 21", "|m| <= 31"]
    coarse = [name for name in runs if name != fine]
    rows = []
    for b, (low, high) in enumerate(BANDS):
        mean = mean_and_error(runs[fine].bands[..., b])
        ratios = [compared(runs[name].bands[..., b], runs[fine].bands[..., b]) for name in coarse]
        rows.append([f"k = {low}" if low == high else f"k = {low}-{high}", shown(*mean), *ratios])
    for label, field in (("energy", "energy"), ("enstrophy", "enstrophy")):
        both = [compared(getattr(runs[name], field), getattr(runs[fine], field)) for name in coarse]
        rows.append([label, shown(*mean_and_error(getattr(runs[fine], field))), *both])
    text = "\n\n".join(
        [
            header(
                "Kolmogorov flow: stability and statistics, Re = 1000, transitions of 0.2, float32"
            ).rstrip(),
            table(first, head),
            f"Over the modes |m| <= 21, energy by band of wavenumbers and totals: {fine}, and ratios to it\n"
            + table(rows, ["", fine, *(f"{name} / {fine}" for name in coarse)]),
        ]
    )
    print(text)
    if not args.no_save:
        (RESULTS / "kolmogorov_statistics.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
