"""What every filter with a sampler of its own must do, whatever it samples."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.denoisers.architecture import Architecture
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.ensemble.normalization import Normalization
from masf_jax.filters import EnFF, EnSF, EnSFLR, EnSFSampler, IEnSF
from masf_jax.filters.rivals.conditional_diffusion import ConditionalDiffusion
from masf_jax.filters.rivals.score_filter import ExplodingSampler, ScoreFilter
from masf_jax.filters.rivals.score_network import ScoreNetwork
from masf_jax.filters.rivals.ssls import SSLS, LangevinSampler
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, Subset
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


@pytest.mark.parametrize("name", ["ensf", "ensf_lr"])
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


class Counted(Identity):
    """The identity, counting how often it is traced."""

    def __call__(self, x):
        TRACES.append(1)
        return super().__call__(x)


TRACES: list[int] = []


@pytest.mark.parametrize("name", [name for name in FILTERS if name != LEARNING[1]])
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
