"""What every filter with a sampler of its own must do, whatever it samples."""

from __future__ import annotations

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often

from masf_jax import assimilate
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Linear, Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters import EnFF, EnSF, EnSFLR, EnSFSampler, IEnSF
from masf_jax.filters.rivals.conditional_diffusion import ConditionalDiffusion
from masf_jax.filters.rivals.score_filter import ExplodingSampler, ScoreFilter
from masf_jax.filters.rivals.score_network import ScoreNetwork
from masf_jax.filters.rivals.ssls import SSLS, LangevinSampler
from masf_jax.measurements import (
    Gaussian,
    Identity,
    Linear as LinearOperator,
    Measurement,
    Observations,
    Subset,
)
from masf_jax.training import FitConfig

N = 6
RING = Lorenz96(N)
MEMBERS = np.random.default_rng(0).normal(2.0, 1.5, size=(7, N))
VALUES = np.random.default_rng(1).normal(2.0, 2.0, size=N)
MASK = np.asarray([1, 0, 1, 1, 0, 1], bool)
STD = np.linspace(0.5, 1.5, N)
SHORT = EnSFSampler(n_steps=20)
TRAINING = FitConfig(steps=2, batch_size=4, validation_fraction=0.0)
NET = ScoreNetwork(training=TRAINING, architecture=Architecture(width=8, depth=1))

FILTERS = {
    "ensf": lambda: EnSF(sampler=SHORT),
    "ensf-all": lambda: EnSF(
        Inflation(rtps=0.5, adaptive=True), Normalization("moving"), EnSFSampler(n_steps=20, batch_size=None)
    ),
    "ensf_lr": lambda: EnSFLR(sampler=SHORT),
    "iensf": lambda: IEnSF(prior="ensemble", n_steps=20, iterations=2),
    "enff": lambda: EnFF(path="ot", n_steps=20),
    "enff-f2p": lambda: EnFF(normalization=Normalization("cycle"), path="f2p", n_steps=20),
    "conditional_diffusion": lambda: ConditionalDiffusion(),
    "score_filter": lambda: ScoreFilter(network=NET, sampler=ExplodingSampler(n_steps=20)),
    "ssls": lambda: SSLS(network=NET, sampler=LangevinSampler(n_steps=20)),
}


@pytest.mark.parametrize("name", often(["ensf", "ensf_lr"], ["ensf"]))
def test_masked_values_are_as_if_never_measured(name, key, x64):
    """The analysis equals that with the smaller operator; NaN counts as masked."""

    def analysis(operator, std):
        measurement = Measurement(operator, Gaussian(std))
        filter = FILTERS[name]().prepare(RING, measurement)
        run = jax.jit(lambda state, z, mask: filter.analysis(key, state, z, measurement, mask)[0])
        state = filter.init(key, jnp.asarray(MEMBERS))
        return lambda z, mask: run(state, jnp.asarray(z), jnp.asarray(mask))

    whole = analysis(Identity(), STD)
    masked = whole(VALUES, MASK)
    chex.assert_trees_all_equal(masked, whole(np.where(MASK, VALUES, np.nan), np.ones(N, bool)))
    part = analysis(Subset.from_mask(MASK), STD[MASK])
    chex.assert_trees_all_close(masked, part(VALUES[MASK], np.ones(MASK.sum(), bool)), atol=1e-9)


LEARNING = ("score_filter", "ssls")  # of one make: each is slow to trace


@pytest.mark.parametrize("name", [name for name in FILTERS if name != LEARNING[0]])
def test_types_are_kept_in_double_precision(name, key, x64):
    measurement = Measurement(Identity(), Gaussian(STD))
    filter = FILTERS[name]().prepare(RING, measurement)
    state = filter.init(key, jnp.asarray(MEMBERS))
    after = jax.eval_shape(lambda s: filter.analysis(key, s, jnp.asarray(VALUES), measurement)[0], state)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert state.ensemble.dtype == jnp.float64


@pytest.mark.parametrize("name", often(FILTERS, ("ensf", "iensf", "enff")))
def test_analyses_of_any_sureness_are_finite_and_near(name):
    """Single precision, noise from 10⁵ to 10⁻⁶ of the forecast's deviation, one sensor or 30; z far away."""
    n, rng = 4, np.random.default_rng(2)
    members, truth = rng.normal(size=(12, n)), rng.normal(size=n)
    filter = FILTERS[name]().prepare(Linear(np.eye(n)), Measurement(Identity(), Gaussian(1.0)))
    stds, places = np.asarray([1e5, 1.0, 1e-3, 1e-6]), np.arange(30) % n
    rows = (
        np.eye(n)
        if name == "ensf_lr"
        else np.where(np.arange(30)[:, None] % 2, np.eye(n)[places], rng.normal(size=(30, n)))
    )
    few, m = np.zeros(len(rows), bool), len(rows)
    few[1] = True

    @jax.jit
    @jax.vmap
    def run(std, mask, z):
        operator = Identity() if name == "ensf_lr" else LinearOperator(rows)
        one = Measurement(operator, eqx.tree_at(lambda g: g.std, Gaussian(1.0), std))
        state = filter.init(jax.random.key(0), jnp.asarray(members, dtype=float))
        return filter.analysis(jax.random.key(1), state, z, one, mask)[0].ensemble

    cases = [
        (std, mask, rows @ truth + std * rng.normal(size=m)) for std in stds for mask in (few, ~few | few)
    ]
    huge = 1e10 if name == "ensf-all" else -1e30  # inflation estimated from innovations squares them
    cases += [(1.0, few, np.full(m, 1e10)), (1e-6, ~few | few, np.full(m, huge))]
    stacked = [
        jnp.asarray(np.stack(each), None if each[0].dtype == bool else float)
        for each in map(list, zip(*[(np.asarray(s), k, z) for s, k, z in cases], strict=True))
    ]
    found = np.asarray(run(*stacked))
    assert np.isfinite(found).all()
    assert np.abs(found[:-2]).max() < 12, "in standard deviations of the forecast"


class Counted(Identity):
    """The identity, counting how often it is traced."""

    def __call__(self, x):
        TRACES.append(1)
        return super().__call__(x)


TRACES: list[int] = []


ONE_PROGRAM = ("ensf-all", "enff-f2p", "conditional_diffusion", LEARNING[0])


@pytest.mark.parametrize("name", often(ONE_PROGRAM, ["enff-f2p"]))
def test_a_run_is_one_program_in_single_precision(name):
    measurement = Measurement(Counted(), Gaussian(1.0))
    filter = FILTERS[name]().prepare(RING, measurement)

    def run(seed):
        values = np.random.default_rng(seed).normal(2.0, 2.0, size=(3, N))
        values[1] = np.nan
        ensemble, observations = jnp.asarray(MEMBERS, dtype=float), Observations(values, 1)
        TRACES.clear()
        found = assimilate(
            jax.random.key(seed), filter, RING, measurement, observations, ensemble, save=("ensemble",)
        )
        assert found.analysis["ensemble"].dtype == jnp.float32
        chex.assert_tree_all_finite(found.analysis)
        np.testing.assert_array_equal(found.analysis["ensemble"][1], found.forecast["ensemble"][1])
        return len(TRACES)

    first = run(0)
    assert first <= 60, "cycles and sampler steps are loops, not copies"
    assert run(1) < first, "another seed: the same program, only shapes are looked at again"


def largest(jaxpr):
    """Most elements of an array in a program, inner ones included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [int(np.prod(v.aval.shape)) for v in equation.outvars if hasattr(v.aval, "shape")]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    sizes.append(largest(inner))
    return max(sizes)


@pytest.mark.parametrize("name", [name for name in FILTERS if name not in LEARNING])
def test_memory_grows_as_members_times_components(name):
    n_members, n = 20, 10_000
    model, measurement = Lorenz96(n), Measurement(Identity(), Gaussian(1.0))
    filter = FILTERS[name]().prepare(model, measurement)
    members, z = jnp.zeros((n_members, n)), jnp.zeros(n)

    def run(members, z):
        return filter.analysis(jax.random.key(0), filter.init(jax.random.key(0), members), z, measurement)[0]

    most = largest(jax.make_jaxpr(run)(members, z).jaxpr)
    assert most <= 8 * n_members * n, "a solver's stages; not N² n, let alone n²"


def test_units_of_all_forecasts(x64):
    """σ_now^(1 - share) σ_all^share, σ_all that of the members of all forecasts; the forecast's mean."""
    forecasts = np.random.default_rng(2).normal([1.0, 5.0], [2.0, 0.1], size=(3, 6, 2)) * [
        [[1]],
        [[0.1]],
        [[3]],
    ]
    units, memory = Normalization("history", share=0.7), None
    for k, forecast in enumerate(forecasts, 1):
        members = jnp.asarray(forecast)
        memory = units.init(members) if memory is None else memory
        centre, scale, memory = units(members, memory)
        moments = [forecasts[:k].var(1, ddof=1).mean(0), forecasts[:k].mean(1).var(0)]
        wanted = forecast.std(0, ddof=1) ** 0.3 * np.sqrt(sum(moments)) ** 0.7
        np.testing.assert_allclose(scale, wanted, rtol=1e-12)
        np.testing.assert_allclose(centre, forecast.mean(0), rtol=1e-12)


@pytest.mark.parametrize("name", ["ensf", "enff"])
def test_units_change_no_run(name, key, x64):
    """Four cycles of a linear model, told in other units of the state: the same analyses."""
    matrix, scale = 0.9 * np.eye(2) + [[0.0, 0.2], [-0.2, 0.0]], np.asarray([1e4, 1e-3])
    members, values = np.random.default_rng(3).normal(1.0, 1.0, (6, 2)), np.ones((4, 2))

    def run(scale):
        return assimilate(
            key,
            FILTERS[name](),
            Linear(scale[:, None] * matrix / scale),
            Measurement(LinearOperator(np.diag(1 / scale)), Gaussian(0.5)),
            Observations(jnp.asarray(values), 1),
            jnp.asarray(members * scale),
        ).final.mean

    np.testing.assert_allclose(np.asarray(run(scale)) / scale, run(np.ones(2)), rtol=1e-8)
