"""What must not change an analysis: units, origin, orders, how a measurement is told. A table says what.

Three correlated components, two sensors (two more places for sensors are masked), linear or slightly
nonlinear, double precision. All cases and keys of a filter are one compiled program.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from often import often

from masf_jax import filters as f
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Linear as LinearModel, Lorenz96
from masf_jax.dynamics.rollout import Climatology as Moments
from masf_jax.filters.base import GaussianState
from masf_jax.filters.rivals.conditional_diffusion import ConditionalDiffusion
from masf_jax.filters.rivals.score_filter import ExplodingSampler, ScoreFilter
from masf_jax.filters.rivals.score_network import ScoreNetwork
from masf_jax.filters.rivals.ssls import SSLS, LangevinSampler
from masf_jax.masf import GaussianPrior
from masf_jax.measurements import Gaussian, Linear as LinearOperator, Measurement
from masf_jax.measurements.base import Operator
from masf_jax.training import FitConfig

N, KEYS = 16, 48
NET = ScoreNetwork(
    training=FitConfig(steps=2, batch_size=4, validation_fraction=0.0),
    architecture=Architecture(width=4, depth=1),
)
FACTOR = np.linalg.cholesky([[1, 0.6, -0.3], [0.6, 1, 0.2], [-0.3, 0.2, 1.0]])
MEMBERS = np.random.default_rng(0).normal(size=(N, 3)) @ FACTOR.T * [1.0, 2.0, 0.5] + [1.0, -1.0, 0.3]
ROWS = np.asarray([[1.0, 0.3, 0.0], [0.0, 1.0, -0.5]])
ONE_EACH = np.asarray([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])  # for EnSF-LR
STD, Z = np.asarray([0.8, 1.1]), np.asarray([1.9, -0.2])


class Bent(Operator):
    """u = H x - offset ↦ offset + u + bend · unit · tanh(u/unit)."""

    matrix: Array
    offset: Array
    unit: Array
    bend: Array
    index: Array

    def __call__(self, x):
        u = self.matrix @ x - self.offset
        return self.offset + u + self.bend * self.unit * jnp.tanh(u / self.unit)

    def sources(self, state_shape):
        return self.index


@dataclasses.dataclass
class Case:
    """A way to tell the same: members, sensors, and how its result is that of the first case."""

    members: np.ndarray
    matrix: np.ndarray
    std: np.ndarray
    z: np.ndarray
    offset: np.ndarray | None = None
    unit: np.ndarray | None = None
    scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(3))
    shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    components: tuple[int, ...] = (0, 1, 2)
    order: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(N))
    garbage: float = 0.0
    other: str = "as it is"

    def arrays(self, bend: float) -> dict[str, np.ndarray]:
        m = len(self.z)
        pad = 4 - m

        def wide(values: np.ndarray, fill: float) -> np.ndarray:
            return np.concatenate([values, np.full((pad, *values.shape[1:]), fill)])

        offset = np.zeros(m) if self.offset is None else self.offset
        unit = np.ones(m) if self.unit is None else self.unit
        moments = {
            "mean": MEMBERS.mean(0)[list(self.components)] * self.scale + self.shift,
            "covariance": np.cov(MEMBERS.T)[np.ix_(self.components, self.components)]
            * np.outer(self.scale, self.scale),
        }
        return moments | {
            "members": self.members,
            "matrix": wide(self.matrix, 1.0),
            "std": wide(self.std, 1.0),
            "z": wide(self.z, self.garbage),
            "offset": wide(offset, 0.0),
            "unit": wide(unit, 1.0),
            "bend": np.asarray(bend),
            "index": wide(np.abs(self.matrix).argmax(1), 0).astype(int),
            "mask": np.arange(4) < m,
        }

    def back(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moments as those of the first case."""
        place = np.argsort(self.components)
        mean = ((mean - self.shift) / self.scale)[..., place]
        covariance = covariance / np.outer(self.scale, self.scale)
        return mean, covariance[..., place, :][..., :, place]


def cases(rows: np.ndarray) -> dict[str, Case]:
    scale, shift, turned = np.asarray([1e5, 1.0, 1e-3]), np.asarray([10.0, -20.0, 5.0]), [2, 0, 1]
    order = np.random.default_rng(1).permutation(N)
    base = functools.partial(Case, MEMBERS, rows, STD, Z)
    same = base()

    def stated_as(**changes: Any) -> Case:
        return dataclasses.replace(same, **changes)

    return {
        "as it is": same,
        "units of the state": stated_as(members=MEMBERS * scale, matrix=rows / scale, scale=scale),
        "units of z, small": stated_as(matrix=1e-4 * rows, std=1e-4 * STD, z=1e-4 * Z, unit=np.full(2, 1e-4)),
        "units of z, large": stated_as(matrix=1e6 * rows, std=1e6 * STD, z=1e6 * Z, unit=np.full(2, 1e6)),
        "translation": stated_as(
            members=MEMBERS + shift, z=Z + rows @ shift, offset=rows @ shift, shift=shift
        ),
        "order of members": stated_as(members=MEMBERS[order], order=order),
        "order of sensors": stated_as(matrix=rows[::-1], std=STD[::-1], z=Z[::-1]),
        "order of components": stated_as(
            members=MEMBERS[:, turned], matrix=rows[:, turned], components=tuple(turned)
        ),
        "half the variance": stated_as(std=STD / [np.sqrt(2), 1.0]),
        "a repeated sensor": stated_as(
            matrix=rows[[0, 1, 0]], std=STD[[0, 1, 0]], z=Z[[0, 1, 0]], other="half the variance"
        ),
        "infinite noise": stated_as(
            matrix=np.concatenate([rows, rows[:1]]), std=np.append(STD, 1e30), z=np.append(Z, 7.0)
        ),
        "masked": stated_as(garbage=1e3),
    }


MEMBER, MOMENT, LAW = "members", "moments", "law"
"""Each member the same (in its new place); mean and covariance the same; both so on average over keys."""

BESIDE = ("as it is", "half the variance")  # what others are held against
EXACT = dict.fromkeys([case for case in cases(ROWS) if case not in BESIDE], MEMBER) | {
    "in two batches": MOMENT
}
BIASED = "no: the analysis is not Bayes' (docs/rivals.md), so of two it is another"
DRAWN = EXACT | {"order of members": LAW, "order of components": LAW, "in two batches": BIASED}
NETWORK = "no: a fresh network knows its inputs by their order"
LEARNT = DRAWN | {"order of components": NETWORK}
PAIRS = "no: a kernel in every simulated value, so each value counts by itself, however noisy"

Make = Callable[[Moments], Any]
FILTERS: dict[str, tuple[Make, dict[str, str]]] = {
    "kalman": (lambda c: f.KalmanFilter(), EXACT),
    "enkf": (
        lambda c: f.EnKF(),
        EXACT
        | {"order of members": LAW, "order of sensors": LAW, "a repeated sensor": LAW, "in two batches": LAW},
    ),
    "etkf": (lambda c: f.ETKF(), EXACT),
    "etkf rotated": (lambda c: f.ETKF(rotation=True), EXACT | {"order of members": MOMENT}),
    "ensrf": (lambda c: f.EnSRF(), EXACT | {"order of sensors": MOMENT, "a repeated sensor": MOMENT}),
    "letkf": (lambda c: f.LETKF(radius=None), EXACT),
    "enkf_n": (lambda c: f.EnKFN(), EXACT | {"in two batches": "no: an inflation is inferred in each"}),
    "ienkf": (lambda c: f.IEnKF(), EXACT),
    "particle": (lambda c: f.ParticleFilter(threshold=1e-6), EXACT),
    "particle resampled": (
        lambda c: f.ParticleFilter(threshold=1.0),
        EXACT
        | {
            "order of members": LAW,
            "order of components": LAW,
            "in two batches": "no: particles are jittered in each",
        },
    ),
    "climatology": (lambda c: f.Climatology(c), EXACT),
    "optimal interpolation": (
        lambda c: f.OptimalInterpolation(c),
        EXACT | {"in two batches": "no: the prior is the climatology in each"},
    ),
    "3d-var": (
        lambda c: f.ThreeDVar(1.0, moments=c),
        EXACT | {"in two batches": "no: the background's covariance is the same in each"},
    ),
    "masf": (  # of an operator not known to be linear: members are perturbed
        lambda c: f.MASF(),
        EXACT
        | {
            "order of members": LAW,
            "order of components": LAW,
            "in two batches": "no: the prior of the second has the covariance of few perturbed members",
        },
    ),
    "ensf": (lambda c: f.EnSF(sampler=f.EnSFSampler(n_steps=10)), DRAWN),
    "ensf, all members": (lambda c: f.EnSF(sampler=f.EnSFSampler(n_steps=10, batch_size=None)), DRAWN),
    "ensf_lr": (
        lambda c: f.EnSFLR(sampler=f.EnSFSampler(n_steps=10)),
        DRAWN | {"infinite noise": "no: a measured component is drawn, however noisy, not regressed"},
    ),
    "iensf": (lambda c: f.IEnSF(n_steps=10, iterations=2), DRAWN),
    "iensf, ensemble": (lambda c: f.IEnSF(prior="ensemble", n_steps=10, iterations=2), DRAWN),
    "enff": (lambda c: f.EnFF(n_steps=10), DRAWN),
    "enff, f2p": (lambda c: f.EnFF(path="f2p", n_steps=10), DRAWN),
    "score filter": (lambda c: ScoreFilter(network=NET, sampler=ExplodingSampler(n_steps=10)), LEARNT),
    "ssls": (lambda c: SSLS(network=NET, sampler=LangevinSampler(n_steps=10)), LEARNT),
    "conditional diffusion": (
        lambda c: ConditionalDiffusion(flow=False),
        DRAWN | {"order of sensors": LAW, "a repeated sensor": PAIRS, "infinite noise": PAIRS},
    ),
}


def _analysed(make: Make, key: Array, case: dict[str, Array], batches: bool) -> dict[str, Array]:
    """Moments and members of the analysis; `batches`: of one sensor after the other."""
    operator = Bent(*(case[name] for name in ("matrix", "offset", "unit", "bend", "index")))
    measurement, model = Measurement(operator, Gaussian(1.0)), LinearModel(np.eye(3))
    measurement = eqx.tree_at(lambda m: m.noise.std, measurement, case["std"])
    filter = make(Moments(case["mean"], case["covariance"]))
    filter = filter if isinstance(filter, f.LETKF) else filter.prepare(model, measurement)
    if isinstance(filter, f.LETKF):
        filter = dataclasses.replace(filter, taper=jnp.ones((3, 4)))
    state = filter.init(key, case["members"])
    if batches:
        first = jnp.arange(4) < 1
        for mask in (first, ~first):
            state = filter.analysis(key, state, case["z"], measurement, case["mask"] & mask)[0]
            key = jax.random.fold_in(key, 1)
            state: Any = filter.forecast(key, state, model, jnp.asarray(0, jnp.int32), 0)
    else:
        state = filter.analysis(key, state, case["z"], measurement, case["mask"])[0]
    if isinstance(state, GaussianState):
        return {"mean": state.mean, "covariance": state.covariance}
    weights = jnp.full(N, 1 / N) if state.log_weights is None else jnp.exp(state.log_weights)
    mean = weights @ state.ensemble
    away = state.ensemble - mean[None]
    covariance = (weights[:, None] * away).T @ away
    return {"mean": mean, "covariance": covariance, "members": state.ensemble, "weights": weights}


@functools.cache
def results(name: str) -> dict[str, dict[str, np.ndarray]]:
    """By case: results over keys; those of the nonlinear operator are called "…, bent"."""
    make, laws = FILTERS[name]
    rows = ONE_EACH if name == "ensf_lr" else ROWS
    told = {
        f"{case}{end}": v.arrays(b)
        for b, end in ((0.0, ""), (0.3, ", bent"))
        for case, v in cases(rows).items()
    }
    with jax.enable_x64(True):
        stacked = {n: jnp.asarray(np.stack([one[n] for one in told.values()])) for n in told["as it is"]}
        keys = jax.random.split(jax.random.key(5), KEYS if LAW in laws.values() else 1)

        @jax.jit
        def run(stacked: dict[str, Array], batches: dict[str, Array]) -> tuple[Any, Any]:
            def over_keys(case: dict[str, Array], twice: bool) -> dict[str, Array]:
                return jax.vmap(lambda key: _analysed(make, key, case, twice))(keys)

            whole = jax.vmap(lambda case: over_keys(case, False))(stacked)
            split = over_keys(batches, True) if not laws["in two batches"].startswith("no") else {}
            return whole, split

        whole, split = jax.device_get(run(stacked, {n: v[0] for n, v in stacked.items()}))
    found = {case: {n: v[i] for n, v in whole.items()} for i, case in enumerate(told)}
    return found | ({"in two batches": split} if split else {})


def _apart(a: np.ndarray, b: np.ndarray, spread: np.ndarray) -> float:
    return float((np.abs(a - b) / spread).max())


def _difference(law: str, case: Case, now: dict[str, np.ndarray], then: dict[str, np.ndarray]) -> float:
    """The largest, in standard deviations; in law: in five standard errors of the averages over keys."""
    mean, covariance = case.back(now["mean"], now["covariance"])
    pairs = [(mean, then["mean"]), (covariance, then["covariance"])]
    if law == LAW:
        errors = [5 * np.sqrt((a.var(0) + b.var(0)) / KEYS) + 1e-9 for a, b in pairs]
        return max(_apart(a.mean(0), b.mean(0), e) for (a, b), e in zip(pairs, errors, strict=True))
    spread = np.sqrt(np.diagonal(then["covariance"], axis1=1, axis2=2).mean(0))
    found = [_apart(a, b, e) for (a, b), e in zip(pairs, (spread, np.outer(spread, spread)), strict=True)]
    if law == MEMBER and "members" in then:
        members = ((now["members"] - case.shift) / case.scale)[..., np.argsort(case.components)]
        found += [_apart(members, then["members"][:, case.order], spread)]
        found += [_apart(now["weights"], then["weights"][:, case.order], np.asarray(1 / N))]
    return max(found) if np.isfinite(found).all() else np.inf


SELDOM = ("etkf rotated", "particle resampled", "climatology", "optimal interpolation", "ssls")
SELDOM += ("ensf, all members", "iensf, ensemble", "enff, f2p", "score filter")


@pytest.mark.quick_cases("enkf_n", "etkf", "letkf")
@pytest.mark.parametrize("name", often(FILTERS, [name for name in FILTERS if name not in SELDOM]))
def test_what_must_not_change_an_analysis(name):
    found, wrong = results(name), []
    told = cases(ONE_EACH if name == "ensf_lr" else ROWS) | {"in two batches": Case(MEMBERS, ROWS, STD, Z)}
    for case, law in FILTERS[name][1].items():
        if law.startswith("no: "):
            continue
        for end in ("", ", bent") if case != "in two batches" else ("",):  # that: of linear operators
            difference = _difference(law, told[case], found[case + end], found[told[case].other + end])
            if difference > (1.0 if law == LAW else 1e-6):
                wrong.append(f"{case}{end}, {law}: {difference:.2g}")
    assert wrong == []


PLACES, RING_STD = np.asarray([0, 2, 5]), np.asarray([0.5, 1.0, 0.7])
SERIAL = "one value after the other, each tapered: another order is another analysis"
LOCAL = {  # what holds, and what does not and why
    "letkf": (f.LETKF(2.0), {}),
    "letkf eigh": (f.LETKF(2.0, solver="eigh"), {}),
    "ensrf": (f.EnSRF(radius=2.0), {"sensors turned": SERIAL, "a repeated sensor": SERIAL}),
    "ienkf": (f.IEnKF(radius=2.0), {}),
    "masf": (f.MASF(GaussianPrior(radius=2.0)), {}),
}


@dataclasses.dataclass
class Local:
    """A way to tell three sensors of a ring: components in `order`, sensors in `take`, or a blind fourth."""

    order: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(8))
    take: tuple[int, ...] = (0, 1, 2)
    std: np.ndarray = dataclasses.field(default_factory=lambda: RING_STD)
    scale: float = 1.0
    shift: float = 0.0
    blind: bool = False
    other: str = "as it is"

    def told(self, members: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Positions of the sensors, and the arrays of the analysis; of three sensors the fourth is masked."""
        at = [*self.take, 0][:4]
        std, value = self.std[at], z[at]
        if self.blind:
            std[3], value[3] = 1e15, 7.0
        places = np.argsort(self.order)[PLACES[at]]
        return places.astype(float), {
            "members": self.scale * (members[:, self.order] + self.shift),
            "matrix": np.eye(8)[places],
            "std": self.scale * std,
            "z": self.scale * (value + self.shift),
            "mask": np.arange(4) < (4 if self.blind else len(self.take)),
        }


RINGS = {
    "as it is": Local(),
    "half the variance": Local(std=RING_STD / [np.sqrt(2), 1.0, 1.0]),
    "units": Local(scale=1e5),
    "translation": Local(shift=30.0),
    "turned": Local(order=np.roll(np.arange(8), 3)),
    "backwards": Local(order=np.arange(8)[::-1]),
    "sensors turned": Local(take=(2, 0, 1)),
    "a repeated sensor": Local(take=(0, 1, 2, 0), other="half the variance"),
    "infinite noise": Local(blind=True),
}


@pytest.mark.quick_cases("ensrf")
@pytest.mark.parametrize("name", often(LOCAL, ("letkf", "ensrf")))
def test_what_must_not_change_a_localised_analysis(name, x64, key):
    """Members the same to 1e-6 deviations; places go along with components and sensors. One program."""
    (filter, unlike), rng, model = LOCAL[name], np.random.default_rng(4), Lorenz96(8)
    members, z = rng.normal(size=(6, 8)), rng.normal(size=3)
    filters, arrays = [], []
    for case in RINGS.values():
        places, told = case.told(members, z)
        measurement = Measurement(LinearOperator(told["matrix"], positions=places), Gaussian(told["std"]))
        filters.append(filter.prepare(model, measurement))
        arrays.append(told)
    parts = [eqx.partition(one, eqx.is_array) for one in filters]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *[dynamic for dynamic, _ in parts])
    shape = Measurement(LinearOperator(arrays[0]["matrix"]), Gaussian(arrays[0]["std"]))

    @jax.jit
    @jax.vmap
    def run(dynamic, given):
        filter = eqx.combine(dynamic, parts[0][1])
        leaves = given["matrix"], given["std"]
        measurement = eqx.tree_at(lambda m: (m.operator.matrix, m.noise.std), shape, leaves)
        state = filter.init(key, given["members"])
        return filter.analysis(key, state, given["z"], measurement, given["mask"])[0].ensemble

    told = {name: jnp.asarray(np.stack([one[name] for one in arrays])) for name in arrays[0]}
    found = dict(zip(RINGS, np.asarray(run(stacked, told)), strict=True))
    wrong = []
    for case, one in RINGS.items():
        if case in BESIDE:
            continue
        now, then = found[case] / one.scale - one.shift, found[one.other][:, one.order]
        difference = (np.abs(now - then) / then.std(0)).max()
        if (difference > 1e-6) != (case in unlike):
            wrong.append(f"{case}: {difference:.2g}")
    assert wrong == []
    assert np.abs(found["as it is"] - members).max() > 0.1
