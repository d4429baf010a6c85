"""Linear-Gaussian analyses from easy to hopeless in float32, and the posterior of each sample in double."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from masf_jax.dynamics import Linear as LinearModel, Lorenz96
from masf_jax.filters import EnKF
from masf_jax.measurements import CorrelatedGaussian, Gaussian, Linear, Measurement, Observations, Subset
from masf_jax.smoothers import FourDVar

N_STATE = 3
KINDS = ("redundant", "distinct", "correlated")
KEY = jax.random.key(0)


def case(
    kind: str, n_members: int, m: int, ratio: float, seed: int = 0, offset: float = 0.0, n: int = N_STATE
) -> dict[str, Any]:
    """float32 members (spread 1 around `offset`, strongly correlated), H, z and R of noise std 1 / ratio.

    redundant: all sensors measure one component; distinct: each another combination; correlated: errors, too.
    """
    rng = np.random.default_rng([seed, n_members, m, KINDS.index(kind)])
    own = np.resize([0.01, 0.3, 1.0], n)
    x = rng.normal(size=(n_members, 1)) + rng.normal(size=(n_members, n)) * own + offset
    h = rng.normal(size=(m, n))
    if kind == "redundant":
        h[:] = np.eye(n)[0]
    std, lag = 1 / ratio, np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
    c = 0.9**lag if kind == "correlated" else np.eye(m)
    x, h, r = (np.float32(a) for a in (x, h, std**2 * c))
    truth = offset + 3.0 * std * np.ones(n)  # near 0, so that float32 can hold the posterior
    z = h.astype(float) @ truth + std * np.linalg.cholesky(c) @ rng.normal(size=m)
    return {"x": x, "h": h, "z": np.float32(z), "r": r, "std": np.float32(std), "kind": kind}


def analyse(filter: Any, cases: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, spread and `rounding` of each case (of one kind and size), by one program."""

    def one(arrays: dict[str, jax.Array]) -> Any:
        noise = (
            eqx.tree_at(lambda n: (n.std, n.factor), shape.noise, (arrays["stds"], arrays["factors"]))
            if cases[0]["kind"] == "correlated"
            else Gaussian(arrays["std"])
        )
        measurement = Measurement(eqx.tree_at(lambda h: h.matrix, shape.operator, arrays["h"]), noise)
        state, info = prepared.analysis(KEY, prepared.init(KEY, arrays["x"]), arrays["z"], measurement)
        return state.mean, jnp.sqrt(state.variance), info["rounding"]

    first = cases[0]
    correlated = first["kind"] == "correlated"
    shape = Measurement(Linear(first["h"]), CorrelatedGaussian(first["r"]) if correlated else Gaussian(1.0))
    prepared = filter.prepare(LinearModel(np.eye(N_STATE)), shape)
    names = ("x", "h", "z", "std")
    arrays = {name: jnp.asarray(np.stack([c[name] for c in cases]), float) for name in names}
    if correlated:
        laws = [CorrelatedGaussian(c["r"]) for c in cases]
        arrays["stds"] = jnp.stack([law.std for law in laws])
        arrays["factors"] = jnp.stack([law.factor for law in laws])
    found = jax.jit(lambda arrays: jax.lax.map(one, arrays))(arrays)
    return tuple(np.asarray(a, float) for a in found)


def posterior(filter: Any, case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviations of the Gaussian posterior of the sample's own moments, in double.

    Of an EnKF: of its members with the perturbations that it draws.
    """
    x, h, z, r = (np.asarray(case[name], float) for name in ("x", "h", "z", "r"))
    if case["kind"] != "correlated":
        r = float(case["std"]) ** 2 * np.eye(len(z))
    root, n = np.linalg.cholesky(r), len(x)
    white = np.linalg.solve(root, h)
    d = np.linalg.solve(root, z - h @ x.mean(0))
    deviations = (x - x.mean(0)) / np.sqrt(n - 1)
    u, sigma, vt = np.linalg.svd(deviations @ white.T, full_matrices=False)
    mean = x.mean(0) + deviations.T @ (u @ (sigma / (1 + sigma**2) * (vt @ d)))
    if not isinstance(filter, EnKF):
        shrunk = deviations + u @ ((1 / np.sqrt(1 + sigma**2) - 1)[:, None] * (u.T @ deviations))
        return mean, np.sqrt((shrunk**2).sum(0))
    key = jax.random.split(KEY)[0]
    draws = np.asarray(filter.draws(key, n, jnp.ones(len(z), bool), jnp.float32), float)
    each = d[None] - (x - x.mean(0)) @ white.T + draws
    moved = (x - x.mean(0)) + ((each @ vt.T) * (sigma / (1 + sigma**2))) @ u.T @ deviations
    return mean, moved.std(0, ddof=1)


def errors(
    filter: Any, cases: list[dict[str, Any]], reference: Any = posterior
) -> list[tuple[float, float, float]]:
    """Of each case |mean - exact| in posterior std, the spread's ratio (worst component), `rounding`."""
    means, spreads, rounding = analyse(filter, cases)
    rows = []
    for mean, spread, estimate, one in zip(means, spreads, rounding, cases, strict=True):
        exact, std = reference(filter, one)
        ratios = spread / std
        rows.append(
            (np.abs((mean - exact) / std).max(), ratios[np.abs(ratios - 1).argmax()], float(estimate))
        )
    return rows


MODEL = np.float32([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, -0.1, 0.95]])
WINDOW = 3


def window_errors(cases: list[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """4D-Var of three cycles with a case's sensors, from its first member with B = I: see `errors`.

    Of each case |x0 - exact| in posterior std, `rounding` and |∇J|; one program.
    """
    rng, powers = np.random.default_rng(9), [MODEL.astype(float)]
    for _ in range(WINDOW - 1):
        powers.append(MODEL.astype(float) @ powers[-1])
    wanted, arrays = [], []
    for one in cases:
        h, std, background = one["h"].astype(float), float(one["std"]), one["x"][0]
        centre = np.round(background.astype(float).mean() / 100) * 100  # the case's offset
        truth = centre + 3 * std
        z = np.float32([h @ m @ np.full(N_STATE, truth) + std * rng.normal(size=len(h)) for m in powers])
        g = np.concatenate([h @ m for m in powers]) / std
        d = z.astype(float).ravel() / std - g @ background.astype(float)
        q, r = np.linalg.qr(np.concatenate([np.eye(N_STATE), g]))
        root = np.linalg.inv(r)
        wanted.append((background + root @ (q[N_STATE:].T @ d), np.sqrt((root**2).sum(1))))
        arrays.append((background, one["h"], one["std"], z))

    def run(background: jax.Array, h: jax.Array, std: jax.Array, z: jax.Array) -> Any:
        operator = eqx.tree_at(lambda o: o.matrix, Linear(cases[0]["h"]), h)
        found = FourDVar(std=1.0)(
            background, LinearModel(MODEL), Measurement(operator, Gaussian(std)), Observations(z, 1)
        )
        return found.start, found.rounding, found.gradient_norm

    stacked = [jnp.asarray(np.stack(a), float) for a in zip(*arrays, strict=True)]
    found = jax.jit(lambda arrays: jax.lax.map(lambda a: run(*a), arrays))(stacked)
    rows = zip(wanted, *(np.asarray(a, float) for a in found), strict=True)
    return [
        (np.abs((start - mean) / std).max(), rounding, slope) for (mean, std), start, rounding, slope in rows
    ]


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """Inside, programs that are traced draw the same random numbers in float64 as in float32."""
    names = ("normal", "uniform", "categorical")
    normal, uniform, categorical = (getattr(jax.random, name) for name in names)

    def rounded(draw: Any) -> Any:
        def other(key: Any, shape: Any = (), dtype: Any = float, *rest: Any, **more: Any) -> jax.Array:
            return draw(key, shape, jnp.float32, *rest, **more).astype(dtype)

        return other

    def pick(key: Any, logits: jax.Array) -> jax.Array:
        return jnp.argmax(logits + jax.random.gumbel(key, logits.shape, jnp.float32).astype(logits.dtype))

    try:
        for name, draw in zip(names, (rounded(normal), rounded(uniform), pick), strict=True):
            setattr(jax.random, name, draw)
        yield
    finally:
        for name, draw in zip(names, (normal, uniform, categorical), strict=True):
            setattr(jax.random, name, draw)


def against_itself(filter: Any, cases: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Of each case (of one kind and size) the largest |x - x of float64| in posterior std, and `rounding`.

    Of members made with the same random numbers, by two programs. A case with "places" measures these
    components of a Lorenz-96 state, else `h`.
    """
    first, found = cases[0], []
    n = first["x"].shape[1]
    for x64 in (False, True):
        with jax.enable_x64(x64), same_draws():
            places = first.get("places")
            model = LinearModel(np.eye(n)) if places is None else Lorenz96(n)
            operator = Linear(first["h"]) if places is None else Subset(places)
            prepared = filter.prepare(model, Measurement(operator, Gaussian(1.0)))

            def one(arrays: dict[str, jax.Array], operator: Any = operator, prepared: Any = prepared) -> Any:
                if "h" in arrays:
                    operator = eqx.tree_at(lambda h: h.matrix, operator, arrays["h"])
                measurement = Measurement(operator, Gaussian(arrays["std"]))
                state = prepared.init(KEY, arrays["x"])
                state, info = prepared.analysis(KEY, state, arrays["z"], measurement)
                return state.ensemble, info["rounding"]

            names = ("x", "z", "std", *(("h",) if places is None else ()))
            arrays = {name: jnp.asarray(np.stack([c[name] for c in cases]), float) for name in names}
            run = jax.jit(lambda arrays, one=one: jax.lax.map(one, arrays))
            found.append([np.asarray(a, float) for a in run(arrays)])
    (members, rounding), (exact, _) = found
    std = exact.std(1, ddof=1)
    away = np.abs(members - exact).max(1)
    off = np.where(away > 0, away / np.where(std > 0, std, 1e-300), 0.0)
    return [(float(o), float(r)) for o, r in zip(off.max(1), rounding, strict=True)]


def local_case(n_members: int, n: int, m: int, ratio: float) -> dict[str, Any]:
    """float32 members on a ring, correlated over some places, m components measured: see `case`."""
    rng = np.random.default_rng([n_members, n, m])
    waves = np.fft.irfft(
        np.fft.rfft(rng.normal(size=(n_members, n))) * np.exp(-np.arange(n // 2 + 1) / 40), n
    )
    x = np.float32(waves / waves.std())
    places, std = np.sort(rng.permutation(n)[:m]), 1 / ratio
    return {
        "x": x,
        "places": places,
        "z": np.float32(3 * std + std * rng.normal(size=m)),
        "std": np.float32(std),
    }
