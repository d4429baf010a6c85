"""A user's own prior, process, sampler and route: one class of one method each, accepted everywhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax import assimilate
from masf_jax.denoisers import ensemble_gaussian
from masf_jax.diffusion import bridge, time_grid, vp_bridge
from masf_jax.dynamics import Lorenz96
from masf_jax.ensemble import Inflation
from masf_jax.masf import (
    MASF,
    Bridge,
    GaussianPrior,
    Linearized,
    Prior,
    ProcessFamily,
    Route,
    Sampler,
    masf_analysis,
)
from masf_jax.measurements import Gaussian, Identity, Measurement, Observations, arctan

N = 6
RING = Lorenz96(N)
WHOLE = Measurement(Identity(), Gaussian(0.8))
MEMBERS = jnp.asarray(np.random.default_rng(0).normal(2.0, 1.5, size=(5, N)), dtype=float)
VALUES = np.random.default_rng(3).normal(2.0, 3.0, size=(3, N))


class OwnPrior(Prior):
    def __call__(self, key, ensemble, process, memory):
        return ensemble_gaussian(ensemble, None, process.frame.basis), memory, {}


class OwnProcess(ProcessFamily):
    def __call__(self, measurement, z, mask, centre, scale, at=None, tempering=1.0):
        return vp_bridge(measurement, z, mask, centre, scale)


class OwnSampler(Sampler):
    def draw(self, key, process, denoiser, member):
        return bridge(key, process, denoiser, time_grid(2))


class OwnRoute(Route):
    def draw(self, keys, inputs, memory):
        towards = inputs.members + 0.5 * (inputs.z[None] - inputs.members)
        return jnp.where(inputs.mask[None], towards, inputs.members), memory, {}


def run(filter, measurement=WHOLE):
    observations = Observations(VALUES, 1)
    return assimilate(jax.random.key(0), filter, RING, measurement, observations, MEMBERS)


@pytest.mark.slow
def test_own_parts_are_as_good_as_the_librarys():
    theirs = run(MASF(GaussianPrior(members="fresh"), sampler=Bridge(2, centred=False)))
    mine = run(MASF(OwnPrior(), OwnProcess(), OwnSampler()))
    np.testing.assert_allclose(mine.analysis["mean"], theirs.analysis["mean"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda good, memory: good, "must return .denoiser, memory, info.*got [A-Z]"),
        (lambda good, memory: (good, memory), "got 2 things"),
        (lambda good, memory: (lambda x, angle: x, memory, {}), "Denoiser first; got function"),
        (lambda good, memory: (good, 1, {}), "returns must be of the structure that its init.. begins with"),
    ],
)
def test_what_an_own_prior_returns_is_checked(returned, said):
    class Wrong(OwnPrior):
        def __call__(self, key, ensemble, process, memory):
            return returned(super().__call__(key, ensemble, process, memory)[0], memory)

    with pytest.raises(ValueError, match="Wrong.*" + said):
        run(MASF(Wrong()))


def test_an_own_route_goes_without_the_rest():
    result = run(MASF(route=OwnRoute(), inflation=Inflation(1.5)))
    expected = 0.5 * (result.forecast["mean"] + VALUES)
    np.testing.assert_allclose(result.analysis["mean"], expected, rtol=1e-4, atol=1e-4)
    assert MASF(route=OwnRoute()).route_of(WHOLE) == "own"


def test_a_process_without_tangents_is_refused_for_a_nonlinear_measurement():
    with pytest.raises(ValueError, match="process OwnProcess with the sampler Bridge needs a linear"):
        MASF(process=OwnProcess()).prepare(RING, Measurement(arctan(), Gaussian(1.0)))


@pytest.mark.slow
def test_the_analysis_alone_is_that_of_the_filter(key):
    """Arrays in, arrays out, without driver or model."""
    filter = MASF(GaussianPrior())
    expected = filter.analysis(key, filter.init(key, MEMBERS), jnp.zeros(N), WHOLE)[0].ensemble
    drawn, _, _ = masf_analysis(key, MEMBERS, WHOLE, jnp.zeros(N))
    np.testing.assert_allclose(drawn, expected, atol=2e-6)  # two programs: in round-off


@pytest.mark.slow
def test_one_program_for_a_list_of_values(x64):
    """Radii, and annealing factors of tangents, under vmap: the separate runs."""
    observations = Observations(VALUES, 1)
    members = jnp.asarray(MEMBERS, dtype=float)

    def analysed(filter, measurement):
        model = Lorenz96(N)
        return assimilate(jax.random.key(1), filter, model, measurement, observations, members).analysis[
            "mean"
        ]

    linear, curved = Measurement(Identity(), Gaussian(0.8)), Measurement(arctan(), Gaussian(0.8))

    def localised(radius):
        return analysed(MASF(GaussianPrior(radius)), linear)

    def annealed(annealing):
        return analysed(MASF(route=Linearized("mean", annealing=annealing)), curved)

    for function, values in ((localised, [1.0, 2.0]), (annealed, [2.0, 4.0])):
        together = eqx.filter_jit(jax.vmap(function))(jnp.asarray(values))
        for one, value in zip(together, values, strict=True):
            np.testing.assert_allclose(one, function(value), rtol=1e-5, atol=1e-5)
        assert np.abs(together[0] - together[1]).max() > 1e-3
