"""Kolmogorov flow: seconds per transition against the time of its FFTs alone, and against jax-cfd.

Re = 1000, transitions of 0.2, 10 members, float32. Floor: the real 2-d FFTs of one transition, half forward
and half backward, on the same arrays in one compiled loop. With --peer, jax-cfd 0.2.1 (second order on a
staggered grid, forward Euler, Courant number 0.5 at speed 5) runs in a virtual environment of its own,
from the same smooth random fields. Error: RMS of the velocity after 5 transitions, over its RMS, mean over
`--check` members, against our solver on `--reference`² points evaluated at each scheme's own grid points.

With --time-to-accuracy, coarser grids of ours against jax-cfd: both errors are taken at jax-cfd's points,
where our field is evaluated from its Fourier modes, so modes our grid does not carry count as error. The
inner step is the longest whose Courant number at speed 5, at 45° to the grid, is within the stepper's limit.

All are timed in turn, in bursts of about `--burst` seconds: milliseconds are the best burst's mean, ratios
the median (and quartiles) of those of each turn; "CPU" is the same of the work of all cores, which a busy
machine disturbs less.

    python benchmarks/speed/kolmogorov.py [--peer] [--time-to-accuracy] [--jaxcfd-python PATH]
        [--sizes 64 128 256]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import _path  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from suite.common import arguments, finish, header, table
from suite.flow_grids import sampled, truncated
from suite.jaxcfd_process import Peer, jaxcfd_python

from masf_jax.dynamics import Kolmogorov

N_MEMBERS, N_CHECK, SPEED = 10, 5, 5.0

CANDIDATES = {
    64: ((48, "exponential"), (54, "two_thirds")),
    128: ((60, "exponential"), (64, "exponential"), (80, "two_thirds")),
    256: ((80, "exponential"), (90, "exponential"), (112, "two_thirds")),
}
"""jax-cfd's points each way: ours, and the filter."""

FACES = ((0.5, 1.0), (1.0, 0.5))
"""Where jax-cfd keeps u and v, in spacings (y, x) from a grid point."""


def relative_error(x: np.ndarray, truth: np.ndarray) -> float:
    each = np.sqrt(((x - truth) ** 2).mean((1, 2, 3)) / (truth**2).mean((1, 2, 3)))
    return float(each.mean())


Seconds = tuple[float, float]
"""Of the clock, and of all cores' work (which other processes on the machine disturb less)."""


def in_turn(runs: dict[str, Callable[[], Seconds]], turns: int) -> dict[str, np.ndarray]:
    """Seconds and CPU seconds (turns, 2) of each run; one turn before is not counted."""
    seconds = [[run() for run in runs.values()] for _ in range(turns + 1)][1:]
    return dict(zip(runs, np.array(seconds).swapaxes(0, 1), strict=True))


def mean_seconds(run: Callable[[], Any], burst: float) -> Seconds:
    """Of a call, mean over about `burst` seconds."""
    count, begin, cpu = 0, time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - begin < burst:
        run()
        count += 1
    return (time.perf_counter() - begin) / count, (time.process_time() - cpu) / count


def milliseconds(seconds: np.ndarray) -> list[str]:
    """The best burst's, and its CPU milliseconds."""
    return [f"{1e3 * best:.1f}" for best in seconds.min(0)]


def ratios(a: np.ndarray, b: np.ndarray) -> list[str]:
    """Median and quartiles over turns, of the clock; median of CPU seconds."""
    low, middle, high = np.quantile(a / b, [0.25, 0.5, 0.75], axis=0)
    return [f"{middle[0]:.3g} ({low[0]:.2g}-{high[0]:.2g})", f"{middle[1]:.3g}"]


def floor(n: int, n_ffts: int) -> Callable[[], Any]:
    """n_ffts real transforms of N_MEMBERS fields."""
    pairs = n_ffts // 2

    @jax.jit
    def run(x: Any) -> Any:
        return jax.lax.fori_loop(0, pairs, lambda i, x: jnp.fft.irfft2(jnp.fft.rfft2(x), (n, n)), x)

    x = jax.random.normal(jax.random.key(0), (N_MEMBERS, n, n))
    return lambda: run(x).block_until_ready()


class Ours:
    """A model with the fields it starts from: one transition to time, and the fields after N_CHECK."""

    def __init__(self, model: Kolmogorov, start: np.ndarray):
        self.model = model
        self.step = jax.jit(jax.vmap(lambda x: model.mean_step(x, jnp.zeros(()))))
        self.start = jnp.asarray(truncated(start, model.grid.shape[0]), jnp.float32)

    def once(self) -> Any:
        return self.step(self.start).block_until_ready()

    def after(self) -> np.ndarray:
        x = self.start
        for _ in range(N_CHECK):
            x = self.step(x)
        return np.asarray(x)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--burst", type=float, default=0.3, help="seconds of one run in a turn")
    parser.add_argument("--peer", action="store_true", help="run jax-cfd too, and measure errors")
    parser.add_argument(
        "--time-to-accuracy", action="store_true", help="coarser grids of ours; implies --peer"
    )
    parser.add_argument("--jaxcfd-python", metavar="PATH")
    parser.add_argument("--check", type=int, default=2, help="members whose error is measured")
    parser.add_argument("--reference", type=int, default=512, help="points each way of the reference")
    args = parser.parse_args()

    smooth = Kolmogorov(64)  # band-limited: the same fields on every grid
    start = np.asarray(jax.vmap(smooth.initial_state)(jax.random.split(jax.random.key(0), N_MEMBERS)))
    peer: Peer | None = None
    truth: Any = None
    note = ""
    if args.peer or args.time_to_accuracy:
        given: dict[str, Any] = dict(sizes=args.sizes, reynolds=1000.0, dt=0.2, n_check=N_CHECK)
        for n in args.sizes:
            given[f"x_{n}"] = sampled(start, n, FACES)
            given[f"n_steps_{n}"] = int(np.ceil(0.2 / (0.5 * (2 * np.pi / n) / SPEED)))
        peer = Peer(jaxcfd_python(args.jaxcfd_python), given)
        fine = Kolmogorov(args.reference, max_speed=SPEED)
        truth = np.concatenate([Ours(fine, start[i : i + 1]).after() for i in range(args.check)])
        inner = ", ".join(str(given[f"n_steps_{n}"]) for n in args.sizes)
        note = f"jax-cfd 0.2.1 on jax {peer.fields['version']}: {inner} inner steps; "
        note += f"reference {args.reference}², {args.check} members\n"

    numbers: dict[str, Any] = {}
    title = f"Kolmogorov flow: milliseconds per transition of {N_MEMBERS} members"
    text = header(title) + "\n" + same_grid(args, start, peer, truth, numbers) + "\n" + note
    if peer is not None and args.time_to_accuracy:
        text += "\nTime to accuracy: errors of both at jax-cfd's grid points\n"
        text += time_to_accuracy(args, start, peer, truth, numbers)
    if peer is not None:
        peer.close()
    finish(args, "kolmogorov", text.rstrip(), numbers)


def same_grid(args: Any, start: np.ndarray, peer: Peer | None, truth: Any, numbers: dict) -> str:
    rows = []
    for n in args.sizes:
        ours = Ours(Kolmogorov(n, max_speed=SPEED), start)
        alone = floor(n, ours.model.ffts_per_transition)
        runs = {
            "floor": lambda alone=alone: mean_seconds(alone, args.burst),
            "ours": lambda ours=ours: mean_seconds(ours.once, args.burst),
        }
        if peer is not None:
            runs["peer"] = lambda n=n: peer.seconds(n, args.burst)
        seconds = in_turn(runs, args.turns)
        row = [f"{n}²", ours.model.n_inner, ours.model.ffts_per_transition]
        row += [*milliseconds(seconds["ours"]), *milliseconds(seconds["floor"])]
        row += ratios(seconds["ours"], seconds["floor"])
        numbers[f"{n}"] = {name: each.tolist() for name, each in seconds.items()}
        if peer is not None:
            errors = (
                relative_error(ours.after()[: args.check], sampled(truth, n)),
                relative_error(peer.fields[f"x_{n}"][: args.check], sampled(truth, n, FACES)),
            )
            row += [*milliseconds(seconds["peer"]), *ratios(seconds["peer"], seconds["ours"])]
            row += [f"{error:.2g}" for error in errors]
            numbers[f"{n}"] |= dict(zip(("error", "error_peer"), errors, strict=True))
        rows.append(row)
    head = ["grid", "inner steps", "FFTs", "ours ms", "CPU", "FFTs alone ms", "CPU", "ours/FFTs", "CPU"]
    if peer is not None:
        head += ["jax-cfd ms", "CPU", "jax-cfd/ours", "CPU", "error ours", "error jax-cfd"]
    return table(rows, head)


def time_to_accuracy(args: Any, start: np.ndarray, peer: Peer, truth: np.ndarray, numbers: dict) -> str:
    rows = []
    for n in args.sizes:
        wanted = sampled(truth, n, FACES)
        allowed = relative_error(peer.fields[f"x_{n}"][: args.check], wanted)
        ours = {}
        for points, dealias in CANDIDATES.get(n, ()):
            limit = Kolmogorov(points, dealias=dealias).cfl_limit
            model = Kolmogorov(points, dealias=dealias, max_speed=SPEED, cfl=limit)
            ours[f"{points}² {dealias}"] = Ours(model, start)
        runs = {name: lambda each=each: mean_seconds(each.once, args.burst) for name, each in ours.items()}
        seconds = in_turn({"peer": lambda n=n: peer.seconds(n, args.burst), **runs}, args.turns)
        for name, each in ours.items():
            error = relative_error(sampled(each.after()[: args.check], n, FACES), wanted)
            enough = "yes" if error <= allowed else "no"
            row = [f"{n}²", f"{allowed:.3g}", *milliseconds(seconds["peer"]), name, each.model.n_inner]
            row += [
                f"{error:.3g}",
                *milliseconds(seconds[name]),
                *ratios(seconds[name], seconds["peer"]),
                enough,
            ]
            rows.append(row)
            numbers[f"{n} {name}"] = {"seconds": seconds[name].tolist(), "error": error, "allowed": allowed}
    head = ["jax-cfd", "its error", "its ms", "CPU", "ours", "inner steps", "error", "ms", "CPU"]
    head += ["ours/jax-cfd", "CPU", "as accurate"]
    return table(rows, head)


if __name__ == "__main__":
    main()
