"""The network denoiser: what its network sees, what it returns, what training makes of it."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masf_jax.denoisers.network import NetworkDenoiser
from masf_jax.nn import MLP, UNet
from masf_jax.training import FitConfig, denoising_loss, fit, uniform_angle


class Echo:
    """A network that returns some of its input channels, scaled by its parameter and by t."""

    def __init__(self, *channels, pair=False):
        self.channels, self.pair = channels, pair

    def init(self, key, x, t):
        return jnp.ones(())

    def apply(self, params, x, t):
        out = params * t * jnp.stack([x[..., c] for c in self.channels], axis=-1)
        return (out, jnp.zeros_like(out)) if self.pair else out


estimate = eqx.filter_jit(lambda denoiser, x, angle: denoiser(x, angle))


def states(*shape):
    return jnp.asarray(np.random.default_rng(2).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("layout", "shape", "features"),
    [
        ("ring", (6,), (1, 6)),
        ("ring", (2, 6), (1, 6)),
        ("field", (4, 6), (3, 4, 6)),
        ("field", (2, 4, 6), (3, 4, 6)),
    ],
)
def test_what_the_network_sees(layout, shape, features):
    """Channels in the order state, sin φ, features; results back in the state's order."""
    x, extra = states(*shape), states(*features)
    angle = jnp.asarray(np.abs(states(*shape)) % 1.5)
    n = shape[0] if len(shape) > (1 if layout == "ring" else 2) else 1
    t = np.mean(angle) / (math.pi / 2)
    for first, seen in [
        (0, x),
        (n, np.sin(angle)),
        (2 * n, np.broadcast_to(np.asarray(extra)[:1], (n, *extra.shape[1:])).reshape(shape)),
    ]:
        channels = range(first, first + n) if first < 2 * n else [first] * n
        denoiser = NetworkDenoiser.create(
            jax.random.key(0), Echo(*channels), shape, layout=layout, features=extra, preconditioning="x0"
        )
        np.testing.assert_allclose(estimate(denoiser, x, angle), t * np.asarray(seen), rtol=1e-5)


def test_vector_inputs():
    x, angle = states(3), jnp.asarray([0.1, 0.7, 1.2])
    denoiser = NetworkDenoiser.create(
        jax.random.key(0), Echo(3, 5, 7), (3,), features=jnp.asarray([5.0, 6.0]), preconditioning="x0"
    )
    t, cos, sin = np.mean(angle) / (math.pi / 2), np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(estimate(denoiser, x, angle), t * np.asarray([sin[0], sin[2], 6.0]), rtol=1e-5)
    changed = denoiser.with_features(jnp.asarray([5.0, 8.0]))
    np.testing.assert_allclose(np.asarray(estimate(changed, x, angle))[2], t * 8.0, rtol=1e-5)
    plain = NetworkDenoiser.create(jax.random.key(0), Echo(0, 1, 2), (3,), noise_map=False)
    expected = cos * np.asarray(x) + sin * t * np.asarray(x)
    np.testing.assert_allclose(estimate(plain, x, angle), expected, rtol=1e-5)


def test_vector_layout_flattens_fields():
    """A 2 × 3 field and its features are the vector of six components."""
    create = functools.partial(NetworkDenoiser.create, jax.random.key(0), Echo(1, 3, 8, 13, 14, 17))
    values = np.asarray([states(6), 0.3 + 0.2 * np.arange(6.0), np.arange(6.0)], np.float32)

    def of(shape):
        x, angle, features = (jnp.asarray(value.reshape(shape)) for value in values)
        return np.asarray(estimate(create(shape, features=features), x, angle))

    np.testing.assert_array_equal(of((2, 3)), of((6,)).reshape(2, 3))


def test_fresh_network_is_the_standard_normal():
    """Mean cos φ · x and deviation sin φ: exact for x0 ~ N(0, I)."""
    x, angle = states(2), jnp.asarray([0.0, 0.9])
    net = MLP(2, width=8, depth=1, second_head=2)
    denoiser = NetworkDenoiser.create(jax.random.key(0), net, (2,), variance_head=True)
    mean, deviation = eqx.filter_jit(denoiser.moments)(x, angle)
    np.testing.assert_allclose(mean, np.cos(angle) * np.asarray(x), rtol=1e-6)
    np.testing.assert_allclose(deviation, np.sin(angle), rtol=1e-6)
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: denoiser.sample(k, x, angle)))(keys))
    np.testing.assert_allclose(draws[:, 0], np.asarray(x)[0], rtol=1e-6)
    np.testing.assert_allclose(np.std(draws[:, 1]), math.sin(0.9), rtol=0.05)
    without = NetworkDenoiser.create(jax.random.key(0), MLP(2, width=8, depth=1), (2,))
    drawn, mean = eqx.filter_jit(lambda d, key: (d.sample(key, x, angle), d(x, angle)))(without, keys[0])
    np.testing.assert_array_equal(drawn, mean)
    assert without.moments(x, angle)[1] is None


@pytest.mark.parametrize("pair", [False, True])
def test_loss_of_a_known_denoiser(pair):
    """With F = 0 and x0 ~ N(0, I) the error variance is sin²φ, so the losses are known."""
    phi = 0.6
    denoiser = NetworkDenoiser.create(jax.random.key(0), Echo(0, 1, pair=pair), (2,), variance_head=pair)
    x0 = jax.random.normal(jax.random.key(3), (20_000, 2))
    variance, likelihood = math.sin(phi) ** 2, 0.5 if pair else 0.0
    for weighted, expected in ((True, variance / (variance + 0.01)), (False, variance)):
        loss = jax.jit(denoising_loss(denoiser, lambda key: jnp.full(2, phi), weighted=weighted))
        got = loss(jnp.zeros(()), jax.random.key(4), x0)
        np.testing.assert_allclose(got, expected + likelihood, rtol=0.03)


def test_features_of_a_batch_reach_the_network():
    denoiser = NetworkDenoiser.create(
        jax.random.key(0), Echo(4, 5), (2,), features=jnp.zeros(2), preconditioning="x0"
    )
    x0 = states(16, 2)
    loss = jax.jit(denoising_loss(denoiser, lambda key: jnp.full(2, math.pi / 2), weighted=False))
    assert (
        float(loss(jnp.ones(()), jax.random.key(0), (x0, x0))) < 1e-10
    )  # t = 1: the features are the answer
    assert float(loss(jnp.ones(()), jax.random.key(0), (x0, jnp.asarray(-np.asarray(x0))))) > 1.0


def test_learns_the_conditional_mean_and_spread():
    """Gaussian data: D(x) = cos φ P (cos²φ P + sin²φ I)⁻¹ x, and the deviations of P - cos φ K P."""
    factor = np.array([[0.9, 0.0], [0.6, 0.3]])
    p = factor @ factor.T
    x0 = jax.random.normal(jax.random.key(0), (4096, 2)) @ jnp.asarray(factor.T, jnp.float32)
    net = MLP(2, width=32, depth=1, second_head=2)
    denoiser = NetworkDenoiser.create(jax.random.key(1), net, (2,), variance_head=True)
    loss = denoising_loss(denoiser, uniform_angle())
    config = FitConfig(learning_rate=4e-3, steps=800, batch_size=128, ema_decay=0.98)
    params, history = jax.jit(lambda p, d: fit(jax.random.key(2), loss, p, d, config))(denoiser.params, x0)
    trained = denoiser.with_params(params)
    moments = jax.jit(jax.vmap(trained.moments))
    for phi in (0.3, 0.8, 1.3):
        c, s = math.cos(phi), math.sin(phi)
        seen = c * c * p + s * s * np.eye(2)
        gain = c * p @ np.linalg.inv(seen)
        rng = np.random.default_rng(3)
        x = jnp.asarray(rng.standard_normal((400, 2)) @ np.linalg.cholesky(seen).T, jnp.float32)
        mean, deviation = moments(x, jnp.full(x.shape, phi))
        exact = np.asarray(x) @ gain.T
        spread = np.sqrt(np.diag(p - c * gain @ p))
        assert np.sqrt(np.mean((mean - exact) ** 2)) < 0.07 * np.sqrt(np.mean(spread**2) + np.mean(exact**2))
        np.testing.assert_allclose(np.mean(deviation, axis=0), spread, rtol=0.1)
    assert int(history.skipped) == 0


@pytest.mark.slow
def test_unet_fits_two_fields():
    """Two fields of one grid, learned by heart: far below the loss of the fresh network."""
    x0 = states(2, 2, 4, 4)
    net = UNet(2, channels=8, multipliers=(1, 2), blocks=1)
    denoiser = NetworkDenoiser.create(jax.random.key(1), net, (2, 4, 4), layout="field")
    loss = denoising_loss(denoiser, uniform_angle(0.3, 1.2))
    config = FitConfig(learning_rate=1e-2, steps=150, batch_size=8, validation_fraction=0.0, ema_decay=None)
    _, history = jax.jit(lambda p, d: fit(jax.random.key(2), loss, p, d, config))(denoiser.params, x0)
    assert float(history.loss[-1]) < 0.5 * float(history.loss[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "grid"}, "'vector', 'ring' or 'field', got 'grid'"),
        ({"preconditioning": "vp"}, "edm, x0, bounded, got 'vp'"),
        ({"state_shape": (2, 3)}, r"returns shape \(3,\) for a state of shape \(2, 3\).*give it 6 outputs"),
        ({"state_shape": (2, 2, 8), "layout": "ring"}, r"\(n,\) or \(C, n\), got"),
        ({"state_shape": (4,)}, r"returns shape \(3,\) for a state of shape \(4,\).*give it 4 outputs"),
        ({"variance_head": True}, "returns one array: a variance head needs second_head=3"),
        (
            {"net": MLP(3, width=4, depth=1, second_head=3)},
            "variance_head=False, but the network returns a pair",
        ),
    ],
)
def test_refusals(arguments, message):
    given = {"net": MLP(3, width=4, depth=1), "state_shape": (3,), **arguments}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: NetworkDenoiser.create(jax.random.key(0), **given).params)
