"""Damaged and hostile input: mutated overrides, configurations, observation files, networks, results.

Each is to be read rightly or refused in a sentence: no traceback, no hang of more than 10 s, no memory
without bound, and nothing accepted whose right reading is known to be another. A few hundred run in the
tests (test_fuzzing.py); more by

    python tests/cli/fuzzing.py --cases 10000 --seed 1 [--kinds csv,netcdf]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

SLOWEST = 10.0
"""Seconds that an input may take."""
VALUES = np.array([[1.0, 2.5, -3.0], [4.0, 0.0, 0.5], [7.25, -8.0, 9.0], [1e-3, 11.0, 12.0]])
MASK = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 1]], bool)
TIMES = np.array([0.5, 1.0, 2.0, 3.5])
STEP = 0.5
TOKENS = [
    *(b"", b"0", b"-1", b"1e300", b"nan", b"inf", b"null", b"true", b"1e-400", b"9" * 400, b"-0", b"0x10"),
    *(
        b"\x00",
        b"\xff\xfe",
        b"\x1b[31m",
        b"${oc.env:HOME}",
        b"../..",
        b"/etc/passwd",
        b"1_000",
        b"~",
        b"%s%n",
    ),
    *(b"[", b"]", b"{", b"}", b"[[[[", b"&a", b"*a", b"!!python/none", b"'", b'"', b"=", b",", b":", b"#"),
    *(b"\n", b"\r", b"\t", b" ", "é∑".encode(), b"a" * 5000),
]

GOOD = [
    *("experiment=lorenz96_sakov2008", "filter=letkf", "seed=3", "dynamics=lorenz96", "dynamics.n=8"),
    *("measurement=every_second", "measurement.noise.std=0.5", "ensemble_size=12", "save=[mean,spread]"),
    *("layout.batch_size=4", "filter.inflation=1.02", "scores=[rmse,crps]", "initial.spread=0.1"),
    *("precision=float64", "quality_control.threshold=5", "faults.action=skip"),
]


class Verdict(Exception):
    """What an input did that it must not do."""


def mutated(rng: random.Random, content: bytes) -> bytes:
    """The content after one to four changes: bits, bytes, tokens, pieces cut out, doubled, moved."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        length = min(rng.choice([1, 1, 2, 4, 8, 64, 512]), max(len(data) - at, 0))
        what = rng.randrange(8)
        if what == 0 and length:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1 and length:
            data[at : at + length] = rng.randbytes(length)
        elif what == 2:
            data[at:at] = rng.choice(TOKENS)
        elif what == 3:
            data[at : at + length] = rng.choice(TOKENS)
        elif what == 4:
            del data[at : at + length]
        elif what == 5:
            data[at:at] = data[at : at + length] * rng.randint(1, 3)
        elif what == 6:
            to = rng.randrange(len(data) + 1)
            data[to:to] = data[at : at + length]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


# The kinds of input: each makes a folder of good ones once, and reads a mutated one.
Read = Callable[[random.Random, Path], object]


def overrides(folder: Path) -> Read:
    from masf_jax.cli.config.compose import compose
    from masf_jax.cli.run.problem import build_models

    def read(rng: random.Random, where: Path) -> object:
        chosen = rng.sample(GOOD, rng.randint(1, 4))
        k = rng.randrange(len(chosen))
        chosen[k] = mutated(rng, chosen[k].encode()).decode("utf-8", "replace")
        settings = compose(chosen)
        if np.prod([settings.dynamics.get("n", 1), settings.ensemble_size]) < 1e5:
            build_models(settings)
        return settings

    return read


def configuration(folder: Path) -> Read:
    from masf_jax.cli.config.compose import compose, repeat
    from masf_jax.cli.run.results import configuration_text

    texts = [configuration_text(compose(each)) for each in (["filter=letkf"], ["filter=masf", "seed=3"])]

    def read(rng: random.Random, where: Path) -> object:
        path = where / "config.yaml"
        path.write_bytes(mutated(rng, rng.choice(texts).encode()))
        settings = repeat(str(path), [])
        if "HOME" in os.environ and os.environ["HOME"] in json.dumps(str(settings)):
            raise Verdict("a secret of the environment in the settings")
        return settings

    return read


def observed(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from masf_jax.cli.errors import of_files
    from masf_jax.observations.reading import read_observations
    from masf_jax.observations.source import ObservationFile

    with of_files():
        record = read_observations(ObservationFile(str(path)), (3,), STEP)
    return np.asarray(record.values), np.asarray(record.mask), np.asarray(record.steps)


def check_right(read: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The record must be the good one."""
    values, mask, steps = read
    same = mask.shape == MASK.shape and (mask == MASK).all() and np.allclose(values[mask], VALUES[MASK])
    if not same or list(steps - steps[0]) != list(np.round((TIMES - TIMES[0]) / STEP).astype(int)):
        raise Verdict(f"accepted, but read as {values.tolist()} {mask.tolist()} {steps.tolist()}")


def csv_text() -> str:
    rows = [",".join([f"{t:g}", *(f"{v:g}" if m else "" for v, m in zip(*row, strict=True))])
            for t, row in zip(TIMES, zip(VALUES, MASK, strict=True), strict=True)]  # fmt: skip
    return "time,value_0,value_1,value_2\n" + "\n".join(rows) + "\n"


def csv(folder: Path) -> Read:
    text = csv_text()
    harmless: list[Callable[[str], bytes]] = [
        lambda t: t.replace("\n", "\r\n").encode(),
        lambda t: b"\xef\xbb\xbf" + t.encode(),
        lambda t: t.rstrip("\n").encode(),
        lambda t: (t + "\n\n").encode(),
        lambda t: "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in t.splitlines()).encode(),
        lambda t: t.replace(",", " , ").encode(),
        lambda t: t.replace("2.5", "2.50").replace("-3", "-3.0e0").encode(),
    ]

    def read(rng: random.Random, where: Path) -> object:
        path = where / "seen.csv"
        if rng.random() < 0.2:
            k = rng.randrange(len(harmless))
            path.write_bytes(harmless[k](text))
            with known(f"harmless change {k}"):
                check_right(observed(path))
            return None
        path.write_bytes(mutated(rng, text.encode()))
        return observed(path)

    return read


@contextlib.contextmanager
def known(what: str) -> Iterator[None]:
    """Of an input that is right: to refuse it is wrong too."""
    from masf_jax.cli.errors import InputError

    try:
        yield
    except InputError as error:
        raise Verdict(f"{what} refused: {error}") from error


def dataset():
    import xarray as xr

    mask = ("time", "station"), MASK.astype("i1")
    value = ("time", "station"), np.where(MASK, VALUES, np.nan), {"units": "m"}
    return xr.Dataset({"value": value, "mask": mask}, coords={"time": TIMES})


def netcdf(folder: Path) -> Read:
    data, good = dataset(), []
    for k, (engine, form, encoding) in enumerate(
        [("h5netcdf", "NETCDF4", {}), ("scipy", "NETCDF3_64BIT", {}),
         ("h5netcdf", "NETCDF4", {"value": {"zlib": True, "chunksizes": (2, 2)}}),
         ("h5netcdf", "NETCDF4", {"value": {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": -32768}})]
    ):  # fmt: skip
        this = data.transpose("station", "time") if k == 1 else data
        this.to_netcdf(folder / f"{k}.nc", engine=engine, format=form, encoding=encoding)
        good.append((folder / f"{k}.nc").read_bytes())

    def read(rng: random.Random, where: Path) -> object:
        path, content = where / "seen.nc", rng.choice(good)
        changed = rng.random() < 0.97
        path.write_bytes(mutated(rng, content) if changed else content)
        if changed:
            return observed(path)
        with known("the good file"):
            check_right(observed(path))
        return None

    return read


def zarr(folder: Path) -> Read:
    data = dataset()
    for version in (2, 3):
        data.to_zarr(folder / f"{version}.zarr", zarr_format=version, consolidated=False)
    (folder / "secret").write_bytes(np.full(12, 42.0).tobytes())

    def read(rng: random.Random, where: Path) -> object:
        store = where / "seen.zarr"
        shutil.copytree(folder / f"{rng.choice((2, 3))}.zarr", store)
        files = sorted(path for path in store.rglob("*") if path.is_file())
        victim, what = rng.choice(files), rng.random()
        if what < 0.03:
            with known("the good store"):
                check_right(observed(store))
            return None
        if what < 0.1:
            victim.unlink()
            victim.symlink_to(folder / "secret")
            if (observed(store)[0] == 42.0).any():
                raise Verdict("a link led out of the store")
            return None
        if what < 0.15:
            victim.unlink()
            os.mkfifo(victim)
        else:
            victim.write_bytes(mutated(rng, victim.read_bytes()))
        return observed(store)

    return read


def network(folder: Path) -> Read:
    import jax

    from masf_jax.denoisers.architecture import Architecture
    from masf_jax.training import load, save

    made = Architecture(width=8, depth=1).create(jax.random.key(0), (4,), None)
    good = save(folder / "net.safetensors", made, (4,), fingerprint={"dynamics": "mine"}).read_bytes()

    def read(rng: random.Random, where: Path) -> object:
        path = where / "net.safetensors"
        content = mutated(rng, good)
        path.write_bytes(content)
        found = load(path)
        if content != good:
            raise Verdict("a changed network was accepted")
        return found

    return read


def result(folder: Path) -> Read:
    from masf_jax.cli.main import main
    from masf_jax.cli.run.finished import read_result

    small = ["dynamics=lorenz63", "n_cycles=4", "burn_in=1", "ensemble_size=4", "filter=etkf"]
    small += ["figures=false", "compilation_cache=null"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["run", *small, f"output_dir={folder / 'run'}"]) == 0
    good = (folder / "run" / "result.nc").read_bytes()

    def read(rng: random.Random, where: Path) -> object:
        (where / "result.nc").write_bytes(mutated(rng, good))
        with read_result(where) as data:
            return data.load()

    return read


KINDS = {
    "overrides": overrides,
    "configuration": configuration,
    "csv": csv,
    "netcdf": netcdf,
    "zarr": zarr,
    "network": network,
    "result": result,
}


class TooSlow(BaseException):
    """An input took longer than it may."""


def attempt(read: Read, seed: str, folder: Path) -> str:
    """What a mutated input led to: "accepted", "refused", or the fault in words."""
    from masf_jax.cli.errors import RunError
    from masf_jax.training import CheckpointError

    def stop(*_: object) -> None:
        raise TooSlow

    where = Path(tempfile.mkdtemp(dir=folder))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SLOWEST)
    try:
        read(random.Random(seed), where)
    except (RunError, CheckpointError, FileNotFoundError) as error:
        if "\x1b" in str(error) and not isinstance(error, RunError):
            return f"an escape sequence in the message: {error!r}"
        return "refused"
    except Verdict as verdict:
        return f"wrong: {verdict}"
    except TooSlow:
        return f"hangs: more than {SLOWEST:g} s"
    except Exception:
        return "traceback: " + traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        shutil.rmtree(where, ignore_errors=True)
    return "accepted"


def fuzz(kind: str, cases: int, seed: int, folder: Path) -> tuple[collections.Counter[str], list[str]]:
    """Counts of what the inputs led to, and the faults, each with the seed that repeats it."""
    made = folder / kind
    made.mkdir(parents=True)
    read = KINDS[kind](made)
    counts: collections.Counter[str] = collections.Counter()
    faults = []
    for k in range(cases):
        led_to = attempt(read, f"{kind} {seed} {k}", folder)
        counts[led_to.split(":")[0]] += 1
        if led_to not in ("accepted", "refused"):
            faults.append(f"{kind} {seed} {k}: {led_to}")
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    kinds, faults = arguments.kinds.split(","), []
    for kind in kinds:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            counts, found = fuzz(kind, arguments.cases // len(kinds), arguments.seed, Path(folder))
        faults += found
        both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        peak = max(resource.getrusage(who).ru_maxrss for who in both)
        shown = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
        seconds = time.perf_counter() - start
        print(f"{kind}: {shown}; {seconds:.0f} s, peak so far {peak / 2**20:.2f} GiB", flush=True)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
