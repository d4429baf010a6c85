"""Kolmogorov flow: seconds per transition against the time of its FFTs alone, and against jax-cfd.

Re = 1000, transitions of 0.2, 10 members, float32. Floor: the real 2-d FFTs of one transition, half forward
and half backward, on the same arrays in one compiled loop. With --peer, jax-cfd 0.2.1 (second order on a
staggered grid, forward Euler, Courant number 0.5 at speed 5) runs in a virtual environment of its own,
from the same smooth random fields. Error: RMS of the velocity after 5 transitions, over its RMS, mean over
`--check` members, against our solver on `--reference`² points evaluated at each scheme's own grid points.

    python benchmarks/kolmogorov.py [--peer] [--jaxcfd-python PATH] [--sizes 64 128 256]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import arguments, finish, header, interleaved, table

from masf_jax.dynamics import Kolmogorov

HERE = Path(__file__).resolve().parent
N_MEMBERS, N_CHECK, SPEED = 10, 5, 5.0


def jaxcfd_python(given: str | None) -> str:
    """A Python with jax-cfd: the one given, or that of a venv made here, beside the same JAX as ours."""
    if given:
        return given
    venv = HERE / ".jaxcfd-venv"
    python = venv / "bin" / "python"
    if (
        not python.exists()
        or subprocess.run([python, "-c", "import jax_cfd"], capture_output=True).returncode
    ):
        print(f"installing jax-cfd into {venv} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "jax-cfd==0.2.1", f"jax=={jax.__version__}"]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"jax-cfd could not be installed:\n{done.stderr[-2000:]}")
    return str(python)


def sampled(x: np.ndarray, n: int, shifts: tuple[tuple[float, float], ...] = ((0, 0), (0, 0))) -> np.ndarray:
    """Fields (…, 2, m, m) evaluated on n² points, component c moved by shifts[c] spacings in (y, x)."""
    m = x.shape[-1]
    k = min(m, n) // 2
    spectrum = np.fft.fftshift(np.fft.fft2(np.asarray(x, np.float64)), (-2, -1)) * (n / m) ** 2
    wide = np.zeros((*x.shape[:-2], n, n), complex)
    if m > n:  # all modes count at a coarse point: evaluate on a multiple of the coarse grid, and pick
        fine = sampled(x, m, tuple((a * m / n, b * m / n) for a, b in shifts))
        return fine[..., :: m // n, :: m // n]
    wide[..., n // 2 - k : n // 2 + k, n // 2 - k : n // 2 + k] = spectrum
    waves = np.arange(n) - n // 2
    for c, (sy, sx) in enumerate(shifts):
        wide[..., c, :, :] *= np.exp(2j * np.pi / n * (sy * waves[:, None] + sx * waves[None, :]))
    return np.fft.ifft2(np.fft.ifftshift(wide, (-2, -1))).real


FACES = ((0.5, 1.0), (1.0, 0.5))
"""Where jax-cfd keeps u and v, in spacings (y, x) from a grid point."""


def floor(n: int, n_ffts: int) -> Any:
    """n_ffts real transforms of N_MEMBERS fields."""
    pairs = n_ffts // 2

    @jax.jit
    def run(x: Any) -> Any:
        return jax.lax.fori_loop(0, pairs, lambda i, x: jnp.fft.irfft2(jnp.fft.rfft2(x), (n, n)), x)

    x = jax.random.normal(jax.random.key(0), (N_MEMBERS, n, n))
    return lambda: run(x).block_until_ready()


def relative_error(x: np.ndarray, truth: np.ndarray) -> float:
    each = np.sqrt(((x - truth) ** 2).mean((1, 2, 3)) / (truth**2).mean((1, 2, 3)))
    return float(each.mean())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help="run jax-cfd too, and measure errors")
    parser.add_argument("--jaxcfd-python", metavar="PATH")
    parser.add_argument("--check", type=int, default=2, help="members whose error is measured")
    parser.add_argument("--reference", type=int, default=512, help="points each way of the reference")
    args = parser.parse_args()

    smooth = Kolmogorov(64)  # band-limited: the same fields on every grid
    keys = jax.random.split(jax.random.key(0), N_MEMBERS)
    start = np.asarray(jax.vmap(smooth.initial_state)(keys))
    models = {n: Kolmogorov(n, max_speed=SPEED) for n in args.sizes}
    fields = {n: jnp.asarray(sampled(start, n), jnp.float32) for n in args.sizes}
    steps = {n: jax.jit(jax.vmap(lambda x, model=models[n]: model.mean_step(x, 0.0))) for n in args.sizes}
    numbers: dict[int, dict[str, Any]] = {}
    for n, model in models.items():
        runs = {
            "floor": floor(n, model.ffts_per_transition),
            "ours": lambda n=n: steps[n](fields[n]).block_until_ready(),
        }
        numbers[n] = interleaved(runs, args.repeats if n < 256 else max(2, args.repeats // 2))
        numbers[n] |= {"n_inner": model.n_inner, "ffts": model.ffts_per_transition}
    note = ""
    if args.peer:
        note = compare(args, start, steps, fields, numbers)

    rows = []
    for n, each in numbers.items():
        row = [
            f"{n}²",
            each["n_inner"],
            each["ffts"],
            f"{1e3 * each['ours']:.1f}",
            f"{1e3 * each['floor']:.1f}",
        ]
        row.append(f"{each['ours'] / each['floor']:.2f}")
        if args.peer:
            row += [f"{1e3 * each['peer']:.1f}", f"{each['peer'] / each['ours']:.2f}"]
            row += [f"{each['error']:.1e}", f"{each['error_peer']:.1e}"]
        rows.append(row)
    head = ["grid", "inner steps", "FFTs", "ours ms", "FFT floor ms", "ours/floor"]
    head += ["jax-cfd ms", "jax-cfd/ours", "error ours", "error jax-cfd"] if args.peer else []
    title = f"Kolmogorov flow: milliseconds per transition of {N_MEMBERS} members"
    finish(args, "kolmogorov", header(title) + "\n" + table(rows, head) + note, numbers)


def compare(args: Any, start: np.ndarray, steps: dict, fields: dict, numbers: dict) -> str:
    """Adds jax-cfd's seconds and both errors to `numbers`; returns a note for the table."""
    given: dict[str, Any] = dict(
        sizes=args.sizes, reynolds=1000.0, dt=0.2, repeats=args.repeats, n_check=N_CHECK
    )
    for n in args.sizes:
        given[f"x_{n}"] = sampled(start, n, FACES)
        given[f"n_steps_{n}"] = numbers[n]["n_inner_peer"] = int(
            np.ceil(0.2 / (0.5 * (2 * np.pi / n) / SPEED))
        )
    with tempfile.TemporaryDirectory() as folder:
        inside, outside = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(inside, **given)
        script = [jaxcfd_python(args.jaxcfd_python), HERE / "_jaxcfd_worker.py", inside, outside]
        subprocess.run(script, check=True)
        answer = dict(np.load(outside))
    fine = Kolmogorov(args.reference, max_speed=SPEED)
    advance = jax.jit(lambda x: fine.mean_step(x, 0.0))
    truth = jnp.asarray(sampled(start[: args.check], args.reference), jnp.float32)
    truth = np.stack([np.asarray(advance_times(advance, x)) for x in truth])
    for n in args.sizes:
        ours = np.asarray(advance_times(steps[n], fields[n]))[: args.check]
        numbers[n]["peer"] = float(answer[f"seconds_{n}"])
        numbers[n]["error"] = relative_error(ours, sampled(truth, n))
        numbers[n]["error_peer"] = relative_error(answer[f"x_{n}"][: args.check], sampled(truth, n, FACES))
    inner = ", ".join(str(numbers[n]["n_inner_peer"]) for n in args.sizes)
    return f"\njax-cfd 0.2.1 on jax {answer['version']}: {inner} inner steps; reference {args.reference}²"


def advance_times(step: Any, x: Any) -> Any:
    for _ in range(N_CHECK):
        x = step(x)
    return x


if __name__ == "__main__":
    main()
