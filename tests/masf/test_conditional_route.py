"""Routes of the score-based filter that know the measured values: any operator, any noise, several modes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from often import often
from scipy.stats import norm, qmc

from masf_jax import assimilate
from masf_jax.dynamics import Kolmogorov, Linear as LinearModel, Lorenz96
from masf_jax.ensemble.normalization import Moments, Normalization
from masf_jax.masf import (
    MASF,
    Automatic,
    Bridge,
    ConditionalKernel,
    ConditionalNetwork,
    DualHead,
    GaussianPrior,
    Guided,
    KernelPrior,
    Linear as LinearRoute,
    Linearized,
    MeasurementAware,
    NetworkPrior,
)
from masf_jax.masf.priors.network import Architecture
from masf_jax.masf.routes.pairs import simulated_pairs
from masf_jax.measurements import (
    CorrelatedGaussian,
    Gaussian,
    Identity,
    Linear,
    Measurement,
    Multiplicative,
    Observations,
    Speed,
    StudentT,
    Subset,
    arctan,
    sigmoid,
    square,
)
from masf_jax.metrics import sliced_wasserstein
from masf_jax.training import FitConfig

LINEAR, CURVED = Measurement(Identity(), Gaussian(0.5)), Measurement(arctan(), Gaussian(0.5))
NET = Architecture(width=48, depth=2, variance_head=True)
TRAINING = FitConfig(steps=600, batch_size=256, learning_rate=3e-3, validation_fraction=0.0)
FRESH = FitConfig(steps=1, batch_size=2, learning_rate=0.0, weight_decay=0.0, validation_fraction=0.0)
SMALL = Architecture(width=8, depth=1, variance_head=True)


def network(training=TRAINING, architecture=NET, n_steps=40, **keys):
    route = ConditionalNetwork(training, architecture=architecture, **keys)
    return MASF(sampler=Bridge(n_steps), route=route)


pairs_of = eqx.filter_jit(simulated_pairs)


@eqx.filter_jit
def _analyse(filter, key, state, z, measurement):
    return filter.analysis(key, state, z, measurement)


def analyse(filter, members, measurement, z, seed=0):
    members = jnp.asarray(members, dtype=float)
    size = members[0].size
    filter = filter.prepare(LinearModel(np.eye(size)), measurement) if members.ndim == 2 else filter
    key = jax.random.key(seed)
    after, info = _analyse(filter, key, filter.init(key, members), jnp.asarray(z, dtype=float), measurement)
    return np.asarray(after.ensemble, np.float64), info


def weighted(states, measurement, z, seed=0):
    """As many equally weighted draws of p(x | z) as there are states over 50."""
    z = jnp.asarray(z, dtype=float)
    log = jax.jit(jax.vmap(lambda x: measurement.log_prob(z, x)))(jnp.asarray(states, dtype=float))
    weights = np.asarray(jax.nn.softmax(log), np.float64)
    rng = np.random.default_rng(seed)
    return states[rng.choice(len(states), len(states) // 50, p=weights / weights.sum())]


def distance(draws, exact):
    """Sliced W2 over the posterior's spread."""
    n = min(len(draws), len(exact))
    found = jax.jit(sliced_wasserstein)(
        jax.random.key(3), jnp.asarray(draws[:n], dtype=float), jnp.asarray(exact[:n], dtype=float)
    )
    return float(found) / np.sqrt(exact.var(0).mean())


def forecast(n, points=None):
    """Not centred, so that of the signs of a component one is the more likely."""
    normal = np.random.default_rng(1).normal(size=(n, 2)) if points is None else norm.ppf(points)
    return np.asarray([0.6, -0.4]) + normal @ np.asarray([[1.0, 0.5], [0.0, 0.87]])


SIGNS = Measurement(square(), Gaussian(0.5)), [1.85, 0.25]
RING = Measurement(Speed(), Gaussian(0.15)), 1.6
CONDITIONAL = {"kernel": lambda: MASF(route=ConditionalKernel()), "network": network}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["signs", "ring"])
def test_several_modes_have_their_weights(case):
    """Against 60 000 weighted draws: tangents find the modes of x², but not how likely they are."""
    measurement, z = SIGNS if case == "signs" else RING
    exact = weighted(forecast(60_000), measurement, z)
    positive = (exact[:, 0] > 0).mean()
    members = forecast(256, qmc.Sobol(2, seed=0).random(256))  # hardly any sampling error
    filters = CONDITIONAL if case == "signs" else {"network": network}
    found = {}
    for name, make in filters.items():
        drawn, _ = analyse(make(), members, measurement, z)
        found[name] = distance(drawn, exact)
        assert abs((drawn[:, 0] > 0).mean() - positive) < 0.05, name
        assert found[name] < 0.3, name
    if case == "signs":
        tangents, _ = analyse(MASF(route=Linearized()), members, measurement, z)
        assert positive < 0.95
        assert distance(tangents, exact) > 2 * found["network"]


def test_the_regression_is_that_of_the_enkf(x64):
    """A dense H and full R, with fewer and with more values than members; and what is left is standard."""
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 4))
    h, r = rng.normal(size=(4, 3)), 0.3 * root @ root.T + np.eye(4)
    measurement = Measurement(Linear(h), CorrelatedGaussian(r))
    for n in (3, 500):
        members = rng.normal(size=(n, 3)) @ np.diag([1.0, 2.0, 0.5])
        z = rng.normal(size=4)
        pairs = pairs_of(jnp.asarray(members), measurement, jnp.ones(4, bool))
        p = np.cov(members.T)
        gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
        mean = members.mean(0) + gain @ (z - h @ members.mean(0))
        centre = eqx.filter_jit(lambda pairs, z: pairs.frame(z).centre)(pairs, jnp.asarray(z))
        np.testing.assert_allclose(centre, mean, atol=1e-9)
        np.testing.assert_allclose(pairs.scale**2, np.diag(p - gain @ h @ p), rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 20_000)
    chosen = jnp.asarray(members)[rng.integers(0, n, 20_000)]
    u, features = jax.jit(lambda keys, members: jax.vmap(pairs.draw)(keys, members))(keys, chosen)
    away = np.sinh(np.asarray(features[:, :4]))
    both = np.concatenate([np.asarray(u), away], 1)
    np.testing.assert_allclose(both.mean(0), 0.0, atol=0.04)
    np.testing.assert_allclose(both.std(0), 1.0, atol=0.03)
    assert np.abs(np.corrcoef(both.T)[:3, 3:]).max() < 0.03, "nothing linear is left"


@pytest.mark.slow
@pytest.mark.parametrize("noise", [StudentT(3.0, 0.2), Multiplicative(0.3, 0.05)], ids=["t", "of the state"])
def test_noise_of_any_law(noise):
    """p(z | x) itself is used, not a covariance at the forecast's mean."""
    measurement = Measurement(Identity(), noise)
    exact = weighted(2.0 + 0.5 * norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None], measurement, [3.2])
    members = 2.0 + 0.5 * norm.ppf((np.arange(1000) + 0.5) / 1000)[:, None]
    drawn, info = analyse(MASF(route=ConditionalKernel(draws=20)), members, measurement, [3.2])
    assert distance(drawn, exact) < 0.12
    assert 0.05 < float(info["proposals_used"]) < 1


DIAGONAL = Measurement(Identity(), Gaussian([0.5, 1.0]))


@eqx.filter_jit
def _masked(filter, key, state, z, mask):
    return filter.analysis(key, state, z, DIAGONAL, mask)


@pytest.mark.parametrize("name", often(CONDITIONAL, ["kernel"]))
def test_missing_values(name):
    """None at all: the forecast. One: whatever stands there, and its component keeps the forecast's law.

    The network is fresh, and exact: of independent components and normal noise the regression leaves
    nothing to learn.
    """
    route = ConditionalKernel() if name == "kernel" else ConditionalNetwork(FRESH, architecture=SMALL)
    filter = MASF(sampler=Bridge(3), route=route).prepare(LinearModel(np.eye(2)), DIAGONAL)
    std = np.asarray([1.0, 2.0])
    members = jnp.asarray(1.0 + std * norm.ppf(qmc.Sobol(2, seed=1).random(256)), dtype=float)
    key, there = jax.random.key(0), jnp.asarray([True, False])
    state = filter.init(key, members)
    none, info = _masked(filter, key, state, jnp.asarray([jnp.nan, 3.0]), there)
    np.testing.assert_array_equal(none.ensemble, members)
    assert all(np.isnan(float(value)) for value in info.values())
    one, other = (
        np.asarray(_masked(filter, key, state, jnp.asarray([2.0, z]), there)[0].ensemble, np.float64)
        for z in (0.0, 1e6)
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose((one.mean(0) - [1.8, 1.0]) / std, 0.0, atol=0.08)
    np.testing.assert_allclose(one.std(0) / [np.sqrt(0.2), 2.0], 1.0, atol=0.06)


@pytest.mark.slow
def test_training_goes_on_where_the_last_cycle_ended():
    """A run with moving gaps, one program."""
    model, short = Lorenz96(6), FitConfig(batch_size=2, validation_fraction=0.0)
    filter = network(short, SMALL, 2, restart=False, epochs=2).prepare(model, CURVED)
    values = np.random.default_rng(0).normal(size=(3, 6))
    values[1, ::2] = np.nan
    members = jnp.asarray(np.random.default_rng(1).normal(2.0, 3.0, size=(6, 6)), dtype=float)
    result = assimilate(jax.random.key(0), filter, model, CURVED, Observations(values, 1), members)
    assert np.isfinite(np.asarray(result.analysis["mean"])).all()
    assert (np.asarray(result.info["training_steps"]) == 2 * 3).all()
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), result.final.memory[1][1], filter.route.network.params
    )
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize(
    ("shape", "operator"), [((16,), arctan() @ Subset([3, 0])), ((2, 8, 8), Speed())], ids=["ring", "flow"]
)
def test_on_a_grid_values_are_seen_at_their_places(shape, operator, key):
    """A ring with values of some components, which a U-Net takes; a flow with one value a cell."""
    measurement = Measurement(operator, Gaussian(0.3))
    members = jax.random.normal(key, (5, *shape))
    z = jnp.arange(2.0) if len(shape) == 1 else jnp.zeros((8, 8)).at[2, 3].set(9.0)
    pairs = pairs_of(members, measurement, jnp.ones(z.shape, bool), layout="grid")
    seen, standard = eqx.filter_jit(lambda pairs: (pairs.features(z), pairs.standardised(z)))(pairs)
    seen, standard = np.asarray(seen), np.arcsinh(standard)
    if len(shape) == 1:
        assert seen.shape == (2, 16)
        np.testing.assert_allclose(seen[0, [3, 0]], standard, rtol=1e-5)
        np.testing.assert_array_equal(np.flatnonzero(seen[1]), [0, 3])
    else:
        assert seen.shape == (4, 8, 8)
        np.testing.assert_allclose(seen[1], standard.reshape(8, 8), rtol=1e-5)
        assert seen[0].argmax() == 2 * 8 + 3
        return
    unet = network(FRESH, Architecture(channels=4, multipliers=(1,), variance_head=True), 2)

    def through(members):
        filter = unet.prepare(Lorenz96(16), measurement)
        assert filter.route.layout == "grid"
        return filter.analysis(key, filter.init(key, members), z, measurement)[0].ensemble

    assert jax.eval_shape(through, members).shape == members.shape


def test_a_ring_seen_in_another_shape_is_taken_as_a_vector():
    measurement = Measurement(arctan() @ Linear(np.ones((3, 16)) / 16), Gaussian(0.3))
    prepared = eqx.filter_eval_shape(network(FRESH, SMALL, 2).prepare, Lorenz96(16), measurement)
    assert prepared.route.layout == "vector"


PAPER = {"process": MeasurementAware(), "sampler": Guided(60)}


def paper(**keys):
    prior = NetworkPrior(
        training=FitConfig(steps=3, batch_size=4, validation_fraction=0.0),
        architecture=Architecture(width=8, depth=1, noise_map=False, preconditioning="x0"),
        weighted=False,
        **keys,
    )
    route = Automatic(DualHead(100))
    return MASF(prior, route=route, normalization=Normalization("fixed"), climatology=400, **PAPER)


@pytest.mark.slow
def test_the_papers_two_heads():
    """Trained on the forecast alone: they learn, and all that comes out is finite."""
    measurement = Measurement(sigmoid(2.0), Gaussian(0.1))
    members = np.random.default_rng(2).normal(size=(64, 1))
    normalization = Normalization("fixed", moments=Moments(jnp.zeros(1), jnp.ones(1)))
    training = FitConfig(steps=200, learning_rate=1e-2, batch_size=32, validation_fraction=0.0)
    prior = NetworkPrior(training=training, architecture=SMALL, weighted=False)
    filter = MASF(prior, route=DualHead(60), normalization=normalization, **PAPER)
    drawn, info = analyse(filter, members, measurement, [0.8])
    assert np.isfinite(drawn).all()
    assert float(info["training_steps"]) == 200
    assert float(info["training_loss"]) < 0.8, "zeros, which a fresh network gives, have 1.08"


def test_for_a_linear_measurement_the_papers_fit_has_one_head():
    measurement = Measurement(Identity(), Gaussian(0.8))
    for one, heads in ((measurement, False), (CURVED, True)):
        filter = paper()
        prior = eqx.filter_eval_shape(filter.route.prepare, filter.prior, Lorenz96(6), one)[1]
        assert prior.denoiser.variance_head is heads
    assert paper().route_of(measurement) == "linear"
    assert paper().route_of(Measurement(arctan(), Gaussian(0.8))) == "dual_head"


@pytest.mark.parametrize(
    ("filter", "measurement", "route"),
    [
        (MASF(), LINEAR, "linear"),
        (MASF(), CURVED, "linearized"),
        (MASF(route=Linearized()), LINEAR, "linearized"),
        (MASF(route=ConditionalKernel()), LINEAR, "conditional"),
        (MASF(route=ConditionalKernel()), CURVED, "conditional"),
    ],
)
def test_which_route(filter, measurement, route):
    assert filter.route_of(measurement) == route
    filter.prepare(Lorenz96(6), measurement)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "kind"), [("member", "perturbed"), pytest.param("mean", "transported", marks=pytest.mark.slow)]
)
def test_a_linear_measurement_linearised_is_the_linear_route(at, kind, x64):
    members, z = np.random.default_rng(0).normal(2.0, 1.5, size=(5, 6)), np.arange(6.0)
    prior, tangents = GaussianPrior(members=kind), Linearized(at, iterations=1)
    drawn = [
        analyse(MASF(prior, route=route), members, LINEAR, z)[0] for route in (Automatic(tangents), tangents)
    ]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-10)


REFUSED = {
    "not linear": (lambda: MASF(route=LinearRoute()), CURVED, "'linear' does not suit it"),
    "not the paper's": (
        lambda: MASF(KernelPrior(), route=DualHead()),
        CURVED,
        "it takes the paper's network",
    ),
    "guided": (
        lambda: MASF(sampler=Guided(9), route=ConditionalKernel()),
        CURVED,
        "no guided sampler",
    ),
    "bridge with two heads": (
        lambda: MASF(NetworkPrior(training=FRESH), sampler=Bridge(), route=DualHead()),
        CURVED,
        "it needs the process MeasurementAware",
    ),
    "one head": (
        lambda: MASF(NetworkPrior(training=FRESH), **PAPER),
        CURVED,
        "needs a linear measurement",
    ),
    "two heads of a mixture": (
        paper,
        Measurement(arctan() @ Linear(np.ones((2, 6))), Gaussian(0.5)),
        "cannot be written as a state",
    ),
    "no draws": (lambda: MASF(route=ConditionalKernel(draws=0)), CURVED, "at least 1 a member"),
    "no bandwidth": (
        lambda: MASF(route=ConditionalKernel(bandwidth=0.0)),
        CURVED,
        "bandwidth must be positive",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    make, measurement, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make().prepare(Lorenz96(6), measurement)


def test_values_without_a_place_on_a_grid_are_refused():
    measurement = Measurement(arctan() @ Subset([0, 1, 2]), CorrelatedGaussian(np.eye(3)))
    with pytest.raises(ValueError, match="those of Compose with CorrelatedGaussian noise have none"):
        network(FRESH, SMALL).prepare(Kolmogorov((8, 8), forcing_waves=2), measurement)


def test_without_prepare_it_says_so(key):
    filter = network(FRESH, SMALL, 2)
    with pytest.raises(ValueError, match="the network is not there yet"):
        filter.analysis(key, filter.init(key, jnp.zeros((3, 2))), jnp.zeros(2), CURVED)
